use inparallel::task;

#[task(timeout = "5")]
fn no_unit() {}

#[task(timeout = "5 s")]
fn space() {}

#[task(timeout = "5d")]
fn unknown_unit() {}

#[task(timeout = "soon")]
fn no_number() {}

#[task(timeout = "0s")]
fn zero() {}

#[task(timeout = 0)]
fn zero_number() {}

#[task(timeout = "-5s")]
fn negative() {}

#[task(timeout = -5)]
fn negative_number() {}

#[task(timeout = -0.5)]
fn negative_fraction() {}

#[task(timeout = "99999999999999999h")]
fn overflow() {}

#[task(timeout = 1e30)]
fn overflowing_fraction() {}

#[task(timeout = 5s)]
fn suffix() {}

#[task(timeout = true)]
fn not_a_number() {}

#[task(timeout = LIMIT)]
fn not_a_literal() {}

fn main() {}
