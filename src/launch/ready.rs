//! A worker of the fork server that was made before its call, and how the call reaches it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::board::{Come, Sheet};
use crate::error::Cause;
use crate::ids::WorkerId;
use crate::launch::{Order, Surroundings, call_head, forkserver};
use crate::options::{Options, Stderr};
use crate::payload::Payload;
use crate::sync::lock;
use crate::sys::{self, Fd, Gate, SpawnStderr};
use crate::transport::Outgoing;
use crate::wire::Call;

/// A worker that waits for its first call. Dropped, it ends.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) worker: WorkerId,
    /// Unknown until the fork server has told it.
    pub(crate) pid: Option<u32>,
    pub(super) calls: Option<Fd>,
    pub(super) entrance: Arc<Entrance>,
    /// What it inherits.
    pub(super) base: Arc<Surroundings>,
    /// The worker was told that it has a call.
    pub(super) has_said: AtomicBool,
    /// A copy of the program has a copy of this, and no worker.
    pub(super) generation: u64,
}

/// What tells of a worker that has ended whether it had begun its call.
#[derive(Debug)]
pub(crate) struct Entrance {
    gate: Mutex<AtGate>,
    /// Where its answer may stand.
    sheet: Option<Sheet>,
}

/// A gate that cannot be opened says why once only, to who opens it or to who asks whether it is untouched: one after the other.
#[derive(Debug)]
struct AtGate {
    gate: Gate,
    /// The worker has not begun, and will not.
    is_shut: bool,
}

impl Entrance {
    pub(super) fn new(gate: Gate, sheet: Option<Sheet>) -> Entrance {
        let is_shut = false;
        Entrance {
            gate: Mutex::new(AtGate { gate, is_shut }),
            sheet,
        }
    }

    fn open(&self, words: &[u8], stderr: Option<SpawnStderr<'_>>) -> io::Result<()> {
        let mut at = lock(&self.gate);
        let opened = at.gate.open(words, stderr);
        at.is_shut |= opened.is_err();
        opened
    }

    /// Whether a worker that has ended had not begun its call.
    pub(crate) fn is_untouched(&self) -> bool {
        let mut at = lock(&self.gate);
        at.is_shut |= at.gate.is_untouched();
        at.is_shut
    }

    pub(crate) fn sheet(&self) -> Option<&Sheet> {
        self.sheet.as_ref()
    }

    /// Whether the caller may end the worker's task, or have it begin elsewhere: nobody else has.
    pub(crate) fn claim(&self) -> bool {
        self.sheet.as_ref().is_none_or(Sheet::claim)
    }
}

impl Ready {
    pub(crate) fn entrance(&self) -> Arc<Entrance> {
        Arc::clone(&self.entrance)
    }

    pub(crate) fn base(&self) -> Arc<Surroundings> {
        Arc::clone(&self.base)
    }

    /// Whether it is the same user as the program is now.
    pub(crate) fn fits(&self, order: &Order) -> bool {
        self.base.identity == order.surroundings.identity
    }

    /// Opens its gate and sends the call, from any thread. False: when this is dropped the worker ends without having begun.
    pub(crate) fn call_at_once(&self, frame: &[u8], options: &Options) -> bool {
        let Some(sheet) = &self.entrance.sheet else {
            return self.open(&[], options).is_ok() && self.send(frame).is_ok();
        };
        let is_open = self.open(frame, options).is_ok();
        if is_open {
            self.say(sheet, Come::AtGate);
        }
        is_open
    }

    /// The same, for the supervisor: sends as much of the call as fits; what is returned has the rest.
    pub(crate) fn call(mut self, head: Vec<u8>, payload: Payload, options: &Options) -> Option<Outgoing> {
        self.open(&[], options).ok()?;
        let mut calls = Outgoing::new(self.calls.take()?);
        calls.push_frame(head, payload);
        calls.step();
        if let Some(sheet) = &self.entrance.sheet {
            self.say(sheet, Come::InPipe);
        }
        Some(calls)
    }

    fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.calls
            .as_ref()
            .map_or(Ok(()), |calls| sys::send_call(calls, frame))
    }

    fn say(&self, sheet: &Sheet, come: Come) {
        self.has_said.store(true, Ordering::Relaxed);
        sheet.announce(come);
    }

    fn open(&self, words: &[u8], options: &Options) -> io::Result<()> {
        let stderr = match options.stderr_or_default() {
            Stderr::Tee | Stderr::Capture => None,
            Stderr::Inherit => Some(SpawnStderr::Inherit),
            Stderr::Null => Some(SpawnStderr::Null),
        };
        self.entrance.open(words, stderr)
    }
}

/// It ends, unless it has a call.
impl Drop for Ready {
    fn drop(&mut self) {
        if let Some(sheet) = &self.entrance.sheet
            && self.generation == sys::generation()
            && !*self.has_said.get_mut()
        {
            sheet.announce(Come::Over);
        }
    }
}

/// The head of the frame in which an order's call travels to a worker that inherits `base`. Nothing is attached to it.
pub(crate) fn head_of(order: &Order, base: &Surroundings) -> Result<Vec<u8>, Cause> {
    let Some(call) = &order.call else {
        return Err(Cause::refused("there is no call"));
    };
    let call = Call {
        setup: forkserver::difference(base, &order.surroundings),
        ..call.clone()
    };
    call_head(call, order.payload.len())
}

/// The whole frame, if an empty channel surely takes it at once.
pub(crate) fn small_frame(order: &Order, base: &Surroundings) -> Result<Option<Vec<u8>>, Cause> {
    if order.payload.len() > SURELY_FITS || !order.payload.attached().is_empty() {
        return Ok(None);
    }
    let mut frame = head_of(order, base)?;
    frame.extend_from_slice(&order.payload);
    Ok(Some(frame).filter(|frame| frame.len() <= SURELY_FITS))
}

/// Far less than what a socket holds.
const SURELY_FITS: usize = sys::LONGEST_WORDS;
