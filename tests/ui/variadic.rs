#![allow(unused_variables)]

use inparallel::task;

#[task]
unsafe extern "C" fn variadic(count: u8, more: ...) {}

fn main() {}
