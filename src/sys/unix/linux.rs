//! Linux's own ways beside `epoll.rs` and `seqpacket.rs`: pidfds, `/proc`, signals on pipes, the ELF image.

use std::ffi::{CString, OsString, c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::fcntl::OFlag;
use nix::spawn::PosixSpawnFileActions;
use nix::unistd::Pid;

use super::{Fd, retry};
use crate::sys::ExitStatus;

pub(crate) const FORK_SERVER_IS_DEFAULT: bool = true;

pub(super) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(OFlag::O_CLOEXEC)?)
}

/// Has a spawned process inherit a descriptor under its own number. What it returns is kept until that process exists.
pub(super) fn pass(actions: &mut PosixSpawnFileActions, fd: &Fd) -> io::Result<Option<Fd>> {
    // Onto itself: this is how close-on-exec is cleared in the new process alone.
    actions.add_dup2(fd.raw(), fd.raw())?;
    Ok(None)
}

/// The limit of the system, or of the user, may forbid it; the pipe is then as wide as before.
pub(super) fn widen(pipe: &Fd) {
    let _ = nix::fcntl::fcntl(pipe, nix::fcntl::FcntlArg::F_SETPIPE_SZ(WIDE_PIPE));
}

/// Puts pages of `bytes` into a pipe as they are (vmsplice(2)), and leaves as much to be copied as the pipe is wide.
///
/// The pipe refers to the pages until they are read. It is a ring of places for one page each, so that once a ring's worth
/// of copies has gone in behind them, they have been read: who has written the rest may do with the bytes what it likes.
pub(super) fn lend_pages(pipe: &Fd, bytes: &[u8]) -> usize {
    let width = nix::fcntl::fcntl(pipe, nix::fcntl::FcntlArg::F_GETPIPE_SZ);
    let width = width.ok().and_then(|width| usize::try_from(width).ok());
    let Some(most) = width.and_then(|width| bytes.len().checked_sub(width)) else {
        return 0;
    };
    let mut sent = 0;
    while sent < most {
        let pages = [io::IoSlice::new(&bytes[sent..most])];
        match retry(|| nix::fcntl::vmsplice(pipe, &pages, nix::fcntl::SpliceFFlags::empty())) {
            Ok(count) if count > 0 => sent += count,
            // The write that follows does it all, or says what is wrong.
            _ => break,
        }
    }
    sent
}

/// Has the kernel give the unused part of a large buffer pages of 2 MiB: thousands of faults less.
pub(crate) fn prefer_large_pages(bytes: &mut Vec<u8>) {
    let room = bytes.spare_capacity_mut();
    let start = (room.as_ptr() as usize).next_multiple_of(PAGE);
    let end = (room.as_ptr() as usize + room.len()) / PAGE * PAGE;
    if end.saturating_sub(start) < 2 * LARGE_PAGE {
        return;
    }
    // SAFETY: the range lies inside of memory that the vector owns. The advice changes no contents, and is void where the
    // kernel does not know it.
    unsafe { libc::madvise(start as *mut c_void, end - start, libc::MADV_HUGEPAGE) };
}

/// On some machines pages are larger; then the advice fails for a range that does not begin with one, and nothing is lost.
const PAGE: usize = 4096;
const LARGE_PAGE: usize = 2 << 20;

/// What anybody may have by default (`/proc/sys/fs/pipe-max-size`).
const WIDE_PIPE: c_int = 1 << 20;

/// How many threads this process has.
pub(super) fn count_threads() -> io::Result<usize> {
    // The link count of a directory is two more than its folders, and /proc keeps to that for the threads.
    Ok((nix::sys::stat::stat("/proc/self/task")?.st_nlink as usize).saturating_sub(2))
}

/// A descriptor that becomes readable when the process ends. `None`: this kernel has none.
pub(super) fn pidfd(pid: Pid) -> Option<OwnedFd> {
    if cfg!(inparallel_no_pidfd) {
        return None;
    }
    // SAFETY: pidfd_open takes two integers and touches no memory.
    let number = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let number = c_int::try_from(number).ok().filter(|number| *number >= 0)?;
    // SAFETY: the kernel just gave out this number, close-on-exec, and nobody else knows it.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Signals the group of the process, and the process itself, which may not have made its group yet. False: this kernel
/// cannot do that (before Linux 6.9).
pub(super) fn signal_by_pidfd(pidfd: &Fd, kill: bool) -> bool {
    let send = |signal: c_int, flags: libc::c_uint| {
        let none = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: the call takes integers, and a null pointer for "as kill(2) would".
        let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.raw(), signal, none, flags) };
        // That nobody is left is what is wanted.
        result == 0 || io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH)
    };
    let signal = if kill { libc::SIGKILL } else { libc::SIGTERM };
    if !send(signal, PIDFD_SIGNAL_PROCESS_GROUP) {
        return false;
    }
    if kill {
        send(signal, 0);
    } else {
        // A stopped process does not notice that it is asked to end.
        send(libc::SIGCONT, PIDFD_SIGNAL_PROCESS_GROUP);
    }
    true
}

/// `linux/pidfd.h`.
const PIDFD_SIGNAL_PROCESS_GROUP: libc::c_uint = 1 << 2;

/// The status of a process that somebody else reaped, where the kernel keeps it (since Linux 6.15).
pub(super) fn status_kept_by(pidfd: Option<&Fd>) -> ExitStatus {
    let Some(pidfd) = pidfd else {
        return ExitStatus::Unknown;
    };
    let mut info = PidfdInfo {
        mask: PIDFD_INFO_EXIT,
        ..PidfdInfo::default()
    };
    // SAFETY: the request says that the argument is a `PidfdInfo` of this size, to be read and written.
    let result = unsafe { libc::ioctl(pidfd.raw(), PIDFD_GET_INFO, (&raw mut info).cast::<c_void>()) };
    if result == 0 && info.mask & PIDFD_INFO_EXIT != 0 {
        return super::process::status_of(info.exit_code);
    }
    ExitStatus::Unknown
}

/// `struct pidfd_info` of `linux/pidfd.h`, its first published size.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroupid: u64,
    ids: [u32; 11],
    exit_code: i32,
}

const PIDFD_INFO_EXIT: u64 = 1 << 3;

/// `_IOWR(0xFF, 11, struct pidfd_info)`.
const PIDFD_GET_INFO: libc::Ioctl =
    ((3 << 30) | ((size_of::<PidfdInfo>() as u32) << 16) | (0xff << 8) | 11) as libc::Ioctl;

/// Has the kernel kill this process's group when the last writer of the pipe is gone.
///
/// A pipe signals its reader when the other side closes for good; both the signal and who gets it can be chosen
/// (fcntl(2), F_SETSIG and F_SETOWN). It needs no thread, and does not depend on which thread made the process, as
/// PR_SET_PDEATHSIG does. Nothing is ever written to the pipe.
pub(super) fn die_with_writer(lifeline: Fd) -> io::Result<()> {
    let number = super::fd::forget(lifeline);
    // SAFETY: F_SETSIG takes an integer.
    check(unsafe { libc::fcntl(number, F_SETSIG, libc::SIGKILL) })?;
    // SAFETY: getpgrp has no precondition.
    let group = unsafe { libc::getpgrp() };
    // SAFETY: F_SETOWN takes an integer; a negative one means a process group.
    check(unsafe { libc::fcntl(number, libc::F_SETOWN, -group) })?;
    // SAFETY: F_SETFL takes an integer.
    check(unsafe { libc::fcntl(number, libc::F_SETFL, libc::O_ASYNC | libc::O_NONBLOCK) })?;
    // The writer may have gone before the signal was armed: then the end is there to be read.
    let mut byte = 0u8;
    // SAFETY: the buffer is one byte long, and lives on this stack frame.
    if unsafe { libc::read(number, (&raw mut byte).cast::<c_void>(), 1) } == 0 {
        super::worker::exit_now(1);
    }
    Ok(())
}

/// Has the kernel kill this process when the thread that made it ends; `parent` must still be that process.
pub(super) fn die_with_thread(signal: c_int, parent: Pid) {
    // SAFETY: PR_SET_PDEATHSIG takes an integer. It cannot fail for a valid signal.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) };
    if nix::unistd::getppid() != parent {
        super::worker::exit_now(1);
    }
}

/// What ends a fork server's workers with it: a pipe that only the server can write to, as for other workers, and a signal
/// at the end of the thread that made them, which reaches the leader of a group alone.
pub(super) struct Bond {
    server: Pid,
    reader: Fd,
    _writer: Fd,
    /// Where a worker finds the reader, to open it anew: who gets the signal is a matter of each opening.
    path: CString,
}

impl Bond {
    pub(super) fn new() -> io::Result<Bond> {
        let (reader, writer) = super::pipe()?;
        let path = CString::new(format!("/proc/self/fd/{}", reader.raw()))?;
        Ok(Bond {
            server: nix::unistd::getpid(),
            reader,
            _writer: writer,
            path,
        })
    }

    /// What a worker keeps of it.
    pub(super) fn descriptor(&self) -> Option<RawFd> {
        Some(self.reader.raw())
    }

    /// In a worker, whose copy of the writer is closed.
    pub(super) fn tie(&self) -> io::Result<()> {
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let opened = retry(|| nix::fcntl::open(self.path.as_c_str(), flags, nix::sys::stat::Mode::empty()));
        drop(super::fd::inherit_own(self.reader.raw()));
        // Without /proc the signal has to do.
        if let Ok(reader) = opened {
            die_with_writer(Fd::adopt(reader))?;
        }
        die_with_thread(libc::SIGKILL, self.server);
        Ok(())
    }
}

/// The file that is running, even if its path is gone.
pub(super) fn file_of_program() -> io::Result<OsString> {
    let path = OsString::from("/proc/self/exe");
    match std::fs::symlink_metadata(&path) {
        Ok(_) => Ok(path),
        Err(_) => std::env::current_exe().map(Into::into),
    }
}

/// The supplementary groups. Not by nix's function, which reads a file of /proc for how many there may be.
pub(super) fn groups() -> Vec<u32> {
    // SAFETY: a size of zero only asks for the count.
    let count = unsafe { libc::getgroups(0, std::ptr::null_mut()) };
    let mut groups = vec![0; usize::try_from(count).unwrap_or(0)];
    // SAFETY: the buffer has room for as many groups as its length says.
    let count = unsafe { libc::getgroups(groups.len() as c_int, groups.as_mut_ptr()) };
    groups.truncate(usize::try_from(count).unwrap_or(0));
    groups
}

/// Nothing to do at the start: the running file is found at any time.
pub(super) fn note_program() {}

pub(super) fn is_privileged() -> bool {
    // SAFETY: getauxval reads what the kernel put above the stack at start.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// What is known of the running program.
pub(super) struct Image {
    pub(super) build_id: Vec<u8>,
    pub(super) range: (usize, usize),
}

pub(super) fn image() -> Image {
    let mut image = Image {
        build_id: Vec::new(),
        range: (0, 0),
    };
    // SAFETY: the callback gets `image` back as its third argument and is not called after this returns.
    unsafe { libc::dl_iterate_phdr(Some(first_object), (&raw mut image).cast()) };
    if image.build_id.is_empty() {
        image.build_id = super::image::file_identity();
    }
    image
}

/// The first object is the program itself; returning non-zero ends the walk.
unsafe extern "C" fn first_object(object: *mut libc::dl_phdr_info, _: usize, image: *mut c_void) -> c_int {
    // SAFETY: dl_iterate_phdr passes a valid object.
    let object = unsafe { &*object };
    // SAFETY: the third argument is the `Image` that `image` above passed.
    let image = unsafe { &mut *image.cast::<Image>() };
    // SAFETY: the loader keeps `dlpi_phnum` headers at `dlpi_phdr`.
    let headers = unsafe { std::slice::from_raw_parts(object.dlpi_phdr, usize::from(object.dlpi_phnum)) };
    let base = object.dlpi_addr as usize;
    let (mut start, mut end) = (usize::MAX, 0);
    for header in headers {
        let from = base.wrapping_add(header.p_vaddr as usize);
        let size = header.p_memsz as usize;
        match header.p_type {
            libc::PT_LOAD => {
                start = start.min(from);
                end = end.max(from + size);
            }
            libc::PT_NOTE => {
                // SAFETY: a note segment of the running program is loaded and readable in its whole length.
                let notes = unsafe { std::slice::from_raw_parts(from as *const u8, size) };
                if let Some(id) = build_id_in(notes, header.p_align as usize) {
                    image.build_id = id.to_vec();
                }
            }
            _ => {}
        }
    }
    image.range = (start.min(end), end);
    1
}

/// The descriptor of the note `GNU`, type 3.
fn build_id_in(mut notes: &[u8], align: usize) -> Option<&[u8]> {
    let align = if align == 8 { 8 } else { 4 };
    while let Some((header, rest)) = notes.split_first_chunk::<12>() {
        let word =
            |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (name_len, len, kind) = (word(0) as usize, word(4) as usize, word(8));
        let name_end = name_len.next_multiple_of(align);
        let name = rest.get(..name_len)?;
        let content = rest.get(name_end..name_end + len)?;
        if kind == 3 && name == b"GNU\0" {
            return Some(content);
        }
        notes = rest.get(name_end + len.next_multiple_of(align)..)?;
    }
    None
}

fn check(result: c_int) -> io::Result<()> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Raises the count of an eventfd.
pub(super) fn ring(fd: &Fd) {
    let one = 1u64.to_ne_bytes();
    // A full counter means that the bell rings already.
    let _ = retry(|| nix::unistd::write(fd, &one));
}

/// `F_SETSIG` of `asm-generic/fcntl.h`; the libc crate has it for some targets only.
const F_SETSIG: c_int = 10;

pub(super) fn as_raw(fd: &OwnedFd) -> c_int {
    fd.as_raw_fd()
}
