//! Memory that processes share: Linux's memfd, with seals that say what nobody can do to it any more.
//!
//! Another process finds it below `/proc/<owner>/fd`, which needs no channel that could carry descriptors, and the rights to
//! look into the owner.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;

use nix::fcntl::{FallocateFlags, FcntlArg, OFlag, SealFlag, fallocate, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, munmap};
use nix::sys::stat::{Mode, fstat};

use super::retry;
use crate::sys::Address;

/// Memory in a file without a name. It has a descriptor, which a forked copy keeps: nobody waits for its end.
#[derive(Debug)]
pub(crate) struct Memory {
    file: File,
    map: Option<Map>,
    /// How much of it means something.
    len: usize,
    /// Of the process that may write, if this one may.
    writer: Option<u64>,
    /// The file of another process, which may write other bytes to it when it gets it back: device and inode.
    lent: Option<(u64, u64)>,
}

#[derive(Debug)]
struct Map {
    start: NonNull<u8>,
    len: NonZeroUsize,
}

// SAFETY: a mapping belongs to the process, not to a thread.
unsafe impl Send for Map {}
// SAFETY: through a shared reference it is only read.
unsafe impl Sync for Map {}

impl Memory {
    /// A copy of `bytes` that nobody can ever change.
    pub(crate) fn fixed(bytes: &[u8]) -> io::Result<Memory> {
        let file = create(FIXED)?;
        file.write_all_at(bytes, 0)?;
        Memory::fix(file, bytes.len())
    }

    /// Memory that `fill` writes, and that nobody can change afterwards.
    pub(crate) fn filled(len: usize, fill: impl FnOnce(&mut [u8])) -> io::Result<Memory> {
        let file = create(FIXED)?;
        // All of it now: where there is too little, a write to the mapping would be a signal.
        retry(|| fallocate(&file, FallocateFlags::empty(), 0, len as i64))?;
        let mut map = Map::new(&file, len, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)?;
        fill(map.as_mut());
        drop(map);
        Memory::fix(file, len)
    }

    fn fix(file: File, len: usize) -> io::Result<Memory> {
        seal(&file, SIZE_IS_FIXED | SealFlag::F_SEAL_WRITE)?;
        let map = Map::new(&file, len, ProtFlags::PROT_READ)?;
        Ok(Memory {
            file,
            map: Some(map),
            len,
            writer: None,
            lent: None,
        })
    }

    /// A copy of `bytes` that this process alone can change: see [`rewrite`](Memory::rewrite).
    pub(crate) fn rewritable(bytes: &[u8]) -> io::Result<Memory> {
        let file = create(REWRITABLE)?;
        // Cheaper than by a mapping, whose every page would be a fault.
        file.write_all_at(bytes, 0)?;
        let map = Map::new(&file, bytes.len(), ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)?;
        seal(&file, SIZE_IS_FIXED | SealFlag::F_SEAL_FUTURE_WRITE)?;
        Ok(Memory {
            file,
            map: Some(map),
            len: bytes.len(),
            writer: Some(super::generation()),
            lent: None,
        })
    }

    /// Puts other bytes in the place of those that are there; false: it cannot hold them, or is not this process's.
    pub(crate) fn rewrite(&mut self, bytes: &[u8]) -> bool {
        let is_ours = self.writer == Some(super::generation());
        match &mut self.map {
            Some(map) if is_ours && bytes.len() <= map.len.get() => {
                map.as_mut()[..bytes.len()].copy_from_slice(bytes);
                self.len = bytes.len();
                true
            }
            _ => false,
        }
    }

    /// How much it can hold.
    pub(crate) fn room(&self) -> usize {
        self.map.as_ref().map_or(0, |map| map.len.get())
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.map.as_ref().map_or(&[], |map| &map.as_ref()[..self.len])
    }

    /// Where another process finds it, as long as it is here.
    pub(crate) fn address(&self) -> io::Result<Address> {
        let stat = fstat(&self.file)?;
        Ok(Address {
            pid: std::process::id(),
            number: std::os::fd::AsRawFd::as_raw_fd(&self.file),
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
            len: self.len as u64,
        })
    }

    /// Opens that of another process, to be read.
    ///
    /// # Errors
    ///
    /// It cannot be reached, is another file, or is one that could become shorter while it is mapped: touching what is not
    /// there any more would be a signal.
    pub(crate) fn open(address: &Address) -> io::Result<Memory> {
        let path = format!("/proc/{}/fd/{}", address.pid, address.number);
        // Should something else have the number by now, opening must neither wait nor do anything.
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let fd = retry(|| nix::fcntl::open(path.as_str(), flags, Mode::empty()))?;
        let file = File::from(super::fd::above_standard(fd));
        let stat = fstat(&file)?;
        let is_it = stat.st_mode & libc::S_IFMT == libc::S_IFREG
            && stat.st_dev as u64 == address.device
            && stat.st_ino as u64 == address.inode;
        // Only a memfd, or another file of that file system, has seals.
        let seals = fcntl(&file, FcntlArg::F_GET_SEALS).map(SealFlag::from_bits_retain);
        let cannot_shrink = seals.is_ok_and(|seals| {
            seals.contains(SealFlag::F_SEAL_SHRINK)
                && seals.intersects(SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_FUTURE_WRITE)
        });
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        if !is_it || !cannot_shrink || address.len > size {
            let what = "not the memory that is meant";
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        let len = usize::try_from(address.len).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let map = Map::new(&file, len, ProtFlags::PROT_READ)?;
        let is_fixed = seals.is_ok_and(|seals| seals.contains(SealFlag::F_SEAL_WRITE));
        Ok(Memory {
            file,
            map: Some(map),
            len,
            writer: None,
            lent: (!is_fixed).then_some((address.device, address.inode)),
        })
    }

    /// Nobody here looks at it for now. False: it is not worth keeping for [`open_again`](Memory::open_again).
    pub(crate) fn set_aside(&self) -> bool {
        // A copy of this process must not see what others write to it meanwhile.
        self.lent.is_some() && self.advise(MmapAdvise::MADV_DONTFORK)
    }

    /// As [`open`](Memory::open), with what was set aside; false: it is another.
    pub(crate) fn open_again(&mut self, address: &Address) -> bool {
        let is_it = self.lent == Some((address.device, address.inode))
            && usize::try_from(address.len).is_ok_and(|len| (1..=self.room()).contains(&len));
        // The file cannot be another while it is open here.
        if is_it && self.advise(MmapAdvise::MADV_DOFORK) {
            self.len = address.len as usize;
            return true;
        }
        false
    }

    fn advise(&self, advice: MmapAdvise) -> bool {
        self.map.as_ref().is_some_and(|map| {
            // SAFETY: the mapping is ours, and what a fork does with it changes nothing here.
            unsafe { madvise(map.start.cast(), map.len.get(), advice) }.is_ok()
        })
    }
}

impl Map {
    fn new(file: &File, len: usize, access: ProtFlags) -> io::Result<Map> {
        let len = NonZeroUsize::new(len).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping, at a place that the kernel chooses. The file cannot become shorter: sealed, or known to
        // this process alone until it is.
        let start = unsafe { mmap(None, len, access, MapFlags::MAP_SHARED, file.as_fd(), 0) }?;
        Ok(Map {
            start: start.cast(),
            len,
        })
    }

    fn as_ref(&self) -> &[u8] {
        // SAFETY: mapped and readable in this length for as long as `self` lives. Nobody changes it meanwhile: only its
        // maker can, which does so by a `&mut` of its own, and for other processes only once they have let go of it, or
        // set it aside.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len.get()) }
    }

    /// Of a mapping that may be written.
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above; it was mapped with that right, by this process and not by one that this is a copy of.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len.get()) }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nobody has a reference into it any more.
        let unmapped = unsafe { munmap(self.start.cast(), self.len.get()) };
        debug_assert!(unmapped.is_ok(), "a mapping of ours can be undone");
    }
}

/// The name is seen in lists of descriptors.
fn create(name: &str) -> io::Result<File> {
    let fd: OwnedFd = retry(|| memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING))?;
    Ok(File::from(super::fd::above_standard(fd)))
}

fn seal(file: &File, seals: SealFlag) -> io::Result<()> {
    retry(|| fcntl(file, FcntlArg::F_ADD_SEALS(seals | SealFlag::F_SEAL_SEAL)))?;
    Ok(())
}

/// Whether a process has the rights of this one, as far as they decide what it can open: then it can look at all that this
/// one has open, at any time.
pub(crate) fn has_our_rights(pid: u32) -> bool {
    let rights = |process: &str| {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let space = std::fs::read_link(format!("/proc/{process}/ns/user")).ok()?;
        let lines = status.lines().filter(|line| {
            let name = line.split(':').next().unwrap_or_default();
            ["Uid", "Gid", "CapEff", "NoNewPrivs", "Seccomp"].contains(&name)
        });
        Some((lines.map(str::to_owned).collect::<Vec<_>>(), space))
    };
    let ours = rights("self");
    ours.is_some() && ours == rights(&pid.to_string())
}

const FIXED: &str = "inparallel";
const REWRITABLE: &str = "inparallel-arguments";

const SIZE_IS_FIXED: SealFlag = SealFlag::F_SEAL_SHRINK.union(SealFlag::F_SEAL_GROW);

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
