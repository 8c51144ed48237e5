//! A raw fork, and a program that is executed: the least that a fresh process can cost.

use std::ffi::{CString, OsStr};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, posix_spawn};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, pipe2};

/// The least ordinary Rust program: it writes eight bytes and ends.
pub(crate) const RUST_PROGRAM: &str = env!("MINIMAL_RUST");

/// `fork`, eight bytes through a pipe, `waitpid`: the least that a fresh process can cost.
#[expect(
    clippy::disallowed_methods,
    reason = "the kernel's own price is what is measured"
)]
pub(crate) fn fork_and_answer() -> io::Result<Duration> {
    let started = Instant::now();
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    // SAFETY: the child calls `write` and `_exit`, both async-signal-safe, and touches no lock of another thread.
    let pid = match unsafe { fork() }? {
        ForkResult::Child => {
            let status = i32::from(nix::unistd::write(&writer, &ANSWER.to_ne_bytes()) != Ok(ANSWER_LEN));
            // SAFETY: it ends the process at once, without the handlers and destructors that are the parent's.
            unsafe { libc::_exit(status) }
        }
        ForkResult::Parent { child } => child,
    };
    take_answer(reader, writer, pid)?;
    Ok(started.elapsed())
}

/// The same by `posix_spawn` of `program`, which has the pipe as its stdout, and this program's environment.
pub(crate) fn spawn_and_answer(program: &str) -> io::Result<Duration> {
    let path = CString::new(OsStr::new(program).as_bytes())?;
    let variables = std::env::vars_os().map(|(name, value)| [name.as_bytes(), value.as_bytes()].join(&b'='));
    let environment: Vec<CString> = variables.map(CString::new).collect::<Result<_, _>>()?;
    let started = Instant::now();
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    let mut actions = PosixSpawnFileActions::init()?;
    actions.add_dup2(writer.as_raw_fd(), 1)?;
    let pid = posix_spawn(
        path.as_c_str(),
        &actions,
        &PosixSpawnAttr::init()?,
        &[&path],
        &environment,
    )?;
    take_answer(reader, writer, pid)?;
    Ok(started.elapsed())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the pid is that of a reference process, unknown to any supervisor"
)]
fn take_answer(reader: OwnedFd, writer: OwnedFd, pid: Pid) -> io::Result<()> {
    drop(writer);
    let mut answer = [0; ANSWER_LEN];
    let read = std::fs::File::from(reader).read_exact(&mut answer);
    match waitpid(pid, None)? {
        WaitStatus::Exited(_, 0) if u64::from_ne_bytes(answer) == ANSWER => read,
        status => Err(io::Error::other(format!(
            "the reference process ended in {status:?}, answer {answer:?}"
        ))),
    }
}

const ANSWER: u64 = 42;
const ANSWER_LEN: usize = size_of::<u64>();
