#![allow(unused_variables)]

use inparallel::task;

#[task]
fn seventeen(
    _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8,
    _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8,
    one_more: u8,
) {}

struct Thing;

impl Thing {
    #[task]
    fn sixteen_and_self(
        &self,
        _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8,
        _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, one_more: u8,
    ) {}
}

fn main() {}
