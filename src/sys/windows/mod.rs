//! Windows, for now without processes: what makes one answers "not supported", so that `Thread` and `Inline` are complete
//! and every other start method ends in a named error.
//!
//! The types of what cannot be made have no values. Their functions are there for the layers above, and are never run.

mod handles;
mod poll;
#[path = "../unix/no_memory.rs"]
mod memory;

pub(crate) use handles::{
    Boot, Child, Control, Fd, FileId, ForkServer, Forked, Gate, Incoming, Passed, Request, ServerEvent,
    Spawn, SpawnStderr, call_pair, control_pair, fork_worker, pipe, send_call, spawn, touch_code,
};
pub(crate) use memory::{Memory, has_our_rights};
pub(crate) use poll::{Poller, Waker};

use std::ffi::OsString;
use std::io::{self, Write};
use std::sync::OnceLock;

use crate::sys::{ErrnoClass, ExitStatus};

/// No worker is kept ready where there is none.
pub(crate) const READY_WORKERS: usize = 0;

/// There is no fork.
pub(crate) const FORK_SERVER_IS_DEFAULT: bool = false;

/// Nothing is executed as a worker yet, so that there is nothing to find at the start.
pub(crate) fn boot_descriptors() -> Option<Result<(u128, Vec<Fd>), String>> {
    None
}

/// Windows has no signals.
pub(crate) fn signal_name(_: i32) -> &'static str {
    "SIG?"
}

pub(crate) fn errno_class(_: i32) -> ErrnoClass {
    ErrnoClass::Other
}

/// No fork server speaks of an exit.
pub(crate) fn status_from_server(_: i32) -> ExitStatus {
    ExitStatus::Unknown
}

/// A process is never a copy of another.
pub(crate) fn generation() -> u64 {
    0
}

pub(crate) fn watch_forks() {}

/// As above.
pub(crate) fn forks() -> u64 {
    0
}

/// The rights of a process do not change while it runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Identity;

pub(crate) fn identity() -> Identity {
    Identity
}

/// None that a fork would lose: that there is no fork is told when one is tried.
pub(crate) fn other_threads(_: usize) -> io::Result<usize> {
    Ok(0)
}

/// What tells the program's file from another at the same path.
pub(crate) fn build_id() -> &'static [u8] {
    static BUILD_ID: OnceLock<Vec<u8>> = OnceLock::new();
    BUILD_ID.get_or_init(|| {
        use std::os::windows::fs::MetadataExt;
        let metadata = file_of_program().and_then(std::fs::metadata);
        let numbers = metadata.map(|m| [m.file_size(), m.last_write_time(), m.creation_time()]);
        numbers
            .map(|numbers| numbers.iter().flat_map(|number| number.to_le_bytes()).collect())
            .unwrap_or_default()
    })
}

/// Where the program is mapped is not asked for: nothing looks for an entry yet.
pub(crate) fn image_range() -> (usize, usize) {
    (0, usize::MAX)
}

pub(crate) fn file_of_program() -> io::Result<OsString> {
    std::env::current_exe().map(Into::into)
}

/// The kernel decides.
pub(crate) fn prefer_large_pages(_: &mut Vec<u8>) {}

/// What is to be done at the exit concerns workers' stderr, of which there is none.
pub(crate) fn at_exit(_: fn()) {}

/// There are none to block.
pub(crate) fn with_signals_blocked<R>(run: impl FnOnce() -> R) -> R {
    run()
}

pub(crate) fn flush_output() {
    // A closed stdout is the program's own affair.
    let _ = io::stdout().flush();
}

/// No process of this library runs tasks here that could be asked to end.
pub(crate) fn note_the_end() {}

pub(crate) fn is_asked_to_end() -> bool {
    false
}

pub(crate) fn end_as_usual() {}

pub(crate) fn finish_output() {
    flush_output();
}

pub(crate) fn has_unread_stderr() -> bool {
    false
}

pub(crate) fn write_to_stderr(bytes: &[u8]) {
    // A program that closed its stderr does not want to see it.
    let _ = io::stderr().write_all(bytes);
}

pub(crate) fn exit_now(code: i32) -> ! {
    std::process::exit(code)
}

pub(crate) fn become_worker(_: Option<Fd>) -> io::Result<()> {
    Err(unsupported())
}

pub(crate) fn adopt_setup(_: Option<&[u8]>, _: Option<&[(Vec<u8>, Vec<u8>)]>) -> io::Result<()> {
    Err(unsupported())
}

fn unsupported() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "not supported on this platform yet")
}
