//! The buffer that a worker keeps for the bytes of its next call.
//!
//! What a task takes as a `Vec<u8>` needs fresh memory, and the kernel clears that page by page, which takes longer than the
//! copy. A worker that gets large ones again and again has that done while it waits for the next.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::sync::lock;
use crate::sys;

struct Buffers {
    kept: Option<Vec<u8>>,
    /// How much the last call took.
    taken: usize,
    /// How many calls in a row took some.
    in_a_row: u32,
}

static BUFFERS: Mutex<Buffers> = Mutex::new(Buffers {
    kept: None,
    taken: 0,
    in_a_row: 0,
});

/// There is a buffer, or one was taken since. Most workers never look further.
static IS_IN_USE: AtomicBool = AtomicBool::new(false);

/// An empty vector with room for so many bytes.
pub(crate) fn take(room: usize) -> Vec<u8> {
    IS_IN_USE.store(true, Ordering::Relaxed);
    let kept = {
        let mut buffers = lock(&BUFFERS);
        buffers.taken = buffers.taken.max(room);
        buffers.kept.take()
    };
    match kept {
        Some(kept) if kept.capacity() >= room && kept.capacity() / 2 <= room => kept,
        _ => {
            let mut bytes = Vec::with_capacity(room);
            sys::prefer_large_pages(&mut bytes);
            bytes
        }
    }
}

/// In a worker between two calls: gets a buffer ready if the last calls took one. `used`: what the last answer was in, which
/// will do.
#[inline]
pub(crate) fn prepare(used: Vec<u8>) {
    if IS_IN_USE.load(Ordering::Relaxed) {
        prepare_next(used);
    }
}

fn prepare_next(mut used: Vec<u8>) {
    let room = {
        let mut buffers = lock(&BUFFERS);
        let taken = std::mem::take(&mut buffers.taken);
        buffers.in_a_row = if taken == 0 { 0 } else { buffers.in_a_row + 1 };
        if taken == 0 {
            IS_IN_USE.store(false, Ordering::Relaxed);
        }
        if taken == 0 || taken > MOST_KEPT || buffers.in_a_row < 2 {
            buffers.kept = None;
            return;
        }
        taken
    };
    used.clear();
    if used.capacity() < room || used.capacity() / 2 > room {
        // Before the other is made: not both at once.
        drop(used);
        used = Vec::with_capacity(room);
        sys::prefer_large_pages(&mut used);
        for byte in used.spare_capacity_mut().iter_mut().step_by(PAGE) {
            byte.write(0);
        }
    }
    lock(&BUFFERS).kept = Some(used);
}

/// Whether there is one that can be given back.
pub(crate) fn has_kept() -> bool {
    IS_IN_USE.load(Ordering::Relaxed) && lock(&BUFFERS).kept.is_some()
}

pub(crate) fn give_back() {
    let kept = lock(&BUFFERS).kept.take();
    drop(kept);
}

/// A worker that has waited for so long gives its buffer back.
pub(crate) const KEPT_FOR: Duration = Duration::from_secs(1);

const MOST_KEPT: usize = 256 << 20;
const PAGE: usize = 4096;
