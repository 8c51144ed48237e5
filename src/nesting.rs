//! What a process knows of its place among tasks that start tasks: how deep it is, and what it must outlive.
//!
//! The bound on the depth turns a runaway recursion of tasks into an error instead of a fork bomb.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use crate::sys::{self, Global};

/// The deepest task that may still start tasks is one less than this.
pub(crate) const DEEPEST: u32 = 16;

/// The depth of the running code: the first program is at 0, a task that it starts at 1, and so on.
pub(crate) fn depth() -> u32 {
    OF_THREAD
        .get()
        .unwrap_or_else(|| OF_PROCESS.load(Ordering::Relaxed))
}

/// In a worker process: everything that runs in it is this deep.
pub(crate) fn set_depth_of_process(depth: u32) {
    OF_THREAD.set(None);
    OF_PROCESS.store(depth, Ordering::Relaxed);
}

/// Runs a task of this depth on the current thread of a process that does other things too.
pub(crate) fn at_depth<R>(depth: u32, run: impl FnOnce() -> R) -> R {
    struct Restore(Option<u32>);
    impl Drop for Restore {
        fn drop(&mut self) {
            OF_THREAD.set(self.0);
        }
    }
    let _restore = Restore(OF_THREAD.replace(Some(depth)));
    run()
}

/// A task was detached: if this process is a worker, it stays until [`detached_ended`].
pub(crate) fn detached_began() {
    *detached().count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
}

/// A detached task has ended.
pub(crate) fn detached_ended() {
    let detached = detached();
    *detached.count.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
    detached.ended.notify_all();
}

/// Whether a worker has a reason to stay after its own task.
pub(crate) fn has_detached() -> bool {
    *detached().count.lock().unwrap_or_else(PoisonError::into_inner) > 0
}

/// Stays until every detached task has ended.
pub(crate) fn linger() {
    let detached = detached();
    let mut count = detached.count.lock().unwrap_or_else(PoisonError::into_inner);
    while *count > 0 {
        count = detached.ended.wait(count).unwrap_or_else(PoisonError::into_inner);
    }
}

/// Sets what a fork server of this process, and of its workers, runs first. False: a server was started with another.
pub(crate) fn set_preload(function: i64) -> bool {
    let mut preload = PRELOAD.lock().unwrap_or_else(PoisonError::into_inner);
    if preload.used_in == Some(sys::generation()) {
        return false;
    }
    preload.function = Some(function);
    true
}

/// In a worker that was executed: what its program has set.
pub(crate) fn inherit_preload(function: Option<i64>) {
    PRELOAD.lock().unwrap_or_else(PoisonError::into_inner).function = function;
}

/// What has been set.
pub(crate) fn preload() -> Option<i64> {
    PRELOAD.lock().unwrap_or_else(PoisonError::into_inner).function
}

/// What has been set, for a fork server that starts now: from here on it stays.
pub(crate) fn use_preload() -> Option<i64> {
    let mut preload = PRELOAD.lock().unwrap_or_else(PoisonError::into_inner);
    preload.used_in = Some(sys::generation());
    preload.function
}

struct Preload {
    /// Its distance from the anchor of the image.
    function: Option<i64>,
    used_in: Option<u64>,
}

static PRELOAD: Mutex<Preload> = Mutex::new(Preload {
    function: None,
    used_in: None,
});

struct Detached {
    generation: u64,
    count: Mutex<usize>,
    ended: Condvar,
}

/// A fork starts with a count of its own: what its parent detached is not its affair.
fn detached() -> &'static Detached {
    let generation = sys::generation();
    let there = DETACHED.get();
    match there {
        Some(detached) if detached.generation == generation => detached,
        old => {
            let new = Detached {
                generation,
                count: Mutex::new(0),
                ended: Condvar::new(),
            };
            DETACHED.replace(old, Box::new(new))
        }
    }
}

static OF_PROCESS: AtomicU32 = AtomicU32::new(0);
static DETACHED: Global<Detached> = Global::new();

thread_local! {
    static OF_THREAD: Cell<Option<u32>> = const { Cell::new(None) };
}
