//! The receiving side of what a running task sends.

use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_core::Stream;
use serde::de::DeserializeOwned;

use crate::error::{Cause, Error, Result};
use crate::future::TaskFuture;
use crate::mailbox::Mailbox;
use crate::slot::{Inner, Slot};
use crate::wire;

/// How far a task says that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is done, in the task's own unit.
    pub done: u64,
    /// What there is to do.
    pub total: u64,
}

/// What a task sends with [`TaskContext::send`](crate::TaskContext::send), in order: an iterator that waits for the next
/// and ends with the task, and a [`Stream`] likewise.
///
/// **While it lives the task is held back** when 4 MiB lie unread; dropping it lets the task run on, its messages unheard.
/// Of several, each message goes to the one that asks first.
pub struct Messages<M> {
    slot: Arc<Slot>,
    value: PhantomData<fn() -> M>,
}

impl<T> TaskFuture<T> {
    /// What the task sends, as values of `M`, which must be the type that it sends. See [`TaskContext`](crate::TaskContext)
    /// for an example.
    pub fn messages<M: DeserializeOwned>(&self) -> Messages<M> {
        let slot = Arc::clone(self.slot());
        slot.read_messages(true);
        Messages {
            slot,
            value: PhantomData,
        }
    }

    /// What the task said last about how far it is.
    pub fn progress(&self) -> Option<Progress> {
        let said = self.slot().peek_mut(|inner| inner.known_mailbox()?.progress);
        said.flatten().map(|(done, total)| Progress { done, total })
    }
}

impl<M: DeserializeOwned> Messages<M> {
    /// The next message if it is there; never blocks.
    pub fn try_next(&mut self) -> Option<Result<M>> {
        self.next_by(Some(Instant::now())).flatten()
    }

    /// The next message. Outer `None`: it did not come in time. Inner `None`: there will be no more.
    pub fn next_timeout(&mut self, limit: Duration) -> Option<Option<Result<M>>> {
        self.next_by(Instant::now().checked_add(limit))
    }

    /// How many messages were dropped because nobody had asked for them.
    pub fn missed(&self) -> u64 {
        let missed = self
            .slot
            .peek_mut(|inner| inner.known_mailbox().map(|mailbox| mailbox.missed));
        missed.flatten().unwrap_or_default()
    }

    fn next_by(&mut self, deadline: Option<Instant>) -> Option<Option<Result<M>>> {
        match self.slot.wait_until(deadline, take) {
            Ok(Some(letter)) => Some(self.open(letter)),
            Ok(None) => None,
            Err(error) => Some(Some(Err(error))),
        }
    }

    fn open(&self, letter: Option<Vec<u8>>) -> Option<Result<M>> {
        let letter = letter?;
        self.slot.made_room();
        Some(wire::decode(&letter).map_err(|reason| {
            let type_name = wire::type_name_of::<M>();
            Error::new(
                self.slot.name.to_string(),
                Cause::ResultNotDecodable { type_name, reason },
            )
            .with_worker(self.slot.pid(), Vec::new())
            .with_attempt(self.slot.attempt())
        }))
    }
}

/// The next letter; inner `None`: there will be no more; outer: not yet.
fn take(inner: &mut Inner) -> Option<Option<Vec<u8>>> {
    match inner.known_mailbox().and_then(Mailbox::take) {
        Some(letter) => Some(Some(letter)),
        None => inner.outcome.is_some().then_some(None),
    }
}

impl<M: DeserializeOwned> Iterator for Messages<M> {
    type Item = Result<M>;

    fn next(&mut self) -> Option<Result<M>> {
        self.next_by(None).flatten()
    }
}

impl<M: DeserializeOwned> Stream for Messages<M> {
    type Item = Result<M>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<M>>> {
        // Cloned, and the earlier one dropped, without the lock: both run foreign code.
        let mut waker = Some(context.waker().clone());
        let seen = self.slot.peek_mut(|inner| {
            let taken = take(inner);
            if taken.is_none() {
                std::mem::swap(&mut inner.mailbox().waker, &mut waker);
            }
            taken
        });
        drop(waker);
        match seen {
            Some(Some(letter)) => Poll::Ready(self.open(letter)),
            Some(None) => Poll::Pending,
            None => Poll::Ready(None),
        }
    }
}

impl<M> Drop for Messages<M> {
    fn drop(&mut self) {
        let waker = self.slot.peek_mut(|inner| {
            let mailbox = inner.known_mailbox()?;
            mailbox.readers = mailbox.readers.saturating_sub(1);
            mailbox.waker.take()
        });
        drop(waker);
        self.slot.made_room();
    }
}

impl<M> fmt::Debug for Messages<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages").field("task", &self.slot.id.0).finish()
    }
}
