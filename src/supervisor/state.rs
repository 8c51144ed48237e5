//! What happens to workers, decided from events alone: no I/O, no clock, no lock.
//!
//! ```text
//!            Launched            Replied                 Exited
//! Launching ---------> Running -----------> Leaving ---------------> gone
//!     |                 | | |                  ^  still there after a second: kill
//!     | LaunchFailed    | | | Closed           |
//!     v                 | | +--> Closed: a second for the exit, then kill
//!    gone               | | Exited: gone
//!                       | | timeout, cancel, broken protocol
//!                       v
//!                    Ending: terminate, grace, kill --- Exited ---> gone
//! ```
//!
//! Replied and Launched come by different ways, in any order. Each worker gets exactly one `Finish`, and exactly one
//! `Release`, which is the last that is heard of it.
//!
//! A worker of a pool has no task at first, and more than one in its life:
//!
//! ```text
//!            Launched         Assigned            Dismissed
//! Launching ---------> Idle <=========> Running   Idle ---------> Leaving
//!                             Replied
//! ```
//!
//! It gets a `Finish` for each task, one more if it ends with or without a task before it was dismissed, and an `Idle`
//! whenever it is ready for the next. One that is linked is `Serving` instead of `Idle`: what it runs is the pool's affair,
//! which tells when it has to end.

//! A worker that is made before its call is `Idle` too, until a call is assigned to it. Called while it is launched or when
//! it is idle, it goes on as one that was made for the call:
//!
//! ```text
//!            Launched         Assigned
//! Launching ---------> Idle -----------> Running
//!     |                                     ^  Launched
//!     +-- Assigned --> Launching -----------+
//! ```
//!
//! Without a call it has a `Finish` that concerns nobody.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::ids::WorkerId;
use crate::sys::ExitStatus;

/// Something that happened to a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// A worker is to be made, or was made.
    Submitted {
        limit: Option<Duration>,
        grace: Duration,
        kind: Kind,
    },
    /// Somebody is at making the process.
    Awaited,
    /// The process exists, and is a worker.
    Launched,
    LaunchFailed,
    /// An answer arrived, and is kept by the event loop.
    Replied,
    /// The worker will stay after its answer.
    Lingers,
    /// What arrives is not the protocol.
    Broken(Why),
    /// The worker closed its channel.
    Closed,
    Exited(ExitStatus),
    /// The caller wants no result any more.
    Cancelled,
    /// A worker of a pool, or one that was made before its call, gets a task.
    Assigned {
        limit: Option<Duration>,
        grace: Duration,
    },
    /// A pool's worker gets its tasks from the pool from here on, without a word to the supervisor.
    Linked,
    /// What such a worker runs is to end so, and the worker with it.
    End {
        why: Why,
        grace: Duration,
    },
    /// A pool's worker has nothing more to do, and its channel is closed.
    Dismissed,
    /// A worker of a pool, or one without a call, is not to live on, whatever it does.
    Discarded,
    /// The process that watched the worker is gone, and the worker with it.
    Lost(String),
}

/// What stands behind a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A process; it exists from [`Event::Launched`] on.
    Process,
    /// A thread, which nobody can stop.
    Thread,
    /// A process that is made before its call.
    Ready,
    /// A process of a pool.
    Pooled,
    /// A thread of a pool.
    PooledThread,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Ask the process group to end.
    Terminate(WorkerId),
    Kill(WorkerId),
    /// Fulfil the future.
    Finish(WorkerId, Why),
    /// A worker of a pool, or one that was made before its call, is ready for a task.
    Idle(WorkerId),
    /// A worker that was idle will not be ready any more.
    Unfit(WorkerId),
    /// Close and forget everything of the worker.
    Release(WorkerId),
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Why {
    /// The event loop has the answer.
    Answered,
    /// The event loop has the reason.
    LaunchFailed,
    /// Nobody said that it exists.
    NotLaunched(Duration),
    Died(ExitStatus),
    TimedOut(Duration),
    Cancelled,
    Garbage(String),
    TooLarge {
        len: u64,
        limit: u64,
    },
    Lost(String),
}

/// All workers of a process.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    workers: HashMap<WorkerId, Worker>,
    /// At most one for each worker, as in its phase.
    deadlines: BTreeSet<(Instant, WorkerId)>,
}

#[derive(Debug, Clone)]
struct Worker {
    phase: Phase,
    deadline: Option<Instant>,
    limit: Option<Duration>,
    grace: Duration,
    lingers: bool,
    kind: Kind,
}

impl Worker {
    fn is_thread(&self) -> bool {
        matches!(self.kind, Kind::Thread | Kind::PooledThread)
    }

    /// When it is killed if it has not left; `None`: it stays for what its task detached.
    fn leaves_by(&self, now: Instant) -> Option<Instant> {
        match self.lingers {
            true => None,
            false => now.checked_add(TO_LEAVE),
        }
    }

    fn is_pooled(&self) -> bool {
        matches!(self.kind, Kind::Pooled | Kind::PooledThread)
    }
}

#[derive(Debug, Clone)]
enum Phase {
    /// The deadline is when it is given up; there is none until somebody is at it.
    Launching,
    /// Without a task; no deadline.
    Idle,
    /// A pool's, which gets tasks from the pool itself; no deadline.
    Serving,
    /// The deadline is the task's time limit.
    Running,
    /// The deadline is when it is killed.
    Closed,
    /// Finished; the deadline is when it is killed.
    Leaving,
    /// The deadline is when it is killed, or given up.
    Ending { why: Why, killed: bool },
}

impl State {
    /// The next moment at which [`tick`](State::tick) has something to do.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Running workers whose time is up by now.
    pub(crate) fn overdue(&self, now: Instant) -> Vec<WorkerId> {
        let due = self
            .deadlines
            .iter()
            .take_while(|(deadline, _)| *deadline <= now)
            .map(|(_, id)| *id);
        due.filter(|id| {
            self.workers
                .get(id)
                .is_some_and(|worker| matches!(worker.phase, Phase::Running))
        })
        .collect()
    }

    /// Whether a worker that was made before its call may get one.
    pub(crate) fn awaits_call(&self, id: WorkerId) -> bool {
        self.workers.get(&id).is_some_and(|worker| {
            worker.kind == Kind::Ready && matches!(worker.phase, Phase::Launching | Phase::Idle)
        })
    }

    /// Whether the worker of a pool waits for a task.
    pub(crate) fn is_idle(&self, id: WorkerId) -> bool {
        self.workers
            .get(&id)
            .is_some_and(|worker| matches!(worker.phase, Phase::Idle))
    }

    /// Whether it was decided that the worker ends.
    pub(crate) fn is_ending(&self, id: WorkerId) -> bool {
        self.workers
            .get(&id)
            .is_none_or(|worker| matches!(worker.phase, Phase::Ending { .. } | Phase::Leaving))
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now: Instant, actions: &mut Vec<Action>) {
        while let Some(&(deadline, id)) = self.deadlines.first() {
            if deadline > now {
                return;
            }
            self.deadlines.pop_first();
            let Some(worker) = self.workers.get_mut(&id) else {
                continue;
            };
            worker.deadline = None;
            match worker.phase.clone() {
                Phase::Running => {
                    let limit = worker.limit.unwrap_or_default();
                    self.end(id, Why::TimedOut(limit), now, actions);
                }
                Phase::Closed => self.end(id, Why::Garbage(CLOSED.into()), now, actions),
                Phase::Leaving => actions.push(Action::Kill(id)),
                Phase::Idle | Phase::Serving => {}
                Phase::Ending { why, killed: false } => {
                    worker.phase = Phase::Ending { why, killed: true };
                    self.arm(id, now.checked_add(AFTER_KILL));
                    actions.push(Action::Kill(id));
                }
                // A process that does not die of SIGKILL hangs in the kernel: its future need not.
                Phase::Ending { why, killed: true } => {
                    worker.phase = Phase::Leaving;
                    actions.push(Action::Finish(id, why));
                }
                Phase::Launching => {
                    worker.grace = Duration::ZERO;
                    self.end(id, Why::NotLaunched(TO_LAUNCH), now, actions);
                }
            }
        }
    }

    /// Something happened.
    pub(crate) fn handle(&mut self, id: WorkerId, event: Event, now: Instant, actions: &mut Vec<Action>) {
        if let Event::Submitted { limit, grace, kind } = event {
            let phase = match kind {
                Kind::Thread => Phase::Running,
                Kind::PooledThread => Phase::Idle,
                Kind::Process | Kind::Ready | Kind::Pooled => Phase::Launching,
            };
            let worker = Worker {
                phase,
                deadline: None,
                limit,
                grace,
                lingers: false,
                kind,
            };
            self.workers.insert(id, worker);
            match kind {
                Kind::Thread => self.arm_limit(id, now),
                Kind::PooledThread => actions.push(Action::Idle(id)),
                Kind::Process | Kind::Ready | Kind::Pooled => {}
            }
            return;
        }
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        match (worker.phase.clone(), event) {
            (phase @ (Phase::Launching | Phase::Idle), Event::Assigned { limit, grace })
                if worker.kind == Kind::Ready =>
            {
                worker.kind = Kind::Process;
                worker.limit = limit;
                worker.grace = grace;
                if matches!(phase, Phase::Idle) {
                    worker.phase = Phase::Running;
                    self.arm_limit(id, now);
                }
            }
            (Phase::Launching, Event::Launched) if worker.is_pooled() || worker.kind == Kind::Ready => {
                worker.phase = Phase::Idle;
                self.arm(id, None);
                actions.push(Action::Idle(id));
            }
            (Phase::Launching, Event::Launched) => {
                worker.phase = Phase::Running;
                self.arm_limit(id, now);
            }
            (Phase::Launching, Event::Awaited) => self.arm(id, now.checked_add(TO_LAUNCH)),
            (
                Phase::Leaving
                | Phase::Ending { .. }
                | Phase::Running
                | Phase::Closed
                | Phase::Idle
                | Phase::Serving,
                Event::Launched | Event::Awaited,
            ) => {}

            (Phase::Idle, Event::Linked) => worker.phase = Phase::Serving,
            (_, Event::Linked) => {}
            (phase @ (Phase::Serving | Phase::Closed), Event::End { why, grace }) => {
                worker.grace = grace;
                if matches!(phase, Phase::Serving) {
                    actions.push(Action::Unfit(id));
                }
                self.end(id, why, now, actions);
            }
            (_, Event::End { .. }) => {}
            (Phase::Serving, Event::Lingers) => worker.lingers = true,
            // Whether an answer is due, the pool knows.
            (Phase::Serving, Event::Replied | Event::Cancelled) => {}
            (Phase::Idle | Phase::Serving, Event::Assigned { limit, grace }) => {
                worker.phase = Phase::Running;
                worker.limit = limit;
                worker.grace = grace;
                self.arm_limit(id, now);
            }
            // It is on its way out, and whoever has the task hears of that.
            (_, Event::Assigned { .. }) => {}
            (Phase::Idle | Phase::Serving, Event::Dismissed) => {
                if worker.is_thread() {
                    return self.release(id, actions);
                }
                worker.phase = Phase::Leaving;
                let until = worker.leaves_by(now);
                self.arm(id, until);
            }
            (_, Event::Dismissed) => {}
            (Phase::Ending { .. } | Phase::Leaving, Event::Discarded) => {}
            (phase, Event::Discarded) => {
                if matches!(phase, Phase::Serving) {
                    actions.push(Action::Unfit(id));
                }
                self.end(id, Why::Cancelled, now, actions);
            }

            (Phase::Launching | Phase::Running, Event::Lingers) => worker.lingers = true,
            (Phase::Running, Event::Replied) if worker.is_pooled() => {
                worker.phase = Phase::Idle;
                self.arm(id, None);
                actions.push(Action::Finish(id, Why::Answered));
                actions.push(Action::Idle(id));
            }
            // An answer to nothing.
            (Phase::Idle, Event::Replied | Event::Lingers) => {
                worker.grace = Duration::ZERO;
                actions.push(Action::Unfit(id));
                self.end(id, Why::Garbage(UNASKED.into()), now, actions);
            }
            // The task that was to be cancelled has ended.
            (Phase::Idle, Event::Cancelled) => {}
            (Phase::Launching | Phase::Running, Event::Replied) => {
                worker.phase = Phase::Leaving;
                let until = worker.leaves_by(now);
                self.arm(id, until);
                actions.push(Action::Finish(id, Why::Answered));
            }
            (phase @ (Phase::Launching | Phase::Running | Phase::Idle | Phase::Serving), Event::Closed) => {
                if matches!(phase, Phase::Idle | Phase::Serving) {
                    actions.push(Action::Unfit(id));
                }
                worker.phase = Phase::Closed;
                self.arm(id, now.checked_add(TO_LEAVE));
            }
            (
                phase @ (Phase::Launching | Phase::Running | Phase::Closed | Phase::Idle | Phase::Serving),
                Event::Broken(why),
            ) => {
                if matches!(phase, Phase::Idle | Phase::Serving) {
                    actions.push(Action::Unfit(id));
                }
                worker.grace = Duration::ZERO;
                self.end(id, why, now, actions);
            }
            (Phase::Launching | Phase::Running | Phase::Closed, Event::Cancelled) => {
                self.end(id, Why::Cancelled, now, actions);
            }
            // After its answer a worker has nothing to say. What it says instead, and how it ends, changes nothing.
            (
                Phase::Leaving | Phase::Ending { .. } | Phase::Closed,
                Event::Lingers | Event::Replied | Event::Closed | Event::Broken(_) | Event::Cancelled,
            ) => {}

            (Phase::Leaving, Event::Exited(_) | Event::Lost(_) | Event::LaunchFailed) => {
                self.release(id, actions)
            }
            (phase, Event::Exited(status)) => self.finish(id, phase, Why::Died(status), actions),
            (phase, Event::Lost(what)) => self.finish(id, phase, Why::Lost(what), actions),
            (phase, Event::LaunchFailed) => self.finish(id, phase, Why::LaunchFailed, actions),

            (_, Event::Submitted { .. }) => {}
        }
    }

    /// Begins to end a worker.
    fn end(&mut self, id: WorkerId, why: Why, now: Instant, actions: &mut Vec<Action>) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        if worker.is_thread() {
            return self.finish(id, Phase::Running, why, actions);
        }
        let killed = worker.grace.is_zero();
        let until = now.checked_add(if killed { AFTER_KILL } else { worker.grace });
        worker.phase = Phase::Ending { why, killed };
        self.arm(id, until);
        actions.push(if killed {
            Action::Kill(id)
        } else {
            Action::Terminate(id)
        });
    }

    /// The worker is gone: its future gets what was decided before, or else `why`.
    fn finish(&mut self, id: WorkerId, phase: Phase, why: Why, actions: &mut Vec<Action>) {
        let why = match phase {
            Phase::Ending { why: decided, .. } => decided,
            _ => why,
        };
        actions.push(Action::Finish(id, why));
        self.release(id, actions);
    }

    fn release(&mut self, id: WorkerId, actions: &mut Vec<Action>) {
        self.arm(id, None);
        self.workers.remove(&id);
        actions.push(Action::Release(id));
    }

    fn arm_limit(&mut self, id: WorkerId, now: Instant) {
        let limit = self.workers.get(&id).and_then(|worker| worker.limit);
        self.arm(id, limit.and_then(|limit| now.checked_add(limit)));
    }

    fn arm(&mut self, id: WorkerId, deadline: Option<Instant>) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        if let Some(old) = std::mem::replace(&mut worker.deadline, deadline) {
            self.deadlines.remove(&(old, id));
        }
        self.deadlines.extend(deadline.map(|deadline| (deadline, id)));
    }
}

/// What a worker that closed its channel is accused of, if it does not exit.
pub(super) const CLOSED: &str = "it closed its channel without an answer, and did not exit";

/// What a worker of a pool is accused of that speaks without having been asked.
pub(super) const UNASKED: &str = "it answered though it had no task";

/// How long it may take until a process that was asked for exists. Generous: it is for those that never will.
const TO_LAUNCH: Duration = Duration::from_secs(60);

/// How long a worker may take to exit once it has nothing to do.
const TO_LEAVE: Duration = Duration::from_secs(1);

/// How long the kernel may take to end a killed process before its future ends without it.
const AFTER_KILL: Duration = Duration::from_secs(5);
