//! Passes on what workers write to their stderr to the program's own, on a thread of its own: that may block for as long
//! as nobody reads it, which must not keep the supervisor from its work.
//!
//! The queue is bounded. When it is full the supervisor stops reading the workers' stderr, so that they block as they
//! would have on the program's.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::sync::lock;
use crate::sys;

/// The queue in front of stderr.
#[derive(Debug, Default)]
pub(super) struct Relay {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    pieces: VecDeque<Vec<u8>>,
    bytes: usize,
    is_writing: bool,
    is_blocked: bool,
}

impl Relay {
    /// Queues bytes; false: no more of them until the supervisor is told.
    pub(super) fn push(&self, bytes: &[u8]) -> bool {
        let mut queue = lock(&self.queue);
        queue.pieces.push_back(bytes.to_vec());
        queue.bytes += bytes.len();
        queue.is_blocked |= queue.bytes >= MOST_BYTES;
        self.changed.notify_all();
        !queue.is_blocked
    }

    /// The thread. `has_room` is called when a full queue is empty again.
    pub(super) fn run(&self, has_room: impl Fn()) {
        let mut queue = lock(&self.queue);
        loop {
            let pieces = std::mem::take(&mut queue.pieces);
            queue.bytes = 0;
            queue.is_writing = !pieces.is_empty();
            if !queue.is_writing {
                if std::mem::take(&mut queue.is_blocked) {
                    drop(queue);
                    has_room();
                    queue = lock(&self.queue);
                    continue;
                }
                self.changed.notify_all();
                queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            drop(queue);
            for piece in pieces {
                sys::write_to_stderr(&piece);
            }
            queue = lock(&self.queue);
        }
    }

    /// Waits until everything is written, for a bounded time: at the end of the program.
    pub(super) fn flush(&self) {
        let queue = lock(&self.queue);
        let pending = |queue: &mut Queue| queue.is_writing || !queue.pieces.is_empty();
        // Late or not, the program ends.
        let _ = self.changed.wait_timeout_while(queue, LONGEST_FLUSH, pending);
    }
}

const MOST_BYTES: usize = 1 << 20;
const LONGEST_FLUSH: Duration = Duration::from_secs(2);
