//! Unix. Where Linux has a better way than the others, the two stand in files with the same functions:
//!
//! | what | Linux | macOS, BSD |
//! | --- | --- | --- |
//! | `poll`: the supervisor's one wait | `epoll.rs` | `poll.rs` |
//! | `control`: the channel to the fork server | `seqpacket.rs` | `stream.rs` |
//! | `gate`: what a worker waits at that is ready before its call | `gate.rs` | `no_gate.rs` |
//! | `memory`: what processes share | `memory.rs` | `no_memory.rs` |
//! | `os`: all else | `linux.rs` | `other.rs` |
//!
//! `--cfg inparallel_no_linux` takes the right column on Linux too, so that it can be tested there.

#[cfg(all(target_os = "linux", not(inparallel_no_linux)))]
mod board;
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
#[cfg_attr(all(target_os = "linux", not(inparallel_no_linux)), path = "gate.rs")]
#[cfg_attr(any(not(target_os = "linux"), inparallel_no_linux), path = "no_gate.rs")]
mod gate;
#[cfg_attr(all(target_os = "linux", not(inparallel_no_linux)), path = "linux.rs")]
#[cfg_attr(any(not(target_os = "linux"), inparallel_no_linux), path = "other.rs")]
mod os;
#[cfg_attr(all(target_os = "linux", not(inparallel_no_linux)), path = "memory.rs")]
#[cfg_attr(any(not(target_os = "linux"), inparallel_no_linux), path = "no_memory.rs")]
mod memory;

#[cfg(all(target_os = "linux", not(inparallel_no_linux)))]
pub(crate) use board::{ForkMark, SharedBoard, core, sleep_on_shared, sleep_on_words, wake_own, wake_shared};
pub(crate) use control::{Control, control_pair};
pub(crate) use fd::{Fd, FileId, Incoming, pipe};
pub(crate) use gate::{Gate, Passed, READY_WORKERS, call_pair, send_call, touch_code};
pub(crate) use image::{build_id, file_of_program, image_range, is_privileged};
pub(crate) use memory::{Memory, has_our_rights};
pub(crate) use names::{errno_class, signal_name};
pub(crate) use os::{FORK_SERVER_IS_DEFAULT, prefer_large_pages};
pub(crate) use poll::{Poller, Waker};
pub(crate) use process::{
    Child, Forked, Identity, Spawn, SpawnStderr, fork_worker, forks, generation, identity, other_threads,
    spawn, watch_forks,
};
pub(crate) use server::{ForkServer, Request, ServerEvent, status_from_server};
pub(crate) use worker::{
    BOOT_VARIABLE, Boot, adopt_setup, at_exit, become_worker, boot_descriptors, end_as_usual, exit_now,
    finish_output, flush_output, has_unread_stderr, is_asked_to_end, note_the_end, with_signals_blocked,
    write_to_stderr,
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
