//! Memory: what a fork has to copy the tables of, and what a copy of bytes costs.

use std::hint::black_box;
use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::time::Instant;

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};

use crate::Fallible;
use crate::leaks::field;
use crate::rounds::check;

/// Touched memory in pages of 4 KiB.
pub(crate) struct Resident {
    start: NonNull<libc::c_void>,
    len: usize,
}

impl Resident {
    /// `None` for nothing.
    pub(crate) fn new(mebibytes: usize) -> io::Result<Option<Self>> {
        let Some(len) = NonZeroUsize::new(mebibytes << 20) else {
            return Ok(None);
        };
        let (rw, private) = (
            ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
            MapFlags::MAP_PRIVATE,
        );
        // SAFETY: the kernel chooses the place, so that nothing is replaced.
        let start = unsafe { mmap_anonymous(None, len, rw, private) }?;
        let resident = Resident {
            start,
            len: len.get(),
        };
        // SAFETY: the range is the mapping above, and the advice changes no content.
        unsafe { madvise(start, resident.len, MmapAdvise::MADV_NOHUGEPAGE) }?;
        for offset in (0..resident.len).step_by(4096) {
            let page = start.as_ptr().wrapping_byte_add(offset).cast::<u8>();
            // SAFETY: the offset is within the mapping, which is writable and known to nobody else.
            unsafe { page.write_volatile(1) };
        }
        Ok(Some(resident))
    }

    /// Why this machine cannot hold so much, if it cannot.
    pub(crate) fn refusal(mebibytes: usize) -> Fallible<Option<String>> {
        let available = field("/proc/meminfo", "MemAvailable")? / 1024.0;
        // A half more, so that nothing else has to give way.
        let is_enough = available > mebibytes as f64 * 1.5;
        Ok((!is_enough).then(|| format!("wants {mebibytes} MiB, and {available:.0} MiB are available")))
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and nothing points into it any more.
        let unmapped = unsafe { munmap(self.start, self.len) };
        unmapped.expect("a mapping that was made can be unmapped");
    }
}

/// Bytes in which no page is like another.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    let mut state: u32 = 1;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

/// Seconds for one copy into memory that is there already: the most that a machine's memory gives.
pub(crate) fn copy(from: &[u8], into: &mut [u8]) -> Fallible<f64> {
    let began = Instant::now();
    into.copy_from_slice(black_box(from));
    black_box(&mut *into);
    let elapsed = began.elapsed().as_secs_f64();
    check(into.last(), from.last())?;
    Ok(elapsed)
}
