//! The board: memory that a program shares with one of its workers.
//!
//! Here is its shape; `board.rs` of the crate says what the numbers mean. All of it is atomic numbers, for which any bits
//! are valid: whatever the other side writes at whatever moment, reading it is sound.

#[cfg(all(test, inparallel_loom))]
use loom::sync::atomic::{AtomicU32, AtomicU64, fence};
#[cfg(not(all(test, inparallel_loom)))]
use std::sync::atomic::{AtomicU32, AtomicU64, fence};

/// What was written before this, and what is read after it, are in one order for all who do the same.
pub(crate) fn full_fence() {
    fence(std::sync::atomic::Ordering::SeqCst);
}

/// A number that threads may sleep on.
pub(crate) type Word = AtomicU32;

/// What both sides see. All zeros is a board that nothing was ever put on.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Board {
    pub(crate) program: ProgramSide,
    pub(crate) worker: WorkerSide,
    pub(crate) cells: [Cell; CELLS],
}

/// What the program writes.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct ProgramSide {
    /// The worker rings when it has passed so many.
    pub(crate) ring_at: Word,
    /// The worker wakes a sleeping thread of the program when it has passed so many.
    pub(crate) wake_at: Word,
    /// How often something came from the worker's stderr.
    pub(crate) heard: Word,
}

/// What the worker writes.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct WorkerSide {
    /// How many calls it has passed: done, or seen to be taken back.
    pub(crate) passed: Word,
    /// It sleeps, and wants to be rung. Apart from what changes with every call, as the program looks at it with every call.
    pub(crate) sleeps: Apart,
}

/// A number on a cache line of its own.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Apart(pub(crate) Word);

/// A place for one call, and for its answer after that.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Cell {
    pub(crate) state: Word,
    pub(crate) len: Word,
    pub(crate) kind: Word,
    pub(crate) attempt: Word,
    pub(crate) task: AtomicU64,
    pub(crate) limit: AtomicU64,
    pub(crate) words: [AtomicU64; WORDS],
}

/// A power of two, so that counters may run over.
pub(crate) const CELLS: usize = if cfg!(all(test, inparallel_loom)) { 2 } else { 128 };

/// A cell has 256 bytes.
pub(crate) const WORDS: usize = if cfg!(all(test, inparallel_loom)) { 1 } else { 28 };

impl Board {
    /// One that no other process sees, with nothing on it.
    #[cfg(test)]
    pub(crate) fn unshared() -> Box<Board> {
        let word = || Word::new(0);
        Box::new(Board {
            program: ProgramSide {
                ring_at: word(),
                wake_at: word(),
                heard: word(),
            },
            worker: WorkerSide {
                passed: word(),
                sleeps: Apart(word()),
            },
            cells: std::array::from_fn(|_| Cell {
                state: word(),
                len: word(),
                kind: word(),
                attempt: word(),
                task: AtomicU64::new(0),
                limit: AtomicU64::new(0),
                words: std::array::from_fn(|_| AtomicU64::new(0)),
            }),
        })
    }
}
