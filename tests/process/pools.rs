//! Pools for trials, and tasks for pools.

use std::time::Duration;

use inparallel::{Pool, StartMethod, TaskContext, task};

use crate::os;
use crate::place::{Host, Place};

/// Longer than anything takes that is to happen.
pub(crate) const LONG: Duration = Duration::from_secs(100);

pub(crate) fn pool(method: StartMethod, workers: usize) -> Pool {
    Pool::builder().workers(workers).start(method).build().unwrap()
}

/// Waits until the pool and its workers are gone.
pub(crate) fn end(pool: Pool) {
    assert!(pool.join(LONG), "{pool:?}");
}

/// A thread cannot be stopped: lets `count` of those that `stay` go on whose futures have ended, and waits for their end.
pub(crate) fn let_threads_end(host: &mut Host, method: StartMethod, count: usize) {
    if method == StartMethod::Thread {
        host.release(count);
        wait_for_threads();
    }
}

/// Waits until the pools of this process have no threads any more.
pub(crate) fn wait_for_threads() {
    os::eventually(|| {
        let names = os::threads();
        // A list that is made while threads end may lack some.
        let count = os::thread_count();
        let of = |wanted: &str| names.iter().filter(|name| *name == wanted).count();
        // At first a thread has the name of the one that started it.
        match (of("inparallel-pool"), of("inparallel")) {
            (0, 0 | 1) if names.len() == count => Ok(()),
            _ => Err(format!("threads are left: {names:?}, {count} in all")),
        }
    });
}

/// Says its number, waits to be released, and gives its number. Unlike `meet`, it leaves nothing in its process.
#[task]
pub(crate) fn stay(place: Place, number: u32) -> u32 {
    place.say(&number.to_string());
    place.wait_for_go();
    number
}

#[task]
pub(crate) fn say(place: Place, line: String) {
    place.say(&line);
}

/// The number of the task that it is part of.
#[task]
pub(crate) fn own_id(context: &TaskContext) -> String {
    context.id().to_string()
}

/// The kind of an error, and the value of a result: what a table can be compared with.
pub(crate) fn kind<T>(result: inparallel::Result<T>) -> Result<T, inparallel::ErrorKind> {
    result.map_err(|error| error.kind())
}
