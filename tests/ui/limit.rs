use inparallel::{Limiter, limit, processed, task};

#[limit(3)]
async fn asynchronous() {}

#[limit(3)]
const fn constant() {}

#[limit(3)]
#[task]
fn task_below() {}

#[task]
#[limit(3)]
fn task_above() {}

#[limit(3)]
#[inparallel::processed(timeout = "5s")]
fn processed_below() {}

#[processed]
#[inparallel::limit(3)]
fn processed_above() {}

#[limit]
fn no_number() {}

#[limit(0)]
fn zero() {}

#[limit(-1)]
fn negative() {}

#[limit(4294967296)]
fn too_many() {}

#[limit("3")]
fn a_text() {}

#[limit(3u8)]
fn a_suffix() {}

#[limit(crate = "inparallel")]
fn no_number_but_a_crate() {}

#[limit(3, crate = "not a path")]
fn wrong_path() {}

#[limit(3, workers = 4)]
fn unknown_option() {}

#[limit(3, crate = "inparallel", 4)]
fn too_much() {}

#[limit(3)]
struct Thing;

trait Solid {
    #[limit(3)]
    fn height(&self);
}

#[limit(0)]
#[task]
const fn several() {}

// What is wrong does not keep the functions from being there.
fn main() {
    zero();
    let _ = Thing;
    let _ = task_below().wait();
    let _ = Limiter::new(1);
}
