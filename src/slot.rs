//! The slot that a task's outcome lands in, and the queues of those who wait for many.
//!
//! A slot ends once. Whoever waits registers first, then checks, then sleeps, so that no ending is missed.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Instant;

use serde::de::DeserializeOwned;

use crate::callbacks;
use crate::error::{Cause, Error, Result};
use crate::ids::{Name, TaskId};
use crate::nesting;
use crate::wire::{self, Answer, Reply};

/// How a task ended. Cheap to clone, so that callbacks and the waiter each decode their own value.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    Returned { payload: Arc<Vec<u8>>, is_err: bool },
    Failed(Error),
}

impl Outcome {
    /// What a task answered that ran in this process.
    pub(crate) fn of(answer: Answer, name: Name) -> Outcome {
        match answer.reply {
            Reply::Returned { is_err } => Outcome::Returned {
                payload: Arc::new(answer.payload),
                is_err,
            },
            reply => Outcome::Failed(Error::new(name.to_string(), Cause::of(reply))),
        }
    }

    pub(crate) fn is_err(&self) -> bool {
        match self {
            Outcome::Returned { is_err, .. } => *is_err,
            Outcome::Failed(_) => true,
        }
    }

    pub(crate) fn decode<T: DeserializeOwned>(&self, name: Name, pid: Option<u32>) -> Result<T> {
        match self {
            Outcome::Failed(error) => Err(error.clone()),
            Outcome::Returned { payload, .. } => wire::decode(payload).map_err(|reason| {
                let type_name = wire::type_name_of::<T>();
                Error::new(name.to_string(), Cause::ResultNotDecodable { type_name, reason })
                    .with_worker(pid, Vec::new())
            }),
        }
    }
}

/// A queue of keys of futures that have ended; what `waitfor`, `as_completed` and `wait` sleep on.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    keys: Mutex<VecDeque<u64>>,
    changed: Condvar,
}

impl Ready {
    fn push(&self, key: u64) {
        lock(&self.keys).push_back(key);
        self.changed.notify_all();
    }

    /// Has everybody who waits look again whether to give up.
    pub(crate) fn wake_all(&self) {
        // With the lock: nobody is between looking and sleeping.
        let keys = lock(&self.keys);
        self.changed.notify_all();
        drop(keys);
    }

    pub(crate) fn try_next(&self) -> Option<u64> {
        lock(&self.keys).pop_front()
    }

    /// The next key, or `None` when the deadline has passed or `give_up` says that there will be none. No deadline: waits
    /// as long as it takes.
    pub(crate) fn next(&self, deadline: Option<Instant>, give_up: impl Fn() -> bool) -> Option<u64> {
        let mut keys = lock(&self.keys);
        loop {
            if let Some(key) = keys.pop_front() {
                return Some(key);
            }
            if give_up() {
                return None;
            }
            keys = match sleep_on(&self.changed, keys, deadline) {
                Ok(keys) => keys,
                Err(mut keys) => return keys.pop_front(),
            };
        }
    }
}

pub(crate) type Callback = Box<dyn FnOnce(&Slot, &Outcome) + Send>;

/// Where the outcome of one task lands.
pub(crate) struct Slot {
    pub(crate) id: TaskId,
    pub(crate) name: Name,
    generation: u64,
    inner: Mutex<Inner>,
    ended: Condvar,
}

pub(crate) struct Inner {
    pub(crate) outcome: Option<Outcome>,
    /// `cancel` was answered with true: whatever arrives now is thrown away.
    pub(crate) cancelled: bool,
    /// A worker stays until this has ended.
    pub(crate) detached: bool,
    pub(crate) pid: Option<u32>,
    pub(crate) waker: Option<Waker>,
    pub(crate) watchers: Vec<(Arc<Ready>, u64)>,
    pub(crate) callbacks: Vec<Callback>,
}

impl Slot {
    pub(crate) fn new(id: TaskId, name: Name) -> Arc<Slot> {
        let inner = Inner {
            outcome: None,
            cancelled: false,
            detached: false,
            pid: None,
            waker: None,
            watchers: Vec::new(),
            callbacks: Vec::new(),
        };
        let generation = crate::sys::generation();
        Arc::new(Slot {
            id,
            name,
            generation,
            inner: Mutex::new(inner),
            ended: Condvar::new(),
        })
    }

    pub(crate) fn set_pid(&self, pid: u32) {
        lock(&self.inner).pid = Some(pid);
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.peek(|inner| inner.pid).flatten()
    }

    /// The first ending counts; later ones are thrown away. Returns whether this was the first.
    pub(crate) fn end(self: &Arc<Self>, outcome: Outcome) -> bool {
        let mut inner = lock(&self.inner);
        if inner.outcome.is_some() {
            return false;
        }
        let outcome = if inner.cancelled {
            let stderr = match &outcome {
                Outcome::Failed(error) => error.stderr().into_bytes(),
                Outcome::Returned { .. } => Vec::new(),
            };
            let error = Error::new(self.name.to_string(), Cause::Cancelled);
            Outcome::Failed(error.with_worker(inner.pid, stderr))
        } else {
            outcome
        };
        let callbacks = std::mem::take(&mut inner.callbacks);
        let waker = inner.waker.take();
        let watchers = std::mem::take(&mut inner.watchers);
        inner.outcome = Some(outcome.clone());
        let detached = inner.detached;
        drop(inner);
        if detached {
            nesting::detached_ended();
        }
        self.ended.notify_all();
        if let Some(waker) = waker {
            contain(|| waker.wake());
        }
        for (ready, key) in watchers {
            ready.push(key);
        }
        if !callbacks.is_empty() {
            let slot = Arc::clone(self);
            callbacks::run(Box::new(move || {
                for callback in callbacks {
                    contain(|| callback(&slot, &outcome));
                }
            }));
        }
        true
    }

    pub(crate) fn fail(self: &Arc<Self>, cause: Cause) {
        let error = Error::new(self.name.to_string(), cause);
        let pid = lock(&self.inner).pid;
        self.end(Outcome::Failed(error.with_worker(pid, Vec::new())));
    }

    pub(crate) fn is_done(&self) -> bool {
        self.peek(|inner| inner.outcome.is_some()).unwrap_or(false)
    }

    /// Whether it ended in an error, or in the task's own `Err`.
    pub(crate) fn is_failed(&self) -> bool {
        self.peek(|inner| inner.outcome.as_ref().is_some_and(Outcome::is_err))
            .unwrap_or(false)
    }

    /// Marks the slot cancelled unless it has ended otherwise; whether it will end, or did, in `Cancelled`.
    pub(crate) fn mark_cancelled(&self) -> bool {
        self.peek_mut(|inner| {
            inner.cancelled |= inner.outcome.is_none();
            inner.cancelled
        })
        .unwrap_or(false)
    }

    /// Has `ready` told when the slot ends; at once if it has.
    pub(crate) fn watch(&self, ready: &Arc<Ready>, key: u64) {
        let watching = self.peek_mut(|inner| match inner.outcome {
            Some(_) => false,
            None => {
                inner.watchers.push((Arc::clone(ready), key));
                true
            }
        });
        // A slot of another process will never end here: let the waiter find that out.
        if watching != Some(true) {
            ready.push(key);
        }
    }

    /// Forgets `ready`, which nobody waits on any more.
    pub(crate) fn unwatch(&self, ready: &Arc<Ready>) {
        self.peek_mut(|inner| inner.watchers.retain(|(watcher, _)| !Arc::ptr_eq(watcher, ready)));
    }

    pub(crate) fn peek<R>(&self, look: impl FnOnce(&Inner) -> R) -> Option<R> {
        self.peek_mut(|inner| look(inner))
    }

    /// In a fork of the process that owns the slot, a thread that no longer exists may hold the lock, and nobody will
    /// ever end the slot: then there is nothing to see.
    pub(crate) fn peek_mut<R>(&self, look: impl FnOnce(&mut Inner) -> R) -> Option<R> {
        if self.generation == crate::sys::generation() {
            return Some(look(&mut lock(&self.inner)));
        }
        let mut inner = self.inner.try_lock().ok()?;
        inner.outcome.is_some().then(|| look(&mut inner))
    }

    /// The outcome and the worker's pid, or `None` when the deadline has passed.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> Result<Option<(Outcome, Option<u32>)>> {
        if self.generation != crate::sys::generation() {
            let seen = self.peek(|inner| (inner.outcome.clone(), inner.pid));
            return match seen {
                Some((Some(outcome), pid)) => Ok(Some((outcome, pid))),
                _ => Err(Error::new(self.name.to_string(), Cause::OtherProcess)),
            };
        }
        let mut inner = lock(&self.inner);
        loop {
            if let Some(outcome) = &inner.outcome {
                return Ok(Some((outcome.clone(), inner.pid)));
            }
            inner = match sleep_on(&self.ended, inner, deadline) {
                Ok(inner) => inner,
                Err(inner) => return Ok(inner.outcome.clone().map(|outcome| (outcome, inner.pid))),
            };
        }
    }
}

/// Locks, whatever happened to an earlier holder: every critical section here leaves its data whole at each step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One sleep on a condition; `Err` when the deadline has passed.
fn sleep_on<'a, T>(
    condition: &Condvar,
    guard: MutexGuard<'a, T>,
    deadline: Option<Instant>,
) -> std::result::Result<MutexGuard<'a, T>, MutexGuard<'a, T>> {
    let Some(deadline) = deadline else {
        return Ok(condition.wait(guard).unwrap_or_else(PoisonError::into_inner));
    };
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(guard);
    }
    Ok(condition
        .wait_timeout(guard, left)
        .unwrap_or_else(PoisonError::into_inner)
        .0)
}

/// Runs user code whose panic must not spread. The panic hook has reported it by then.
pub(crate) fn contain(run: impl FnOnce()) {
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
    if let Err(payload) = caught {
        // A payload may panic again when it is dropped.
        std::mem::forget(payload);
    }
}
