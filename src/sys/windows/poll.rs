//! The supervisor's one blocking wait, with nothing to wait for but the clock and the bell.

use std::io;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Fd;
use crate::sys::{Interest, Ready, Token};

/// Waits for the waker and for time.
#[derive(Debug)]
pub(crate) struct Poller(());

/// Ends a [`Poller::wait`] from another thread.
#[derive(Debug, Default)]
pub(crate) struct Waker {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Poller {
    #[expect(clippy::unnecessary_wraps, reason = "elsewhere it can fail")]
    pub(crate) fn new() -> io::Result<(Poller, Waker)> {
        Ok((Poller(()), Waker::default()))
    }

    pub(crate) fn add(&self, fd: &Fd, _: Token, _: Interest) -> io::Result<()> {
        fd.never()
    }

    pub(crate) fn remove(&self, fd: &Fd) {
        fd.never()
    }

    /// Waits until the waker rings, or the deadline passes.
    #[expect(
        clippy::unnecessary_wraps,
        clippy::needless_pass_by_ref_mut,
        reason = "elsewhere it can fail, and lists"
    )]
    pub(crate) fn wait(
        &mut self,
        waker: &Waker,
        deadline: Option<Instant>,
        _: &mut Vec<Ready>,
    ) -> io::Result<()> {
        let rung = waker.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let left = deadline.map_or(LONGEST_WAIT, |deadline| {
            deadline.saturating_duration_since(Instant::now())
        });
        let waited = waker.changed.wait_timeout_while(rung, left, |rung| !*rung);
        *waited.unwrap_or_else(PoisonError::into_inner).0 = false;
        Ok(())
    }
}

impl Waker {
    /// Makes the current or the next wait end.
    pub(crate) fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_one();
    }
}

const LONGEST_WAIT: Duration = Duration::from_secs(3600);
