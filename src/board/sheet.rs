//! A board for one call, which comes by another way: how its worker is woken, and where its answer may stand.
//!
//! ```text
//!              program                program
//! (nothing) ------------> Expected ------------> AtGate | InPipe | Over
//! ```
//!
//! A worker that sees a call expected looks out for it. It answers as on any board, and rings the supervisor unless it was
//! told that somebody looks out: the thread that waits for the answer finds it here before the supervisor does. Whoever
//! wants to end the task with what the worker said, here or by the pipe, claims it first: so it ends once.

use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

use crate::board::cells::Seen;
use crate::payload::Payload;
use crate::sync::Spin;
use crate::sys::{self, Board, Fd, SharedBoard, Word};

/// The program's side.
#[derive(Debug)]
pub(crate) struct Sheet {
    board: SharedBoard,
    /// A thread looks out.
    is_watched: AtomicBool,
    is_claimed: AtomicBool,
}

impl Sheet {
    /// One, and the descriptor for its worker.
    pub(crate) fn new() -> io::Result<(Sheet, Fd)> {
        let (board, fd) = SharedBoard::with_fd()?;
        board.set_watched(false);
        let sheet = Sheet {
            board,
            is_watched: AtomicBool::new(false),
            is_claimed: AtomicBool::new(false),
        };
        Ok((sheet, fd))
    }

    /// A call is being made that is probably this worker's.
    pub(crate) fn expect(&self) {
        let way = self.board.way();
        let expected = EXPECTED | sys::core() << 8;
        let before = way.compare_exchange(NOTHING, expected, Relaxed, Relaxed);
        // Another one may have been expected in vain.
        if before.is_ok() || before.is_err_and(is_expected) {
            sys::wake_shared(way);
        }
    }

    /// The worker finds its call there. Once.
    pub(crate) fn announce(&self, come: Come) {
        let way = self.board.way();
        way.store(come as u32, Release);
        sys::wake_shared(way);
    }

    /// The answer, which is to be claimed, after `wait` was told how to look for it. `None`: it is not here; if it comes later,
    /// the supervisor is rung.
    pub(crate) fn look_out(&self, wait: impl FnOnce(&dyn Fn() -> bool)) -> Option<(bool, Payload)> {
        if self.is_watched.swap(true, AcqRel) {
            return None;
        }
        self.board.set_watched(true);
        wait(&|| self.board.is_done(ONLY));
        self.board.set_watched(false);
        self.is_watched.store(false, Release);
        // After that: what the worker has not rung for is seen here.
        self.answer()
    }

    /// Sleeps until the worker has answered, this process's own number is not what it was seen to be, or the deadline passes;
    /// or for no reason.
    ///
    /// # Errors
    ///
    /// It cannot be slept here.
    pub(crate) fn sleep(&self, own: (&Word, u32), deadline: Option<Instant>) -> io::Result<()> {
        let passed = &self.board.worker.passed;
        let seen = passed.load(Acquire);
        match self.board.wake_after(ONLY) {
            true => sys::sleep_on_words((passed, seen), own, deadline),
            false => Ok(()),
        }
    }

    /// The answer, if it is here: a claim of the worker's, whatever it says.
    pub(crate) fn answer(&self) -> Option<(bool, Payload)> {
        match self.board.look(ONLY) {
            Seen::Answered { is_err, payload } => Some((is_err, payload)),
            _ => None,
        }
    }

    /// Whether the caller is the first who ends the task, or has it begin elsewhere.
    pub(crate) fn claim(&self) -> bool {
        !self.is_claimed.swap(true, AcqRel)
    }
}

impl Board {
    /// Whether a thread looks out for the one answer, so that the supervisor need not be rung.
    pub(super) fn set_watched(&self, is_so: bool) {
        let _ = self.ring_after((!is_so).then_some(ONLY), NEVER);
    }

    /// Sleeps, or looks out if a call is expected, until it is known where the worker's one call is.
    ///
    /// # Errors
    ///
    /// It cannot be slept here.
    pub(crate) fn wait_for_one(&self, spin: &Spin) -> io::Result<Come> {
        let way = self.way();
        loop {
            let seen = way.load(Acquire);
            if let Some(come) = Come::ALL.into_iter().find(|come| *come as u32 == seen) {
                return Ok(come);
            }
            // On the core of the thread that makes the call it would only keep that from it.
            let looks_out = is_expected(seen) && seen >> 8 != sys::core();
            if !looks_out || !spin.until(|| way.load(Relaxed) != seen) {
                sys::sleep_on_shared(way, seen, None)?;
            }
        }
    }

    /// Whether a call is expected, or there, after so long at most.
    pub(crate) fn is_expected_within(&self, limit: Duration) -> bool {
        // Woken too early, or not able to sleep, it does no harm.
        let _ = sys::sleep_on_shared(self.way(), NOTHING, Some(limit));
        self.way().load(Relaxed) != NOTHING
    }

    fn way(&self) -> &Word {
        &self.cells[ONLY as usize].attempt
    }
}

/// Where a worker's one call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Come {
    AtGate = 2,
    InPipe = 3,
    /// None will come.
    Over = 4,
}

impl Come {
    const ALL: [Come; 3] = [Come::AtGate, Come::InPipe, Come::Over];
}

const NOTHING: u32 = 0;
/// Beside the core of the thread that expects it.
const EXPECTED: u32 = 1;

fn is_expected(way: u32) -> bool {
    way & 0xff == EXPECTED
}

/// The number of the call.
const ONLY: u32 = 0;

/// What no worker has passed that has passed one call at most.
const NEVER: u32 = 0;

#[cfg(test)]
#[cfg(not(inparallel_loom))]
#[path = "sheet_tests.rs"]
mod tests;
