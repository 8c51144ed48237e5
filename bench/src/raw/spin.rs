//! The least that two processes can do: a word of shared memory that both look at without pause.

use std::io;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{ForkResult, Pid, fork};

use crate::Fallible;
use crate::rounds::check;

/// A process that counts on.
pub(crate) struct SpinPeer {
    words: &'static Words,
    pid: Pid,
}

/// A line of the cache for each direction.
#[repr(C, align(64))]
struct Words {
    question: AtomicU64,
    apart: [u64; 15],
    answer: AtomicU64,
}

impl SpinPeer {
    #[expect(
        clippy::disallowed_methods,
        reason = "the least that two processes can do is what is measured"
    )]
    pub(crate) fn start() -> io::Result<Self> {
        let len = NonZeroUsize::new(4096).ok_or(io::ErrorKind::InvalidInput)?;
        let (rw, shared) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED);
        // SAFETY: the kernel chooses the place, so that nothing is replaced.
        let start = unsafe { mmap_anonymous(None, len, rw, shared) }?;
        // SAFETY: the mapping is a page of zeros, aligned, larger than `Words`, and unmapped only when this value goes.
        let words: &'static Words = unsafe { start.cast().as_ref() };
        // SAFETY: the child calls `prctl`, `sched_yield` and `_exit`, all async-signal-safe, and touches no lock.
        match unsafe { fork() }? {
            ForkResult::Child => {
                let ended = set_pdeathsig(Signal::SIGKILL).map(|()| words.serve());
                // SAFETY: it ends the process at once, without the handlers and destructors that are the parent's.
                unsafe { libc::_exit(i32::from(ended.is_err())) }
            }
            ForkResult::Parent { child } => Ok(SpinPeer { words, pid: child }),
        }
    }

    /// A number there and back. `x` is above those before it.
    pub(crate) fn round_trip(&mut self, x: u64) -> Fallible<Duration> {
        let began = Instant::now();
        self.words.question.store(x, Ordering::Release);
        let answer = until_other_than(x - 1, &self.words.answer);
        let elapsed = began.elapsed();
        check(answer, x)?;
        Ok(elapsed)
    }
}

impl Words {
    fn serve(&self) {
        let mut x = 0;
        while x != END {
            x = until_other_than(x, &self.question);
            self.answer.store(x, Ordering::Release);
        }
    }
}

impl Drop for SpinPeer {
    #[expect(
        clippy::disallowed_methods,
        reason = "the pid is that of a reference process, unknown to any supervisor"
    )]
    fn drop(&mut self) {
        self.words.question.store(END, Ordering::Release);
        // It looks at the word without pause, so that it ends.
        let _ = nix::sys::wait::waitpid(self.pid, None);
        // SAFETY: the mapping is this value's own, and `words` does not leave it.
        let unmapped = unsafe { munmap(std::ptr::NonNull::from(self.words).cast(), 4096) };
        unmapped.expect("a mapping that was made can be unmapped");
    }
}

fn until_other_than(known: u64, word: &AtomicU64) -> u64 {
    for turn in 1_u64.. {
        match word.load(Ordering::Acquire) {
            x if x == known => std::hint::spin_loop(),
            x => return x,
        }
        // The other one may have no core to run on.
        if turn % 10_000 == 0 {
            // SAFETY: it has no condition, and touches no memory.
            unsafe { libc::sched_yield() };
        }
    }
    known
}

const END: u64 = u64::MAX;
