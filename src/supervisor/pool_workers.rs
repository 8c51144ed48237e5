//! The event loop's dealings with pools: their workers are made, get tasks, and go.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use crate::error::{Cause, Error, ErrorKind};
use crate::ids::{About, Name, Rank, WorkerId};
use crate::launch::{self, Launch};
use crate::options::Stderr;
use crate::payload::Payload;
use crate::slot::{Outcome, Place, Slot};
use crate::supervisor::context::{self, Command, Context};
use crate::supervisor::event_loop::{Channel, EventLoop, Worker};
use crate::supervisor::lanes::Lane;
use crate::supervisor::lines::READS_AT_ONCE;
use crate::supervisor::pool_state::{self, PoolAction};
use crate::supervisor::pools::{self, Decided, Inner, PoolCore, PoolTask, Terms};
use crate::supervisor::state::{Event, Kind, Why};
use crate::sys::{Fd, Interest, SharedBoard};
use crate::transport::Written;
use crate::wire::{self, ToWorker};
use crate::work::Work;

/// The pools that are not over.
#[derive(Default)]
pub(super) struct Pools {
    all: HashMap<u64, (Arc<PoolCore>, Option<Instant>)>,
    deadlines: BTreeSet<(Instant, u64)>,
}

impl Pools {
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Pools that have to decide though nothing happened.
    pub(super) fn due(&self, now: Instant) -> Vec<Arc<PoolCore>> {
        let due = self.deadlines.iter().take_while(|(deadline, _)| *deadline <= now);
        due.filter_map(|(_, id)| Some(Arc::clone(&self.all.get(id)?.0)))
            .collect()
    }

    pub(super) fn take(&mut self) -> Vec<Arc<PoolCore>> {
        self.deadlines.clear();
        self.all.drain().map(|(_, (pool, _))| pool).collect()
    }

    fn set(&mut self, pool: &Arc<PoolCore>, deadline: Option<Instant>) {
        let entry = self
            .all
            .entry(pool.id)
            .or_insert_with(|| (Arc::clone(pool), None));
        if let Some(old) = std::mem::replace(&mut entry.1, deadline) {
            self.deadlines.remove(&(old, pool.id));
        }
        self.deadlines
            .extend(deadline.map(|deadline| (deadline, pool.id)));
    }

    fn remove(&mut self, pool: &PoolCore) {
        if let Some((_, Some(deadline))) = self.all.remove(&pool.id) {
            self.deadlines.remove(&(deadline, pool.id));
        }
    }
}

/// What a worker of a pool has beside others.
pub(super) struct Pooled {
    pub(super) core: Arc<PoolCore>,
    pub(super) pid: Option<u32>,
    doing: Doing,
    pub(super) board: Offer,
    /// It gets its tasks over a lane of the pool.
    pub(super) is_linked: bool,
    /// A worker that is a thread.
    thread: Option<mpsc::Sender<ThreadTask>>,
}

/// A worker's board.
pub(super) enum Offer {
    /// None was offered.
    NotYet,
    /// The descriptor stays open until the worker has answered.
    Made {
        board: SharedBoard,
        _descriptor: Fd,
    },
    Open(SharedBoard),
    /// There is none, or it stands on a lane.
    No,
}

enum Doing {
    Nothing,
    /// The first or the last call of the pool.
    Init,
    Exit,
    Task(PoolTask, Rank),
}

/// A task for a worker that is a thread.
struct ThreadTask {
    slot: Arc<Slot>,
    work: Work,
    about: About,
}

impl EventLoop {
    /// Does what the pool decides, after `happened`.
    pub(super) fn decide(
        &mut self,
        pool: &Arc<PoolCore>,
        happened: impl FnOnce(&mut Inner) -> Option<PoolAction<PoolTask>>,
    ) {
        let Decided {
            actions,
            deadline,
            overdue,
            is_over,
        } = pool.decide(self.now, happened);
        if is_over {
            // Also if somebody asked about it once more.
            self.pools.remove(pool);
        } else {
            self.pools.set(pool, deadline);
        }
        for id in overdue {
            // An answer that lies in the pipe came in time, however long the loop took to come to it.
            self.read_replies(id, READS_AT_ONCE);
            if let Some((limit, grace)) = pool.overdue(id, self.now) {
                let why = Why::TimedOut(limit);
                self.tell(id, Event::End { why, grace });
            }
        }
        self.pool_actions
            .extend(actions.into_iter().map(|action| (Arc::clone(pool), action)));
        // One after the other: an action may lead to further decisions, whose actions come after those that are left.
        if std::mem::replace(&mut self.is_at_pool_actions, true) {
            return;
        }
        while let Some((pool, action)) = self.pool_actions.pop_front() {
            let pool = &pool;
            match action {
                PoolAction::Launch(id) => self.make(pool, id),
                PoolAction::Init(id) => self.run_hook(id, Doing::Init),
                PoolAction::Exit(id) => self.run_hook(id, Doing::Exit),
                PoolAction::Assign(id, task) => self.assign(pool, id, task),
                PoolAction::Dismiss(id) => self.dismiss_worker(id),
                PoolAction::Kill(id) => self.tell(id, Event::Discarded),
                PoolAction::Cancel(task) => task.slot.fail(Cause::Cancelled),
                PoolAction::Refuse(task) => pools::refused(&task, pool.refusal()),
                PoolAction::Over => {}
            }
        }
        self.is_at_pool_actions = false;
    }

    /// Makes a worker.
    fn make(&mut self, pool: &Arc<PoolCore>, id: WorkerId) {
        // What was decided with it may have come to its end by now, and with that it may have been decided to kill it.
        let is_wanted = pool.look(|state, _| state.doing(id) == Some(pool_state::Doing::Starting));
        if is_wanted != Some(true) {
            return self.gone(pool, id);
        }
        let options = pool.settings.options.clone();
        let pooled = Pooled {
            core: Arc::clone(pool),
            pid: None,
            doing: Doing::Nothing,
            board: Offer::NotYet,
            is_linked: false,
            thread: None,
        };
        let grace = options.grace_or_default();
        self.workers
            .insert(id, Worker::new(None, Some(pooled), options.clone()));
        let submitted = |kind| Event::Submitted {
            limit: None,
            grace,
            kind,
        };
        if pool.is_thread() {
            return match thread_worker(self.context, id, pool.settings.depth) {
                Ok(sender) => {
                    if let Some(pooled) = self.pooled(id) {
                        pooled.thread = Some(sender);
                    }
                    self.tell(id, submitted(Kind::PooledThread));
                }
                Err(cause) => {
                    self.tell(id, submitted(Kind::Pooled));
                    self.open(id, Err(cause));
                }
            };
        }
        self.tell(id, submitted(Kind::Pooled));
        let order = pool.order();
        if order.is_spawn {
            self.open(id, launch::spawn(&options, &order));
        } else {
            self.launch(Launch::new(id, options, order));
        }
    }

    pub(super) fn pooled(&mut self, id: WorkerId) -> Option<&mut Pooled> {
        self.workers.get_mut(&id)?.pooled.as_mut()
    }

    /// A worker is ready for its next call.
    pub(super) fn idle(&mut self, id: WorkerId) {
        // It may have been decided meanwhile that it ends.
        if self.state.is_ending(id) {
            return;
        }
        self.offer_board(id);
        let Some(pooled) = self.pooled(id) else {
            return;
        };
        let pool = Arc::clone(&pooled.core);
        let now = self.now;
        let becomes_idle = pool.look(|state, _| state.becomes_idle(id)) == Some(true);
        let lane = if becomes_idle { self.lane(id) } else { None };
        self.decide(&pool, |inner| {
            let action = inner.state.ready(id, now);
            if let Some(lane) = lane {
                inner.link(lane);
            }
            action
        });
    }

    /// Makes a board for a worker of a pool, and tells it so.
    fn offer_board(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        let (Some(pooled), Some(lines)) = (&mut worker.pooled, &mut worker.lines) else {
            return;
        };
        if !matches!(pooled.board, Offer::NotYet) {
            return;
        }
        pooled.board = Offer::No;
        // Without one, everything goes through the pipes.
        let Ok((board, fd, name)) = SharedBoard::new() else {
            return;
        };
        let offer = ToWorker::Board(wire::Board {
            name,
            spin: pooled.core.settings.spin,
            is_heard: matches!(worker.options.stderr_or_default(), Stderr::Tee | Stderr::Capture),
            setup: lines.setup.take(),
        });
        if let Some(calls) = &mut lines.calls
            && let Ok(frame) = wire::frame_head(&offer, 0)
        {
            calls.push_frame(frame, Payload::EMPTY);
            pooled.board = Offer::Made {
                board,
                _descriptor: fd,
            };
            self.step_calls(id);
        }
    }

    /// The worker has opened its board, or cannot.
    pub(super) fn board_answered(&mut self, id: WorkerId, is_open: bool) {
        let Some(pooled) = self.pooled(id) else {
            return;
        };
        pooled.board = match std::mem::replace(&mut pooled.board, Offer::No) {
            Offer::Made { board, .. } if is_open => Offer::Open(board),
            _ => Offer::No,
        };
        let pool = Arc::clone(&pooled.core);
        let is_idle = pool.look(|state, _| state.doing(id)) == Some(Some(pool_state::Doing::Idle));
        if is_idle
            && self.state.is_idle(id)
            && let Some(lane) = self.lane(id)
        {
            self.decide(&pool, |inner| {
                inner.link(lane);
                None
            });
        }
    }

    /// The lane of a worker whose board is open and that is idle.
    fn lane(&mut self, id: WorkerId) -> Option<Lane> {
        let worker = self.workers.get_mut(&id)?;
        let pooled = worker.pooled.as_mut()?;
        let calls = &mut worker.lines.as_mut()?.calls;
        if calls.is_none() || !matches!(pooled.board, Offer::Open(_)) {
            return None;
        }
        let Offer::Open(board) = std::mem::replace(&mut pooled.board, Offer::No) else {
            return None;
        };
        let calls = calls.take()?;
        pooled.is_linked = true;
        // What earlier tasks wrote is not the next one's.
        worker.tail.clear();
        let settings = &pooled.core.settings;
        let pid = pooled.pid.unwrap_or_default();
        let lane = Lane::new(
            id,
            (pid, !worker.is_pid_claimed),
            settings.depth,
            Arc::clone(&pooled.core.terms),
            (calls, board),
            settings.spin,
        );
        self.tell(id, Event::Linked);
        Some(lane)
    }

    /// A worker that was linked is to do something that its pool's own tasks are not: it gets its channel back.
    fn unlink(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        if let Some(pooled) = &mut worker.pooled
            && std::mem::replace(&mut pooled.is_linked, false)
            && let Some(lines) = &mut worker.lines
        {
            lines.calls = pooled.core.unlink(id);
        }
    }

    /// Writes what it can of a worker's calls, and goes on when there is room.
    fn step_calls(&mut self, id: WorkerId) -> Option<Cause> {
        let lines = self.workers.get_mut(&id)?.lines.as_mut()?;
        let calls = lines.calls.as_mut()?;
        if calls.step() != Written::Some {
            return None;
        }
        let token = Channel::Calls.token(id.0);
        let watched = self.poller.add(calls.fd(), token, Interest::Writable);
        watched
            .err()
            .filter(|error| error.kind() != io::ErrorKind::AlreadyExists)
            .map(|error| Cause::launch("watch the worker", error))
    }

    /// What tells a linked worker's tasks apart.
    pub(super) fn epoch(&mut self, id: WorkerId) -> Option<u32> {
        let pool = self.linked(id)?;
        Some(pool.epoch(id, self.now))
    }

    /// A worker without a task cannot be used any more.
    pub(super) fn unfit(&mut self, id: WorkerId) {
        let Some(pooled) = self.pooled(id) else {
            return;
        };
        let pool = Arc::clone(&pooled.core);
        let now = self.now;
        if let Some(pool) = self.linked(id) {
            pool.recall(id, now);
        }
        self.decide(&pool, |inner| {
            inner.state.unfit(id, now);
            None
        });
    }

    /// A worker is gone.
    pub(super) fn gone(&mut self, pool: &Arc<PoolCore>, id: WorkerId) {
        let now = self.now;
        self.decide(pool, |inner| {
            inner.state.gone(id, now);
            None
        });
    }

    fn run_hook(&mut self, id: WorkerId, doing: Doing) {
        self.unlink(id);
        let Some(pooled) = self.pooled(id) else {
            return;
        };
        let settings = &pooled.core.settings;
        let (function, work) = match doing {
            Doing::Exit => ("worker_exit", settings.exit.clone()),
            _ => ("worker_init", settings.init.clone()),
        };
        let (limit, grace) = (settings.options.timeout, settings.options.grace_or_default());
        let Some(work) = work else {
            return;
        };
        let slot = context::slot(Name { module: "", function });
        pooled.doing = doing;
        self.hand_over(id, &slot, &work, limit, grace);
    }

    fn assign(&mut self, pool: &Arc<PoolCore>, id: WorkerId, task: PoolTask) {
        if !self.state.is_idle(id) {
            // It went after this was decided.
            if let Some(rank) = task.slot.rank() {
                pool.put_back(task, rank);
            }
            return self.decide(pool, |_| None);
        }
        let rank = task.slot.rank().unwrap_or_default();
        let is_cancelled = task.slot.set_place(Place::Worker(self.context, id));
        if is_cancelled {
            task.slot.fail(Cause::Cancelled);
            let now = self.now;
            return self.decide(pool, |inner| {
                inner.state.unassign(id, now);
                None
            });
        }
        let (slot, work) = (Arc::clone(&task.slot), task.work.clone());
        let Terms {
            limit,
            grace,
            max_result,
            ..
        } = *task.terms(&pool.terms);
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        if let Some(lines) = &mut worker.lines {
            lines.replies.set_limit(max_result);
        }
        let pid = worker.pooled.as_mut().and_then(|pooled| {
            pooled.doing = Doing::Task(task, rank);
            pooled.pid
        });
        if let Some(pid) = pid {
            slot.set_pid(pid);
        }
        self.hand_over(id, &slot, &work, limit, grace);
        // A cancel since then has sent its word, which is read after this.
    }

    /// Sends a worker its next call.
    fn hand_over(
        &mut self,
        id: WorkerId,
        slot: &Arc<Slot>,
        work: &Work,
        limit: Option<Duration>,
        grace: Duration,
    ) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        worker.slot = Some(Arc::clone(slot));
        worker.tail.clear();
        worker.answer = None;
        let Some(pooled) = &mut worker.pooled else {
            return;
        };
        let depth = pooled.core.settings.depth;
        let refused = match &pooled.thread {
            Some(thread) => {
                let task = ThreadTask {
                    slot: Arc::clone(slot),
                    work: work.clone(),
                    about: slot.about(limit),
                };
                thread
                    .send(task)
                    .is_err()
                    .then(|| Cause::refused("the thread is gone"))
            }
            None => {
                let mut call = work.call(slot, depth, limit);
                call.setup = worker.lines.as_mut().and_then(|lines| lines.setup.take());
                let calls = worker.lines.as_mut().and_then(|lines| lines.calls.as_mut());
                let sent = calls.map(|calls| launch::send(calls, call, &work.payload));
                match sent {
                    Some(Ok(())) => self.step_calls(id),
                    Some(Err(cause)) => Some(cause),
                    // It closed its channel, and its exit follows.
                    None => None,
                }
            }
        };
        self.tell(id, Event::Assigned { limit, grace });
        if let Some(cause) = refused {
            self.fulfil_pooled(id, Outcome::Failed(Error::new(slot.name.to_string(), cause)));
            self.tell(id, Event::Discarded);
        }
    }

    /// A task or a hook has ended; or the worker has, with neither.
    pub(super) fn fulfil_pooled(&mut self, id: WorkerId, outcome: Outcome) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        let slot = worker.slot.take();
        let Some(pooled) = &mut worker.pooled else {
            return;
        };
        let pool = Arc::clone(&pooled.core);
        let mut had_task = false;
        if std::mem::replace(&mut pooled.is_linked, false)
            && let Outcome::Failed(error) = &outcome
        {
            pool.with_calls(id, |calls| self.poller.remove(calls.fd()));
            had_task = pool.lane_ended(id, error, self.now);
        }
        let Some(pooled) = self.pooled(id) else {
            return;
        };
        let doing = std::mem::replace(&mut pooled.doing, Doing::Nothing);
        let is_err = outcome.is_err();
        let has_died = matches!(&outcome, Outcome::Failed(error) if is_death(error.kind()));
        if has_died {
            pool.worker_died();
        }
        match (doing, outcome) {
            (Doing::Task(PoolTask { work, .. }, _), outcome) => {
                // First: the next call may use the memory of its arguments.
                drop(work);
                if let Some(slot) = slot {
                    slot.end(outcome);
                }
            }
            (Doing::Init, outcome) if is_err => {
                let error = match outcome {
                    Outcome::Failed(error) => error,
                    Outcome::Returned { .. } => {
                        Error::new("worker_init", Cause::refused("it returned an Err"))
                    }
                };
                pool.worker_failed(error);
                self.tell(id, Event::Discarded);
            }
            (Doing::Exit, _) if is_err => pool.hook_failed(),
            // One that was to end has no reason of its own.
            (Doing::Nothing, Outcome::Failed(error)) if !had_task && error.kind() != ErrorKind::Cancelled => {
                pool.worker_failed(error);
            }
            _ => {}
        }
    }

    /// A worker has died: a task that it had not begun is not its victim.
    pub(super) fn give_back(&mut self, id: WorkerId) {
        if self.state.is_ending(id) {
            return;
        }
        let Some(worker) = self.workers.get_mut(&id).filter(|worker| worker.answer.is_none()) else {
            return;
        };
        let calls = worker.lines.as_ref().and_then(|lines| lines.calls.as_ref());
        if !calls.is_some_and(|calls| calls.is_unread()) {
            return;
        }
        let Some(pooled) = &mut worker.pooled else {
            return;
        };
        match std::mem::replace(&mut pooled.doing, Doing::Nothing) {
            Doing::Task(task, rank) => match pooled.core.give_back(task, rank) {
                Ok(()) => worker.slot = None,
                Err(task) => pooled.doing = Doing::Task(task, rank),
            },
            other => pooled.doing = other,
        }
    }

    fn dismiss_worker(&mut self, id: WorkerId) {
        self.unlink(id);
        self.hang_up(id);
        self.tell(id, Event::Dismissed);
    }

    /// Gives a pool's worker no more calls: it ends when it has done what it is at.
    pub(super) fn hang_up(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        let Some(pooled) = &mut worker.pooled else {
            return;
        };
        pooled.thread = None;
        if pooled.is_linked
            && let Some(calls) = pooled.core.close_lane(id)
        {
            self.poller.remove(calls.fd());
        }
        if let Some(calls) = worker.lines.as_mut().and_then(|lines| lines.calls.take()) {
            self.poller.remove(calls.fd());
        }
    }
}

/// Whether a worker that ends a task so has ended itself.
fn is_death(kind: ErrorKind) -> bool {
    use ErrorKind::{Cancelled, Exited, Lost, Protocol, ResultTooLarge, Signaled, TimedOut};
    matches!(
        kind,
        Cancelled | Exited | Lost | Protocol | ResultTooLarge | Signaled | TimedOut
    )
}

/// Starts a worker that is a thread. It ends when nobody can send it tasks any more.
fn thread_worker(
    context: &'static Context,
    id: WorkerId,
    depth: u32,
) -> Result<mpsc::Sender<ThreadTask>, Cause> {
    let (sender, tasks) = mpsc::channel::<ThreadTask>();
    let run = move || {
        for ThreadTask { slot, work, about } in tasks {
            let answer = work.run_here(&slot, depth, about);
            drop(work);
            // A dead supervisor has failed the task.
            let _ = context.send(Command::ThreadAnswered(id, Box::new(answer)));
        }
    };
    let name = "inparallel-pool".to_owned();
    let started = std::thread::Builder::new().name(name).spawn(run);
    started
        .map(|_| sender)
        .map_err(|error| Cause::launch("start a thread", error))
}
