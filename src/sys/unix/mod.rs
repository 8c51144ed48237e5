//! Unix. Where Linux has a better way than the others, the two stand in files with the same functions:
//!
//! | what | Linux | macOS, BSD |
//! | --- | --- | --- |
//! | `poll`: the supervisor's one wait | `epoll.rs` | `poll.rs` |
//! | `control`: the channel to the fork server | `seqpacket.rs` | `stream.rs` |
//! | `os`: all else | `linux.rs` | `other.rs` |
//!
//! `--cfg inparallel_no_linux` takes the right column on Linux too, so that it can be tested there.

mod fd;
mod process;
mod server;
mod worker;
mod image;
mod names;
#[cfg_attr(all(target_os = "linux", not(inparallel_no_linux)), path = "epoll.rs")]
#[cfg_attr(any(not(target_os = "linux"), inparallel_no_linux), path = "poll.rs")]
mod poll;
#[cfg_attr(all(target_os = "linux", not(inparallel_no_linux)), path = "seqpacket.rs")]
#[cfg_attr(any(not(target_os = "linux"), inparallel_no_linux), path = "stream.rs")]
mod control;
#[cfg_attr(all(target_os = "linux", not(inparallel_no_linux)), path = "linux.rs")]
#[cfg_attr(any(not(target_os = "linux"), inparallel_no_linux), path = "other.rs")]
mod os;

pub(crate) use control::{Control, control_pair};
pub(crate) use fd::{Fd, FileId, Incoming, pipe};
pub(crate) use image::{build_id, file_of_program, image_range, is_privileged};
pub(crate) use names::{errno_class, signal_name};
pub(crate) use os::FORK_SERVER_IS_DEFAULT;
pub(crate) use poll::{Poller, Waker};
pub(crate) use process::{
    Child, Forked, Identity, Spawn, SpawnStderr, fork_worker, generation, identity, other_threads, spawn,
    watch_forks,
};
pub(crate) use server::{ForkServer, Request, ServerEvent, Spare, status_from_server};
pub(crate) use worker::{
    BOOT_VARIABLE, Boot, adopt_setup, at_exit, become_worker, boot_descriptors, end_as_usual, exit_now,
    finish_output, flush_output, is_asked_to_end, note_the_end, with_signals_blocked, write_to_stderr,
};

use std::io;

/// Repeats a call that a signal interrupted.
fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(nix::errno::Errno::EINTR) => {}
            other => return other.map_err(io::Error::from),
        }
    }
}
