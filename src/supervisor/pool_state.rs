//! What a pool's workers do next, decided from what is queued and what happened: no I/O, no clock, no lock.
//!
//! ```text
//! Starting ---> Initializing ---> Idle <---> Busy        Exiting ---> Leaving ---> gone
//!     |              |             |                        ^
//!     +--------------+-------------+------- dismissed ------+      anything may go at once: a worker can die
//! ```
//!
//! [`decide`](PoolState::decide) is called after whatever happened; what it returns is to be done. It never asks for the
//! same thing twice.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::ids::{Rank, TaskId, WorkerId};

/// How a pool is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) min_workers: usize,
    pub(crate) max_workers: usize,
    /// Beyond `min_workers`, a worker that had nothing to do for so long is dismissed.
    pub(crate) idle_timeout: Duration,
    pub(crate) max_tasks_per_worker: Option<u64>,
    /// How many tasks may wait.
    pub(crate) queue: Option<usize>,
    pub(crate) has_init: bool,
    pub(crate) has_exit: bool,
}

/// How a pool ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Shutdown {
    /// Runs what is queued, then ends the workers.
    Finish,
    /// Ends what is queued in [`Cancelled`](crate::ErrorKind::Cancelled), and lets what runs come to its end.
    Cancel,
    /// Also ends what runs.
    Kill,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PoolAction<T> {
    /// Make this worker.
    Launch(WorkerId),
    /// Have it run the pool's first call.
    Init(WorkerId),
    Assign(WorkerId, T),
    /// Have it run the pool's last call.
    Exit(WorkerId),
    /// Close its channel, so that it ends.
    Dismiss(WorkerId),
    Kill(WorkerId),
    /// The task ends without having run.
    Cancel(T),
    /// The task ends in the error that broke the pool.
    Refuse(T),
    /// The pool has ended: nothing is left of it.
    Over,
}

/// What a worker of a pool does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doing {
    Starting,
    Initializing,
    Idle,
    Busy,
    Exiting,
    Leaving,
}

/// A worker as its pool knows it.
#[derive(Debug)]
pub(crate) struct PoolWorker {
    pub(crate) doing: Doing,
    pub(crate) since: Instant,
    pub(crate) tasks_done: u64,
    pub(crate) pid: Option<u32>,
    /// What it runs, while it is busy.
    pub(crate) task: Option<TaskId>,
}

/// One pool. `T`: a task that waits.
#[derive(Debug)]
pub(crate) struct PoolState<T> {
    pub(crate) rules: Rules,
    queue: BTreeMap<Rank, T>,
    /// Tasks between two attempts, by when they come back to the queue.
    resting: BTreeMap<(Instant, Rank), T>,
    numbers: u64,
    /// Tasks that were submitted and have not ended.
    outstanding: usize,
    workers: BTreeMap<WorkerId, PoolWorker>,
    /// Idle workers, the one that was busy last at the end: it has the warmest caches, and the others may time out.
    idle: VecDeque<WorkerId>,
    starting: usize,
    leaving: usize,
    pub(crate) closing: Option<Shutdown>,
    is_over: bool,
    /// Launches that failed since the last that did not.
    failures: u32,
    /// No launch before this.
    rest_until: Option<Instant>,
    is_broken: bool,
    /// Workers are made though nothing is queued, up to this many.
    prestart: usize,
}

impl<T> PoolState<T> {
    pub(crate) fn new(rules: Rules, prestart: usize) -> Self {
        PoolState {
            rules,
            queue: BTreeMap::new(),
            resting: BTreeMap::new(),
            numbers: 0,
            outstanding: 0,
            workers: BTreeMap::new(),
            idle: VecDeque::new(),
            starting: 0,
            leaving: 0,
            closing: None,
            is_over: false,
            failures: 0,
            rest_until: None,
            is_broken: false,
            prestart,
        }
    }

    // --- what callers do ---

    /// `elsewhere`: tasks that were taken in and are not here yet.
    pub(crate) fn has_room(&self, elsewhere: usize) -> bool {
        self.rules
            .queue
            .is_none_or(|most| self.waiting() + elsewhere < most)
    }

    /// Tasks that no worker has.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.len() + self.resting.len()
    }

    /// The place at the end of those with this priority.
    pub(crate) fn next_rank(&mut self, priority: i32) -> Rank {
        let number = self.numbers;
        self.numbers += 1;
        Rank { priority, number }
    }

    /// Queues a task, whether there is room or not.
    pub(crate) fn push(&mut self, rank: Rank, task: T) {
        self.queue.insert(rank, task);
    }

    /// Queues a task later.
    pub(crate) fn push_later(&mut self, when: Instant, rank: Rank, task: T) {
        self.resting.insert((when, rank), task);
    }

    /// Takes a task back that has not begun.
    pub(crate) fn remove(&mut self, rank: Rank) -> Option<T> {
        self.queue.remove(&rank).or_else(|| {
            let key = *self.resting.keys().find(|(_, resting)| *resting == rank)?;
            self.resting.remove(&key)
        })
    }

    /// A task was submitted.
    pub(crate) fn begun(&mut self) {
        self.outstanding += 1;
    }

    /// A task has ended.
    pub(crate) fn ended(&mut self) {
        self.outstanding -= 1;
    }

    pub(crate) fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Whether a task that was just queued could get on if somebody called [`decide`](PoolState::decide).
    pub(crate) fn wants_decision(&self) -> bool {
        !self.idle.is_empty() || self.is_broken || self.may_launch() && self.starting < self.queue.len()
    }

    pub(crate) fn close(&mut self, how: Shutdown) {
        self.closing = Some(self.closing.map_or(how, |before| before.max(how)));
    }

    pub(crate) fn resize(&mut self, max_workers: usize) {
        self.rules.max_workers = max_workers;
        self.rules.min_workers = self.rules.min_workers.min(max_workers);
    }

    pub(crate) fn queued(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn first_priority(&self) -> Option<i32> {
        self.queue.first_key_value().map(|(rank, _)| rank.priority)
    }

    pub(crate) fn workers(&self) -> impl Iterator<Item = (WorkerId, &PoolWorker)> {
        self.workers.iter().map(|(id, worker)| (*id, worker))
    }

    pub(crate) fn doing(&self, id: WorkerId) -> Option<Doing> {
        self.workers.get(&id).map(|worker| worker.doing)
    }

    pub(crate) fn worker_mut(&mut self, id: WorkerId) -> Option<&mut PoolWorker> {
        self.workers.get_mut(&id)
    }

    pub(crate) fn count(&self, doing: Doing) -> usize {
        self.workers
            .values()
            .filter(|worker| worker.doing == doing)
            .count()
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.is_broken
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    // --- what happens to workers ---

    /// The worker is ready for its next call.
    pub(crate) fn ready(&mut self, id: WorkerId, now: Instant) -> Option<PoolAction<T>> {
        let has_init = self.rules.has_init;
        let is_surplus = self.staying() > self.rules.max_workers;
        let worker = self.workers.get_mut(&id)?;
        worker.since = now;
        match worker.doing {
            Doing::Starting if has_init => {
                worker.doing = Doing::Initializing;
                return Some(PoolAction::Init(id));
            }
            Doing::Starting | Doing::Initializing => {
                worker.doing = Doing::Idle;
                self.starting -= 1;
                self.idle.push_back(id);
            }
            Doing::Busy => {
                worker.tasks_done += 1;
                let is_spent = self
                    .rules
                    .max_tasks_per_worker
                    .is_some_and(|most| worker.tasks_done >= most);
                worker.doing = Doing::Idle;
                worker.task = None;
                self.worked();
                if is_spent || is_surplus {
                    return self.dismiss(id, now);
                }
                self.idle.push_back(id);
            }
            Doing::Exiting => {
                worker.doing = Doing::Leaving;
                return Some(PoolAction::Dismiss(id));
            }
            Doing::Idle | Doing::Leaving => {}
        }
        None
    }

    /// An idle worker cannot be used any more; it is on its way out.
    pub(crate) fn unfit(&mut self, id: WorkerId, now: Instant) {
        if let Some(worker) = self.workers.get_mut(&id)
            && worker.doing == Doing::Idle
        {
            worker.doing = Doing::Leaving;
            let is_new = worker.tasks_done == 0;
            self.leaving += 1;
            self.idle.retain(|other| *other != id);
            if is_new {
                self.failed(now);
            }
        }
    }

    /// The worker is gone, or never came.
    pub(crate) fn gone(&mut self, id: WorkerId, now: Instant) {
        let Some(worker) = self.workers.remove(&id) else {
            return;
        };
        match worker.doing {
            Doing::Starting | Doing::Initializing => {
                self.starting -= 1;
                self.failed(now);
            }
            Doing::Idle => {
                self.idle.retain(|other| *other != id);
                if worker.tasks_done == 0 {
                    self.failed(now);
                }
            }
            // It came as far as a task, whose affair this is.
            Doing::Busy => self.worked(),
            Doing::Exiting | Doing::Leaving => self.leaving -= 1,
        }
    }

    /// A worker has got as far as a task.
    fn worked(&mut self) {
        self.failures = 0;
        self.rest_until = None;
    }

    /// A worker is gone that never did anything. Those that were made together fail together, and count once.
    fn failed(&mut self, now: Instant) {
        if self.rest_until.is_none_or(|until| until <= now) {
            self.failures += 1;
            // One may have been killed by hand: it is replaced at once.
            self.rest_until = match self.failures {
                1 => None,
                failures => now.checked_add(FIRST_REST * (1 << failures.min(7))),
            };
        }
        self.is_broken |= self.failures >= MOST_FAILURES && self.staying() == 0;
    }

    /// The task that a worker was to run has ended before it was handed over.
    pub(crate) fn unassign(&mut self, id: WorkerId, now: Instant) {
        if let Some(worker) = self.workers.get_mut(&id)
            && worker.doing == Doing::Busy
        {
            worker.doing = Doing::Idle;
            worker.task = None;
            worker.since = now;
            self.idle.push_back(id);
        }
    }

    /// Everything that is to be done now.
    pub(crate) fn decide(
        &mut self,
        now: Instant,
        mut new_worker: impl FnMut() -> WorkerId,
    ) -> Vec<PoolAction<T>> {
        let mut actions = Vec::new();
        if self.is_over {
            return actions;
        }
        if self.is_broken {
            actions.extend(self.drain().map(PoolAction::Refuse));
        }
        if self.closing >= Some(Shutdown::Cancel) {
            actions.extend(self.drain().map(PoolAction::Cancel));
        }
        while let Some(entry) = self.resting.first_entry()
            && entry.key().0 <= now
        {
            let ((_, rank), task) = entry.remove_entry();
            self.queue.insert(rank, task);
        }
        if self.closing == Some(Shutdown::Kill) {
            self.kill_all(&mut actions);
        }
        while !self.idle.is_empty()
            && let Some((_, task)) = self.queue.pop_first()
            && let Some(id) = self.idle.pop_back()
        {
            if let Some(worker) = self.workers.get_mut(&id) {
                worker.doing = Doing::Busy;
                worker.since = now;
            }
            actions.push(PoolAction::Assign(id, task));
        }
        self.shrink(now, &mut actions);
        while self.is_worker_wanted()
            && self.rest_until.is_none_or(|until| until <= now)
            // After a failure one is tried at a time.
            && (self.failures == 0 || self.starting == 0)
        {
            let id = new_worker();
            let worker = PoolWorker {
                doing: Doing::Starting,
                since: now,
                tasks_done: 0,
                pid: None,
                task: None,
            };
            self.workers.insert(id, worker);
            self.starting += 1;
            self.prestart = self.prestart.saturating_sub(1);
            actions.push(PoolAction::Launch(id));
        }
        if self.closing.is_some() && self.outstanding == 0 && self.workers.is_empty() {
            self.is_over = true;
            actions.push(PoolAction::Over);
        }
        actions
    }

    /// When [`decide`](PoolState::decide) has to be called though nothing happens.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let rest = self.rest_until.filter(|_| self.is_worker_wanted());
        let resting = self.resting.first_key_value().map(|((when, _), _)| *when);
        rest.into_iter().chain(resting).chain(self.idle_deadline()).min()
    }

    /// Nothing will ever be decided again, and nobody has its workers any more: gives back what waits.
    pub(crate) fn abandon(&mut self) -> Vec<T> {
        self.is_broken = true;
        self.is_over = true;
        self.workers.clear();
        self.idle.clear();
        (self.starting, self.leaving) = (0, 0);
        self.rest_until = None;
        self.drain().collect()
    }

    fn drain(&mut self) -> impl Iterator<Item = T> + use<T> {
        let queue = std::mem::take(&mut self.queue).into_values();
        queue.chain(std::mem::take(&mut self.resting).into_values())
    }

    /// When the worker that was idle for the longest time has had enough.
    fn idle_deadline(&self) -> Option<Instant> {
        if self.staying() <= self.rules.min_workers {
            return None;
        }
        let first = self.workers.get(self.idle.front()?)?;
        first.since.checked_add(self.rules.idle_timeout)
    }

    /// Workers that are not on their way out.
    fn staying(&self) -> usize {
        self.workers.len() - self.leaving
    }

    fn may_launch(&self) -> bool {
        !self.is_broken && self.closing != Some(Shutdown::Kill) && self.staying() < self.rules.max_workers
    }

    fn is_worker_wanted(&self) -> bool {
        let is_open = self.closing.is_none();
        let for_queue = self.starting < self.queue.len();
        let for_min = is_open && self.staying() < self.rules.min_workers;
        let for_start = is_open && self.prestart > 0;
        self.may_launch() && (for_queue || for_min || for_start)
    }

    /// Dismisses idle workers that are too many, or idle for too long, or not needed any more.
    fn shrink(&mut self, now: Instant, actions: &mut Vec<PoolAction<T>>) {
        while let Some(id) = self.idle.front().copied() {
            let is_late = self.idle_deadline().is_some_and(|deadline| deadline <= now);
            if self.closing.is_none() && self.staying() <= self.rules.max_workers && !is_late {
                return;
            }
            self.idle.pop_front();
            actions.extend(self.dismiss(id, now));
        }
    }

    fn dismiss(&mut self, id: WorkerId, now: Instant) -> Option<PoolAction<T>> {
        let worker = self.workers.get_mut(&id)?;
        worker.since = now;
        self.leaving += 1;
        Some(if self.rules.has_exit {
            worker.doing = Doing::Exiting;
            PoolAction::Exit(id)
        } else {
            worker.doing = Doing::Leaving;
            PoolAction::Dismiss(id)
        })
    }

    fn kill_all(&mut self, actions: &mut Vec<PoolAction<T>>) {
        self.idle.clear();
        for (id, worker) in &mut self.workers {
            match worker.doing {
                Doing::Leaving => continue,
                Doing::Starting | Doing::Initializing => {
                    self.starting -= 1;
                    self.leaving += 1;
                }
                Doing::Idle | Doing::Busy => self.leaving += 1,
                Doing::Exiting => {}
            }
            worker.doing = Doing::Leaving;
            actions.push(PoolAction::Kill(*id));
        }
    }
}

/// So many launches in a row may fail, a task having been done by none of their workers, before a pool without workers
/// gives up.
const MOST_FAILURES: u32 = 5;

/// How long a pool rests after the second launch in a row that failed, divided by four; doubled with each more.
const FIRST_REST: Duration = Duration::from_millis(5);
