#![allow(unused_variables)]

use inparallel::task;

#[task]
fn direct(numbers: &mut Vec<u32>) {
    numbers.push(1);
}

#[task]
fn nested(numbers: Option<&mut u32>, more: &[&mut u32]) {}

fn main() {
    direct(&mut vec![]);
}
