//! Pools as the supervisor and the callers share them: [`PoolState`] in a mutex, and what is done of its decisions.
//!
//! Lock order: a pool's lock before a slot's. With a pool locked nothing ends, nothing is launched, and no user code runs.

use std::any::Any;
use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::error::{Cause, Error};
use crate::ids::{self, Rank, TaskId, WorkerId};
use crate::launch::{Order, Surroundings};
use crate::options::{Options, StartMethod};
use crate::slot::{Outcome, Place, Queue, Slot};
use crate::supervisor::context::{self, Command, Context};
use crate::supervisor::pool_state::{PoolAction, PoolState, Rules, Shutdown};
use crate::sync::{lock, sleep_on};
use crate::sys;
use crate::work::Work;

/// A task that waits in a pool.
#[derive(Clone)]
pub(crate) struct PoolTask {
    pub(crate) slot: Arc<Slot>,
    pub(crate) work: Work,
    pub(crate) rank: Rank,
    pub(crate) limit: Option<Duration>,
    pub(crate) grace: Duration,
    pub(crate) max_result: u64,
    /// How many workers died with it in their hands before they began it.
    pub(crate) returned: u32,
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
    }
}

/// One pool.
pub(crate) struct PoolCore {
    pub(crate) id: u64,
    pub(crate) settings: PoolSettings,
    context: &'static Context,
    generation: u64,
    inner: Mutex<Inner>,
    changed: Condvar,
}

struct Inner {
    state: PoolState<PoolTask>,
    /// The last reason for which a worker could not be made.
    failure: Option<Error>,
    /// Tasks that were taken in and wait for a permit.
    limited: HashMap<TaskId, Arc<Slot>>,
    /// Guards that hold back new tasks.
    guards: usize,
    /// Threads that sleep on `changed`.
    sleepers: usize,
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
    pub(super) is_over: bool,
}

/// A task that was just queued.
struct Queued {
    /// It was cancelled before, and is not in the queue.
    is_cancelled: bool,
    /// The supervisor has to look.
    rings: bool,
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
        Arc::new(PoolCore {
            id: ids::next_number(),
            settings,
            context,
            generation: sys::generation(),
            inner: Mutex::new(Inner {
                state,
                failure: None,
                limited: HashMap::new(),
                guards: 0,
                sleepers: 0,
                counts: Counts::default(),
            }),
            changed: Condvar::new(),
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
    pub(crate) fn is_ours(&self) -> bool {
        self.generation == sys::generation()
    }

    // --- what callers do ---

    /// Queues a new task, or says why not.
    pub(crate) fn submit(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        work: Work,
        options: &Options,
        patience: Patience,
    ) -> Result<(), NotTaken> {
        let mut inner = self.let_in(patience)?;
        let task = self.task(slot, work, options, &mut inner);
        let queued = self.queue(&mut inner, task, None);
        drop(inner);
        self.count(slot);
        self.after_queueing(slot, queued);
        Ok(())
    }

    /// Takes a task in that has to wait for a permit before it queues.
    pub(crate) fn admit(self: &Arc<Self>, slot: &Arc<Slot>, patience: Patience) -> Result<(), NotTaken> {
        let mut inner = self.let_in(patience)?;
        inner.limited.insert(slot.id, Arc::clone(slot));
        drop(inner);
        self.count(slot);
        Ok(())
    }

    /// Queues a task that was taken in before, whether there is room or not: it has its permit, or is due again.
    pub(crate) fn queue_again(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        work: Work,
        options: &Options,
        pause: Duration,
    ) {
        let when = Instant::now().checked_add(pause).filter(|_| !pause.is_zero());
        let mut inner = lock(&self.inner);
        inner.limited.remove(&slot.id);
        let task = self.task(slot, work, options, &mut inner);
        let queued = self.queue(&mut inner, task, when);
        drop(inner);
        self.after_queueing(slot, queued);
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
            inner.sleepers += 1;
            let slept = sleep_on(&self.changed, inner, deadline);
            let is_late = slept.is_err();
            inner = slept.unwrap_or_else(|inner| inner);
            inner.sleepers -= 1;
            if is_late && !inner.may_take() {
                return Err(NotTaken::Full);
            }
        }
        inner.state.begun();
        self.context.enter();
        inner.counts.submitted += 1;
        Ok(inner)
    }

    /// Has the task counted until it has ended.
    fn count(self: &Arc<Self>, slot: &Slot) {
        let counted: Box<dyn Any + Send> = Box::new(Counted {
            pool: Arc::clone(self),
            task: slot.id,
        });
        // If it has ended already, it is not counted any more.
        slot.hold(counted);
    }

    fn task(&self, slot: &Arc<Slot>, work: Work, options: &Options, inner: &mut Inner) -> PoolTask {
        PoolTask {
            slot: Arc::clone(slot),
            work,
            rank: inner.state.next_rank(options.priority.unwrap_or_default()),
            limit: options.timeout,
            grace: options.grace_or_default(),
            max_result: options.max_result_or_default(),
            returned: 0,
        }
    }

    fn queue(self: &Arc<Self>, inner: &mut Inner, task: PoolTask, when: Option<Instant>) -> Queued {
        let (slot, rank) = (Arc::clone(&task.slot), task.rank);
        match when {
            Some(when) => inner.state.push_later(when, rank, task),
            None => inner.state.push(rank, task),
        }
        // With the pool locked: whoever takes the task out of the queue says so after this, and one that is cancelled
        // already is never seen there.
        let is_cancelled = slot.set_place(Place::Queue(Arc::clone(self) as Arc<dyn Queue>, rank));
        if is_cancelled {
            inner.state.remove(rank);
        }
        Queued {
            is_cancelled,
            rings: when.is_some() || inner.state.closing.is_some() || inner.state.wants_decision(),
        }
    }

    fn after_queueing(self: &Arc<Self>, slot: &Arc<Slot>, queued: Queued) {
        if queued.is_cancelled {
            slot.fail(Cause::Cancelled);
        }
        if queued.rings {
            self.ring();
        }
    }

    /// Has the supervisor decide.
    fn ring(self: &Arc<Self>) {
        if let Err(cause) = self.context.send(Command::Pool(Arc::clone(self))) {
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
        let mut inner = lock(&self.inner);
        inner.failure = Some(Error::new("", cause.clone()));
        let mut slots: Vec<_> = inner.state.abandon().into_iter().map(|task| task.slot).collect();
        slots.extend(inner.limited.drain().map(|(_, slot)| slot));
        drop(inner);
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
        let mut inner = lock(&self.inner);
        inner.state.close(how);
        // What waits for a permit is not the supervisor's yet.
        let limited: Vec<_> = match how {
            Shutdown::Finish => Vec::new(),
            _ => inner.limited.drain().map(|(_, slot)| slot).collect(),
        };
        drop(inner);
        self.changed.notify_all();
        for slot in limited {
            slot.fail(Cause::Cancelled);
        }
        self.ring();
    }

    pub(crate) fn resize(self: &Arc<Self>, workers: usize) {
        lock(&self.inner).state.resize(workers);
        self.ring();
    }

    /// Looks at the pool. `None`: it belongs to another process.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&PoolState<PoolTask>, &Counts) -> R) -> Option<R> {
        if !self.is_ours() {
            return None;
        }
        let inner = lock(&self.inner);
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
        let mut inner = lock(&self.inner);
        while !is_so(&inner.state) {
            inner.sleepers += 1;
            let slept = sleep_on(&self.changed, inner, deadline);
            let is_late = slept.is_err();
            inner = slept.unwrap_or_else(|inner| inner);
            inner.sleepers -= 1;
            if is_late {
                break;
            }
        }
        let is_so = is_so(&inner.state);
        inner.guards += usize::from(guard && is_so);
        is_so
    }

    /// A guard is gone.
    pub(crate) fn unguard(&self) {
        if self.is_ours() {
            lock(&self.inner).guards -= 1;
            self.changed.notify_all();
        }
    }

    // --- what the supervisor does ---

    /// What is to be done now, after `happened`.
    pub(super) fn decide(
        &self,
        now: Instant,
        happened: impl FnOnce(&mut PoolState<PoolTask>) -> Option<PoolAction<PoolTask>>,
    ) -> Decided {
        let mut inner = lock(&self.inner);
        let waiting = inner.state.waiting();
        let first = happened(&mut inner.state);
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
        let deadline = inner.state.next_deadline();
        drop(inner);
        if rings {
            self.changed.notify_all();
        }
        // What follows from the event itself comes first.
        actions.splice(0..0, first);
        Decided {
            actions,
            deadline,
            is_over,
        }
    }

    pub(super) fn set_pid(&self, id: WorkerId, pid: u32) {
        if let Some(worker) = lock(&self.inner).state.worker_mut(id) {
            worker.pid = Some(pid);
        }
    }

    /// A worker could not be made, or its first call failed.
    pub(super) fn worker_failed(&self, error: Error) {
        lock(&self.inner).failure = Some(error);
    }

    pub(super) fn worker_died(&self) {
        lock(&self.inner).counts.workers_died += 1;
    }

    pub(super) fn hook_failed(&self) {
        lock(&self.inner).counts.hooks_failed += 1;
    }

    /// The worker that the task was meant for is gone.
    pub(super) fn put_back(self: &Arc<Self>, task: PoolTask) {
        let slot = Arc::clone(&task.slot);
        let mut inner = lock(&self.inner);
        let queued = self.queue(&mut inner, task, None);
        drop(inner);
        self.after_queueing(
            &slot,
            Queued {
                rings: false,
                ..queued
            },
        );
    }

    /// A worker died before it began the task: puts it back where it was, or tells that this happened too often.
    pub(super) fn give_back(self: &Arc<Self>, mut task: PoolTask) -> Result<(), PoolTask> {
        task.returned += 1;
        if task.returned > MOST_RETURNS {
            return Err(task);
        }
        self.put_back(task);
        Ok(())
    }

    pub(super) fn refusal(&self) -> Error {
        self.broken(&lock(&self.inner))
    }

    /// The order for a worker, which gets its calls later.
    pub(super) fn order(&self) -> Order {
        Order {
            call: None,
            payload: Arc::default(),
            depth: self.settings.depth,
            surroundings: Arc::clone(&self.settings.surroundings),
            is_spawn: self.settings.options.method() == StartMethod::Spawn,
        }
    }
}

impl Queue for PoolCore {
    fn take_back(&self, rank: Rank) -> bool {
        let mut inner = lock(&self.inner);
        let is_there = inner.state.remove(rank).is_some();
        let rings = inner.sleepers > 0;
        drop(inner);
        if rings {
            self.changed.notify_all();
        }
        is_there
    }
}

/// Counts a task as outstanding until it has ended.
struct Counted {
    pool: Arc<PoolCore>,
    task: TaskId,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let pool = &self.pool;
        if !pool.is_ours() {
            return;
        }
        let mut inner = lock(&pool.inner);
        inner.state.ended();
        pool.context.leave();
        let limited = inner.limited.remove(&self.task);
        let rings = inner.sleepers > 0;
        let is_last = inner.state.closing.is_some() && inner.state.outstanding() == 0;
        drop(inner);
        drop(limited);
        if rings {
            pool.changed.notify_all();
        }
        if is_last {
            pool.ring();
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
