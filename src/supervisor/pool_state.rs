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
//!
//! A worker that is *linked* gets its tasks by [`hand`](PoolState::hand), in whatever thread, and may have several at hand;
//! it is busy while it has any. The others are assigned one task at a time.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::ids::{Rank, TaskId, WorkerId};
use crate::supervisor::waiting::Waiting;
use crate::sync::Count;

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
    /// What it runs, while it is busy and not linked.
    pub(crate) task: Option<TaskId>,
    pub(crate) is_linked: bool,
    /// Tasks that were handed to it while it is linked.
    pub(crate) at_hand: usize,
}

/// One pool. `T`: a task that waits.
#[derive(Debug)]
pub(crate) struct PoolState<T> {
    pub(crate) rules: Rules,
    queue: Waiting<T>,
    /// Tasks between two attempts, by when they come back to the queue.
    resting: BTreeMap<(Instant, Rank), T>,
    numbers: u64,
    /// Tasks that were submitted and have not ended. Their ends are counted without a look at the rest.
    outstanding: Count,
    /// Tasks at hand behind those that their workers are at.
    ahead: usize,
    /// Workers that are to get no more tasks and have none.
    spent: Vec<WorkerId>,
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
            queue: Waiting::default(),
            resting: BTreeMap::new(),
            numbers: 0,
            outstanding: Count::default(),
            ahead: 0,
            spent: Vec::new(),
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

    /// Tasks that no worker is at.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.len() + self.resting.len() + self.ahead
    }

    /// The place at the end of those with this priority.
    pub(crate) fn next_rank(&mut self, priority: i32) -> Rank {
        let number = self.numbers;
        self.numbers += 1;
        Rank { priority, number }
    }

    /// Queues a task, whether there is room or not.
    pub(crate) fn push(&mut self, rank: Rank, task: T) {
        self.queue.push(rank, task);
    }

    /// Queues tasks that were to be queued by now.
    pub(crate) fn end_rests(&mut self, now: Instant) {
        while let Some(entry) = self.resting.first_entry()
            && entry.key().0 <= now
        {
            let ((_, rank), task) = entry.remove_entry();
            self.queue.push(rank, task);
        }
    }

    /// Queues a task later.
    pub(crate) fn push_later(&mut self, when: Instant, rank: Rank, task: T) {
        self.resting.insert((when, rank), task);
    }

    /// Takes a task back that has not begun.
    pub(crate) fn remove(&mut self, rank: Rank) -> Option<T> {
        self.queue.remove(rank).or_else(|| {
            let key = *self.resting.keys().find(|(_, resting)| *resting == rank)?;
            self.resting.remove(&key)
        })
    }

    /// A task was submitted; whether it is the only one.
    pub(crate) fn begun(&mut self) -> bool {
        self.outstanding.add()
    }

    pub(crate) fn outstanding(&self) -> usize {
        self.outstanding.get()
    }

    /// Where whoever ends a task counts it.
    pub(crate) fn counter(&self) -> Count {
        self.outstanding.clone()
    }

    /// Whether a task that was just queued could get on if somebody called [`decide`](PoolState::decide).
    pub(crate) fn wants_decision(&self) -> bool {
        self.is_broken
            || !self.spent.is_empty()
            || !self.queue.is_empty() && !self.idle.is_empty()
            || self.queue.len() + self.ahead > 0 && self.is_worker_wanted()
    }

    pub(crate) fn close(&mut self, how: Shutdown) {
        self.closing = Some(self.closing.map_or(how, |before| before.max(how)));
    }

    pub(crate) fn resize(&mut self, max_workers: usize) {
        self.rules.max_workers = max_workers;
        self.rules.min_workers = self.rules.min_workers.min(max_workers);
    }

    pub(crate) fn queued(&self) -> usize {
        self.queue.len() + self.ahead
    }

    /// Tasks that were handed to nobody.
    pub(crate) fn queued_here(&self) -> usize {
        self.queue.len()
    }

    /// Whether some were handed out behind others.
    pub(crate) fn has_ahead(&self) -> bool {
        self.ahead > 0
    }

    pub(crate) fn first_priority(&self) -> Option<i32> {
        self.queue.first().map(|rank| rank.priority)
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

    // --- linked workers ---

    /// The worker, which is idle, gets its tasks by [`hand`](PoolState::hand) from here on.
    pub(crate) fn link(&mut self, id: WorkerId) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.is_linked = true;
        }
    }

    /// An idle worker that is linked: the one that was busy last.
    pub(crate) fn idle_linked(&self) -> Option<WorkerId> {
        let is_linked = |id: &&WorkerId| self.workers.get(id).is_some_and(|worker| worker.is_linked);
        self.idle.iter().rev().find(is_linked).copied()
    }

    /// Whether tasks are handed out behind those that workers are at: not while a worker that does not exist yet could
    /// have them.
    pub(crate) fn hands_ahead(&self) -> bool {
        self.starting == 0 && !self.may_launch() && self.runs_queue()
    }

    /// Whether what waits is to be run, and not to be given back.
    pub(crate) fn runs_queue(&self) -> bool {
        self.closing.is_none_or(|how| how == Shutdown::Finish)
    }

    /// How many more tasks the worker may be handed.
    pub(crate) fn room_of(&self, id: WorkerId) -> usize {
        let Some(worker) = self.workers.get(&id) else {
            return 0;
        };
        // One that is spent is about to be dismissed.
        let may_have = worker.is_linked
            && matches!(worker.doing, Doing::Idle | Doing::Busy)
            && !self.spent.contains(&id)
            && self.staying() <= self.rules.max_workers;
        match self.rules.max_tasks_per_worker {
            _ if !may_have => 0,
            Some(most) => usize::try_from(most.saturating_sub(worker.tasks_done))
                .unwrap_or(usize::MAX)
                .saturating_sub(worker.at_hand),
            None => usize::MAX,
        }
    }

    /// The rank of the task that is next.
    pub(crate) fn first(&self) -> Option<(Rank, &T)> {
        self.queue.first_with_thing()
    }

    /// Hands the next task to a linked worker.
    pub(crate) fn hand(&mut self, id: WorkerId, now: impl FnOnce() -> Instant) -> Option<(Rank, T)> {
        let worker = self.workers.get_mut(&id)?;
        let next = self.queue.pop_first()?;
        match worker.doing {
            Doing::Idle => {
                worker.doing = Doing::Busy;
                worker.since = now();
                match self.idle.back() == Some(&id) {
                    true => _ = self.idle.pop_back(),
                    false => self.idle.retain(|other| *other != id),
                }
            }
            _ => self.ahead += 1,
        }
        worker.at_hand += 1;
        Some(next)
    }

    /// A task was handed to a busy worker that never was in the queue.
    pub(crate) fn handed_ahead(&mut self, id: WorkerId) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.at_hand += 1;
            self.ahead += 1;
        }
    }

    /// Tasks that were at hand are not any more: they were done, `ended` of them, or taken back.
    pub(crate) fn unhand(&mut self, id: WorkerId, count: usize, ended: usize, now: Instant) {
        let is_surplus = self.staying() > self.rules.max_workers;
        let most = self.rules.max_tasks_per_worker;
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        let before = worker.at_hand;
        worker.at_hand -= count.min(before);
        worker.tasks_done += ended as u64;
        self.ahead -= before.saturating_sub(1) - worker.at_hand.saturating_sub(1);
        let is_spent = most.is_some_and(|most| worker.tasks_done >= most) || is_surplus;
        if worker.at_hand == 0 && before > 0 && worker.doing == Doing::Busy {
            worker.doing = Doing::Idle;
            worker.since = now;
            match is_spent {
                true => self.spent.push(id),
                false => self.idle.push_back(id),
            }
        }
        if ended > 0 {
            self.worked();
        }
    }

    // --- what happens to workers ---

    /// Whether the worker is idle once it is [`ready`](PoolState::ready).
    pub(crate) fn becomes_idle(&self, id: WorkerId) -> bool {
        let Some(worker) = self.workers.get(&id) else {
            return false;
        };
        let most = self.rules.max_tasks_per_worker;
        match worker.doing {
            Doing::Starting => !self.rules.has_init,
            Doing::Initializing | Doing::Idle => true,
            Doing::Busy => {
                self.staying() <= self.rules.max_workers
                    && most.is_none_or(|most| worker.tasks_done + 1 < most)
            }
            Doing::Exiting | Doing::Leaving => false,
        }
    }

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
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.is_linked = false;
            if worker.doing != Doing::Idle {
                return;
            }
            worker.doing = Doing::Leaving;
            let is_new = worker.tasks_done == 0;
            self.leaving += 1;
            self.idle.retain(|other| *other != id);
            self.spent.retain(|other| *other != id);
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
        self.ahead -= worker.at_hand.saturating_sub(1);
        self.spent.retain(|other| *other != id);
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
        if !self.runs_queue() {
            actions.extend(self.drain().map(PoolAction::Cancel));
        }
        self.end_rests(now);
        if self.closing == Some(Shutdown::Kill) {
            self.kill_all(&mut actions);
        }
        while !self.queue.is_empty()
            && let Some(id) = self.take_idle_unlinked()
            && let Some((_, task)) = self.queue.pop_first()
        {
            if let Some(worker) = self.workers.get_mut(&id) {
                worker.doing = Doing::Busy;
                worker.since = now;
            }
            actions.push(PoolAction::Assign(id, task));
        }
        for id in std::mem::take(&mut self.spent) {
            actions.extend(self.dismiss(id, now));
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
                is_linked: false,
                at_hand: 0,
            };
            self.workers.insert(id, worker);
            self.starting += 1;
            self.prestart = self.prestart.saturating_sub(1);
            actions.push(PoolAction::Launch(id));
        }
        if self.closing.is_some() && self.outstanding() == 0 && self.workers.is_empty() {
            self.is_over = true;
            actions.push(PoolAction::Over);
        }
        actions
    }

    /// When [`decide`](PoolState::decide) has to be called though nothing happens.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        // While one is starting, no other is made after a failure, however late it is.
        let rest = self
            .rest_until
            .filter(|_| self.is_worker_wanted() && self.starting == 0);
        let resting = self.resting.first_key_value().map(|((when, _), _)| *when);
        rest.into_iter().chain(resting).chain(self.idle_deadline()).min()
    }

    /// Nothing will ever be decided again, and nobody has its workers any more: gives back what waits.
    pub(crate) fn abandon(&mut self) -> Vec<T> {
        self.is_broken = true;
        self.is_over = true;
        self.workers.clear();
        self.idle.clear();
        self.spent.clear();
        (self.starting, self.leaving, self.ahead) = (0, 0, 0);
        self.rest_until = None;
        self.drain().collect()
    }

    fn drain(&mut self) -> impl Iterator<Item = T> + use<T> {
        let queue = self.queue.take_all();
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

    /// The idle worker that was busy last, if it is not linked: those that are have been handed what there was.
    fn take_idle_unlinked(&mut self) -> Option<WorkerId> {
        let is_linked = |id: &WorkerId| self.workers.get(id).is_some_and(|worker| worker.is_linked);
        let at = self.idle.iter().rposition(|id| !is_linked(id))?;
        self.idle.remove(at)
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
        let for_queue = self.starting < self.queue.len() + self.ahead;
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
        worker.is_linked = false;
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
        self.spent.clear();
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
