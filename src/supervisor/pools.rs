//! Pools as the supervisor and the callers share them: [`PoolState`] in a mutex, and what is done of its decisions.
//!
//! Lock order: a pool's lock before a slot's. With a pool locked nothing ends, nothing is launched, and no user code runs.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use crate::error::{Cause, Error};
use crate::ids::{self, Rank, TaskId, WorkerId};
use crate::launch::{Order, Surroundings};
use crate::options::{Options, StartMethod};
use crate::payload::Payload;
use crate::slot::{Outcome, Place, Queue, Slot};
use crate::supervisor::context::{self, Command, Context};
use crate::supervisor::handing::Lanes;
use crate::supervisor::lanes::Ends;
use crate::supervisor::pool_state::{PoolAction, PoolState, Rules, Shutdown};
use crate::sync::{Count, lock, sleep_on};
use crate::sys;
use crate::work::Work;

/// A task that waits in a pool, or is at one of its workers.
#[derive(Clone)]
pub(crate) struct PoolTask {
    pub(crate) slot: Arc<Slot>,
    pub(crate) work: Work,
    /// `None`: those of the pool.
    pub(crate) terms: Option<Arc<Terms>>,
}

impl PoolTask {
    /// `of_pool`: those of the pool that it is in.
    pub(super) fn terms<'a>(&'a self, of_pool: &'a Terms) -> &'a Terms {
        self.terms.as_deref().unwrap_or(of_pool)
    }

    /// Counts that a worker died before it began the task: whether it is not to be put back again.
    pub(super) fn came_back_too_often(&self) -> bool {
        self.slot.count_return() > MOST_RETURNS
    }
}

/// What holds for a task in a pool; many have the same.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) priority: i32,
    pub(crate) limit: Option<Duration>,
    pub(crate) grace: Duration,
    pub(crate) max_result: u64,
}

impl Terms {
    pub(crate) fn of(options: &Options) -> Terms {
        Terms {
            priority: options.priority.unwrap_or_default(),
            limit: options.timeout,
            grace: options.grace_or_default(),
            max_result: options.max_result_or_default(),
        }
    }
}

/// How a pool is made.
pub(crate) struct PoolSettings {
    pub(crate) name: Option<String>,
    pub(crate) rules: Rules,
    pub(crate) prestart: usize,
    /// For its workers, and for what its tasks leave open. The start method is set.
    pub(crate) options: Options,
    pub(crate) init: Option<Work>,
    pub(crate) exit: Option<Work>,
    /// Of the builder; in the surroundings too.
    pub(crate) environment: Vec<(OsString, OsString)>,
    pub(crate) directory: Option<PathBuf>,
    pub(crate) depth: u32,
    pub(crate) surroundings: Arc<Surroundings>,
    /// How long a thread that waits, or a worker, may look out before it sleeps. Zero: not at all.
    pub(crate) spin: Duration,
}

impl PoolSettings {
    /// Whether a pool with these settings serves whoever wants one with those.
    pub(crate) fn is_like(&self, other: &PoolSettings) -> bool {
        self.rules == other.rules
            && self.prestart == other.prestart
            && self.options == other.options
            && self.environment == other.environment
            && self.directory == other.directory
            && self.init == other.init
            && self.exit == other.exit
            && self.spin == other.spin
    }
}

/// One pool.
pub(crate) struct PoolCore {
    pub(crate) id: u64,
    pub(crate) settings: PoolSettings,
    /// What holds for calls that have no options of their own.
    pub(crate) terms: Arc<Terms>,
    pub(super) context: &'static Context,
    generation: u64,
    pub(super) me: Weak<PoolCore>,
    pub(super) inner: Mutex<Inner>,
    pub(super) changed: Condvar,
    outstanding: Count,
    /// How many wait for the end of a task, whichever it is; and one more when the pool is closed or a task is limited.
    pub(super) watched: AtomicUsize,
}

pub(super) struct Inner {
    pub(super) state: PoolState<PoolTask>,
    pub(super) lanes: Lanes,
    /// The last reason for which a worker could not be made.
    failure: Option<Error>,
    /// Tasks that were taken in and wait for a permit.
    limited: HashMap<TaskId, Arc<Slot>>,
    /// Guards that hold back new tasks.
    guards: usize,
    /// Threads that sleep on `changed`.
    pub(super) sleepers: usize,
    counts: Counts,
}

impl Inner {
    /// Whether one more task may come in.
    fn may_take(&self) -> bool {
        self.guards == 0 && self.state.has_room(self.limited.len())
    }
}

/// What a pool has seen.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) submitted: u64,
    pub(crate) workers_made: u64,
    pub(crate) workers_died: u64,
    pub(crate) hooks_failed: u64,
}

/// Why a task was not taken.
#[derive(Debug)]
pub(crate) enum NotTaken {
    /// Nobody waits for it to change.
    Error(Error),
    Full,
}

/// What the supervisor is to do for a pool.
pub(super) struct Decided {
    pub(super) actions: Vec<PoolAction<PoolTask>>,
    /// When it has to decide again though nothing happens.
    pub(super) deadline: Option<Instant>,
    /// Linked workers whose tasks have had their time, unless an answer lies in the pipe.
    pub(super) overdue: Vec<WorkerId>,
    pub(super) is_over: bool,
}

/// How long a submission may wait for room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    Endless,
    /// It needs no room and heeds no guard: it is part of something that began before, which keeps a bound of its own.
    Unbounded,
    Until(Instant),
    None,
}

impl PoolCore {
    pub(crate) fn new(settings: PoolSettings, context: &'static Context) -> Arc<PoolCore> {
        let state = PoolState::new(settings.rules.clone(), settings.prestart);
        Arc::new_cyclic(|me| PoolCore {
            id: ids::next_number(),
            terms: Arc::new(Terms::of(&settings.options)),
            settings,
            context,
            generation: sys::generation(),
            me: Weak::clone(me),
            outstanding: state.counter(),
            inner: Mutex::new(Inner {
                state,
                lanes: Lanes::default(),
                failure: None,
                limited: HashMap::new(),
                guards: 0,
                sleepers: 0,
                counts: Counts::default(),
            }),
            changed: Condvar::new(),
            watched: AtomicUsize::new(0),
        })
    }

    /// As errors call it.
    pub(crate) fn title(&self) -> String {
        match &self.settings.name {
            Some(name) => format!("pool {name:?}"),
            None => "the pool".into(),
        }
    }

    pub(crate) fn is_thread(&self) -> bool {
        self.settings.options.method() == StartMethod::Thread
    }

    /// In a fork of the process that made it, nobody serves it, and its lock may be held for ever.
    #[inline]
    pub(crate) fn is_ours(&self) -> bool {
        self.generation == sys::generation()
    }

    /// For everything but a new task: what is known of where that would go does not hold any more.
    pub(super) fn locked(&self) -> MutexGuard<'_, Inner> {
        let mut inner = lock(&self.inner);
        inner.lanes.lead.forget_open();
        inner
    }

    // --- what callers do ---

    /// Queues a new task, or says why not.
    pub(crate) fn submit(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        work: Work,
        terms: Option<Arc<Terms>>,
        patience: Patience,
    ) -> Result<(), NotTaken> {
        let mut inner = self.let_in(patience)?;
        let task = PoolTask {
            slot: Arc::clone(slot),
            work,
            terms,
        };
        let rank = inner.state.next_rank(task.terms(&self.terms).priority);
        // With the pool locked: one that is cancelled already is never queued, and one that is later is found there.
        let is_cancelled = self.count(slot, Place::Pool(rank));
        let mut ends = Ends::new();
        let rings = match is_cancelled {
            true => {
                ends.push((task.slot, Outcome::cancelled(slot)));
                false
            }
            false => self.queue(&mut inner, task, rank, &mut ends),
        };
        drop(inner);
        self.finish(ends, rings);
        Ok(())
    }

    /// Takes a task in that has to wait for a permit before it queues.
    pub(crate) fn admit(self: &Arc<Self>, slot: &Arc<Slot>, patience: Patience) -> Result<(), NotTaken> {
        let mut inner = self.let_in(patience)?;
        if inner.limited.insert(slot.id, Arc::clone(slot)).is_none() {
            self.watched.fetch_add(1, Ordering::SeqCst);
        }
        // Whoever has it wait for its permit looks whether it was cancelled.
        self.count(slot, Place::Starting);
        Ok(())
    }

    /// Queues a task that was taken in before, whether there is room or not: it has its permit, or is due again.
    pub(crate) fn queue_again(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        work: Work,
        terms: Option<Arc<Terms>>,
        pause: Duration,
    ) {
        let when = Instant::now().checked_add(pause).filter(|_| !pause.is_zero());
        let mut inner = self.locked();
        self.admitted(&mut inner, slot.id);
        let task = PoolTask {
            slot: Arc::clone(slot),
            work,
            terms,
        };
        let mut ends = Ends::new();
        let rank = inner.state.next_rank(task.terms(&self.terms).priority);
        let rings = match (task.slot.set_place(Place::Pool(rank)), when) {
            (true, _) => {
                ends.push((task.slot, Outcome::cancelled(slot)));
                false
            }
            (false, Some(when)) => {
                inner.state.push_later(when, rank, task);
                true
            }
            (false, None) => self.queue(&mut inner, task, rank, &mut ends),
        };
        drop(inner);
        self.finish(ends, rings);
    }

    /// A task does not wait for a permit any more.
    fn admitted(&self, inner: &mut Inner, task: TaskId) {
        if inner.limited.remove(&task).is_some() {
            self.watched.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Waits until one more task may come in.
    fn let_in(&self, patience: Patience) -> Result<MutexGuard<'_, Inner>, NotTaken> {
        if !self.is_ours() {
            return Err(NotTaken::Error(Error::new("", Cause::OtherProcess)));
        }
        let mut inner = lock(&self.inner);
        loop {
            if inner.state.closing.is_some() {
                let pool = self.title();
                return Err(NotTaken::Error(Error::new("", Cause::Closed { pool })));
            }
            if inner.state.is_broken() {
                return Err(NotTaken::Error(self.broken(&inner)));
            }
            if patience == Patience::Unbounded || inner.may_take() {
                break;
            }
            let deadline = match patience {
                // What it would wait for is its own to do.
                _ if context::is_supervisor() => return Err(NotTaken::Full),
                Patience::Endless | Patience::Unbounded => None,
                Patience::Until(deadline) => Some(deadline),
                Patience::None => return Err(NotTaken::Full),
            };
            let is_late;
            (inner, is_late) = self.sleep(inner, deadline);
            if is_late && !inner.may_take() {
                return Err(NotTaken::Full);
            }
        }
        // All tasks of a pool count as one: a number less that every thread writes for each.
        if inner.state.begun() {
            self.context.enter();
        }
        inner.counts.submitted += 1;
        Ok(inner)
    }

    /// One sleep on `changed`; whether the deadline has passed.
    fn sleep<'a>(
        &self,
        mut inner: MutexGuard<'a, Inner>,
        deadline: Option<Instant>,
    ) -> (MutexGuard<'a, Inner>, bool) {
        inner.sleepers += 1;
        let slept = sleep_on(&self.changed, inner, deadline);
        let is_late = slept.is_err();
        let mut inner = slept.unwrap_or_else(|inner| inner);
        inner.sleepers -= 1;
        (inner, is_late)
    }

    /// Has the task counted until it has ended; whether it was cancelled before, or has ended.
    fn count(self: &Arc<Self>, slot: &Slot, place: Place) -> bool {
        let entered = slot.enter(Arc::clone(self) as Arc<dyn Queue>, place);
        if entered.is_none() {
            // It has ended already, and is not counted any more.
            self.discount();
        }
        entered.unwrap_or(true)
    }

    fn discount(&self) {
        if self.outstanding.take() {
            self.context.leave();
        }
    }

    /// Puts a task where it waits, and hands out what can be; whether the supervisor has to look.
    fn queue(&self, inner: &mut Inner, task: PoolTask, rank: Rank, ends: &mut Ends) -> bool {
        let Some(task) = self.hand_on(inner, rank, task, ends) else {
            return false;
        };
        inner.state.push(rank, task);
        self.feed_new(inner, rank.priority, ends)
            || inner.state.closing.is_some()
            || inner.state.wants_decision()
    }

    /// Ends tasks, now that the pool is not locked any more, and has the supervisor look if it is to.
    pub(super) fn finish(&self, ends: Ends, rings: bool) {
        for lane in ends.bells {
            lane.ring_worker();
        }
        // Before anybody is told: the next call may use the memory of these.
        drop(ends.arguments);
        for (slot, outcome) in ends.tasks {
            slot.end(outcome);
        }
        if rings {
            self.ring();
        }
    }

    /// Has the supervisor decide.
    pub(super) fn ring(&self) {
        self.send(Command::Pool);
    }

    pub(super) fn send(&self, command: impl FnOnce(Arc<PoolCore>) -> Command) {
        // Whoever has it now keeps it for as long as this takes.
        if let Some(me) = self.me.upgrade()
            && let Err(cause) = self.context.send(command(me))
        {
            self.fail_all(cause);
        }
    }

    fn broken(&self, inner: &Inner) -> Error {
        let reason = inner.failure.clone();
        let reason = reason.unwrap_or_else(|| Error::new("", Cause::refused("nobody said why")));
        let pool = self.title();
        Error::new(
            "",
            Cause::Broken {
                pool,
                reason: Box::new(reason),
            },
        )
    }

    /// Nothing will ever be done for this pool again.
    pub(crate) fn fail_all(&self, cause: Cause) {
        let mut inner = self.locked();
        inner.failure = Some(Error::new("", cause.clone()));
        let mut slots: Vec<_> = inner.state.abandon().into_iter().map(|task| task.slot).collect();
        let limited: Vec<_> = inner.limited.drain().map(|(_, slot)| slot).collect();
        self.watched.fetch_sub(limited.len(), Ordering::SeqCst);
        slots.extend(limited);
        let error = Error::new("", cause.clone());
        let mut ends = Ends::new();
        for lane in inner.lanes.take_all() {
            let back = lane.end(&mut ends, &error);
            slots.extend(back.into_iter().map(|handed| handed.task.slot));
        }
        drop(inner);
        self.finish(ends, false);
        self.changed.notify_all();
        for slot in slots {
            let error = Error::new(slot.name.to_string(), cause.clone());
            slot.end_for_good(Outcome::Failed(error));
        }
    }

    /// Lets no new task in. The supervisor does the rest.
    pub(crate) fn close(self: &Arc<Self>, how: Shutdown) {
        if !self.is_ours() {
            return;
        }
        let mut inner = self.locked();
        if inner.state.closing.is_none() {
            self.watched.fetch_add(1, Ordering::SeqCst);
        }
        inner.state.close(how);
        // What waits for a permit is not the supervisor's yet.
        let limited: Vec<_> = match how {
            Shutdown::Finish => Vec::new(),
            _ => inner.limited.drain().map(|(_, slot)| slot).collect(),
        };
        self.watched.fetch_sub(limited.len(), Ordering::SeqCst);
        drop(inner);
        self.changed.notify_all();
        for slot in limited {
            slot.fail(Cause::Cancelled);
        }
        self.ring();
    }

    pub(crate) fn resize(self: &Arc<Self>, workers: usize) {
        self.locked().state.resize(workers);
        self.ring();
    }

    /// Looks at the pool. `None`: it belongs to another process.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&PoolState<PoolTask>, &Counts) -> R) -> Option<R> {
        if !self.is_ours() {
            return None;
        }
        let inner = self.locked();
        Some(look(&inner.state, &inner.counts))
    }

    /// Waits until `is_so`, at most until `deadline`; whether it came to that. Then `guard`: new tasks are held back.
    pub(crate) fn wait(
        &self,
        deadline: Option<Instant>,
        guard: bool,
        is_so: impl Fn(&PoolState<PoolTask>) -> bool,
    ) -> bool {
        if !self.is_ours() {
            return false;
        }
        let mut inner = self.locked();
        // Before the look: an end that is not seen by it says so.
        self.watched.fetch_add(1, Ordering::SeqCst);
        while !is_so(&inner.state) {
            let is_late;
            (inner, is_late) = self.sleep(inner, deadline);
            if is_late {
                break;
            }
        }
        self.watched.fetch_sub(1, Ordering::SeqCst);
        let is_so = is_so(&inner.state);
        inner.guards += usize::from(guard && is_so);
        is_so
    }

    /// A guard is gone.
    pub(crate) fn unguard(&self) {
        if self.is_ours() {
            self.locked().guards -= 1;
            self.changed.notify_all();
        }
    }

    // --- what the supervisor does ---

    /// What is to be done now, after `happened`.
    pub(super) fn decide(
        &self,
        now: Instant,
        happened: impl FnOnce(&mut Inner) -> Option<PoolAction<PoolTask>>,
    ) -> Decided {
        let mut inner = self.locked();
        let waiting = inner.state.waiting();
        let first = happened(&mut inner);
        let mut ends = Ends::new();
        // Before tasks are handed to workers: these are among them.
        inner.state.end_rests(now);
        let overdue = self.tend(&mut inner, now, &mut ends);
        let mut actions = inner.state.decide(now, || WorkerId(ids::next_number()));
        for action in &actions {
            match action {
                PoolAction::Launch(_) => inner.counts.workers_made += 1,
                PoolAction::Assign(id, task) => {
                    let task = task.slot.id;
                    if let Some(worker) = inner.state.worker_mut(*id) {
                        worker.task = Some(task);
                    }
                }
                _ => {}
            }
        }
        let is_over = inner.state.is_over();
        let rings =
            inner.sleepers > 0 && (inner.state.waiting() < waiting || is_over || inner.state.is_broken());
        let deadlines = [inner.state.next_deadline(), inner.lanes.next_deadline()];
        let deadline = deadlines.into_iter().flatten().min();
        inner.lanes.planned = deadline;
        drop(inner);
        if rings {
            self.changed.notify_all();
        }
        self.finish(ends, false);
        // What follows from the event itself comes first.
        actions.splice(0..0, first);
        Decided {
            actions,
            deadline,
            overdue,
            is_over,
        }
    }

    pub(super) fn set_pid(&self, id: WorkerId, pid: u32) {
        let mut inner = self.locked();
        if let Some(worker) = inner.state.worker_mut(id) {
            worker.pid = Some(pid);
        }
        // What it says of itself was known before it had a lane.
        if let Some(lane) = inner.lanes.get(id) {
            lane.told_pid(pid);
        }
    }

    /// A worker could not be made, or its first call failed.
    pub(super) fn worker_failed(&self, error: Error) {
        self.locked().failure = Some(error);
    }

    pub(super) fn worker_died(&self) {
        self.locked().counts.workers_died += 1;
    }

    pub(super) fn hook_failed(&self) {
        self.locked().counts.hooks_failed += 1;
    }

    /// The worker that the task was meant for is gone.
    pub(super) fn put_back(&self, task: PoolTask, rank: Rank) {
        let mut inner = self.locked();
        let mut ends = Ends::new();
        self.requeue(&mut inner, task, rank, &mut ends);
        drop(inner);
        self.finish(ends, false);
    }

    /// Puts a task where it was.
    pub(super) fn requeue(&self, inner: &mut Inner, task: PoolTask, rank: Rank, ends: &mut Ends) {
        match task.slot.set_place(Place::Pool(rank)) {
            true => ends.push((Arc::clone(&task.slot), Outcome::cancelled(&task.slot))),
            false => inner.state.push(rank, task),
        }
    }

    /// A worker died before it began the task: puts it back where it was, or tells that this happened too often.
    pub(super) fn give_back(&self, task: PoolTask, rank: Rank) -> Result<(), PoolTask> {
        if task.came_back_too_often() {
            return Err(task);
        }
        self.put_back(task, rank);
        Ok(())
    }

    pub(super) fn refusal(&self) -> Error {
        self.broken(&self.locked())
    }

    /// The order for a worker, which gets its calls later.
    pub(super) fn order(&self) -> Order {
        Order {
            call: None,
            payload: Payload::EMPTY,
            depth: self.settings.depth,
            surroundings: Arc::clone(&self.settings.surroundings),
            is_spawn: self.settings.options.method() == StartMethod::Spawn,
        }
    }
}

impl PoolCore {
    /// A task has ended.
    pub(super) fn task_ended(&self, slot: &Slot) {
        if !self.is_ours() {
            return;
        }
        self.discount();
        if self.watched.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut inner = self.locked();
        self.admitted(&mut inner, slot.id);
        let rings = inner.sleepers > 0;
        let is_last = inner.state.closing.is_some() && inner.state.outstanding() == 0;
        drop(inner);
        if rings {
            self.changed.notify_all();
        }
        if is_last {
            self.ring();
        }
    }
}

/// The error of a task whose pool never began it.
pub(super) fn refused(task: &PoolTask, error: Error) {
    let error = error.with_task(task.slot.name.to_string());
    task.slot.end_for_good(Outcome::Failed(error));
}

/// A task that so many workers were given and none began is not put back again.
const MOST_RETURNS: u32 = 3;
