use inparallel::{Limiter, limit, task};

#[allow(clippy::declare_interior_mutable_const)]
const LIMITER: Limiter = Limiter::new(1);

const NUMBER: usize = 3;

#[limit(LIMITER)]
fn function() {}

#[task(limit = LIMITER)]
fn limited_task() {}

#[task(limit = NUMBER)]
fn limited_by_a_number() {}

fn main() {}
