//! The two sides of a board: the program's, and the worker's.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::time::Duration;

use crate::payload::Payload;
use crate::sys::{Board, CELLS, Cell, WORDS, full_fence};

/// The longest payload that fits into a cell, in bytes.
pub(crate) const CELL_BYTES: usize = WORDS * 8;

/// A call as it stands in a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Posted {
    pub(crate) task: u64,
    pub(crate) attempt: u32,
    pub(crate) limit: Option<Duration>,
    /// What is to be run: the number under which the worker knows it. `None`: the call lies in the pipe, whole.
    pub(crate) known: Option<u32>,
}

/// What the program sees of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Not begun.
    Waiting,
    Begun,
    Answered {
        is_err: bool,
        payload: Payload,
    },
    /// The answer comes by the pipe.
    Elsewhere,
    /// Taken back; whether the worker has passed it, so that the cell is free.
    Withdrawn {
        is_passed: bool,
    },
}

/// What a worker finds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// No call.
    Nothing,
    /// A call that was taken back.
    Withdrawn { is_in_pipe: bool },
    /// It is begun now.
    Call(Posted),
}

/// What the other side is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tell {
    /// A thread of the program sleeps until now.
    pub(crate) wake: bool,
    /// The supervisor wants to know.
    pub(crate) ring: bool,
}

/// Whether a worker sleeps until it is rung.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asleep {
    Yes,
    /// A call has come, and nobody will ring for it.
    No,
    /// Not before it has rung: it was to ring for a later call only, and none has come.
    RingsBefore,
}

// --- the program's side ---

impl Board {
    /// Puts up the call number `number`, whose cell must be free. Whether the worker is to be rung.
    pub(crate) fn post(&self, number: u32, posted: Posted, arguments: &[u8]) -> bool {
        let cell = self.cell(number);
        let nanos = posted.limit.map_or(0, |limit| {
            u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX).max(1)
        });
        cell.task.store(posted.task, Relaxed);
        cell.attempt.store(posted.attempt, Relaxed);
        cell.limit.store(nanos, Relaxed);
        cell.kind
            .store(posted.known.map_or(IN_PIPE, |known| known + 1), Relaxed);
        cell.write(arguments);
        cell.state.store(state(number, WAITING), Release);
        full_fence();
        self.worker.sleeps.0.load(Relaxed) != 0 && self.worker.sleeps.0.swap(0, Relaxed) != 0
    }

    /// Takes a call back that has not begun; whether that was so.
    pub(crate) fn withdraw(&self, number: u32) -> bool {
        let (from, to) = (state(number, WAITING), state(number, WITHDRAWN));
        let cell = self.cell(number);
        cell.state.compare_exchange(from, to, AcqRel, Acquire).is_ok()
    }

    /// How far a call is.
    pub(crate) fn look(&self, number: u32) -> Seen {
        let cell = self.cell(number);
        match cell.state.load(Acquire) {
            found if found == state(number, WAITING) => Seen::Waiting,
            found if found == state(number, WITHDRAWN) => Seen::Withdrawn {
                is_passed: self.has_passed(number),
            },
            found if found == state(number, ANSWERED) => Seen::Answered {
                is_err: cell.kind.load(Relaxed) != 0,
                payload: cell.read(),
            },
            found if found == state(number, ELSEWHERE) => Seen::Elsewhere,
            // Anything else a worker may only write that has begun it, or that has lost its mind.
            _ => Seen::Begun,
        }
    }

    /// Whether a call that was begun, or waits, is done.
    pub(crate) fn is_done(&self, number: u32) -> bool {
        let found = self.cell(number).state.load(Acquire);
        found == state(number, ANSWERED) || found == state(number, ELSEWHERE)
    }

    /// Whether the answer to a call comes by the pipe.
    pub(crate) fn is_elsewhere(&self, number: u32) -> bool {
        self.cell(number).state.load(Acquire) == state(number, ELSEWHERE)
    }

    /// Something came from the worker's stderr: now it looks, with each answer, whether all of it was read.
    pub(crate) fn note_heard(&self) {
        self.program.heard.fetch_add(1, Relaxed);
    }

    /// Whether the worker has passed a call.
    pub(crate) fn has_passed(&self, number: u32) -> bool {
        let ahead = self.worker.passed.load(Acquire).wrapping_sub(number);
        ahead != 0 && ahead <= u32::MAX / 2
    }

    /// From now on the worker rings when it has passed this call, and before that if it is about to sleep; false: it has, or
    /// sleeps, by now. `None`: it does not ring.
    pub(crate) fn ring_after(&self, number: Option<u32>, never: u32) -> bool {
        let at = number.map_or(never, |number| number.wrapping_add(1));
        self.program.ring_at.store(at, Relaxed);
        full_fence();
        number.is_none_or(|number| !self.has_passed(number) && self.worker.sleeps.0.load(Relaxed) == 0)
    }

    /// From now on the worker wakes a sleeper when it has passed this call; false: it has by now.
    pub(crate) fn wake_after(&self, number: u32) -> bool {
        self.program.wake_at.store(number.wrapping_add(1), Relaxed);
        full_fence();
        !self.has_passed(number)
    }
}

// --- the worker's side ---

impl Board {
    /// Begins the call number `number`, if it is there.
    pub(crate) fn begin(&self, number: u32, arguments: &mut Vec<u8>) -> Next {
        let cell = self.cell(number);
        let (from, to) = (state(number, WAITING), state(number, BEGUN));
        match cell.state.compare_exchange(from, to, AcqRel, Acquire) {
            Ok(_) => {}
            Err(found) if found == state(number, WITHDRAWN) => {
                let is_in_pipe = cell.kind.load(Relaxed) == IN_PIPE;
                return Next::Withdrawn { is_in_pipe };
            }
            Err(_) => return Next::Nothing,
        }
        cell.read_into(arguments);
        Next::Call(Posted {
            task: cell.task.load(Relaxed),
            attempt: cell.attempt.load(Relaxed),
            limit: match cell.limit.load(Relaxed) {
                0 => None,
                nanos => Some(Duration::from_nanos(nanos)),
            },
            known: cell.kind.load(Relaxed).checked_sub(1),
        })
    }

    /// Answers a call that was begun. `None`: the answer goes by the pipe.
    pub(crate) fn answer(&self, number: u32, answer: Option<(bool, &[u8])>) -> Tell {
        let cell = self.cell(number);
        match answer {
            Some((is_err, payload)) => {
                cell.kind.store(u32::from(is_err), Relaxed);
                cell.write(payload);
                cell.state.store(state(number, ANSWERED), Release);
            }
            None => cell.state.store(state(number, ELSEWHERE), Release),
        }
        self.pass(number)
    }

    /// Is done with a call.
    pub(crate) fn pass(&self, number: u32) -> Tell {
        let passed = number.wrapping_add(1);
        self.worker.passed.store(passed, Release);
        full_fence();
        Tell {
            wake: self.program.wake_at.load(Relaxed) == passed,
            ring: self.program.ring_at.load(Relaxed) == passed,
        }
    }

    /// Whether the call number `number` is there.
    pub(crate) fn has_call(&self, number: u32) -> bool {
        let found = self.cell(number).state.load(Acquire);
        found == state(number, WAITING) || found == state(number, WITHDRAWN)
    }

    /// How often something came from the worker's stderr.
    pub(crate) fn heard(&self) -> u32 {
        self.program.heard.load(Relaxed)
    }

    /// The worker, which has passed all before `number`, is about to sleep until it is rung. `has_rung`: it has done so for
    /// what it has passed.
    pub(crate) fn fall_asleep(&self, number: u32, has_rung: bool) -> Asleep {
        self.worker.sleeps.0.store(1, Relaxed);
        full_fence();
        let is_rung_later = || {
            let ahead = self.program.ring_at.load(Relaxed).wrapping_sub(number);
            (1..=CELLS as u32).contains(&ahead)
        };
        let asleep = match () {
            () if self.has_call(number) => Asleep::No,
            () if !has_rung && is_rung_later() => Asleep::RingsBefore,
            () => return Asleep::Yes,
        };
        self.worker.sleeps.0.store(0, Relaxed);
        asleep
    }

    fn cell(&self, number: u32) -> &Cell {
        &self.cells[number as usize % CELLS]
    }
}

impl Cell {
    fn write(&self, bytes: &[u8]) {
        self.len.store(bytes.len() as u32, Relaxed);
        for (word, bytes) in self.words.iter().zip(bytes.chunks(8)) {
            let mut eight = [0; 8];
            eight[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_le_bytes(eight), Relaxed);
        }
    }

    /// The other side may write what it likes: the length is looked at once.
    fn len(&self) -> usize {
        (self.len.load(Relaxed) as usize).min(CELL_BYTES)
    }

    fn read_into(&self, bytes: &mut Vec<u8>) {
        let len = self.len();
        bytes.clear();
        for word in &self.words[..len.div_ceil(8)] {
            bytes.extend_from_slice(&word.load(Relaxed).to_le_bytes());
        }
        bytes.truncate(len);
    }

    fn read(&self) -> Payload {
        let len = self.len();
        let mut bytes = [0; CELL_BYTES];
        for (word, eight) in self
            .words
            .iter()
            .zip(bytes[..len.next_multiple_of(8)].chunks_exact_mut(8))
        {
            eight.copy_from_slice(&word.load(Relaxed).to_le_bytes());
        }
        Payload::from(&bytes[..len])
    }
}

fn state(number: u32, state: u32) -> u32 {
    number << 3 | state
}

const WAITING: u32 = 1;
const BEGUN: u32 = 2;
const ANSWERED: u32 = 3;
const ELSEWHERE: u32 = 4;
const WITHDRAWN: u32 = 5;

/// The kind of a call that lies in the pipe.
const IN_PIPE: u32 = 0;
