//! Calls that stand on the board, in the worker.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::board::{Asleep, CELL_BYTES, Come, Next, Posted, Tell};
use crate::ids::{About, TaskId};
use crate::sync::{LONGEST_SPIN, Spin};
use crate::sys::{self, Entry, Fd, ForkMark, SharedBoard};
use crate::wire::{self, Answer, Call};

/// The board, and how far it was read.
pub(super) struct Posts {
    board: SharedBoard,
    mark: Option<ForkMark>,
    /// The number of the next call.
    next: u32,
    /// Where it was when it last rang before it slept.
    rung_at: Option<u32>,
    /// What calls name by a number.
    known: Vec<Result<Known, String>>,
    spin: Spin,
    is_heard: bool,
    heard: u32,
    silent: u32,
    arguments: Vec<u8>,
}

/// What a call runs.
#[derive(Clone)]
struct Known {
    entry: &'static Entry<Answer>,
    name: Arc<str>,
}

/// What there is to do.
pub(super) enum Work {
    /// Nothing is on the board, and a bell comes by the pipe when there is.
    Sleep,
    /// The supervisor is to be rung.
    Ring,
    /// The next call is in the pipe. One that is not wanted was taken back, and is thrown away there.
    InPipe { is_wanted: bool },
    /// This is to be run, on the [`arguments`](Posts::arguments).
    Run(&'static Entry<Answer>, About),
    /// The next call cannot be run, and why.
    Refused(String),
}

impl Posts {
    pub(super) fn open(board: &wire::Board) -> io::Result<Posts> {
        let shared = SharedBoard::open(&board.name)?;
        Ok(Posts::new(
            shared,
            board.spin,
            board.is_heard,
            Some(ForkMark::new()?),
        ))
    }

    /// That of a worker which gets one call, by its gate or its pipe.
    pub(super) fn of_fd(board: &Fd) -> io::Result<Posts> {
        Ok(Posts::new(SharedBoard::of_fd(board)?, LONGEST_SPIN, true, None))
    }

    fn new(board: SharedBoard, spin: Duration, is_heard: bool, mark: Option<ForkMark>) -> Posts {
        Posts {
            board,
            mark,
            next: 0,
            rung_at: None,
            known: Vec::new(),
            spin: Spin::new(spin),
            is_heard,
            heard: 0,
            silent: 0,
            arguments: Vec::new(),
        }
    }

    /// Whether the one call is near, after so long at most.
    pub(super) fn is_expected_within(&self, limit: Duration) -> bool {
        self.board.is_expected_within(limit)
    }

    /// Waits until it is known where the one call is.
    pub(super) fn wait_for_one(&self) -> io::Result<Come> {
        self.board.wait_for_one(&self.spin)
    }

    /// From now on calls name this by the next number.
    pub(super) fn remember(&mut self, entry: Result<&'static Entry<Answer>, String>, call: &Call) {
        let name: Arc<str> = call.name.as_str().into();
        self.known.push(entry.map(|entry| Known { entry, name }));
    }

    /// What comes next; looks out for it for a moment.
    pub(super) fn next(&mut self) -> Work {
        loop {
            let number = self.next;
            match self.board.begin(number, &mut self.arguments) {
                Next::Nothing => {
                    let is_there = self.spin.until(|| self.board.has_call(number));
                    if is_there {
                        continue;
                    }
                    match self.board.fall_asleep(number, self.rung_at == Some(number)) {
                        Asleep::Yes => return Work::Sleep,
                        Asleep::No => {}
                        Asleep::RingsBefore => {
                            self.rung_at = Some(number);
                            return Work::Ring;
                        }
                    }
                }
                Next::Withdrawn { is_in_pipe: true } => return Work::InPipe { is_wanted: false },
                Next::Withdrawn { is_in_pipe: false } => {
                    if self.pass() {
                        return Work::Ring;
                    }
                }
                Next::Call(Posted {
                    task,
                    attempt,
                    limit,
                    known: Some(known),
                }) => {
                    return match self.known.get(known as usize) {
                        Some(Ok(known)) => {
                            let about = About {
                                id: TaskId(task),
                                name: Arc::clone(&known.name),
                                attempt,
                                limit,
                            };
                            Work::Run(known.entry, about)
                        }
                        Some(Err(reason)) => Work::Refused(reason.clone()),
                        None => Work::Refused(format!("nothing is known by the number {known}")),
                    };
                }
                Next::Call(Posted { known: None, .. }) => return Work::InPipe { is_wanted: true },
            }
        }
    }

    pub(super) fn arguments(&self) -> &[u8] {
        &self.arguments
    }

    /// Is done with a call that was taken back. Whether the supervisor is to be rung: it may have asked for that before.
    pub(super) fn pass(&mut self) -> bool {
        let tell = self.board.pass(self.next);
        self.tell(tell)
    }

    /// Whether this process is a copy of the worker `pid` that a task made, which came back from the task too.
    pub(super) fn is_copy(&self, pid: u32) -> bool {
        match &self.mark {
            Some(mark) => mark.is_copy(),
            // Of one call, it is asked once.
            None => std::process::id() != pid,
        }
    }

    /// Whether a result may stand on the board: it fits, and the program has read what the task wrote before it.
    pub(super) fn takes(&mut self, payload: &[u8]) -> bool {
        payload.len() <= CELL_BYTES && !self.has_unheard()
    }

    /// Answers the call that was begun last. `None`: by the pipe, after this. Whether the supervisor is to be rung.
    pub(super) fn answer(&mut self, answer: Option<(bool, &[u8])>) -> bool {
        let tell = self.board.answer(self.next, answer);
        self.tell(tell)
    }

    fn tell(&mut self, tell: Tell) -> bool {
        self.next = self.next.wrapping_add(1);
        if tell.wake {
            sys::wake_shared(&self.board.worker.passed);
        }
        tell.ring
    }

    /// Whether something that was written to stderr is not read yet: then the answer goes by the pipe, behind it. A worker
    /// that never writes anything is not asked each time.
    fn has_unheard(&mut self) -> bool {
        let heard = self.board.heard();
        if std::mem::replace(&mut self.heard, heard) != heard {
            self.silent = 0;
        }
        if !self.is_heard || self.silent >= SILENT {
            return false;
        }
        let has_unheard = sys::has_unread_stderr();
        self.silent = if has_unheard { 0 } else { self.silent + 1 };
        has_unheard
    }
}

/// Looks out once for what does not come.
pub(super) fn look_out_in_vain() {
    let _ = sys::core();
    Spin::new(Duration::from_nanos(1)).until(|| false);
}

/// A worker that wrote nothing in so many tasks is taken for one that writes nothing, until the program hears something.
const SILENT: u32 = 64;
