//! The ways of macOS and the BSDs: portable calls, and threads that wait where Linux's kernel tells.

use std::ffi::{OsString, c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::spawn::PosixSpawnFileActions;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::socket::MsgFlags;
use nix::unistd::Pid;

use super::{Fd, fd, retry};
use crate::sys::ExitStatus;

/// Apple's frameworks do not work in a copy of a process that used them, so that a fork server, whose preload may use
/// them, is for those who ask for it.
pub(crate) const FORK_SERVER_IS_DEFAULT: bool = false;

/// macOS has no `pipe2`. A process that another thread makes between the calls keeps both ends open, without use for them.
/// What guards against that: nothing here waits for the end of a pipe alone. A worker's exit is told by a byte and not
/// by an end, and decides; only a worker's own end, when this process is killed, may then come as late as that process's.
pub(super) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    #[expect(clippy::disallowed_methods, reason = "the race that is described above")]
    let (reader, writer) = nix::unistd::pipe()?;
    close_on_exec(&reader)?;
    close_on_exec(&writer)?;
    Ok((reader, writer))
}

pub(super) fn close_on_exec(fd: &OwnedFd) -> io::Result<()> {
    retry(|| fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)))?;
    Ok(())
}

/// Another descriptor for the same thing.
pub(super) fn duplicate(fd: impl AsFd) -> io::Result<Fd> {
    let number = retry(|| fcntl(fd.as_fd(), FcntlArg::F_DUPFD_CLOEXEC(3)))?;
    // SAFETY: the kernel just made this duplicate, and nobody else knows it.
    Ok(Fd::adopt(unsafe { OwnedFd::from_raw_fd(number) }))
}

/// Has a spawned process inherit a descriptor under its own number. What it returns is kept until that process exists.
///
/// Through a duplicate: macOS leaves close-on-exec as it is when a descriptor is duplicated onto itself (XNU's
/// `exec_handle_file_actions` calls dup2(2), and no more).
pub(super) fn pass(actions: &mut PosixSpawnFileActions, fd: &Fd) -> io::Result<Option<Fd>> {
    let spare = duplicate(fd)?;
    actions.add_dup2(spare.raw(), fd.raw())?;
    Ok(Some(spare))
}

/// For sending: a peer that is gone is an error, not a signal. macOS has an option of the socket instead.
#[cfg(target_vendor = "apple")]
pub(super) const NO_SIGNAL: MsgFlags = MsgFlags::empty();
#[cfg(not(target_vendor = "apple"))]
pub(super) const NO_SIGNAL: MsgFlags = MsgFlags::MSG_NOSIGNAL;

#[cfg(target_vendor = "apple")]
pub(super) fn no_sigpipe(socket: &OwnedFd) -> io::Result<()> {
    let yes: c_int = 1;
    let len = size_of::<c_int>() as libc::socklen_t;
    let value = (&raw const yes).cast::<c_void>();
    // SAFETY: the option's value is an integer, which lives on this stack frame.
    match unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NOSIGPIPE,
            value,
            len,
        )
    } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

#[cfg(not(target_vendor = "apple"))]
pub(super) fn no_sigpipe(_: &OwnedFd) -> io::Result<()> {
    Ok(())
}

/// A pipe grows by itself here.
pub(super) fn widen(_: &Fd) {}

/// All is written.
pub(super) fn lend_pages(_: &Fd, _: &[u8]) -> usize {
    0
}

/// The kernel decides.
pub(crate) fn prefer_large_pages(_: &mut Vec<u8>) {}

/// Nobody says how many threads there are, so that `Fork` needs the caller's word.
pub(super) fn count_threads() -> io::Result<usize> {
    let what =
        "this platform does not say; unsafe allow_fork_with_threads(true) takes your word that it is safe";
    Err(io::Error::new(io::ErrorKind::Unsupported, what))
}

/// There is none: a thread waits for each process.
pub(super) fn pidfd(_: Pid) -> Option<OwnedFd> {
    None
}

/// There is none.
pub(super) fn signal_by_pidfd(_: &Fd, _: bool) -> bool {
    false
}

/// Nothing keeps it.
pub(super) fn status_kept_by(_: Option<&Fd>) -> ExitStatus {
    ExitStatus::Unknown
}

/// Kills this process's group when the last writer of the pipe is gone: a thread waits for that. Nothing is ever written
/// to the pipe.
///
/// It is the C library's thread, not std's: in a copy that a fork made, locks of std may be held by threads that the copy
/// does not have. `pthread_create` is not among the calls that POSIX allows there, but the C libraries of these platforms
/// put their own locks in order in a fork.
pub(super) fn die_with_writer(lifeline: Fd) -> io::Result<()> {
    let number = fd::forget(lifeline);
    // The thread takes no signals of the program's: it starts with the mask that it is made under.
    let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let mut thread = MaybeUninit::<libc::pthread_t>::uninit();
    let argument = std::ptr::without_provenance_mut(number as usize);
    // SAFETY: `watch` matches the signature, takes its argument for a number only, and does not unwind. Null: the default
    // attributes.
    let error = unsafe { libc::pthread_create(thread.as_mut_ptr(), std::ptr::null(), watch, argument) };
    mask.thread_set_mask()?;
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    // SAFETY: pthread_create has filled it in.
    let thread = unsafe { thread.assume_init() };
    // SAFETY: the thread was just made and is not joined.
    unsafe { libc::pthread_detach(thread) };
    Ok(())
}

extern "C" fn watch(lifeline: *mut c_void) -> *mut c_void {
    let number = lifeline.addr() as RawFd;
    let mut byte = 0u8;
    loop {
        // SAFETY: the buffer is one byte long, and lives on this stack frame.
        let count = unsafe { libc::read(number, (&raw mut byte).cast(), 1) };
        if count == 0 {
            let _ = nix::sys::signal::killpg(nix::unistd::getpgrp(), Signal::SIGKILL);
            super::worker::exit_now(1);
        }
        if count == -1 && io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            // The task has closed it: then nothing watches the program any more, as on Linux.
            return std::ptr::null_mut();
        }
    }
}

/// Nothing does that here. For the fork server the end of its channel tells.
pub(super) fn die_with_thread(_: c_int, _: Pid) {}

/// What ends a fork server's workers with it: a pipe that only the server can write to.
pub(super) struct Bond {
    reader: Fd,
    _writer: Fd,
}

impl Bond {
    pub(super) fn new() -> io::Result<Bond> {
        let (reader, writer) = fd::pipe()?;
        Ok(Bond {
            reader,
            _writer: writer,
        })
    }

    /// What a worker keeps of it.
    pub(super) fn descriptor(&self) -> Option<RawFd> {
        Some(self.reader.raw())
    }

    /// In a worker, whose copy of the writer is closed.
    pub(super) fn tie(&self) -> io::Result<()> {
        die_with_writer(fd::inherit_own(self.reader.raw()))
    }
}

/// The path that the program was started from. What is there may be another file meanwhile: see [`note_program`].
pub(super) fn file_of_program() -> io::Result<OsString> {
    static PATH: OnceLock<OsString> = OnceLock::new();
    if let Some(path) = PATH.get() {
        return Ok(path.clone());
    }
    let path = std::path::absolute(std::env::current_exe()?)?;
    Ok(PATH.get_or_init(|| path.into()).clone())
}

/// macOS keeps them in a directory service; nix has no call for that.
pub(super) fn groups() -> Vec<u32> {
    Vec::new()
}

/// At the start of the program: takes down its file's path and identity. A file that replaces it later has another
/// identity, so that a worker which runs that one is refused.
pub(super) fn note_program() {
    super::build_id();
}

pub(super) fn is_privileged() -> bool {
    // SAFETY: issetugid has no precondition.
    unsafe { issetugid() != 0 }
}

#[cfg(not(target_os = "linux"))]
use libc::issetugid;

/// Only for tests, under `--cfg inparallel_no_linux`.
#[cfg(target_os = "linux")]
unsafe fn issetugid() -> c_int {
    // SAFETY: getauxval has no precondition.
    unsafe { libc::getauxval(libc::AT_SECURE) as c_int }
}

/// What is known of the running program.
pub(super) struct Image {
    pub(super) build_id: Vec<u8>,
    pub(super) range: (usize, usize),
}

/// Where the program is mapped is not asked for, which each platform tells in its own way: the range is all of memory.
/// What is lost: a task of a loaded library is not told from one of the program, and a distance is not checked before it
/// is followed. That the distance fits is then the build id's word alone.
pub(super) fn image() -> Image {
    Image {
        build_id: super::image::file_identity(),
        range: (0, usize::MAX),
    }
}

pub(super) fn as_raw(fd: &OwnedFd) -> c_int {
    fd.as_raw_fd()
}
