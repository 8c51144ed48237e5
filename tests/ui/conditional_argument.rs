#![allow(unused_variables)]

use inparallel::task;

#[task]
fn conditional(#[cfg(unix)] descriptor: u32, #[cfg(not(unix))] handle: u64) {}

fn main() {}
