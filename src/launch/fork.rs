//! `StartMethod::Fork`: a copy of the calling process, made by the calling thread.

use std::io;

use crate::error::Cause;
use crate::ids::About;
use crate::launch::{Lines, pipe, pipes};
use crate::options::Options;
use crate::sys::{self, Forked};
use crate::wire::Answer;
use crate::worker;

/// Makes a copy that runs `task`, and never comes back from it.
///
/// The caller has made sure that the process may be forked. `task` is borrowed: what it captured is dropped, in this
/// process, after the worker has been taken charge of.
pub(crate) fn fork<F: FnOnce() -> Answer>(
    options: &Options,
    depth: u32,
    about: About,
    task: &mut Option<F>,
) -> Result<Lines, Cause> {
    let (replies, stderr, far) = pipes(options)?;
    let (far_lifeline, lifeline) = pipe("the lifeline")?;
    worker::prepare_for_fork();
    // Held across the fork, so that no other thread holds them in it. The copy gives them up as well: its one thread is
    // their owner, as here.
    let mut locks = Some((io::stdout().lock(), io::stderr().lock()));
    // Else the copy would print it again.
    sys::flush_output();
    let plumbing = Forked {
        replies: &far.replies,
        lifeline: &far_lifeline,
        stderr: far.stderr(options),
    };
    let child = sys::fork_worker(&plumbing, |replies, ready| {
        drop(locks.take());
        if let Some(task) = task.take() {
            worker::run_forked(replies, ready, depth, about, task);
        }
    });
    let child = child.map_err(|error| Cause::launch("fork", error))?;
    Ok(Lines {
        calls: None,
        setup: None,
        replies,
        stderr,
        _lifeline: Some(lifeline),
        child: Some(child),
        is_up: true,
    })
}
