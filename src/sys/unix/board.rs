//! Boards on Linux: sealed memory without a name, and sleeping on it.

use std::ffi::{c_int, c_long};
use std::io;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, mmap_anonymous, munmap};
use nix::sys::stat::{Mode, fstat};

use super::{Fd, retry};
use crate::ids::BoardName;
use crate::sys::{Board, Word};

/// A mapping of a board; the other side has one of its own.
#[derive(Debug)]
pub(crate) struct SharedBoard(NonNull<Board>);

// SAFETY: a board is atomic numbers, which any thread may use at any time, and the mapping lives until it is dropped.
unsafe impl Send for SharedBoard {}
// SAFETY: as above.
unsafe impl Sync for SharedBoard {}

impl SharedBoard {
    /// Makes one. The descriptor has to stay open until the worker has opened it by its name.
    pub(crate) fn new() -> io::Result<(SharedBoard, Fd, BoardName)> {
        let (board, fd) = SharedBoard::with_fd()?;
        let name = BoardName {
            pid: std::process::id(),
            descriptor: fd.raw(),
            inode: fstat(&fd)?.st_ino,
        };
        Ok((board, fd, name))
    }

    /// Makes one for a worker that gets the descriptor.
    pub(crate) fn with_fd() -> io::Result<(SharedBoard, Fd)> {
        if cfg!(inparallel_no_pidfd) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let fd = Fd::adopt(memfd_create("inparallel", flags)?);
        nix::unistd::ftruncate(&fd, size_of::<Board>() as i64)?;
        // A worker that could make it shorter could end the program with a signal.
        fcntl(&fd, FcntlArg::F_ADD_SEALS(SEALS))?;
        Ok((SharedBoard::map(&fd)?, fd))
    }

    /// Opens the one that a program has made. An error where it cannot be reached: calls then go through the pipe.
    pub(crate) fn open(name: &BoardName) -> io::Result<SharedBoard> {
        let path = format!("/proc/{}/fd/{}", name.pid, name.descriptor);
        let fd: OwnedFd =
            retry(|| nix::fcntl::open(path.as_str(), OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()))?;
        if fstat(&fd)?.st_ino != name.inode {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "another file has the board's number",
            ));
        }
        SharedBoard::map_checked(&fd)
    }

    /// Opens the one whose descriptor a program has sent.
    pub(crate) fn of_fd(fd: &Fd) -> io::Result<SharedBoard> {
        SharedBoard::map_checked(fd)
    }

    fn map_checked(fd: impl AsFd) -> io::Result<SharedBoard> {
        let seals = fcntl(&fd, FcntlArg::F_GET_SEALS)?;
        let is_it = fstat(&fd)?.st_size == size_of::<Board>() as i64 && seals & SEALS.bits() == SEALS.bits();
        match is_it {
            true => SharedBoard::map(fd),
            false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no board")),
        }
    }

    fn map(fd: impl AsFd) -> io::Result<SharedBoard> {
        let len = NonZeroUsize::new(size_of::<Board>()).ok_or(io::ErrorKind::InvalidInput)?;
        let rw = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the kernel chooses the place, so that nothing is replaced; the file is as long as the mapping, and
        // sealed against becoming shorter.
        let start = unsafe { mmap(None, len, rw, MapFlags::MAP_SHARED, fd, 0) }?;
        Ok(SharedBoard(start.cast()))
    }
}

impl Deref for SharedBoard {
    type Target = Board;

    fn deref(&self) -> &Board {
        // SAFETY: the mapping has the size of a board, begins at a page, and lives as long as this value. A board is
        // atomic numbers only, for which any bits are valid, also while another process writes them.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for SharedBoard {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and nothing borrows from it any more. In a fork it is the copy's own.
        let _ = unsafe { munmap(self.0.cast(), size_of::<Board>()) };
    }
}

/// A mark that a forked copy of this process does not have, however it was made.
#[derive(Debug)]
pub(crate) struct ForkMark(NonNull<AtomicU32>);

// SAFETY: the mark is an atomic number in a mapping that lives until it is dropped.
unsafe impl Send for ForkMark {}
// SAFETY: as above.
unsafe impl Sync for ForkMark {}

impl ForkMark {
    pub(crate) fn new() -> io::Result<ForkMark> {
        let len = NonZeroUsize::new(size_of::<AtomicU32>()).ok_or(io::ErrorKind::InvalidInput)?;
        let rw = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the kernel chooses the place, so that nothing is replaced.
        let start = unsafe { mmap_anonymous(None, len, rw, MapFlags::MAP_PRIVATE) }?;
        let mark = ForkMark(start.cast());
        // SAFETY: the range is the mapping above, whose content in a copy nobody relies on but this mark.
        unsafe { madvise(start, len.get(), MmapAdvise::MADV_WIPEONFORK) }?;
        mark.word().store(1, Ordering::Relaxed);
        Ok(mark)
    }

    /// Whether this process is such a copy.
    pub(crate) fn is_copy(&self) -> bool {
        self.word().load(Ordering::Relaxed) == 0
    }

    fn word(&self) -> &AtomicU32 {
        // SAFETY: the mapping begins at a page, is longer than a number, and lives as long as this value.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for ForkMark {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own.
        let _ = unsafe { munmap(self.0.cast(), size_of::<AtomicU32>()) };
    }
}

/// Sleeps until one of two numbers is not what it was seen to be and somebody says so, or the deadline passes; or for no
/// reason. The first may be shared with another process; the second is this process's own.
pub(crate) fn sleep_on_words(
    shared: (&Word, u32),
    own: (&Word, u32),
    deadline: Option<Instant>,
) -> io::Result<()> {
    if cfg!(inparallel_no_pidfd) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let waiter = |(word, seen): (&Word, u32), flags| Waiter {
        value: u64::from(seen),
        address: std::ptr::from_ref(word) as u64,
        flags: FUTEX_32 | flags,
        reserved: 0,
    };
    let waiters = [waiter(shared, 0), waiter(own, FUTEX_PRIVATE)];
    let until = deadline.map(|deadline| {
        let left = deadline.saturating_duration_since(Instant::now());
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
            .map_or(Duration::ZERO, Duration::from);
        let until = now.saturating_add(left);
        timespec(until)
    });
    let until = until.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the waiters and the time are valid for the whole call, and so are the words that they name: both borrowed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_futex_waitv,
            waiters.as_ptr(),
            waiters.len(),
            0,
            until,
            libc::CLOCK_MONOTONIC,
        )
    };
    slept(result)
}

/// Sleeps until a number that is shared with another process is not what it was seen to be and somebody says so, or the limit
/// has passed; or for no reason.
pub(crate) fn sleep_on_shared(word: &Word, seen: u32, limit: Option<Duration>) -> io::Result<()> {
    let limit = limit.map(timespec);
    let limit = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let word = std::ptr::from_ref(word);
    // SAFETY: the word and the time are valid for the whole call: both live in or above this function.
    slept(unsafe { libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAIT, seen, limit) })
}

fn timespec(time: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: libc::time_t::try_from(time.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: c_long::from(time.subsec_nanos()),
    }
}

/// What a system call says in which a thread sleeps on numbers.
fn slept(result: c_long) -> io::Result<()> {
    match result {
        -1 => match io::Error::last_os_error() {
            // Another value, a signal, or the end of the time: the caller looks again.
            error
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EAGAIN | libc::EINTR | libc::ETIMEDOUT)
                ) =>
            {
                Ok(())
            }
            error => Err(error),
        },
        _ => Ok(()),
    }
}

/// The number of the core that this thread runs on, for now.
pub(crate) fn core() -> u32 {
    nix::sched::sched_getcpu().map_or(0, |core| core as u32)
}

/// Wakes who sleeps on a number that is shared with another process.
pub(crate) fn wake_shared(word: &Word) {
    wake(word, libc::FUTEX_WAKE);
}

/// Wakes who sleeps on a number of this process.
pub(crate) fn wake_own(word: &Word) {
    wake(word, libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG);
}

fn wake(word: &Word, operation: c_int) {
    let word = std::ptr::from_ref(word);
    // SAFETY: waking takes an address that is only compared with those of sleepers.
    unsafe { libc::syscall(libc::SYS_futex, word, operation, c_int::MAX) };
}

/// `struct futex_waitv` of `linux/futex.h`.
#[repr(C)]
struct Waiter {
    value: u64,
    address: u64,
    flags: u32,
    reserved: u32,
}

const FUTEX_32: u32 = 2;
const FUTEX_PRIVATE: u32 = 128;
const SEALS: SealFlag = SealFlag::F_SEAL_SHRINK
    .union(SealFlag::F_SEAL_GROW)
    .union(SealFlag::F_SEAL_SEAL);
