//! The operating system, as safe functions over owned handles. The only place with `unsafe` and platform switches
//! (the constructor in `worker/ctor.rs` apart).
//!
//! Each platform is a folder with the same functions:
//!
//! - `fd`: [`Fd`], an owned descriptor that a forked copy knows to close; pipes.
//! - `poll`: [`Poller`], the one blocking wait of the supervisor, and its [`Waker`].
//! - `process`: making, signalling and reaping processes.
//! - `server`: the datagram channel to the fork server and what the server itself needs.
//! - `worker`: what a fresh worker process does to itself.
//! - `memory`: memory that other processes can open.
//! - `image`: this program's identity, and entries that can be named across processes.
//! - `board`: memory that is shared with a worker, and sleeping on it; `no_board` where there is none.
//!
//! `portable` is the same everywhere.

#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub(crate) use unix::*;

#[cfg(windows)]
mod windows;
#[cfg(windows)]
pub(crate) use windows::*;

#[cfg(not(any(unix, windows)))]
compile_error!("inparallel supports Unix, and type-checks on Windows");

mod board;
#[cfg(any(not(target_os = "linux"), inparallel_no_linux))]
mod no_board;
mod portable;
pub(crate) use board::*;
#[cfg(any(not(target_os = "linux"), inparallel_no_linux))]
pub(crate) use no_board::*;
pub(crate) use portable::*;

/// The longest words that a gate lets through. With less than half of the smallest buffer that a socket can have
/// (`SOCK_MIN_SNDBUF` of Linux, 4.5 KiB) they are never cut.
pub(crate) const LONGEST_WORDS: usize = 2 << 10;
