//! How workers are made: one file for each start method that makes a process. The only place that creates processes.

mod fork;
mod forkserver;
mod ready;
mod spawn;
mod surroundings;

pub(crate) use fork::fork;
pub(crate) use forkserver::{Ended, Launch, Server, not_launched};
pub(crate) use ready::{Entrance, Ready, head_of, small_frame};
pub(crate) use spawn::spawn;
pub(crate) use surroundings::Surroundings;

use std::ffi::OsString;
use std::io;
use std::sync::Arc;

use crate::error::Cause;
use crate::options::{Options, Stderr};
use crate::payload::Payload;
use crate::sys::{self, Child, Fd, SpawnStderr};
use crate::transport::{Arriving, Outgoing};
use crate::wire::{self, Call, Setup, ToWorker};

/// What a new worker is to be, and to do first.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    /// A pool's worker gets its calls later.
    pub(crate) call: Option<Call>,
    /// The encoded arguments.
    pub(crate) payload: Payload,
    pub(crate) depth: u32,
    pub(crate) surroundings: Arc<Surroundings>,
    /// For `Spawn`; else for the fork server.
    pub(crate) is_spawn: bool,
}

/// The program's ends of what connects it to one worker.
#[derive(Debug)]
pub(crate) struct Lines {
    /// Calls on their way; closed so that the worker ends after the last.
    pub(crate) calls: Option<Outgoing>,
    /// What the first call has to tell the worker.
    pub(crate) setup: Option<Setup>,
    pub(crate) replies: Arriving,
    pub(crate) stderr: Option<Fd>,
    /// Only there to be closed by the end of this process, however it ends: that ends the worker.
    pub(crate) _lifeline: Option<Fd>,
    /// A worker that is our child, and not the fork server's.
    pub(crate) child: Option<Child>,
    /// The process exists and is a worker, not one that has to become one.
    pub(crate) is_up: bool,
}

/// A worker's ends.
#[derive(Debug)]
struct Far {
    replies: Fd,
    stderr: Option<Fd>,
}

impl Far {
    fn stderr(&self, options: &Options) -> SpawnStderr<'_> {
        match (&self.stderr, options.stderr_or_default()) {
            (Some(pipe), _) => SpawnStderr::Pipe(pipe),
            (None, Stderr::Null) => SpawnStderr::Null,
            (None, _) => SpawnStderr::Inherit,
        }
    }
}

/// A call as the frame that it travels in, before its payload.
fn call_head(call: Call, payload: usize) -> Result<Vec<u8>, Cause> {
    wire::frame_head(&ToWorker::Call(call), payload)
        .map_err(|reason| Cause::refused(format!("encode the call: {reason}")))
}

/// Sends a call: [`step`](Outgoing::step) writes it.
pub(crate) fn send(calls: &mut Outgoing, call: Call, payload: &Payload) -> Result<(), Cause> {
    calls
        .push(call, payload)
        .map_err(|reason| Cause::refused(format!("encode the call: {reason}")))
}

/// The call that the worker was made for, behind what it has to be told.
fn first_call(order: &Order, setup: Option<Setup>, calls: &mut Outgoing) -> Result<Option<Setup>, Cause> {
    let Some(call) = &order.call else {
        return Ok(setup);
    };
    let call = Call {
        setup,
        ..call.clone()
    };
    send(calls, call, &order.payload)?;
    Ok(None)
}

/// The pipes that every worker has.
fn pipes(options: &Options) -> Result<(Arriving, Option<Fd>, Far), Cause> {
    let (replies, far_replies) = pipe("replies")?;
    set_nonblocking(&replies)?;
    let (stderr, far_stderr) = match options.stderr_or_default() {
        Stderr::Tee | Stderr::Capture => {
            let (stderr, far) = pipe("stderr")?;
            set_nonblocking(&stderr)?;
            (Some(stderr), Some(far))
        }
        Stderr::Inherit | Stderr::Null => (None, None),
    };
    let far = Far {
        replies: far_replies,
        stderr: far_stderr,
    };
    Ok((
        Arriving::new(replies, options.max_result_or_default()),
        stderr,
        far,
    ))
}

fn pipe(what: &str) -> Result<(Fd, Fd), Cause> {
    sys::pipe().map_err(|error| Cause::launch(format!("pipe for {what}"), error))
}

fn set_nonblocking(fd: &Fd) -> Result<(), Cause> {
    fd.set_nonblocking()
        .map_err(|error| Cause::launch("set a pipe to non-blocking", error))
}

/// A number that nobody can guess and no two workers share: it ties the environment variable to the descriptors.
fn cookie() -> u128 {
    use std::hash::{BuildHasher, RandomState};
    let half = || u128::from(RandomState::new().hash_one(std::process::id()));
    half() << 64 | half()
}

/// The file to execute for a worker.
fn program(options: &Options) -> Result<OsString, Cause> {
    match &options.program {
        Some(path) => Ok(path.clone().into()),
        None => sys::file_of_program().map_err(|error| Cause::launch("find the file of this program", error)),
    }
}

/// What a worker calls itself in a list of processes.
fn title(role: &str) -> String {
    let path = std::env::args_os().next().unwrap_or_default();
    let name = std::path::Path::new(&path).file_name().unwrap_or_default();
    format!("{} [{role}]", name.display())
}

fn errno(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}
