//! A worker of the fork server that was made before its call, and how the call reaches it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::Cause;
use crate::ids::WorkerId;
use crate::launch::{Order, Surroundings, call_head, forkserver};
use crate::options::{Options, Stderr};
use crate::payload::Payload;
use crate::sys::{self, Fd, Gate, SpawnStderr};
use crate::transport::Outgoing;
use crate::wire::Call;

/// A worker that waits for its first call. Dropped, it ends.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) worker: WorkerId,
    /// Unknown until the fork server has told it.
    pub(crate) pid: Option<u32>,
    pub(super) calls: Fd,
    pub(super) entrance: Arc<Entrance>,
    /// What it inherits.
    pub(super) base: Arc<Surroundings>,
}

/// What tells of a worker that has ended whether it had begun its call.
#[derive(Debug)]
pub(crate) struct Entrance {
    pub(super) gate: Gate,
    /// Set before the call is written.
    pub(super) was_called: AtomicBool,
}

impl Entrance {
    /// Whether a worker that has ended had not begun its call.
    pub(crate) fn is_untouched(&self) -> bool {
        !self.was_called.load(Ordering::Acquire) || self.gate.is_untouched()
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

    /// Opens its gate and sends the call, from any thread. If that fails, the worker ends without having begun.
    pub(crate) fn call_at_once(self, frame: &[u8], options: &Options) {
        if self.open(options).is_some() {
            // A worker that is gone does not read it, and one that gets half of it ends.
            let _ = sys::send_call(&self.calls, frame);
        }
    }

    /// The same, for the supervisor: sends as much of the call as fits; what is returned has the rest.
    pub(crate) fn call(self, head: Vec<u8>, payload: Payload, options: &Options) -> Option<Outgoing> {
        self.open(options)?;
        let mut calls = Outgoing::new(self.calls);
        calls.push_frame(head, payload);
        calls.step();
        Some(calls)
    }

    fn open(&self, options: &Options) -> Option<()> {
        let stderr = match options.stderr_or_default() {
            Stderr::Tee | Stderr::Capture => None,
            Stderr::Inherit => Some(SpawnStderr::Inherit),
            Stderr::Null => Some(SpawnStderr::Null),
        };
        self.entrance.gate.open(stderr).ok()?;
        self.entrance.was_called.store(true, Ordering::Release);
        Some(())
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

/// Far less than what a socket holds, and about what a worker reads at once.
const SURELY_FITS: usize = 4 << 10;
