//! The worker's side: how a process becomes a worker, and the loop in which it runs tasks.
//!
//! It knows nothing of the supervisor; both meet in `wire`.

mod bootstrap;
#[cfg(feature = "ctor")]
mod ctor;
mod many;
mod run;
mod posts;
mod panics;
mod rehearsal;
mod server;

pub(crate) use bootstrap::{init, is_reachable};
pub(crate) use many::Many;
pub(crate) use panics::{catch, install as prepare_for_fork};
pub(crate) use run::{Remote, answer_of, run_forked};
