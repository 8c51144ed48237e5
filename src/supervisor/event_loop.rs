//! The supervisor's thread: it waits for everything at once, tells the state machine what happened, and does what that
//! decides.
//!
//! A worker's pipe is drained before its exit is told, so that no answer is lost. What is read at one wake-up is bounded
//! for each worker, so that a large result keeps nobody else waiting.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Instant;

use crate::error::{Cause, Error};
use crate::ids::{self, WorkerId};
use crate::launch::{Entrance, Lines, Order, Ready as ReadyWorker, Server};
use crate::options::Options;
use crate::slot::{Outcome, Slot};
use crate::supervisor::calling::Called;
use crate::supervisor::context::{Command, Context, Submitted};
use crate::supervisor::lines::{READS_AT_ONCE, READS_TO_DRAIN};
use crate::supervisor::pool_state::PoolAction;
use crate::supervisor::pool_workers::{Pooled, Pools};
use crate::supervisor::pools::{PoolCore, PoolTask};
use crate::supervisor::ready_workers::MOST_IN_VAIN;
use crate::supervisor::servers::describe;
use crate::supervisor::state::{Action, Event, Kind, State, Why};
use crate::sys::{ExitStatus, Interest, Poller, Ready, Token, Waker};
use crate::transport::Written;
use crate::wire::Reply;

/// Everything that the thread owns.
pub(super) struct EventLoop {
    pub(super) context: &'static Context,
    pub(super) poller: Poller,
    pub(super) waker: Arc<Waker>,
    /// What was sent and is not done yet: a member, so that nothing of it is lost if the thread ends by a fault.
    pub(super) commands: VecDeque<Command>,
    pub(super) state: State,
    pub(super) actions: Vec<Action>,
    pub(super) workers: HashMap<WorkerId, Worker>,
    /// The one that makes new workers is the last; others are on their way out.
    pub(super) servers: HashMap<u64, Server>,
    pub(super) serving: Option<u64>,
    pub(super) servers_made: u64,
    /// Workers that were made before their calls, and of whose call nothing is known.
    pub(super) ready: Vec<WorkerId>,
    /// How many of them have ended without a call since the last call.
    pub(super) ready_in_vain: u32,
    /// The worker whose task ended in this turn.
    pub(super) fulfilled: Option<WorkerId>,
    pub(super) pools: Pools,
    pub(super) pool_actions: VecDeque<(Arc<PoolCore>, PoolAction<PoolTask>)>,
    pub(super) is_at_pool_actions: bool,
    /// What is to be started at some time.
    pub(super) later: BTreeMap<(Instant, u64), Box<dyn FnOnce() + Send>>,
    pub(super) buffer: Vec<u8>,
    pub(super) now: Instant,
}

/// A worker as the event loop sees it.
pub(super) struct Worker {
    /// Of the task that it runs. A pool's worker may have none.
    pub(super) slot: Option<Arc<Slot>>,
    pub(super) pooled: Option<Pooled>,
    pub(super) options: Options,
    /// The server that it belongs to.
    pub(super) server: Option<u64>,
    /// Of a worker that was made before its call, and that no thread has been offered.
    pub(super) ready: Option<ReadyWorker>,
    pub(super) entrance: Option<Arc<Entrance>>,
    /// What it was called for, in case that it has not begun.
    pub(super) order: Option<Box<Order>>,
    /// The supervisor ends its task, and no thread that looks out for the answer.
    has_claim: bool,
    /// Its task is one that the context waits for.
    pub(super) is_counted: bool,
    pub(super) lines: Option<Lines>,
    /// The end of its stderr.
    pub(super) tail: Vec<u8>,
    /// Of a linked worker: which of its tasks that belongs to.
    pub(super) tail_epoch: u32,
    pub(super) is_stderr_paused: bool,
    /// Its messages are not read: nobody takes them.
    pub(super) is_paused: bool,
    pub(super) answer: Option<(Reply, Vec<u8>)>,
    /// Its number is what it says of itself.
    pub(super) is_pid_claimed: bool,
    pub(super) launch_failure: Option<Cause>,
}

/// What a token stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Channel {
    Replies,
    Stderr,
    Calls,
    Exit,
    ServerControl,
    ServerRoom,
    ServerExit,
}

impl EventLoop {
    pub(super) fn new(context: &'static Context, poller: Poller, waker: Arc<Waker>) -> Self {
        EventLoop {
            context,
            poller,
            waker,
            commands: VecDeque::new(),
            state: State::default(),
            actions: Vec::new(),
            workers: HashMap::new(),
            servers: HashMap::new(),
            serving: None,
            servers_made: 0,
            ready: Vec::new(),
            ready_in_vain: MOST_IN_VAIN,
            fulfilled: None,
            pools: Pools::default(),
            pool_actions: VecDeque::new(),
            is_at_pool_actions: false,
            later: BTreeMap::new(),
            buffer: vec![0; READ_SIZE],
            now: Instant::now(),
        }
    }

    /// Runs as long as the process does; returns only if it cannot wait any more.
    pub(super) fn run(&mut self) -> io::Error {
        let mut ready = Vec::new();
        loop {
            ready.clear();
            let deadline = if self.commands.is_empty() {
                let later = self.later.first_key_value().map(|((when, _), _)| *when);
                let deadlines = [self.state.next_deadline(), self.pools.next_deadline(), later];
                deadlines.into_iter().flatten().min()
            } else {
                Some(self.now)
            };
            if let Err(error) = self.poller.wait(&self.waker, deadline, &mut ready) {
                return error;
            }
            self.now = Instant::now();
            let (called, taken) = self.context.take_commands(&mut self.commands);
            for called in called {
                self.called(called);
            }
            for id in taken {
                self.look_at_sheet(id);
            }
            for _ in 0..COMMANDS_AT_ONCE {
                let Some(command) = self.commands.pop_front() else {
                    break;
                };
                self.command(command);
            }
            for Ready { token } in ready.drain(..) {
                self.look_at(token);
            }
            // An answer that lies in the pipe came in time, however long the loop took to come to it.
            for id in self.state.overdue(self.now) {
                self.read_replies(id, READS_AT_ONCE);
                self.look_at_sheet(id);
            }
            self.state.tick(self.now, &mut self.actions);
            self.act();
            while let Some(entry) = self.later.first_entry()
                && entry.key().0 <= self.now
            {
                entry.remove()();
            }
            for pool in self.pools.due(self.now) {
                self.decide(&pool, |_| None);
            }
            self.replenish();
        }
    }

    /// The thread ends by a fault: nobody will ever fulfil the futures that are left.
    pub(super) fn fail_all(&mut self, (unhandled, called): (VecDeque<Command>, Vec<Called>), what: &str) {
        let lost = || Cause::Lost {
            what: what.to_owned(),
        };
        for command in std::mem::take(&mut self.commands).into_iter().chain(unhandled) {
            command.end_worker();
            match command {
                Command::Order(submitted, _) | Command::Adopt(submitted, _) => {
                    submitted.slot.fail(lost());
                    self.context.leave();
                }
                Command::Pool(pool) => pool.fail_all(lost()),
                Command::Later(_, start) => start(),
                _ => {}
            }
        }
        for called in called {
            if called.claim() {
                called.submitted.slot.fail(lost());
            }
            self.context.leave();
        }
        for start in std::mem::take(&mut self.later).into_values() {
            // Each finds that there is no supervisor, and ends its task so.
            start();
        }
        for (_, mut worker) in self.workers.drain() {
            if let Some(child) = worker.lines.as_ref().and_then(|lines| lines.child.as_ref()) {
                child.end();
            }
            if worker.claim()
                && let Some(slot) = &worker.slot
            {
                slot.fail(lost());
            }
            if worker.is_counted {
                self.context.leave();
            }
        }
        for (_, action) in std::mem::take(&mut self.pool_actions) {
            if let PoolAction::Assign(_, task) | PoolAction::Cancel(task) | PoolAction::Refuse(task) = action
            {
                task.slot.fail(lost());
            }
        }
        for pool in self.pools.take() {
            pool.fail_all(lost());
        }
        for (_, server) in self.servers.drain() {
            server.child().end();
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Order(submitted, order) => {
                if let Some((submitted, order)) = self.call_ready(*submitted, *order) {
                    self.make_for(submitted, order);
                }
            }
            Command::Adopt(submitted, lines) => {
                let id = self.enter(*submitted, Kind::Process);
                self.open(id, lines.map(|lines| *lines));
            }
            Command::Thread(submitted) => {
                self.enter(*submitted, Kind::Thread);
            }
            Command::ThreadEnded(id) => self.tell(id, Event::Exited(ExitStatus::Unknown)),
            Command::ThreadAnswered(id, answer) => {
                if let Some(worker) = self.workers.get_mut(&id) {
                    worker.answer = Some((answer.reply, answer.payload));
                    self.tell(id, Event::Replied);
                }
            }
            Command::Cancel(id, task) => {
                let slot = self.workers.get(&id).and_then(|worker| worker.slot.as_ref());
                // A pool's worker may be at another task by now.
                if slot.is_some_and(|slot| slot.id == task) {
                    self.tell(id, Event::Cancelled);
                }
            }
            Command::HasRoom(id) => self.resume(id),
            Command::Later(when, start) => {
                self.later.insert((when, ids::next_number()), start);
            }
            Command::Pool(pool) => self.decide(&pool, |_| None),
            Command::CancelPooled(pool, slot) => {
                if let Some((id, grace)) = pool.running(&slot, self.now) {
                    let why = Why::Cancelled;
                    self.tell(id, Event::End { why, grace });
                }
            }
            Command::Calls(id) => self.write_calls(id),
            Command::RelayHasRoom => {
                let paused: Vec<_> = self
                    .workers
                    .iter()
                    .filter(|(_, w)| w.is_stderr_paused)
                    .map(|(id, _)| *id)
                    .collect();
                for id in paused {
                    self.resume_stderr(id);
                }
            }
            #[cfg(test)]
            Command::Panic => panic!("a test asked for it"),
        }
    }

    pub(super) fn enter(&mut self, submitted: Submitted, kind: Kind) -> WorkerId {
        let Submitted {
            worker: id,
            slot,
            options,
        } = submitted;
        let event = Event::Submitted {
            limit: options.timeout,
            grace: options.grace_or_default(),
            kind,
        };
        let mut worker = Worker::new(Some(slot), None, options);
        // A thread counts its own end, and a pool its tasks.
        worker.is_counted = kind == Kind::Process;
        self.workers.insert(id, worker);
        self.tell(id, event);
        id
    }

    /// A worker's lines exist, or never will.
    pub(super) fn open(&mut self, id: WorkerId, lines: Result<Lines, Cause>) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        let mut lines = match lines {
            Ok(lines) => lines,
            Err(cause) => {
                worker.launch_failure = Some(cause);
                return self.tell(id, Event::LaunchFailed);
            }
        };
        let mut watched = self.poller.add(
            lines.replies.fd(),
            Channel::Replies.token(id.0),
            Interest::Readable,
        );
        if let Some(stderr) = &lines.stderr {
            watched = watched.and(
                self.poller
                    .add(stderr, Channel::Stderr.token(id.0), Interest::Readable),
            );
        }
        // Making it took its time, which is not the task's.
        self.now = Instant::now();
        if let Some(child) = &lines.child {
            watched = watched.and(self.poller.add(
                child.exit(),
                Channel::Exit.token(id.0),
                Interest::Readable,
            ));
            worker.set_pid(id, child.pid());
        }
        // One that cannot be watched gets no call. Closed when all is written: the worker then ends after its answer.
        if watched.is_ok()
            && let Some(mut calls) = lines.calls.take()
        {
            let written = calls.step();
            if written == Written::Some {
                watched = self
                    .poller
                    .add(calls.fd(), Channel::Calls.token(id.0), Interest::Writable);
            }
            let is_needed = written == Written::Some || worker.pooled.is_some() || calls.is_holding();
            lines.calls = Some(calls).filter(|_| is_needed);
        }
        let is_launched = lines.is_up;
        match watched {
            Ok(()) => {
                worker.lines = Some(lines);
                let server = worker.server.and_then(|serial| self.servers.get(&serial));
                if is_launched {
                    self.tell(id, Event::Launched);
                } else if server.is_none_or(Server::is_ready) {
                    self.tell(id, Event::Awaited);
                }
            }
            Err(error) => {
                // Without eyes on it, it must not run.
                if let Some(child) = &lines.child {
                    child.end();
                } else {
                    self.signal(id, true);
                }
                if let Some(worker) = self.workers.get_mut(&id) {
                    worker.launch_failure = Some(Cause::launch("watch the worker", error));
                }
                self.tell(id, Event::LaunchFailed);
            }
        }
    }

    fn look_at(&mut self, token: Token) {
        let (channel, number) = Channel::of(token);
        let id = WorkerId(number);
        match channel {
            Channel::Replies => self.read_replies(id, READS_AT_ONCE),
            Channel::Stderr => self.read_stderr(id, 1),
            Channel::Calls => self.write_calls(id),
            Channel::Exit => {
                let lines = self.workers.get(&id).and_then(|worker| worker.lines.as_ref());
                let status = lines.and_then(|lines| lines.child.as_ref()?.try_reap());
                if let Some(status) = status {
                    self.exited(id, status);
                }
            }
            Channel::ServerControl => self.hear_server(number),
            Channel::ServerRoom => self.pump(number),
            Channel::ServerExit => self.server_exited(number),
        }
    }

    pub(super) fn exited(&mut self, id: WorkerId, status: ExitStatus) {
        self.settle(id);
        self.drain(id);
        self.give_back(id);
        self.call_again(id);
        if let Some(worker) = self.workers.get_mut(&id)
            && let Some(lines) = &worker.lines
            && lines.child.is_some()
            && !lines.is_up
        {
            let what = format!(
                "the program that was executed {}, and did not become a worker",
                describe(status)
            );
            worker.launch_failure = Some(Cause::refused(what));
            return self.tell(id, Event::LaunchFailed);
        }
        self.tell(id, Event::Exited(status));
    }

    pub(super) fn tell(&mut self, id: WorkerId, event: Event) {
        self.state.handle(id, event, self.now, &mut self.actions);
        self.act();
    }

    /// Does what the state machine decided.
    fn act(&mut self) {
        while !self.actions.is_empty() {
            for action in std::mem::take(&mut self.actions) {
                match action {
                    Action::Terminate(id) => {
                        self.claim(id);
                        self.hang_up(id);
                        self.signal(id, false);
                    }
                    Action::Kill(id) => {
                        self.claim(id);
                        self.signal(id, true);
                    }
                    Action::Finish(id, why) => self.finish(id, why),
                    Action::Idle(id) if self.ready.contains(&id) => self.offer(id),
                    Action::Idle(id) => self.idle(id),
                    Action::Unfit(id) => self.unfit(id),
                    Action::Release(id) => self.release(id),
                }
            }
        }
    }

    fn signal(&mut self, id: WorkerId, kill: bool) {
        let Some(worker) = self.workers.get(&id) else {
            return;
        };
        if let Some(child) = worker.lines.as_ref().and_then(|lines| lines.child.as_ref()) {
            return child.signal(kill);
        }
        let Some(serial) = worker.server else {
            return;
        };
        let Some(server) = self.servers.get_mut(&serial) else {
            return;
        };
        if server.signal(id, kill) {
            self.pump(serial);
        } else {
            self.tell(id, Event::LaunchFailed);
        }
    }

    /// Fulfils the future.
    fn finish(&mut self, id: WorkerId, why: Why) {
        // What the task wrote came before its end.
        self.read_stderr(id, READS_TO_DRAIN);
        if let Why::NotLaunched(_) = why
            && let Some(serial) = self.workers.get(&id).and_then(|worker| worker.server)
        {
            // A server that does not answer would keep the next one waiting as long.
            self.dismiss(serial);
        }
        let epoch = self.epoch(id);
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        if epoch.is_some_and(|epoch| epoch != worker.tail_epoch) {
            worker.tail.clear();
        }
        let answer = if why == Why::Answered {
            worker.answer.take()
        } else {
            None
        };
        let cause = match (why, answer) {
            (_, Some((Reply::Returned { is_err }, payload))) => {
                let payload = payload.into();
                return self.fulfil(id, Outcome::Returned { payload, is_err });
            }
            (_, Some((reply, _))) => Cause::of(reply),
            (Why::Answered, None) => Cause::Protocol {
                what: "an answer went missing".into(),
            },
            (Why::LaunchFailed, None) => worker
                .launch_failure
                .take()
                .unwrap_or_else(|| Cause::refused("nobody said why")),
            (Why::NotLaunched(limit), None) => {
                Cause::refused(format!("the worker was not there after {limit:?}"))
            }
            (Why::Died(ExitStatus::Exited(code)), None) => Cause::Exited { code: Some(code) },
            (Why::Died(ExitStatus::Signaled { signal, core }), None) => Cause::Signaled { signal, core },
            (Why::Died(ExitStatus::Unknown), None) => Cause::Exited { code: None },
            (Why::TimedOut(limit), None) => Cause::TimedOut { limit },
            (Why::Cancelled, None) => Cause::Cancelled,
            (Why::Garbage(what), None) => Cause::Protocol { what },
            (Why::TooLarge { len, limit }, None) => Cause::ResultTooLarge { len, limit },
            (Why::Lost(what), None) => Cause::Lost { what },
        };
        let name = worker.slot.as_ref().map(|slot| slot.name.to_string());
        let pid = worker.pid();
        let error = Error::new(name.unwrap_or_default(), cause);
        let error = error.with_worker(pid, std::mem::take(&mut worker.tail));
        self.fulfil(id, Outcome::Failed(error));
    }

    /// The task has ended, or the worker of a pool has without one.
    fn fulfil(&mut self, id: WorkerId, outcome: Outcome) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        if worker.pooled.is_some() {
            return self.fulfil_pooled(id, outcome);
        }
        if let Some(slot) = worker.slot.take() {
            self.fulfilled = Some(id);
            // Unless a thread has found its answer before.
            if worker.claim() {
                slot.end(outcome);
            }
        }
    }

    /// It is decided how the task ends: what the worker says from here on counts for nobody.
    pub(super) fn claim(&mut self, id: WorkerId) {
        if let Some(worker) = self.workers.get_mut(&id).filter(|worker| worker.slot.is_some()) {
            worker.claim();
        }
    }

    fn release(&mut self, id: WorkerId) {
        // Output after the answer, by a handler or a thread of the task's, still reaches the terminal.
        self.read_stderr(id, READS_TO_DRAIN);
        let Some(worker) = self.workers.remove(&id) else {
            return;
        };
        if let Some(lines) = &worker.lines {
            self.poller.remove(lines.replies.fd());
            if let Some(stderr) = &lines.stderr {
                self.poller.remove(stderr);
            }
            if let Some(calls) = &lines.calls {
                self.poller.remove(calls.fd());
            }
            if let Some(child) = &lines.child {
                self.poller.remove(child.exit());
            }
        }
        if self.ready.contains(&id) {
            // It ended before its call, perhaps for a reason that would end others too.
            self.ready.retain(|ready| *ready != id);
            self.ready_in_vain += 1;
        }
        let is_counted = worker.is_counted;
        let pool = worker.pooled.as_ref().map(|pooled| Arc::clone(&pooled.core));
        drop(worker);
        if is_counted {
            self.context.leave();
        }
        if let Some(pool) = pool {
            self.gone(&pool, id);
        }
    }
}

impl Worker {
    pub(super) fn new(slot: Option<Arc<Slot>>, pooled: Option<Pooled>, options: Options) -> Worker {
        Worker {
            slot,
            pooled,
            options,
            server: None,
            ready: None,
            entrance: None,
            order: None,
            has_claim: false,
            is_counted: false,
            lines: None,
            tail: Vec::new(),
            tail_epoch: 0,
            is_stderr_paused: false,
            is_paused: false,
            answer: None,
            is_pid_claimed: false,
            launch_failure: None,
        }
    }

    /// Whether its task is the supervisor's to end, and not that of a thread which has found the answer before.
    pub(super) fn claim(&mut self) -> bool {
        let entrance = self.entrance.as_ref();
        self.has_claim = self.has_claim || entrance.is_none_or(|entrance| entrance.claim());
        self.has_claim
    }

    pub(super) fn pid(&self) -> Option<u32> {
        let own = self.pooled.as_ref().and_then(|pooled| pooled.pid);
        own.or_else(|| self.slot.as_ref()?.pid())
    }

    pub(super) fn set_pid(&mut self, id: WorkerId, pid: u32) {
        self.is_pid_claimed = false;
        if let Some(slot) = &self.slot {
            slot.set_pid(pid);
        }
        if let Some(ready) = &mut self.ready {
            ready.pid = Some(pid);
        }
        if let Some(pooled) = &mut self.pooled {
            pooled.pid = Some(pid);
            pooled.core.set_pid(id, pid);
        }
    }

    /// What the worker says of itself counts for as long as nobody else has said it.
    pub(super) fn set_first_pid(&mut self, id: WorkerId, pid: u32) {
        if self.pid().is_none() {
            self.set_pid(id, pid);
            self.is_pid_claimed = true;
        }
    }
}

impl Channel {
    const ALL: [Channel; 7] = [
        Channel::Replies,
        Channel::Stderr,
        Channel::Calls,
        Channel::Exit,
        Channel::ServerControl,
        Channel::ServerRoom,
        Channel::ServerExit,
    ];

    pub(super) fn token(self, number: u64) -> Token {
        Token(number << 3 | self as u64)
    }

    fn of(token: Token) -> (Channel, u64) {
        // Only `token` makes them, so that no index is out of range.
        (
            Channel::ALL[(token.0 & 7) as usize % Channel::ALL.len()],
            token.0 >> 3,
        )
    }
}

/// Executing a program takes the supervisor a while, in which it does nothing else.
const COMMANDS_AT_ONCE: usize = 16;

const READ_SIZE: usize = 256 << 10;
