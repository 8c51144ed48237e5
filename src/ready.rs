//! The queue that those sleep on who wait for many tasks.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex};
use std::task::Waker;
use std::time::Instant;

use crate::sync::{contain, lock, sleep_on};

/// A queue of keys of futures that have ended; what `waitfor`, `as_completed`, `wait` and `Map` sleep on.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    keys: Mutex<VecDeque<u64>>,
    changed: Condvar,
    waker: Mutex<Option<Waker>>,
}

impl Ready {
    pub(crate) fn push(&self, key: u64) {
        self.put(key);
        self.tell();
    }

    /// Only gives the key its place: [`tell`](Ready::tell) follows. Runs no foreign code, and takes no other lock within its
    /// own, so that a slot may be locked around it.
    pub(crate) fn put(&self, key: u64) {
        lock(&self.keys).push_back(key);
    }

    /// Wakes those who wait for keys.
    pub(crate) fn tell(&self) {
        self.changed.notify_all();
        self.wake();
    }

    /// Has everybody who waits look again whether to give up.
    pub(crate) fn wake_all(&self) {
        // With the lock: nobody is between looking and sleeping.
        let keys = lock(&self.keys);
        self.changed.notify_all();
        drop(keys);
        self.wake();
    }

    /// Whom to wake, beside the threads that sleep: set before looking for keys.
    pub(crate) fn set_waker(&self, waker: &Waker) {
        let waker = waker.clone();
        let old = lock(&self.waker).replace(waker);
        // Its drop is foreign code.
        drop(old);
    }

    fn wake(&self) {
        let waker = lock(&self.waker).take();
        if let Some(waker) = waker {
            contain(|| waker.wake());
        }
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
