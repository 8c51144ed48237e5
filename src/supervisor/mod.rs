//! The supervisor: one thread in a process that watches workers, and decides how each task ended.
//!
//! - `state`: what is decided, as a pure function of events; the diagram stands there.
//! - `event_loop`: the thread; it does what was decided, and never runs user code, sleeps, polls or blocks on a worker.
//! - `servers`: the part of it that deals with fork servers.
//! - `context`: how the other threads reach it, one for each process, also after a fork.
//! - `relay`: passes the workers' stderr on, on a thread of its own, since that may block.

mod context;
mod state;
mod event_loop;
mod servers;
mod relay;
#[cfg(test)]
mod tests;

pub(crate) use context::{Link, Submitted, adopt, lock_for_fork, slot, submit, thread_task, wait_idle};
