//! The slot that a task's outcome lands in.
//!
//! A slot ends once, with the last attempt at its task. Whoever waits registers first, then checks, then sleeps, so that no
//! ending is missed.

use std::any::Any;
use std::sync::{Arc, Condvar, Mutex};
use std::task::Waker;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use crate::argument;
use crate::callbacks;
use crate::error::{Cause, Error, Result};
use crate::ids::{About, Name, Rank, TaskId, WorkerId};
use crate::limiter::Permit;
use crate::mailbox::Mailbox;
use crate::nesting;
use crate::options::{Ended, Retry};
use crate::ready::Ready;
use crate::sync::{contain, lock, sleep_on};
use crate::wire::{self, Answer, Reply};

/// How a task ended. Cheap to clone, so that callbacks and the waiter each decode their own value.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    Returned { payload: Arc<Vec<u8>>, is_err: bool },
    Failed(Error),
}

impl Outcome {
    /// What a task answered that ran in this process.
    pub(crate) fn of(answer: Answer, name: Name) -> Outcome {
        match answer.reply {
            Reply::Returned { is_err } => Outcome::Returned {
                payload: Arc::new(answer.payload),
                is_err,
            },
            reply => Outcome::Failed(Error::new(name.to_string(), Cause::of(reply))),
        }
    }

    pub(crate) fn is_err(&self) -> bool {
        match self {
            Outcome::Returned { is_err, .. } => *is_err,
            Outcome::Failed(_) => true,
        }
    }

    /// How it ended, as far as that decides about another attempt.
    fn kind(&self) -> Ended {
        match self {
            Outcome::Returned { is_err: false, .. } => Ended::Well,
            Outcome::Returned { is_err: true, .. } => Ended::InErr,
            Outcome::Failed(error) => Ended::Failed(error.kind()),
        }
    }

    pub(crate) fn decode<T: DeserializeOwned>(&self, slot: &Slot) -> Result<T> {
        match self {
            Outcome::Failed(error) => Err(error.clone()),
            Outcome::Returned { payload, .. } => argument::decode_value(payload).map_err(|reason| {
                let type_name = wire::type_name_of::<T>();
                Error::new(
                    slot.name.to_string(),
                    Cause::ResultNotDecodable { type_name, reason },
                )
                .with_worker(slot.pid(), Vec::new())
                .with_attempt(slot.attempt())
            }),
        }
    }
}

/// Who has a task that has not ended: whom to tell that nobody wants it any more.
#[derive(Clone)]
pub(crate) enum Place {
    /// Somebody is at starting it, and looks at the slot once that is done.
    Starting,
    /// It waits for a permit or for its next attempt, or runs where nobody can stop it.
    Nobody,
    Worker(&'static dyn Workers, WorkerId),
    Queue(Arc<dyn Queue>, Rank),
}

/// What watches workers.
pub(crate) trait Workers: Sync {
    /// Has the worker ended, if it still runs this task.
    fn cancel(&self, worker: WorkerId, task: TaskId);

    /// Goes on reading the worker's messages.
    fn has_room(&self, worker: WorkerId);
}

/// Where tasks wait for a worker.
pub(crate) trait Queue: Send + Sync {
    /// Takes a task out that has not begun; whether it was there.
    fn take_back(&self, rank: Rank) -> bool;
}

/// Starts the next attempt, after a while.
pub(crate) type StartAgain = dyn Fn(&Arc<Slot>, Duration) + Send + Sync;

/// How a task is tried again.
pub(crate) struct Again {
    pub(crate) rule: Retry,
    pub(crate) start: Arc<StartAgain>,
}

pub(crate) type Callback = Box<dyn FnOnce(&Slot, &Outcome) + Send>;

/// Where the outcome of one task lands.
pub(crate) struct Slot {
    pub(crate) id: TaskId,
    pub(crate) name: Name,
    generation: u64,
    inner: Mutex<Inner>,
    changed: Condvar,
}

pub(crate) struct Inner {
    pub(crate) outcome: Option<Outcome>,
    /// `cancel` was answered with true: whatever arrives now is thrown away.
    pub(crate) cancelled: bool,
    /// A worker stays until this has ended.
    pub(crate) detached: bool,
    pub(crate) pid: Option<u32>,
    pub(crate) attempt: u32,
    pub(crate) place: Place,
    again: Option<Again>,
    /// It is decided how the task ends, and `outcome` follows once the permit is free.
    is_ending: bool,
    permit: Option<Permit>,
    /// Dropped when the task has ended: a pool's count.
    held: Vec<Box<dyn Any + Send>>,
    pub(crate) mailbox: Option<Box<Mailbox>>,
    pub(crate) waker: Option<Waker>,
    pub(crate) watchers: Vec<(Arc<Ready>, u64)>,
    pub(crate) callbacks: Vec<Callback>,
}

impl Slot {
    pub(crate) fn new(id: TaskId, name: Name) -> Arc<Slot> {
        let inner = Inner {
            outcome: None,
            cancelled: false,
            detached: false,
            pid: None,
            attempt: 1,
            place: Place::Starting,
            again: None,
            is_ending: false,
            permit: None,
            held: Vec::new(),
            mailbox: None,
            waker: None,
            watchers: Vec::new(),
            callbacks: Vec::new(),
        };
        let generation = crate::sys::generation();
        Arc::new(Slot {
            id,
            name,
            generation,
            inner: Mutex::new(inner),
            changed: Condvar::new(),
        })
    }

    pub(crate) fn set_pid(&self, pid: u32) {
        lock(&self.inner).pid = Some(pid);
    }

    pub(crate) fn attempt(&self) -> u32 {
        self.peek(|inner| inner.attempt).unwrap_or(1)
    }

    /// Says how the task is to be tried again.
    pub(crate) fn set_again(&self, again: Again) {
        lock(&self.inner).again = Some(again);
    }

    /// Keeps something until the task has ended. False: it has.
    pub(crate) fn hold(&self, thing: Box<dyn Any + Send>) -> bool {
        let mut inner = lock(&self.inner);
        if inner.is_ending {
            // Its drop may take locks of others.
            drop(inner);
            return false;
        }
        inner.held.push(thing);
        true
    }

    /// Keeps the right to run until the task ends. False: it has ended, or is about to.
    pub(crate) fn hold_permit(&self, permit: Permit) -> bool {
        let mut inner = lock(&self.inner);
        if inner.is_ending {
            drop(inner);
            return false;
        }
        inner.permit = Some(permit);
        true
    }

    /// Says who has the task now. True: it was cancelled before, and the caller passes that on.
    #[must_use]
    pub(crate) fn set_place(&self, place: Place) -> bool {
        let mut inner = lock(&self.inner);
        inner.place = place;
        inner.cancelled
    }

    /// Ends the task unless it has ended; whether it ends, or did, in `Cancelled`.
    pub(crate) fn cancel(self: &Arc<Self>) -> bool {
        let marked = self.peek_mut(|inner| {
            let is_new = !inner.is_ending;
            inner.cancelled |= is_new;
            (inner.cancelled, is_new.then(|| inner.place.clone()))
        });
        match marked {
            None => false,
            Some((cancelled, place)) => {
                if let Some(place) = place {
                    self.withdraw(&place);
                }
                cancelled
            }
        }
    }

    /// Takes the task back from a pool that has not begun it; whether that was so. Then it never starts, and has ended.
    pub(crate) fn take_back(self: &Arc<Self>) -> bool {
        let place = self.peek(|inner| inner.outcome.is_none().then(|| inner.place.clone()));
        let Some(Some(Place::Queue(queue, rank))) = place else {
            return false;
        };
        let is_taken = queue.take_back(rank);
        if is_taken {
            self.fail(Cause::Cancelled);
        }
        is_taken
    }

    /// Tells who has the task that it is cancelled.
    fn withdraw(self: &Arc<Self>, place: &Place) {
        match place {
            Place::Starting => {}
            Place::Nobody => self.fail(Cause::Cancelled),
            Place::Worker(workers, worker) => workers.cancel(*worker, self.id),
            Place::Queue(queue, rank) => {
                if queue.take_back(*rank) {
                    self.fail(Cause::Cancelled);
                }
            }
        }
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.peek(|inner| inner.pid).flatten()
    }

    /// An attempt ended: the task is tried again, or ends so. The first ending counts; later ones are thrown away.
    pub(crate) fn end(self: &Arc<Self>, outcome: Outcome) {
        let mut inner = lock(&self.inner);
        if inner.is_ending {
            return;
        }
        if !inner.cancelled
            && let Some(again) = &mut inner.again
            && let Some(pause) = again.rule.next(outcome.kind())
        {
            let start = Arc::clone(&again.start);
            inner.attempt += 1;
            inner.pid = None;
            inner.place = Place::Starting;
            drop(inner);
            return start(self, pause);
        }
        let outcome = match outcome {
            outcome if inner.cancelled => {
                let stderr = match &outcome {
                    Outcome::Failed(error) => error.stderr().into_bytes(),
                    Outcome::Returned { .. } => Vec::new(),
                };
                let error = Error::new(self.name.to_string(), Cause::Cancelled);
                Outcome::Failed(error.with_worker(inner.pid, stderr).with_attempt(inner.attempt))
            }
            Outcome::Failed(error) => Outcome::Failed(error.with_attempt(inner.attempt)),
            outcome => outcome,
        };
        inner.is_ending = true;
        if let Some(permit) = inner.permit.take() {
            // Whoever sees the end of the task may rely on its permit being free. Its drop may start others.
            drop(inner);
            drop(permit);
            inner = lock(&self.inner);
        }
        let callbacks = std::mem::take(&mut inner.callbacks);
        let mut wakers = vec![inner.waker.take()];
        let mut watchers = std::mem::take(&mut inner.watchers);
        if let Some(mailbox) = &mut inner.mailbox {
            wakers.push(mailbox.waker.take());
            watchers.extend(mailbox.watcher.take());
        }
        let held = std::mem::take(&mut inner.held);
        let again = inner.again.take();
        inner.place = Place::Nobody;
        inner.outcome = Some(outcome.clone());
        let detached = inner.detached;
        drop(inner);
        // Before what it held counts as gone: who waits until all is quiet waits for its callbacks too.
        if !callbacks.is_empty() {
            let slot = Arc::clone(self);
            callbacks::run(Box::new(move || {
                for callback in callbacks {
                    contain(|| callback(&slot, &outcome));
                }
            }));
        }
        drop((held, again));
        if detached {
            nesting::detached_ended();
        }
        self.changed.notify_all();
        for waker in wakers.into_iter().flatten() {
            contain(|| waker.wake());
        }
        for (ready, key) in watchers {
            ready.push(key);
        }
    }

    pub(crate) fn fail(self: &Arc<Self>, cause: Cause) {
        let error = Error::new(self.name.to_string(), cause);
        let pid = lock(&self.inner).pid;
        self.end(Outcome::Failed(error.with_worker(pid, Vec::new())));
    }

    pub(crate) fn is_done(&self) -> bool {
        self.peek(|inner| inner.outcome.is_some()).unwrap_or(false)
    }

    /// Whether it ended in an error, or in the task's own `Err`.
    pub(crate) fn is_failed(&self) -> bool {
        self.peek(|inner| inner.outcome.as_ref().is_some_and(Outcome::is_err))
            .unwrap_or(false)
    }

    /// Takes in a message of the running task. False: enough for now, until whoever reads them has made room.
    pub(crate) fn deliver(&self, letter: Vec<u8>) -> bool {
        let (go_on, waker, watcher) = {
            let mut inner = lock(&self.inner);
            let mailbox = inner.mailbox.get_or_insert_default();
            let go_on = mailbox.put(letter);
            (go_on, mailbox.waker.take(), mailbox.watcher.clone())
        };
        self.changed.notify_all();
        if let Some(waker) = waker {
            contain(|| waker.wake());
        }
        if let Some((ready, key)) = watcher {
            ready.push(key);
        }
        go_on
    }

    /// As [`deliver`](Slot::deliver), by a task on a thread of this process: waits while there is no room.
    ///
    /// What an attempt sends that has ended is thrown away.
    pub(crate) fn deliver_here(&self, attempt: u32, letter: Vec<u8>) {
        if self.is_over_for(attempt) || self.deliver(letter) {
            return;
        }
        // In a fork nobody will ever read it.
        let _ = self.wait_until(None, |inner| {
            let is_full = inner.mailbox.as_ref().is_some_and(|mailbox| mailbox.is_full());
            (inner.outcome.is_some() || inner.cancelled || !is_full).then_some(())
        });
    }

    /// What the task is to know of itself.
    pub(crate) fn about(&self, limit: Option<Duration>) -> About {
        About {
            id: self.id,
            name: self.name.to_string(),
            attempt: self.attempt(),
            limit,
        }
    }

    /// Whether the task's result does not matter any more.
    pub(crate) fn is_unwanted(&self) -> bool {
        self.peek(|inner| inner.cancelled || inner.outcome.is_some())
            .unwrap_or(true)
    }

    /// Whether nothing that this attempt does matters any more.
    pub(crate) fn is_over_for(&self, attempt: u32) -> bool {
        self.is_unwanted() || self.attempt() != attempt
    }

    /// As [`end`](Slot::end), and no attempt follows.
    pub(crate) fn end_for_good(self: &Arc<Self>, outcome: Outcome) {
        let again = lock(&self.inner).again.take();
        drop(again);
        self.end(outcome);
    }

    /// As [`end`](Slot::end), unless another attempt is under way by now.
    pub(crate) fn end_attempt(self: &Arc<Self>, attempt: u32, outcome: Outcome) {
        if self.attempt() == attempt {
            self.end(outcome);
        }
    }

    /// From now on somebody reads the messages. `false` keeps all that come, and never has their sender wait.
    pub(crate) fn read_messages(&self, bounded: bool) {
        self.peek_mut(|inner| {
            let mailbox = inner.mailbox.get_or_insert_default();
            mailbox.readers += 1;
            mailbox.is_unbounded |= !bounded;
        });
    }

    /// Has `ready` told of each message, and of the end.
    pub(crate) fn watch_messages(&self, ready: &Arc<Ready>, key: u64) {
        self.peek_mut(|inner| {
            inner.mailbox.get_or_insert_default().watcher = Some((Arc::clone(ready), key));
        });
    }

    /// The next message that nobody has read.
    pub(crate) fn take_letter(&self) -> Option<Vec<u8>> {
        let letter = self.peek_mut(|inner| inner.mailbox.as_mut()?.take()).flatten();
        if letter.is_some() {
            self.made_room();
        }
        letter
    }

    pub(crate) fn outcome(&self) -> Option<Outcome> {
        self.peek(|inner| inner.outcome.clone()).flatten()
    }

    /// How far the task says that it is.
    pub(crate) fn set_progress(&self, done: u64, total: u64) {
        lock(&self.inner).mailbox.get_or_insert_default().progress = Some((done, total));
    }

    /// After letters were taken: has their sender go on, if it was made to wait.
    pub(crate) fn made_room(&self) {
        let place = self.peek_mut(|inner| {
            let is_wanted = inner.mailbox.as_mut().is_some_and(|mailbox| mailbox.make_room());
            is_wanted.then(|| inner.place.clone())
        });
        if let Some(Some(place)) = place {
            if let Place::Worker(workers, worker) = place {
                workers.has_room(worker);
            }
            self.changed.notify_all();
        }
    }

    /// Has `ready` told when the slot ends; at once if it has.
    pub(crate) fn watch(&self, ready: &Arc<Ready>, key: u64) {
        let watching = self.peek_mut(|inner| match inner.outcome {
            Some(_) => false,
            None => {
                inner.watchers.push((Arc::clone(ready), key));
                true
            }
        });
        // A slot of another process will never end here: let the waiter find that out.
        if watching != Some(true) {
            ready.push(key);
        }
    }

    /// Forgets `ready`, which nobody waits on any more.
    pub(crate) fn unwatch(&self, ready: &Arc<Ready>) {
        self.peek_mut(|inner| inner.watchers.retain(|(watcher, _)| !Arc::ptr_eq(watcher, ready)));
    }

    pub(crate) fn peek<R>(&self, look: impl FnOnce(&Inner) -> R) -> Option<R> {
        self.peek_mut(|inner| look(inner))
    }

    /// In a fork of the process that owns the slot, a thread that no longer exists may hold the lock, and nobody will
    /// ever end the slot: then there is nothing to see.
    pub(crate) fn peek_mut<R>(&self, look: impl FnOnce(&mut Inner) -> R) -> Option<R> {
        if self.generation == crate::sys::generation() {
            return Some(look(&mut lock(&self.inner)));
        }
        let mut inner = self.inner.try_lock().ok()?;
        inner.outcome.is_some().then(|| look(&mut inner))
    }

    /// The outcome, or `None` when the deadline has passed.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> Result<Option<Outcome>> {
        self.wait_until(deadline, |inner| inner.outcome.clone())
    }

    /// What `look` finds; `None` when the deadline has passed.
    pub(crate) fn wait_until<R>(
        &self,
        deadline: Option<Instant>,
        mut look: impl FnMut(&mut Inner) -> Option<R>,
    ) -> Result<Option<R>> {
        if self.generation != crate::sys::generation() {
            let seen = self.peek_mut(look).flatten();
            let seen = seen.ok_or_else(|| Error::new(self.name.to_string(), Cause::OtherProcess));
            return seen.map(Some);
        }
        let mut inner = lock(&self.inner);
        loop {
            if let Some(found) = look(&mut inner) {
                return Ok(Some(found));
            }
            inner = match sleep_on(&self.changed, inner, deadline) {
                Ok(inner) => inner,
                Err(mut inner) => return Ok(look(&mut inner)),
            };
        }
    }
}
