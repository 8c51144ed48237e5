use inparallel::{processed, task};

fn told(_: &inparallel::Result<()>) {}

#[task(workers = 4)]
fn workers_without_pool() {}

#[task(daemon, workers = 1)]
fn workers_of_a_daemon() {}

#[task(pool = "name", daemon)]
fn pool_and_daemon() {}

#[task(pool, start = "fork")]
fn pool_of_forks() {}

#[task(daemon, start = "fork")]
fn forked_daemon() {}

#[task(start = "inline", pool)]
fn inline_in_a_pool() {}

#[task(retries = 2, start = "fork")]
fn retried_fork() {}

#[task(retries = 2, start = "inline")]
fn retried_plain_call() {}

#[task(callback = told, discard)]
fn callback_without_a_result() {}

// One mistake does not bring another with it.
#[task(pool = "", workers = 4, priority = 1)]
fn wrong_pool() {}

#[processed(pool, daemon, workers = 0, priority = 99999999999, start = "fork", retries = 1)]
fn all_at_once() {}

struct Thing;

impl Thing {
    #[task(associated, limit = 0, workers = 1)]
    fn method() {}
}

fn main() {
    let _ = all_at_once::later().start().wait();
    let _ = Thing::method_later();
}
