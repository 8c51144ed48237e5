//! What a fresh worker process does to itself, and what a re-executed one finds at its start.

use std::ffi::{OsStr, OsString, c_int};
use std::io::{self, Write};
use std::os::fd::RawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nix::sys::signal::{SigSet, Signal};
use nix::unistd::Pid;

use super::process::{Forked, SpawnStderr};
use super::{Fd, fd, os};
use crate::sys::Global;

/// Tells a re-executed program what it is to be: `version role cookie descriptor..`. It never leaves the worker: it is
/// gone from the environment before a task runs.
pub(crate) const BOOT_VARIABLE: &str = "INPARALLEL_WORKER";

/// What a re-executed program gets to begin with.
pub(crate) enum Boot<'a> {
    Worker {
        cookie: u128,
        calls: &'a Fd,
        replies: &'a Fd,
        lifeline: &'a Fd,
    },
    Server {
        cookie: u128,
        control: &'a Fd,
    },
}

impl Boot<'_> {
    pub(super) fn text(&self) -> String {
        match self {
            Boot::Worker {
                cookie,
                calls,
                replies,
                lifeline,
            } => {
                format!(
                    "1 worker {cookie:032x} {} {} {}",
                    calls.raw(),
                    replies.raw(),
                    lifeline.raw()
                )
            }
            Boot::Server { cookie, control } => format!("1 server {cookie:032x} {}", control.raw()),
        }
    }

    pub(super) fn descriptors(&self) -> Vec<&Fd> {
        match self {
            Boot::Worker {
                calls,
                replies,
                lifeline,
                ..
            } => vec![calls, replies, lifeline],
            Boot::Server { control, .. } => vec![control],
        }
    }
}

/// Reads [`BOOT_VARIABLE`] and takes over the descriptors in it. `None`: this is an ordinary start of the program.
/// The variable is removed in any case.
pub(crate) fn boot_descriptors() -> Option<Result<(u128, Vec<Fd>), String>> {
    os::note_program();
    let text = std::env::var_os(BOOT_VARIABLE)?;
    // SAFETY: this is before `main`, or its documented first line: there is no other thread yet.
    unsafe { std::env::remove_var(BOOT_VARIABLE) };
    fill_standard();
    let shown: String = text.to_string_lossy().chars().take(LONGEST_SHOWN).collect();
    Some(parse_boot(&text).map_err(|what| format!("{BOOT_VARIABLE}={shown:?}: {what}")))
}

/// What is closed of the standard descriptors becomes `/dev/null`, as Rust's start does it before `main`: no other
/// descriptor may get such a number.
fn fill_standard() {
    while fd::null_at_lowest().is_ok_and(|number| number <= 2) {}
}

/// Enough of the variable to recognize it by.
const LONGEST_SHOWN: usize = 100;

fn parse_boot(text: &OsStr) -> Result<(u128, Vec<Fd>), String> {
    if super::is_privileged() {
        return Err("refused in a program that runs with more rights than its caller".into());
    }
    let mut words = text.to_str().ok_or("not text")?.split(' ');
    let (Some("1"), Some(role), Some(cookie)) = (words.next(), words.next(), words.next()) else {
        return Err("not of the form that this version writes".into());
    };
    let count = match role {
        "worker" => 3,
        "server" => 1,
        _ => return Err("neither a worker nor a server".into()),
    };
    let cookie = u128::from_str_radix(cookie, 16).map_err(|error| error.to_string())?;
    let numbers: Result<Vec<RawFd>, _> = words.map(str::parse).collect();
    let numbers = numbers.map_err(|error| error.to_string())?;
    if numbers.len() != count {
        return Err(format!("{count} descriptors are needed"));
    }
    let mut fds = Vec::with_capacity(count);
    for number in numbers {
        fds.push(fd::inherit(number).map_err(|error| format!("descriptor {number}: {error}"))?);
    }
    Ok((cookie, fds))
}

/// The last steps of a re-executed process that is to run tasks; what `posix_spawn` does not do.
pub(crate) fn become_worker(lifeline: Option<Fd>) -> io::Result<()> {
    ignore_sigpipe();
    match lifeline {
        Some(lifeline) => super::os::die_with_writer(lifeline),
        None => Ok(()),
    }
}

/// In the copy that [`fork_worker`](super::fork_worker) made: own group, default handlers, no foreign descriptors.
/// Calls async-signal-safe functions only.
pub(super) fn set_up_fork(plumbing: &Forked<'_>) -> io::Result<()> {
    default_handlers();
    // What the original was asked is not meant for the copy.
    IS_NOTED.store(false, Ordering::Relaxed);
    IS_ASKED_TO_END.store(false, Ordering::Relaxed);
    nix::unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
    // What is the original's goes first: it may have left no room for another descriptor.
    let (replies, lifeline) = (plumbing.replies.raw(), plumbing.lifeline.raw());
    match plumbing.stderr {
        SpawnStderr::Pipe(pipe) => fd::close_all_but(&[replies, lifeline, pipe.raw()]),
        SpawnStderr::Inherit | SpawnStderr::Null => fd::close_all_but(&[replies, lifeline]),
    }
    let null = fd::null()?;
    dup2(super::os::as_raw(&null), 0)?;
    match plumbing.stderr {
        SpawnStderr::Pipe(pipe) => dup2(pipe.raw(), 2)?,
        SpawnStderr::Inherit => {}
        SpawnStderr::Null => dup2(super::os::as_raw(&null), 2)?,
    }
    drop(null);
    fd::close_all_but(&[replies, lifeline]);
    super::os::die_with_writer(fd::inherit_own(lifeline))?;
    SigSet::empty().thread_set_mask()?;
    Ok(())
}

/// In the copy that the fork server made: as above, but for stdout and stderr, which come with the request.
pub(super) fn set_up_served(keep: &[RawFd], handlers: &[c_int], bond: &os::Bond) -> io::Result<()> {
    handlers
        .iter()
        .for_each(|number| set_handler(*number, libc::SIG_DFL));
    nix::unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
    fd::close_all_but(keep);
    bond.tie()?;
    SigSet::empty().thread_set_mask()?;
    Ok(())
}

/// From now on a request to end does not end this process, but is noted.
pub(crate) fn note_the_end() {
    extern "C" fn note(_: c_int) {
        IS_ASKED_TO_END.store(true, Ordering::Relaxed);
    }
    if !IS_NOTED.swap(true, Ordering::Relaxed) {
        let handler: extern "C" fn(c_int) = note;
        USUAL.store(disposition(libc::SIGTERM), Ordering::Relaxed);
        set_handler(libc::SIGTERM, handler as libc::sighandler_t);
    }
}

/// Whether this process was asked to end since [`note_the_end`].
pub(crate) fn is_asked_to_end() -> bool {
    IS_ASKED_TO_END.load(Ordering::Relaxed)
}

/// From now on a request to end does what it did before [`note_the_end`].
pub(crate) fn end_as_usual() {
    if IS_NOTED.swap(false, Ordering::Relaxed) {
        set_handler(libc::SIGTERM, USUAL.load(Ordering::Relaxed));
    }
}

static IS_NOTED: AtomicBool = AtomicBool::new(false);
static IS_ASKED_TO_END: AtomicBool = AtomicBool::new(false);
/// A handler, or one of the numbers that stand for one.
static USUAL: AtomicUsize = AtomicUsize::new(libc::SIG_DFL);

/// Every handler of the program is reset; a pipe without reader is an error, not a signal, as in every Rust program.
fn default_handlers() {
    for number in 1..=64 {
        let action = if number == libc::SIGPIPE {
            libc::SIG_IGN
        } else {
            libc::SIG_DFL
        };
        // Fails for KILL, STOP and the C library's own, which have no handler to reset.
        set_handler(number, action);
    }
}

/// The signals that have a handler, or are ignored but for SIGPIPE.
pub(super) fn handled_signals() -> Vec<c_int> {
    let is_handled = |number: &c_int| disposition(*number) != libc::SIG_DFL && *number != libc::SIGPIPE;
    (1..=64).filter(is_handled).collect()
}

/// Whether the program ignores a signal.
pub(super) fn is_ignored(signal: c_int) -> bool {
    disposition(signal) == libc::SIG_IGN
}

fn disposition(signal: c_int) -> libc::sighandler_t {
    // SAFETY: all zeros is a valid sigaction; it stays so for a number that is no signal.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: a null action only asks; `action` is valid for writing.
    unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) };
    action.sa_sigaction
}

/// Rust's start does this before `main`; a worker that never gets to `main` does it itself.
fn ignore_sigpipe() {
    set_handler(libc::SIGPIPE, libc::SIG_IGN);
}

pub(super) fn set_handler(signal: c_int, handler: libc::sighandler_t) {
    // SAFETY: all zeros is a valid sigaction: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler;
    // SAFETY: `action` is valid; the handler is a disposition, or one of this crate's that only touch atomics.
    unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
}

pub(super) fn dup2(from: RawFd, to: RawFd) -> io::Result<()> {
    loop {
        // SAFETY: dup2 takes two integers; `to` is one of the three standard descriptors, which belong to everybody.
        if unsafe { libc::dup2(from, to) } != -1 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Ends the process, at once: no exit handlers, no destructors, which in a fork would be its parent's.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no precondition.
    unsafe { libc::_exit(code) }
}

/// Writes out what the process has printed so far, by Rust and by C, so that a copy does not print it again, or that it
/// is not lost.
pub(crate) fn flush_output() {
    // A closed or full stdout is the program's own affair.
    let _ = io::stdout().flush();
    // SAFETY: a null argument means all open output streams.
    unsafe { libc::fflush(std::ptr::null_mut()) };
}

/// Calls `run` when the program exits in an orderly way, and at [`finish_output`].
pub(crate) fn at_exit(run: fn()) {
    extern "C" fn call() {
        if let Some(run) = AT_EXIT.get() {
            run();
        }
    }
    if AT_EXIT.get().is_none() {
        AT_EXIT.replace(None, Box::new(run));
        // SAFETY: `call` takes nothing, and does not unwind: what it runs waits, and no more. Twice does no harm.
        unsafe { libc::atexit(call) };
    }
}

/// At the end of a worker, which skips exit handlers: writes out everything that it has printed.
pub(crate) fn finish_output() {
    if let Some(run) = AT_EXIT.get() {
        run();
    }
    flush_output();
}

static AT_EXIT: Global<fn()> = Global::new();

/// The signals that a fault in the thread itself raises: never blocked, since that would end the program without a word.
const FAULTS: [Signal; 4] = [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGFPE, Signal::SIGILL];

/// Runs `run` with the signals of the calling thread blocked; a thread made in it starts so.
pub(crate) fn with_signals_blocked<R>(run: impl FnOnce() -> R) -> R {
    let mut blocked = SigSet::all();
    FAULTS.into_iter().for_each(|signal| blocked.remove(signal));
    let earlier = blocked.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_SETMASK);
    let result = run();
    if let Ok(earlier) = earlier {
        // It was in force a moment ago.
        let _ = earlier.thread_set_mask();
    }
    result
}

/// Passes on what a worker wrote to its stderr, as it is.
pub(crate) fn write_to_stderr(mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match super::retry(|| nix::unistd::write(io::stderr(), bytes)) {
            Ok(count) => bytes = &bytes[count..],
            // A program that closed its stderr does not want to see it.
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
            Err(_) => {
                let mut fds = [nix::poll::PollFd::new(io_stderr(), nix::poll::PollFlags::POLLOUT)];
                // If even that fails, the next write tells.
                let _ = nix::poll::poll(&mut fds, nix::poll::PollTimeout::NONE);
            }
        }
    }
}

fn io_stderr() -> std::os::fd::BorrowedFd<'static> {
    // SAFETY: descriptor 2 is the process's own for all its life; if it was closed, calls fail with EBADF.
    unsafe { std::os::fd::BorrowedFd::borrow_raw(2) }
}

/// Whether something that this process wrote to its stderr was not read yet, where that is a pipe.
pub(crate) fn has_unread_stderr() -> bool {
    let mut count: c_int = 0;
    // SAFETY: FIONREAD writes one int, and `count` is one.
    let result = unsafe { libc::ioctl(2, libc::FIONREAD, &raw mut count) };
    result == 0 && count > 0
}

/// Takes over the program's working directory and environment of the call's moment.
///
/// Only for a process that has one thread and has run no task yet.
pub(crate) fn adopt_setup(
    directory: Option<&[u8]>,
    environment: Option<&[(Vec<u8>, Vec<u8>)]>,
) -> io::Result<()> {
    if let Some(directory) = directory {
        std::env::set_current_dir(OsStr::from_bytes(directory))?;
    }
    if let Some(environment) = environment {
        // A name that is empty or holds the sign itself can neither be set nor removed.
        let settable = |name: &[u8]| !name.is_empty() && !name.contains(&b'=');
        for (name, _) in std::env::vars_os().filter(|(name, _)| settable(name.as_bytes())) {
            // SAFETY: a worker of the fork server has one thread before its first task.
            unsafe { std::env::remove_var(name) };
        }
        for (name, value) in environment.iter().filter(|(name, _)| settable(name)) {
            let (name, value) = (
                OsString::from_vec(name.clone()),
                OsString::from_vec(value.clone()),
            );
            // Of several by one name, a program sees the first.
            if std::env::var_os(&name).is_none() {
                // SAFETY: as above.
                unsafe { std::env::set_var(name, value) };
            }
        }
    }
    Ok(())
}
