//! The supervisor: one thread in a process that watches workers, and decides how each task ended.
//!
//! - `state`: what is decided, as a pure function of events; the diagram stands there.
//! - `event_loop`: the thread; it does what was decided, and never runs user code, sleeps, polls or blocks on a worker.
//! - `lines`: the part of it that reads and writes the workers' pipes.
//! - `ready_workers`: the part of it that deals with workers which are made before their calls.
//! - `calling`: how any thread calls such a worker, and looks out for its answer.
//! - `servers`: the part of it that deals with fork servers.
//! - `pool_state`: what a pool decides, pure as `state`, and `waiting`, its queue; `pools`: that as callers and the
//!   supervisor share it; `lanes`: its workers that get tasks from any thread; `handing`, `submitting` and
//!   `helping`: what those threads do.
//! - `pool_workers`: the part of the event loop that deals with the workers of pools.
//! - `context`: how the other threads reach it, one for each process, also after a fork.
//! - `relay`: passes the workers' stderr on, on a thread of its own, since that may block.

mod context;
mod calling;
mod state;
mod event_loop;
mod lines;
mod ready_workers;
mod servers;
mod waiting;
mod pool_state;
mod lanes;
mod handing;
mod helping;
mod submitting;
mod pools;
mod pool_workers;
mod relay;
#[cfg(test)]
mod pool_tests;
#[cfg(test)]
mod lanes_tests;
#[cfg(test)]
mod waiting_tests;
#[cfg(test)]
mod tests;

pub(crate) use calling::expect_call;
pub(crate) use context::{
    Submitted, active, adopt, later, lock_for_fork, pool, slot, submit, surroundings, thread_task, wait_idle,
};
pub use pool_state::Shutdown;
pub(crate) use pool_state::{Doing, Rules};
pub(crate) use pools::{NotTaken, Patience, PoolCore, PoolSettings, Terms};
