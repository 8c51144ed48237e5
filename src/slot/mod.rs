//! The slot that a task's outcome lands in.
//!
//! A slot ends once, with the last attempt at its task. Whoever waits registers first, then checks, then sleeps, so that no
//! ending is missed.

mod outcome;
#[cfg(test)]
mod tests;

pub(crate) use outcome::Outcome;

use std::any::Any;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::callbacks;
use crate::error::{Cause, Error, Result};
use crate::ids::{self, About, Name, Rank, TaskId, WorkerId};
use crate::limiter::Permit;
use crate::mailbox::Mailbox;
use crate::nesting;
use crate::options::Retry;
use crate::ready::Ready;
use crate::sync::{contain, lock, sleep_on};

/// Who has a task that has not ended: whom to tell that nobody wants it any more.
#[derive(Clone)]
pub(crate) enum Place {
    /// Somebody is at starting it, and looks at the slot once that is done.
    Starting,
    /// It waits for a permit or for its next attempt, or runs where nobody can stop it.
    Nobody,
    Worker(&'static dyn Workers, WorkerId),
    /// The pool that took it in, whether it is queued there or at a worker.
    Pool(Rank),
}

/// What watches workers.
pub(crate) trait Workers: Sync {
    /// Has the worker ended, if it still runs this task.
    fn cancel(&self, worker: WorkerId, task: TaskId);

    /// Goes on reading the worker's messages.
    fn has_room(&self, worker: WorkerId);
}

/// How a thread that waits may find a worker's answer before the supervisor does.
pub(crate) trait Early: Send + Sync {
    /// Looks out, and ends this task with what the worker said: for a moment, and sleeping after that, if it may.
    fn look_out(&self, slot: &Arc<Slot>, patience: Stay);

    /// Has the thread look again that sleeps there.
    fn wake(&self);
}

/// Where tasks wait for a worker, and are handed to several at once.
pub(crate) trait Queue: Send + Sync {
    /// Takes a task out that has not begun; whether it was there.
    fn take_back(&self, slot: &Slot, rank: Rank) -> bool;

    /// Has the worker ended that runs this task.
    fn cancel(&self, slot: &Slot);

    /// Goes on reading the messages of the worker that runs this task.
    fn has_room(&self, slot: &Slot);

    /// Brings the task on without the supervisor, if this thread can: until it has ended or the deadline has passed, or
    /// as far as it goes. `None`: only as long as it takes to look.
    fn help(&self, slot: &Slot, patience: Stay);

    /// Has [`help`](Queue::help) look again, which somebody is in with this task.
    fn wake(&self, slot: &Slot);

    /// The task has ended.
    fn ended(&self, slot: &Slot);
}

/// How long a thread may be kept that wants a task's outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stay {
    /// It takes what is there.
    Look,
    /// It may look out for a moment, and not sleep.
    Moment,
    Until(Instant),
    Endless,
}

/// Starts the next attempt, after a while.
pub(crate) type StartAgain = dyn Fn(&Arc<Slot>, Duration) + Send + Sync;

/// How a task is tried again.
pub(crate) struct Again {
    pub(crate) rule: Retry,
    pub(crate) start: Arc<StartAgain>,
}

pub(crate) type Callback = Box<dyn FnOnce(&Slot, &Outcome) + Send>;

/// Where the outcome of one task lands. There may be millions: what few tasks have stands in [`Rare`].
pub(crate) struct Slot {
    pub(crate) id: TaskId,
    pub(crate) name: &'static Name,
    generation: u32,
    /// Zero: none is known.
    pid: AtomicU32,
    attempt: AtomicU32,
    /// Where in its pool it was handed over: for the pool to read.
    pub(crate) at: AtomicU64,
    inner: Mutex<Inner>,
    changed: Condvar,
}

pub(crate) struct Inner {
    pub(crate) outcome: Option<Outcome>,
    pub(crate) place: Place,
    /// Where it counts until it has ended.
    pool: Option<Arc<dyn Queue>>,
    rare: Option<Box<Rare>>,
    /// Threads that sleep on `changed`.
    sleepers: u32,
    returned: u8,
    /// A thread sleeps in [`Queue::help`], or in [`Early::look_out`].
    is_helped: bool,
    /// `cancel` was answered with true: whatever arrives now is thrown away.
    pub(crate) cancelled: bool,
    /// A worker stays until this has ended.
    pub(crate) detached: bool,
    /// It is decided how the task ends, and `outcome` follows once the permit is free.
    is_ending: bool,
}

/// What few tasks have.
#[derive(Default)]
pub(crate) struct Rare {
    again: Option<Again>,
    permit: Option<Permit>,
    /// Dropped when the task has ended: counts.
    held: Vec<Box<dyn Any + Send>>,
    pub(crate) mailbox: Option<Box<Mailbox>>,
    pub(crate) waker: Option<Waker>,
    watchers: Vec<(Arc<Ready>, u64)>,
    pub(crate) callbacks: Vec<Callback>,
    early: Option<Arc<dyn Early>>,
}

impl Inner {
    pub(crate) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    pub(crate) fn mailbox(&mut self) -> &mut Mailbox {
        self.rare().mailbox.get_or_insert_default()
    }

    pub(crate) fn known_mailbox(&mut self) -> Option<&mut Mailbox> {
        self.rare.as_mut()?.mailbox.as_deref_mut()
    }

    /// Takes it away; it is returned if a thread sleeps there, which is to be woken.
    fn take_early(&mut self) -> Option<Arc<dyn Early>> {
        let early = self.rare.as_mut()?.early.take();
        early.filter(|_| self.is_helped)
    }

    pub(crate) fn take_waker(&mut self) -> Option<Waker> {
        self.rare.as_mut()?.waker.take()
    }
}

impl Slot {
    pub(crate) fn new(id: TaskId, name: Name) -> Arc<Slot> {
        let inner = Inner {
            outcome: None,
            place: Place::Starting,
            pool: None,
            rare: None,
            sleepers: 0,
            returned: 0,
            is_helped: false,
            cancelled: false,
            detached: false,
            is_ending: false,
        };
        Arc::new(Slot {
            id,
            name: ids::interned(name),
            generation: crate::sys::generation() as u32,
            pid: AtomicU32::new(0),
            attempt: AtomicU32::new(1),
            at: AtomicU64::new(0),
            inner: Mutex::new(inner),
            changed: Condvar::new(),
        })
    }

    pub(crate) fn set_pid(&self, pid: u32) {
        self.pid.store(pid, Ordering::Relaxed);
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        Some(self.pid.load(Ordering::Relaxed)).filter(|pid| *pid != 0)
    }

    fn is_ours(&self) -> bool {
        self.generation == crate::sys::generation() as u32
    }

    pub(crate) fn attempt(&self) -> u32 {
        self.attempt.load(Ordering::Relaxed)
    }

    /// Says how the task is to be tried again.
    pub(crate) fn set_again(&self, again: Again) {
        lock(&self.inner).rare().again = Some(again);
    }

    /// Keeps something until the task has ended. False: it has.
    pub(crate) fn hold(&self, thing: Box<dyn Any + Send>) -> bool {
        let mut inner = lock(&self.inner);
        if inner.is_ending {
            // Its drop may take locks of others.
            drop(inner);
            return false;
        }
        inner.rare().held.push(thing);
        true
    }

    /// Says how the answer of this attempt may be found by who waits for it.
    pub(crate) fn set_early(&self, early: Option<Arc<dyn Early>>) {
        let mut inner = lock(&self.inner);
        // What has ended may have neither.
        if inner.is_ending {
            return;
        }
        let old = inner.take_early();
        if early.is_some() {
            inner.rare().early = early;
        }
        drop(inner);
        wake(old);
    }

    /// A thread is about to sleep where it looks out. False: there is nothing any more to be found there.
    pub(crate) fn helps_early(&self, early: &dyn Early) -> bool {
        let mut inner = lock(&self.inner);
        let known = inner.rare.as_ref().and_then(|rare| rare.early.as_ref());
        inner.is_helped = known.is_some_and(|known| std::ptr::addr_eq(Arc::as_ptr(known), early));
        inner.is_helped
    }

    /// Keeps the right to run until the task ends. False: it has ended, or is about to.
    pub(crate) fn hold_permit(&self, permit: Permit) -> bool {
        let mut inner = lock(&self.inner);
        if inner.is_ending {
            drop(inner);
            return false;
        }
        inner.rare().permit = Some(permit);
        true
    }

    /// Has the pool count the task until it has ended; `None`: it has. `place`: where it is now. Else, whether it was cancelled
    /// before, which the caller passes on.
    pub(crate) fn enter(&self, pool: Arc<dyn Queue>, place: Place) -> Option<bool> {
        let mut inner = lock(&self.inner);
        if inner.is_ending {
            return None;
        }
        inner.pool = Some(pool);
        inner.place = place;
        Some(inner.cancelled)
    }

    /// How often a worker died before it began the task, this time included.
    pub(crate) fn count_return(&self) -> u32 {
        let mut inner = lock(&self.inner);
        inner.returned = inner.returned.saturating_add(1);
        u32::from(inner.returned)
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
        let place = self.peek(|inner| match (&inner.outcome, &inner.place, &inner.pool) {
            (None, Place::Pool(rank), Some(pool)) => Some((Arc::clone(pool), *rank)),
            _ => None,
        });
        let Some(Some((pool, rank))) = place else {
            return false;
        };
        let is_taken = pool.take_back(self, rank);
        if is_taken {
            self.fail(Cause::Cancelled);
        }
        is_taken
    }

    /// Where it stands in its pool's queue, if it is in one.
    pub(crate) fn rank(&self) -> Option<Rank> {
        let rank = self.peek(|inner| match inner.place {
            Place::Pool(rank) => Some(rank),
            _ => None,
        });
        rank.flatten()
    }

    /// Tells who has the task that it is cancelled.
    fn withdraw(self: &Arc<Self>, place: &Place) {
        match place {
            Place::Starting => {}
            Place::Nobody => self.fail(Cause::Cancelled),
            Place::Worker(workers, worker) => workers.cancel(*worker, self.id),
            Place::Pool(rank) => {
                let Some(pool) = self.pool() else { return };
                match pool.take_back(self, *rank) {
                    true => self.fail(Cause::Cancelled),
                    false => pool.cancel(self),
                }
            }
        }
    }

    fn pool(&self) -> Option<Arc<dyn Queue>> {
        self.peek(|inner| inner.pool.clone()).flatten()
    }

    /// An attempt ended: the task is tried again, or ends so. The first ending counts; later ones are thrown away.
    pub(crate) fn end(self: &Arc<Self>, outcome: Outcome) {
        let mut inner = lock(&self.inner);
        if inner.is_ending {
            return;
        }
        if !inner.cancelled
            && let Some(again) = inner.rare.as_mut().and_then(|rare| rare.again.as_mut())
            && let Some(pause) = again.rule.next(outcome.kind())
        {
            let start = Arc::clone(&again.start);
            self.attempt.fetch_add(1, Ordering::Relaxed);
            self.set_pid(0);
            inner.place = Place::Starting;
            let early = inner.take_early();
            drop(inner);
            wake(early);
            return start(self, pause);
        }
        let outcome = match outcome {
            outcome if inner.cancelled => {
                let stderr = match &outcome {
                    Outcome::Failed(error) => error.stderr().into_bytes(),
                    Outcome::Returned { .. } => Vec::new(),
                };
                let error = Error::new(self.name.to_string(), Cause::Cancelled);
                Outcome::Failed(error.with_worker(self.pid(), stderr).with_attempt(self.attempt()))
            }
            Outcome::Failed(error) => Outcome::Failed(error.with_attempt(self.attempt())),
            outcome => outcome,
        };
        inner.is_ending = true;
        let permit = inner.rare.as_mut().and_then(|rare| rare.permit.take());
        if permit.is_some() {
            // Whoever sees the end of the task may rely on its permit being free. Its drop may start others.
            drop(inner);
            drop(permit);
            inner = lock(&self.inner);
        }
        let early = inner.take_early();
        let (pool, rare) = (inner.pool.take(), inner.rare.take());
        inner.place = Place::Nobody;
        let Some(rare) = rare else {
            inner.outcome = Some(outcome);
            return self.tell_ended(pool, inner);
        };
        let Rare {
            again,
            held,
            mut mailbox,
            waker,
            mut watchers,
            callbacks,
            ..
        } = *rare;
        // No copy without need: a result that nobody else holds is not copied for whoever waits.
        let for_callbacks = (!callbacks.is_empty()).then(|| outcome.clone());
        inner.outcome = Some(outcome);
        let mut wakers = vec![waker];
        if let Some(mailbox) = &mut mailbox {
            wakers.push(mailbox.waker.take());
            watchers.extend(mailbox.watcher.take());
        }
        // What it has sent stays to be read.
        if mailbox.is_some() {
            inner.rare().mailbox = mailbox;
        }
        // Before anybody can see the outcome: what they have end next comes after it. The slot is locked, and the list within.
        watchers.iter().for_each(|(ready, key)| ready.put(*key));
        drop(inner);
        wake(early);
        // Before what it held counts as gone: who waits until all is quiet waits for its callbacks too.
        if let Some(outcome) = for_callbacks {
            let slot = Arc::clone(self);
            callbacks::run(Box::new(move || {
                for callback in callbacks {
                    contain(|| callback(&slot, &outcome));
                }
            }));
        }
        drop((held, again));
        self.tell_ended(pool, lock(&self.inner));
        for waker in wakers.into_iter().flatten() {
            contain(|| waker.wake());
        }
        watchers.iter().for_each(|(ready, _)| ready.tell());
    }

    /// The outcome is there. Whoever comes to sleep from here on has looked before.
    fn tell_ended(&self, pool: Option<Arc<dyn Queue>>, inner: MutexGuard<'_, Inner>) {
        let (detached, is_helped, has_sleepers) = (inner.detached, inner.is_helped, inner.sleepers > 0);
        drop(inner);
        if let Some(pool) = &pool {
            pool.ended(self);
            if is_helped {
                pool.wake(self);
            }
        }
        if detached {
            nesting::detached_ended();
        }
        // A call into the system, which is not made for nobody.
        if has_sleepers {
            self.changed.notify_all();
        }
    }

    pub(crate) fn fail(self: &Arc<Self>, cause: Cause) {
        let error = Error::new(self.name.to_string(), cause);
        self.end(Outcome::Failed(error.with_worker(self.pid(), Vec::new())));
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
            let mailbox = inner.mailbox();
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
            let is_full = inner.known_mailbox().is_some_and(|mailbox| mailbox.is_full());
            (inner.outcome.is_some() || inner.cancelled || !is_full).then_some(())
        });
    }

    /// What the task is to know of itself.
    pub(crate) fn about(&self, limit: Option<Duration>) -> About {
        About {
            id: self.id,
            name: self.name.to_string().into(),
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
        let again = lock(&self.inner).rare.as_mut().and_then(|rare| rare.again.take());
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
            let mailbox = inner.mailbox();
            mailbox.readers += 1;
            mailbox.is_unbounded |= !bounded;
        });
    }

    /// Has `ready` told of each message, and of the end.
    pub(crate) fn watch_messages(&self, ready: &Arc<Ready>, key: u64) {
        self.peek_mut(|inner| {
            inner.mailbox().watcher = Some((Arc::clone(ready), key));
        });
    }

    /// The next message that nobody has read.
    pub(crate) fn take_letter(&self) -> Option<Vec<u8>> {
        let letter = self.peek_mut(|inner| inner.known_mailbox()?.take()).flatten();
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
        lock(&self.inner).mailbox().progress = Some((done, total));
    }

    /// After letters were taken: has their sender go on, if it was made to wait.
    pub(crate) fn made_room(&self) {
        let place = self.peek_mut(|inner| {
            let is_wanted = inner.known_mailbox().is_some_and(Mailbox::make_room);
            is_wanted.then(|| inner.place.clone())
        });
        let Some(Some(place)) = place else { return };
        match (place, self.pool()) {
            (Place::Worker(workers, worker), _) => workers.has_room(worker),
            (Place::Pool(_), Some(pool)) => pool.has_room(self),
            _ => {}
        }
        self.changed.notify_all();
    }

    /// Has `ready` told when the slot ends; at once if it has.
    pub(crate) fn watch(&self, ready: &Arc<Ready>, key: u64) {
        let watching = self.peek_mut(|inner| match inner.outcome {
            Some(_) => false,
            None => {
                inner.rare().watchers.push((Arc::clone(ready), key));
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
        self.peek_mut(|inner| {
            if let Some(rare) = &mut inner.rare {
                rare.watchers.retain(|(watcher, _)| !Arc::ptr_eq(watcher, ready));
            }
        });
    }

    pub(crate) fn peek<R>(&self, look: impl FnOnce(&Inner) -> R) -> Option<R> {
        self.peek_mut(|inner| look(inner))
    }

    /// In a fork of the process that owns the slot, a thread that no longer exists may hold the lock, and nobody will
    /// ever end the slot: then there is nothing to see.
    pub(crate) fn peek_mut<R>(&self, look: impl FnOnce(&mut Inner) -> R) -> Option<R> {
        if self.is_ours() {
            return Some(look(&mut lock(&self.inner)));
        }
        let mut inner = self.inner.try_lock().ok()?;
        inner.outcome.is_some().then(|| look(&mut inner))
    }

    /// The outcome, or `None` when the deadline has passed.
    pub(crate) fn wait(self: &Arc<Self>, deadline: Option<Instant>) -> Result<Option<Outcome>> {
        self.help(match deadline {
            None => Stay::Endless,
            Some(deadline) if deadline <= Instant::now() => Stay::Look,
            Some(deadline) => Stay::Until(deadline),
        });
        self.wait_until(deadline, |inner| inner.outcome.clone())
    }

    /// Brings the task on, if this thread can.
    pub(crate) fn help(self: &Arc<Self>, patience: Stay) {
        if !self.is_ours() {
            return;
        }
        let (pool, early) = {
            let inner = lock(&self.inner);
            match inner.place {
                _ if inner.outcome.is_some() => (None, None),
                Place::Pool(_) => (inner.pool.clone(), None),
                _ => (None, inner.rare.as_ref().and_then(|rare| rare.early.clone())),
            }
        };
        if let Some(pool) = pool {
            pool.help(self, patience);
        }
        if let Some(early) = early.filter(|_| patience != Stay::Look) {
            early.look_out(self, patience);
        }
    }

    /// A thread begins, or ends, to sleep in [`Queue::help`], or ends to sleep in [`Early::look_out`]. False: the task has
    /// ended.
    pub(crate) fn set_helped(&self, is_helped: bool) -> bool {
        let mut inner = lock(&self.inner);
        inner.is_helped = is_helped;
        inner.outcome.is_none()
    }

    /// What `look` finds; `None` when the deadline has passed.
    pub(crate) fn wait_until<R>(
        &self,
        deadline: Option<Instant>,
        mut look: impl FnMut(&mut Inner) -> Option<R>,
    ) -> Result<Option<R>> {
        if !self.is_ours() {
            let seen = self.peek_mut(look).flatten();
            let seen = seen.ok_or_else(|| Error::new(self.name.to_string(), Cause::OtherProcess));
            return seen.map(Some);
        }
        let mut inner = lock(&self.inner);
        loop {
            if let Some(found) = look(&mut inner) {
                return Ok(Some(found));
            }
            inner.sleepers += 1;
            let slept = sleep_on(&self.changed, inner, deadline);
            let is_late = slept.is_err();
            inner = slept.unwrap_or_else(|inner| inner);
            inner.sleepers -= 1;
            if is_late {
                return Ok(look(&mut inner));
            }
        }
    }
}

fn wake(early: Option<Arc<dyn Early>>) {
    if let Some(early) = early {
        early.wake();
    }
}
