//! Runs users' callbacks in order, on a thread of its own, so that a slow one keeps nobody else waiting.
//!
//! There is one such thread in a process, made when it is first needed. A fork makes its own.

use std::collections::VecDeque;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::Duration;

use crate::error::{Cause, Error, Result};
use crate::sys::{self, Global};

/// Callbacks of one future, in the order of adding.
pub(crate) type Batch = Box<dyn FnOnce() + Send>;

/// Makes sure that there is a thread.
pub(crate) fn prepare() -> Result<()> {
    let started = current().ensure_thread();
    started.map_err(|error| Error::new("", Cause::launch("start the thread for callbacks", error)))
}

/// Has the thread run callbacks of a future that has ended.
pub(crate) fn run(batch: Batch) {
    let callbacks = current();
    // The thread is there since the callback was added. Without it, here is better than never.
    match callbacks.ensure_thread() {
        Ok(()) => callbacks.push(batch),
        Err(_) => batch(),
    }
}

/// Waits until every callback that is due has run, for at most `limit`; whether it came to that. A callback that asks waits
/// for those before it, which have run.
pub(crate) fn wait_idle(limit: Duration) -> bool {
    let Some(callbacks) = CURRENT
        .get()
        .filter(|callbacks| callbacks.generation == sys::generation())
    else {
        return true;
    };
    let queue = callbacks.lock();
    if queue.thread == Some(std::thread::current().id()) {
        return true;
    }
    let is_busy = |queue: &mut Queue| queue.is_running || !queue.batches.is_empty();
    let waited = callbacks.changed.wait_timeout_while(queue, limit, is_busy);
    !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
}

/// While this lives no callback begins, so that the program may be forked.
pub(crate) struct Held {
    callbacks: &'static Callbacks,
    /// The thread exists, and no callback runs on it.
    pub(crate) is_quiet: bool,
}

/// Waits a moment until no callback runs, and lets none begin.
pub(crate) fn hold() -> Held {
    let callbacks = current();
    Held {
        callbacks,
        is_quiet: callbacks.hold(),
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.callbacks.let_go();
    }
}

struct Callbacks {
    generation: u64,
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    batches: VecDeque<Batch>,
    /// The thread has come to where it takes callbacks. Until then it may hold locks of std.
    is_up: bool,
    is_running: bool,
    /// How many forks are being made: user code must not run meanwhile.
    holders: usize,
    thread: Option<ThreadId>,
}

impl Callbacks {
    fn push(&self, batch: Batch) {
        self.lock().batches.push_back(batch);
        self.changed.notify_all();
    }

    /// Starts the thread if it is not there yet. It runs users' code: its stack and its signals are as a user expects.
    fn ensure_thread(&'static self) -> io::Result<()> {
        let mut queue = self.lock();
        if queue.thread.is_none() {
            let builder = std::thread::Builder::new().name("inparallel-callbacks".to_owned());
            queue.thread = Some(builder.spawn(|| self.serve())?.thread().id());
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread.
    fn serve(&self) {
        let mut queue = self.lock();
        queue.is_up = true;
        loop {
            queue.is_running = false;
            if queue.holders > 0 || queue.batches.is_empty() {
                self.changed.notify_all();
                queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let batch = queue.batches.pop_front();
            queue.is_running = true;
            drop(queue);
            if let Some(batch) = batch {
                batch();
            }
            queue = self.lock();
        }
    }

    /// Waits a moment until no callback runs, and lets none begin. Whether the thread exists and is quiet then, so that a
    /// fork loses nothing by it.
    fn hold(&self) -> bool {
        let mut queue = self.lock();
        queue.holders += 1;
        if queue
            .thread
            .is_none_or(|thread| thread == std::thread::current().id())
        {
            return false;
        }
        let waited = self
            .changed
            .wait_timeout_while(queue, LONGEST_HOLD, |queue| queue.is_running || !queue.is_up);
        let queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        queue.is_up && !queue.is_running
    }

    fn let_go(&self) {
        self.lock().holders -= 1;
        self.changed.notify_all();
    }
}

/// A callback that runs longer than this counts as a thread of the program's own.
const LONGEST_HOLD: Duration = Duration::from_secs(1);

fn current() -> &'static Callbacks {
    let generation = sys::generation();
    match CURRENT.get() {
        Some(callbacks) if callbacks.generation == generation => callbacks,
        old => {
            // Before there is anything that a fork has to tell from its own.
            sys::watch_forks();
            let new = Callbacks {
                generation,
                queue: Mutex::default(),
                changed: Condvar::new(),
            };
            CURRENT.replace(old, Box::new(new))
        }
    }
}

static CURRENT: Global<Callbacks> = Global::new();
