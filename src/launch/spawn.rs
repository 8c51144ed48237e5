//! `StartMethod::Spawn`: this program, executed again.

use std::ffi::OsString;

use crate::error::Cause;
use crate::launch::{Lines, Order, cookie, first_call, pipe, pipes, program, set_nonblocking, title};
use crate::nesting;
use crate::options::Options;
use crate::sys::{self, Boot, Spawn};
use crate::transport::Outgoing;
use crate::wire::{self, Hello, MAGIC, Role, Setup, ToWorker, VERSION};

/// Makes a worker, and begins to send it its call.
pub(crate) fn spawn(options: &Options, order: &Order) -> Result<Lines, Cause> {
    let (replies, stderr, far) = pipes(options)?;
    let (far_calls, calls) = pipe("calls")?;
    let (far_lifeline, lifeline) = pipe("the lifeline")?;
    set_nonblocking(&calls)?;
    let cookie = cookie();
    let hello = Hello {
        magic: MAGIC,
        version: VERSION,
        role: Role::Worker,
        cookie,
        build_id: sys::build_id().to_vec(),
        depth: order.depth,
        preload: nesting::preload(),
    };
    // The program may have changed its directory since the call.
    let directory = order
        .surroundings
        .directory
        .clone()
        .map(OsString::into_encoded_bytes);
    let setup = Setup {
        directory,
        environment: None,
    };
    let hello = wire::frame_head(&ToWorker::Hello(hello), 0)
        .map_err(|reason| Cause::refused(format!("encode the handshake: {reason}")))?;
    // The handshake lies in the pipe before the worker exists: it need not wait for one that may never come. The call
    // follows when the worker is watched: one that cannot be watched must not run.
    calls
        .write_all(&hello, &[])
        .map_err(|error| Cause::launch("write the handshake", error))?;
    let mut calls = Outgoing::new(calls);
    let setup = first_call(order, Some(setup), &mut calls)?;
    let boot = Boot::Worker {
        cookie,
        calls: &far_calls,
        replies: &far.replies,
        lifeline: &far_lifeline,
    };
    let program = program(options)?;
    let child = sys::spawn(&Spawn {
        program: &program,
        title: &title("inparallel worker"),
        boot: &boot,
        environment: order.surroundings.environment.pairs(),
        stderr: far.stderr(options),
    })
    .map_err(|error| Cause::launch(format!("execute {}", program.display()), error))?;
    Ok(Lines {
        calls: Some(calls),
        setup,
        replies,
        stderr,
        _lifeline: Some(lifeline),
        child: Some(child),
        is_up: false,
    })
}
