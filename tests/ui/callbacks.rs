use inparallel::{Result, task};

fn by_value(_: Result<u8>) {}

fn another(_: &Result<u16>) {}

#[task(callback = by_value)]
fn told_by_value() -> u8 {
    1
}

#[task(callback = another)]
fn told_another() -> u8 {
    1
}

#[task(callback = no_such_function)]
fn told_nobody() -> u8 {
    1
}

fn main() {}
