//! Call a function; it runs in its own process, and you hold the future.
//!
//! For work that must not share its caller's address space: native code that crashes, computations that must be killed at
//! a deadline, C libraries that are not thread safe, untrusted input, code that leaks, and plain CPU-bound jobs.
//!
//! ```
//! use inparallel::{task, waitfor, InFlight};
//!
//! #[task]
//! fn count_primes(below: u32) -> usize {
//!     (2..below).filter(|n| (2..*n).all(|d| n % d != 0)).count()
//! }
//!
//! fn main() -> inparallel::Result<()> {
//!     let active = InFlight::new();
//!     for below in [100, 200, 300] {
//!         active.push(count_primes(below));       // each call starts a process, at once
//!     }
//!     for done in waitfor(&active) {              // in the order in which they end
//!         println!("{} primes", done.wait()?);
//!     }
//!     Ok(())
//! }
//! ```
//!
//! # Tasks
//!
//! [`#[task]`](macro@task) makes a function a task: calling it starts it and returns a [`TaskFuture`] of what it returns. Beside
//! `f(..)` there is `f::inline(..)`, the plain call, and `f::with()`, which sets [`Options`] for one call:
//! `f::with().timeout(limit).call(..)`. Methods, generic functions and borrowed arguments work; arguments and results are
//! [serde](https://serde.rs) types. [`fork`] runs a closure that captures anything.
//!
//! Futures are waited for by a thread ([`wait`](TaskFuture::wait) and its family), by any async runtime (they implement
//! [`std::future::Future`]), or many at a time: [`waitfor`](fn@waitfor) with an [`InFlight`] list and a bound on how many run at once,
//! [`as_completed`], [`wait`](fn@wait), [`first_ok`](fn@first_ok), and [`in_parallel`](InParallel::in_parallel) on any iterator.
//! [`Parallel`] collects all results and errors of one function; in a [`Hydra`], several functions compete for one queue of items.
//!
//! # Pools
//!
//! A [`Pool`] keeps its workers, has a queue before them, and replaces those that die. It takes a [`Call`], which
//! `f::later(..)` makes and which is a value: it can be kept, cloned, serialized.
//!
//! ```
//! use inparallel::{task, Pool};
//!
//! #[task]
//! fn length(text: &str) -> usize {
//!     text.len()
//! }
//!
//! let pool = Pool::builder().workers(4).max_tasks_per_worker(1000).build()?;
//! let future = pool.submit(length::later("one call"))?;
//! let lengths: Vec<usize> = pool.map(|text| length::later(text), ["many", "calls"]).collect::<Result<_, _>>()?;
//! assert_eq!((future.wait()?, lengths), (8, vec![4, 5]));
//! # Ok::<(), inparallel::Error>(())
//! ```
//!
//! `#[task(pool)]` gives a function a pool of its own, `#[task(pool = "name")]` one that it shares, `#[task(daemon)]` one
//! worker that stays; then `f(..)` submits. A [`Limiter`] bounds how many of some tasks, or plain functions under
//! [`#[limit(n)]`](macro@limit), run at once. A task may be [retried](Options::retries), and one that takes a
//! `&`[`TaskContext`] knows its attempt and its deadline, hears of its cancellation, and sends progress and
//! [messages](TaskFuture::messages) while it runs.
//!
//! # Async
//!
//!
//! ```
//! # use std::time::Duration;
//! # #[inparallel::task]
//! # fn render(page: u32) -> Vec<u8> { vec![page as u8] }
//! async fn page(number: u32) -> inparallel::Result<Vec<u8>> {
//!     // Killed when this async fn is dropped at the await, and after ten seconds in any case.
//!     render::with().timeout(Duration::from_secs(10)).kill_on_drop().call(number).await
//! }
//! # let _ = page(1);
//! ```
//!
//! # Start methods
//!
//! | [`StartMethod`] | the worker is | safe beside threads | sees of the program | its price |
//! | --- | --- | --- | --- | --- |
//! | `ForkServer`, default on Linux | a fork of a small helper, which is this program executed again before its `main` | yes | arguments; environment, directory, stdout of the call's moment; what [`preload`] loaded | a small fork, whatever the program's size |
//! | `Fork` | a copy of the caller | no: refused | everything, as it was at the call | grows with the program's memory |
//! | `Spawn`, default elsewhere | this program, executed again before its `main` | yes | arguments; environment, directory | about a millisecond |
//! | `Thread` | a thread | yes | everything; no isolation | a thread |
//! | `Inline` | the calling thread | yes | everything; no isolation | nothing |
//!
//! What survives a `Fork`: memory as it was, open files, the working directory and the environment. What does not: other
//! threads and whatever they were doing, held locks, runtimes such as tokio's or rayon's, connections that a library
//! watches from a thread. Random generators may continue with the same numbers in each copy.
//!
//! A worker is set up alike in all methods: a process group of its own, default signal handlers, no blocked signals,
//! stdin from `/dev/null`, and stdout as the program's. Its stderr is captured and passed on ([`Stderr`]).
//!
//! # Errors
//!
//! Every ending is a value. The task's own `Err` is part of its result; [`Error`] is the machinery's: the task panicked,
//! exited, was killed by a signal, exceeded its [time limit](Options::timeout), was cancelled, its worker could not be made,
//! a value could not be encoded or decoded. It names the task and the worker, and carries the end of the worker's stderr.
//! [`ErrorKind`] is what to match on. A crash fails its own task and no other.
//!
//! # What ends with what
//!
//! - Dropping a future lets its task run on, unless [`kill_on_drop`](TaskFuture::kill_on_drop) is set.
//! - Dropping the last handle of a [`Pool`] lets its tasks run to their end; [`Pool::join`] waits for them,
//!   [`Pool::shutdown`] ends them.
//! - A task ends with the process that started it, however that ends: the kernel sees to it. [`wait_idle`] waits for those
//!   that are left. It does not end with the thread that started it.
//! - Tasks may start tasks; these end with it, unless they are [detached](TaskFuture::detach). More than 16 levels are an
//!   error, so that a runaway recursion is no fork bomb.
//! - When a task has ended, what is left of its process group is killed: a task's own child processes do not outlive it,
//!   unless they leave the group (`setsid`).
//!
//! # Limits
//!
//! - A worker that is running costs two descriptors (three with `Spawn`, four with `Fork`), and one more while its arguments
//!   are being written. A call beyond the limits of the system fails with [`ErrorKind::Launch`], on that call alone.
//! - Arguments of many MiB are fast as `&[u8]`, `Vec<u8>` and [`SharedBytes`]; all else is encoded value by value, and
//!   goes through a pipe.
//! - A result has at most [`Options::max_result`] bytes. Results are checked: hostile bytes are an error, not a crash. A type
//!   whose values take no bytes, such as `Vec<()>`, can still make the decoder count for long, and a recursive type can
//!   exhaust the stack; do not return those from a worker that you do not trust.
//! - An argument or result `Path` that is not UTF-8 cannot be encoded: serde has no form for it. `OsString` can.
//! - `exit`, signals and limits are Unix. On Windows `Thread` and `Inline` work; the others end in
//!   [`ErrorKind::Launch`] for now.
//!
//! # Features
//!
//! - `ctor` (default): a program that is executed again as a worker becomes one before its `main`, so that nothing has to be
//!   set up in programs, tests, benches and examples. Without it, call [`init`] in the first line of `main`.
//!
//! Before `main`, static initialisers of C++ code linked into the program may not have run, and Rust's handler for stack
//! overflows is not there: an overflow ends a task by `SIGSEGV`.

#![deny(unsafe_code)]

// Reading order: what users call, what they hold, what decides, how workers are made, what runs in them.
mod task;
mod call;
mod pool;
mod waitfor;
mod first_ok;
mod parallel;
mod hydra;
mod messages;
mod task_context;
mod options;
mod future;
mod attempt;
mod work;
mod slot;
mod ready;
mod mailbox;
mod callbacks;
mod limiter;
mod sync;
mod argument;
mod shared;
mod buffers;
mod error;
mod ids;
mod nesting;
mod supervisor;
mod launch;
mod worker;
mod transport;
mod board;
mod payload;
mod wire;
#[allow(
    unsafe_code,
    clippy::disallowed_methods,
    reason = "the one place that talks to the operating system"
)]
mod sys;
#[doc(hidden)]
pub mod private;

pub use call::{Call, Tasks};
pub use error::{Error, ErrorKind, Result, Signal};
pub use first_ok::{FirstOk, NoneOk, first_ok};
pub use future::{Canceller, TaskFuture};
pub use hydra::{DoWork, Hydra, Worked};
pub use ids::TaskId;
pub use inparallel_macros::{limit, task, task as processed};
pub use limiter::{Limiter, Permit};
pub use messages::{Messages, Progress};
pub use options::{Options, StartMethod, Stderr, set_default_start};
pub use parallel::{Joined, Parallel, Split};
pub use pool::{Idle, Map, Pool, PoolBuilder, PoolStats, Rejected, Shutdown, WorkerInfo, WorkerState};
pub use shared::SharedBytes;
pub use task::{allow_fork_with_threads, fork, fork_with, init, preload, wait_idle};
pub use task_context::TaskContext;
pub use waitfor::{
    AsCompleted, InFlight, InParallel, ParallelResults, Until, WaitFor, WaitForUpTo, Waited, as_completed,
    wait, waitfor,
};
