//! Messages of a running task on their way to whoever holds its future.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use crate::ready::Ready;

/// What a task has sent and nobody has read.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    letters: VecDeque<Vec<u8>>,
    bytes: usize,
    /// How many read: then the sender waits when there is no room. Else the oldest letters go.
    pub(crate) readers: usize,
    /// Whoever reads keeps a bound of his own.
    pub(crate) is_unbounded: bool,
    /// Letters that went because nobody read them.
    pub(crate) missed: u64,
    is_waited_for: bool,
    pub(crate) progress: Option<(u64, u64)>,
    pub(crate) waker: Option<Waker>,
    /// Told of each letter, and of the end.
    pub(crate) watcher: Option<(Arc<Ready>, u64)>,
}

impl Mailbox {
    /// False: enough for now.
    pub(crate) fn put(&mut self, letter: Vec<u8>) -> bool {
        self.bytes += letter.len() + PER_LETTER;
        self.letters.push_back(letter);
        if self.readers > 0 {
            self.is_waited_for = self.bytes > MOST_BYTES && !self.is_unbounded;
            return !self.is_waited_for;
        }
        while self.bytes > MOST_BYTES && self.letters.len() > 1 {
            self.take();
            self.missed += 1;
        }
        true
    }

    pub(crate) fn take(&mut self) -> Option<Vec<u8>> {
        let letter = self.letters.pop_front()?;
        self.bytes -= letter.len() + PER_LETTER;
        Some(letter)
    }

    /// Whether a sender waits, and may go on now.
    pub(crate) fn make_room(&mut self) -> bool {
        let is_wanted = self.is_waited_for && (self.bytes <= MOST_BYTES / 2 || self.readers == 0);
        self.is_waited_for &= !is_wanted;
        is_wanted
    }

    /// Whether a sender in this process has to wait.
    pub(crate) fn is_full(&self) -> bool {
        self.is_waited_for
    }
}

/// What one task may have unread.
const MOST_BYTES: usize = 4 << 20;

/// What a letter costs beside its bytes.
const PER_LETTER: usize = 32;
