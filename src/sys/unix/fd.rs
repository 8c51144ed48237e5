//! Descriptors that belong to this library, and pipes.
//!
//! All are close-on-exec from birth. A plain fork copies them nevertheless, and a copy of a pipe's write end keeps its
//! reader waiting; so each is entered in a table of bits, from which a forked copy closes what is not its own. The table
//! is atomic: it can be read after a fork, whatever other threads were doing.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};

use super::retry;

/// A descriptor of this library. A fork that makes a worker closes the worker's copy.
#[derive(Debug)]
pub(crate) struct Fd(Option<OwnedFd>);

/// The identity of an open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

/// What reading gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Incoming {
    Bytes(usize),
    NothingYet,
    End,
}

impl Fd {
    /// Enters a descriptor in the table.
    pub(crate) fn adopt(fd: OwnedFd) -> Fd {
        let fd = above_standard(fd);
        mark(fd.as_raw_fd(), true);
        Fd(Some(fd))
    }

    /// Takes it out of the table, for a descriptor that leaves the library.
    pub(crate) fn release(mut self) -> OwnedFd {
        match self.0.take() {
            Some(fd) => {
                mark(fd.as_raw_fd(), false);
                fd
            }
            None => unreachable!("only drop and release empty it"),
        }
    }

    /// Reads what is there, once.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<Incoming> {
        match retry(|| nix::unistd::read(self, buffer)) {
            Ok(0) => Ok(Incoming::End),
            Ok(count) => Ok(Incoming::Bytes(count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Incoming::NothingYet),
            Err(error) => Err(error),
        }
    }

    /// Reads once to the end of `bytes`, into the room that it has, at most `most`. There must be some.
    pub(crate) fn read_more(&self, bytes: &mut Vec<u8>, most: usize) -> io::Result<Incoming> {
        let room = bytes.spare_capacity_mut();
        let len = most.min(room.len());
        let start = room.as_mut_ptr().cast::<libc::c_void>();
        let got = retry(|| {
            // SAFETY: `start` is the beginning of room for `len` bytes, which nobody else sees.
            nix::errno::Errno::result(unsafe { libc::read(self.raw(), start, len) })
        });
        match got {
            Ok(0) => Ok(Incoming::End),
            Ok(count) => {
                let count = usize::try_from(count).unwrap_or(0).min(len);
                let len = bytes.len() + count;
                // SAFETY: the kernel has just written the `count` bytes behind the old length.
                unsafe { bytes.set_len(len) };
                Ok(Incoming::Bytes(count))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Incoming::NothingYet),
            Err(error) => Err(error),
        }
    }

    /// Begins to write `bytes` to the end, for a pipe that blocks, without copying them; how many went, the caller writes
    /// the rest. When that is written, nobody looks at `bytes` any more.
    pub(crate) fn lend_pages(&self, bytes: &[u8]) -> usize {
        super::os::lend_pages(self, bytes)
    }

    /// Writes what fits, once; `None`: nothing fits now.
    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<Option<usize>> {
        match retry(|| nix::unistd::write(self, bytes)) {
            Ok(count) => Ok(Some(count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Lets a pipe hold more, where it can: fewer switches between its ends for the same bytes.
    pub(crate) fn widen(&self) {
        super::os::widen(self);
    }

    /// How many bytes lie in a pipe, for either end of it. Zero where that cannot be known.
    pub(crate) fn unread(&self) -> usize {
        let mut count: libc::c_int = 0;
        // SAFETY: FIONREAD writes one int, and `count` is one.
        let result = unsafe { libc::ioctl(self.raw(), libc::FIONREAD, &raw mut count) };
        if result == 0 {
            usize::try_from(count).unwrap_or(0)
        } else {
            0
        }
    }

    /// Writes two pieces to the end, for a blocking descriptor.
    pub(crate) fn write_all(&self, mut first: &[u8], mut second: &[u8]) -> io::Result<()> {
        while !first.is_empty() || !second.is_empty() {
            let pieces = [io::IoSlice::new(first), io::IoSlice::new(second)];
            let count = retry(|| nix::sys::uio::writev(self, &pieces))?;
            let from_first = count.min(first.len());
            first = &first[from_first..];
            second = &second[count - from_first..];
        }
        Ok(())
    }

    pub(crate) fn set_nonblocking(&self) -> io::Result<()> {
        self.set_blocking(false)
    }

    /// Pipes and sockets of this library have no other flag that could be set.
    pub(crate) fn set_blocking(&self, blocking: bool) -> io::Result<()> {
        let flags = if blocking {
            OFlag::empty()
        } else {
            OFlag::O_NONBLOCK
        };
        retry(|| fcntl(self, FcntlArg::F_SETFL(flags)))?;
        Ok(())
    }

    /// Which file this is, whatever descriptor leads to it.
    pub(crate) fn file_id(&self) -> io::Result<FileId> {
        let stat = nix::sys::stat::fstat(self)?;
        Ok(FileId {
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
        })
    }

    /// Whether a read would not block now.
    pub(crate) fn has_input(&self) -> bool {
        self.has_input_within(Duration::ZERO)
    }

    /// Whether a read would not block, now or within that time. A signal may cut it short, or begin it anew.
    pub(crate) fn has_input_within(&self, limit: Duration) -> bool {
        let mut fds = [nix::poll::PollFd::new(self.as_fd(), nix::poll::PollFlags::POLLIN)];
        let limit = nix::poll::PollTimeout::try_from(limit).unwrap_or(nix::poll::PollTimeout::MAX);
        retry(|| nix::poll::poll(&mut fds, limit)).is_ok_and(|count| count > 0)
    }

    pub(super) fn raw(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl AsFd for Fd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Some(fd) => fd.as_fd(),
            None => unreachable!("only drop and release empty it"),
        }
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        if let Some(fd) = self.0.take() {
            // Out of the table first: once closed, the number may be somebody else's.
            mark(fd.as_raw_fd(), false);
            drop(fd);
        }
    }
}

/// A pipe: the end to read and the end to write.
pub(crate) fn pipe() -> io::Result<(Fd, Fd)> {
    let (reader, writer) = super::os::pipe()?;
    Ok((Fd::adopt(reader), Fd::adopt(writer)))
}

/// `/dev/null`, for both directions.
pub(super) fn null() -> io::Result<OwnedFd> {
    open_null().map(above_standard)
}

fn open_null() -> io::Result<OwnedFd> {
    retry(|| {
        nix::fcntl::open(
            "/dev/null",
            OFlag::O_RDWR | OFlag::O_CLOEXEC,
            nix::sys::stat::Mode::empty(),
        )
    })
}

/// Fills the lowest number that is free with `/dev/null`, if it is a standard descriptor's; which one that is.
pub(super) fn null_at_lowest() -> io::Result<RawFd> {
    let null = open_null()?;
    let number = null.as_raw_fd();
    if number <= 2 {
        // It stays for the life of the process, and is inherited like any standard descriptor.
        let number = null.into_raw_fd();
        // SAFETY: the number was just opened and stays open.
        let null = unsafe { BorrowedFd::borrow_raw(number) };
        retry(|| fcntl(null, FcntlArg::F_SETFD(FdFlag::empty())))?;
    }
    Ok(number)
}

/// In a program that closed a standard descriptor, a new one may get its number, where everybody prints to. Moved away.
pub(super) fn above_standard(fd: OwnedFd) -> OwnedFd {
    if fd.as_raw_fd() > 2 {
        return fd;
    }
    match retry(|| fcntl(&fd, FcntlArg::F_DUPFD_CLOEXEC(3))) {
        // SAFETY: the kernel just made this duplicate, and nobody else knows it.
        Ok(number) => unsafe { OwnedFd::from_raw_fd(number) },
        // Out of descriptors: the next call says so.
        Err(_) => fd,
    }
}

/// Takes over an inherited descriptor by its number, if it is one that nobody here owns.
///
/// # Errors
///
/// There is no such descriptor, or it is neither a pipe nor a socket.
pub(super) fn inherit(number: RawFd) -> io::Result<Fd> {
    if number <= 2 || is_marked(number) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not an inherited descriptor",
        ));
    }
    // SAFETY: the number is only used for this call, which fails for one that is not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    let kind = nix::sys::stat::fstat(borrowed)?.st_mode & libc::S_IFMT;
    if kind != libc::S_IFIFO && kind != libc::S_IFSOCK {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "neither a pipe nor a socket",
        ));
    }
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    // SAFETY: it is open, it was inherited before `main` by a process whose environment hands it over, and it is not
    // in the table of those that have an owner here.
    let owned = unsafe { OwnedFd::from_raw_fd(number) };
    Ok(Fd::adopt(owned))
}

/// In a forked copy, whose owners are gone: takes charge of a descriptor that was kept.
pub(super) fn inherit_own(number: RawFd) -> Fd {
    // SAFETY: the number was in the table and was kept by `close_all_but`; its owner in the copy is never dropped.
    Fd(Some(unsafe { OwnedFd::from_raw_fd(number) }))
}

/// In a forked copy: closes every descriptor of the library but those to keep. The owners of the others were threads
/// that do not exist in the copy, or values that the copy never drops.
///
/// Calls only `close`, which is async-signal-safe.
pub(super) fn close_all_but(keep: &[RawFd]) {
    let words = HIGHEST.load(Ordering::Relaxed) / 64 + 1;
    for (index, word) in TABLE.iter().enumerate().take(words) {
        let mut bits = word.load(Ordering::Relaxed);
        while bits != 0 {
            let number = (index * 64) as RawFd + bits.trailing_zeros() as RawFd;
            bits &= bits - 1;
            if !keep.contains(&number) {
                word.fetch_and(!(1 << (number % 64)), Ordering::Relaxed);
                // SAFETY: the number is in the table, so it is a descriptor of the library whose owner is gone.
                unsafe { libc::close(number) };
            }
        }
    }
}

/// In a process that was just executed: closes everything but the standard descriptors and `keep`.
pub(super) fn close_all_others(keep: &[RawFd]) {
    let listed = std::fs::read_dir("/dev/fd").into_iter().flatten().flatten();
    let numbers: Vec<RawFd> = listed
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    for number in numbers
        .into_iter()
        .filter(|number| *number > 2 && !keep.contains(number))
    {
        // SAFETY: no code of this process has opened anything yet but for `keep`. The listing's own descriptor is closed
        // already, which makes the call fail.
        unsafe { libc::close(number) };
    }
}

/// Gives up ownership where the process is about to be replaced or ended.
pub(super) fn forget(fd: Fd) -> RawFd {
    fd.release().into_raw_fd()
}

/// Enters a descriptor in the table, or takes it out.
pub(super) fn mark(number: RawFd, own: bool) {
    let number = number as usize;
    let Some(word) = TABLE.get(number / 64) else {
        return;
    };
    let bit = 1 << (number % 64);
    if own {
        word.fetch_or(bit, Ordering::Relaxed);
        HIGHEST.fetch_max(number, Ordering::Relaxed);
    } else {
        word.fetch_and(!bit, Ordering::Relaxed);
    }
}

fn is_marked(number: RawFd) -> bool {
    TABLE
        .get(number as usize / 64)
        .is_some_and(|word| word.load(Ordering::Relaxed) & (1 << (number % 64)) != 0)
}

/// One bit for each descriptor number up to Linux's default `fs.nr_open`. Untouched pages cost nothing.
static TABLE: [AtomicU64; 1 << 14] = [const { AtomicU64::new(0) }; 1 << 14];

/// The highest number that was ever entered.
static HIGHEST: AtomicUsize = AtomicUsize::new(0);
