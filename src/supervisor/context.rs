//! How the threads of a process reach its supervisor.
//!
//! There is one context in a process. A fork finds its parent's, sees by the generation that it is not its own, and puts
//! a new one in its place, without a lock: a thread that does not exist in the fork may hold any.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::callbacks;
use crate::error::Cause;

use crate::ids::{self, Name, TaskId, WorkerId};
use crate::launch::{self, Lines, Order, Ready, Surroundings};
use crate::options::Options;
use crate::shared;
use crate::slot::{Place, Slot, Workers};
use crate::supervisor::calling::Called;
use crate::supervisor::event_loop::EventLoop;
use crate::supervisor::pools::{PoolCore, PoolSettings};
use crate::supervisor::relay::Relay;
use crate::sync::{Count, LONGEST_SPIN, Spin, lock};
use crate::sys::{self, Global, Poller, Waker};
use crate::wire::Answer;

/// What the supervisor is asked to do.
pub(crate) enum Command {
    /// Make a worker and have it run a task.
    Order(Box<Submitted>, Box<Order>),
    /// Watch a worker that the calling thread has made, or tried to.
    Adopt(Box<Submitted>, Result<Box<Lines>, Cause>),
    /// Watch the time of a task that runs on a thread.
    Thread(Box<Submitted>),
    /// The thread has ended.
    ThreadEnded(WorkerId),
    /// The thread of a pool has done its task.
    ThreadAnswered(WorkerId, Box<Answer>),
    /// End the worker, if this is what it runs.
    Cancel(WorkerId, TaskId),
    /// The worker's messages may be read again.
    HasRoom(WorkerId),
    /// Run this at that time. It does not block.
    Later(Instant, Box<dyn FnOnce() + Send>),
    /// Look what the pool wants.
    Pool(Arc<PoolCore>),
    /// End the worker of the pool that runs this task, if one does.
    CancelPooled(Arc<PoolCore>, Arc<Slot>),
    /// A call for the worker did not fit into its pipe: write the rest when it does.
    Calls(WorkerId),
    /// The relay takes stderr again.
    RelayHasRoom,
    #[cfg(test)]
    Panic,
}

impl Command {
    /// Nobody will watch the worker that this brings, if it does.
    pub(super) fn end_worker(&self) {
        if let Command::Adopt(_, Ok(lines)) = self
            && let Some(child) = &lines.child
        {
            child.end();
        }
    }
}

/// A task that is on its way to a worker.
pub(crate) struct Submitted {
    pub(crate) worker: WorkerId,
    pub(crate) slot: Arc<Slot>,
    pub(crate) options: Options,
}

impl Submitted {
    pub(crate) fn new(slot: Arc<Slot>, options: Options) -> Self {
        let worker = WorkerId(ids::next_number());
        Submitted {
            worker,
            slot,
            options,
        }
    }
}

/// One process's supervisor as the other threads see it.
pub(crate) struct Context {
    generation: u64,
    /// Held while the threads are started.
    started: Mutex<Started>,
    waker: OnceLock<Arc<Waker>>,
    pub(super) inbox: Mutex<Inbox>,
    /// Those of the last call.
    surroundings: Mutex<Arc<Surroundings>>,
    /// Set with the inbox locked: whatever was sent before is found by who takes the inbox after.
    pub(super) dead: AtomicBool,
    pub(super) relay: Relay,
    active: Count,
    /// Held to sleep until there are none.
    none_active: Mutex<()>,
    idle: Condvar,
    /// Relay threads of supervisors that died before.
    abandoned: usize,
    /// It is planned to look for memory that lies unused.
    is_tidying: AtomicBool,
    /// How threads look out for answers that may come at once.
    pub(super) spin: Spin,
    pub(super) has_cores: OnceLock<bool>,
    /// The entry of the last call to a worker of the fork server. No entry has distance zero.
    likely: AtomicI64,
}

/// How far the start came. What failed once may succeed the next time.
#[derive(Default, PartialEq, Eq)]
enum Started {
    #[default]
    Nothing,
    Relay,
    All,
}

#[derive(Default)]
pub(super) struct Inbox {
    commands: VecDeque<Command>,
    /// Before anything that a worker does because of it: see [`withdraw`](Context::withdraw).
    pub(super) called: Vec<Called>,
    /// Workers that wait for a call. Whoever takes one out puts a notice into `called` before the lock is free.
    pub(super) ready: Vec<Ready>,
    /// Workers whose answers were seen by others than the supervisor. If they were taken it need not be rung: it hears of the
    /// workers' ends.
    pub(super) taken: Vec<WorkerId>,
}

impl Workers for Context {
    /// In a fork of the process that made the worker, nothing: it is not ours. A dead supervisor has failed the task.
    fn cancel(&self, worker: WorkerId, task: TaskId) {
        if self.generation == sys::generation() {
            let _ = self.send(Command::Cancel(worker, task));
        }
    }

    fn has_room(&self, worker: WorkerId) {
        if self.generation == sys::generation() {
            // As above.
            let _ = self.send(Command::HasRoom(worker));
        }
    }
}

/// The surroundings of this moment: one copy for all calls between which nothing changes.
pub(crate) fn surroundings() -> Arc<Surroundings> {
    let known = &current().surroundings;
    let last = Arc::clone(&lock(known));
    if last.are_now() {
        return last;
    }
    let now = Arc::new(Surroundings::now());
    *lock(known) = Arc::clone(&now);
    now
}

/// Sends a task to the supervisor, to be run by a new worker.
pub(crate) fn submit(submitted: Submitted, order: Order) -> Result<(), Cause> {
    let context = running()?;
    if order.is_spawn {
        // Here and now: to wake the supervisor for it would take longer, and it has others to look after.
        let lines = launch::spawn(&submitted.options, &order);
        return adopt(submitted, lines);
    }
    if let Some(call) = &order.call {
        context.likely.store(call.entry, Ordering::Relaxed);
    }
    match context.call_ready(submitted, order)? {
        None => Ok(()),
        Some((submitted, order)) => begin(submitted, |submitted| Command::Order(submitted, Box::new(order))),
    }
}

/// Hands a worker that this thread has made to the supervisor, or why there is none.
pub(crate) fn adopt(submitted: Submitted, lines: Result<Lines, Cause>) -> Result<(), Cause> {
    begin(submitted, |submitted| {
        Command::Adopt(submitted, lines.map(Box::new))
    })
}

fn begin(submitted: Submitted, command: impl FnOnce(Box<Submitted>) -> Command) -> Result<(), Cause> {
    let (slot, worker) = (Arc::clone(&submitted.slot), submitted.worker);
    let context = running()?;
    // Before the worker can speak.
    let is_cancelled = slot.set_place(Place::Worker(context, worker));
    context.begin(command(Box::new(submitted)))?;
    // A cancel may have come before the command.
    if is_cancelled || slot.is_unwanted() {
        context.cancel(worker, slot.id);
    }
    Ok(())
}

/// Whether this is the thread that everybody waits for.
pub(super) fn is_supervisor() -> bool {
    IS_SUPERVISOR.get()
}

thread_local! {
    static IS_SUPERVISOR: Cell<bool> = const { Cell::new(false) };
}

/// Has something started at some time, by the supervisor.
pub(crate) fn later(when: Instant, start: Box<dyn FnOnce() + Send>) -> Result<(), Cause> {
    running()?.send(Command::Later(when, start))
}

/// Makes a pool.
pub(crate) fn pool(settings: PoolSettings) -> Result<Arc<PoolCore>, Cause> {
    let context = running()?;
    let pool = PoolCore::new(settings, context);
    context.send(Command::Pool(Arc::clone(&pool)))?;
    Ok(pool)
}

/// Counts a task as active until it is dropped, whether anybody runs it or not.
pub(crate) struct Active(&'static Context);

/// A task begins that may have to wait before it runs.
pub(crate) fn active() -> Active {
    let context = current();
    context.enter();
    Active(context)
}

impl Drop for Active {
    fn drop(&mut self) {
        // In a fork it is another's.
        if self.0.generation == sys::generation() {
            self.0.leave();
        }
    }
}

/// Counts a task that runs on a thread as active until it is dropped, and has its time watched.
pub(crate) struct ThreadTask {
    context: &'static Context,
    worker: WorkerId,
    is_watched: bool,
}

/// The thread is about to start.
pub(crate) fn thread_task(submitted: Submitted) -> Result<ThreadTask, Cause> {
    let worker = submitted.worker;
    let is_watched = submitted.options.timeout.is_some();
    let context = if is_watched { running()? } else { current() };
    context.enter();
    let task = ThreadTask {
        context,
        worker,
        is_watched,
    };
    if is_watched {
        context.send(Command::Thread(Box::new(submitted)))?;
    }
    Ok(task)
}

impl Drop for ThreadTask {
    fn drop(&mut self) {
        if self.is_watched {
            // A dead supervisor watches nothing any more.
            let _ = self.context.send(Command::ThreadEnded(self.worker));
        }
        self.context.leave();
    }
}

/// The next task's number and slot.
pub(crate) fn slot(name: Name) -> Arc<Slot> {
    Slot::new(TaskId(ids::next_number()), name)
}

/// Waits until no task has a worker or a thread; whether it came to that.
pub(crate) fn wait_idle(limit: Duration) -> bool {
    let Some(context) = CURRENT.get().filter(|context| context.is_current()) else {
        return true;
    };
    let is_busy = |_: &mut ()| context.active.get() > 0;
    if is_busy(&mut ()) {
        // It may not have heard yet that a worker has nothing to do any more.
        context.ring();
    }
    let guard = lock(&context.none_active);
    let waited = context.idle.wait_timeout_while(guard, limit, is_busy);
    !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
}

/// Makes the library's own threads safe to fork beside for as long as the result lives, and counts all others.
///
/// The supervisor is started first, so that it does not appear between the count and the fork.
pub(crate) fn lock_for_fork() -> Result<(callbacks::Held, io::Result<usize>), Cause> {
    let context = running()?;
    let held = callbacks::hold();
    let own = OWN_QUIET_THREADS + context.abandoned + usize::from(held.is_quiet);
    Ok((held, sys::other_threads(own)))
}

impl Context {
    fn new() -> Self {
        Context {
            generation: sys::generation(),
            started: Mutex::default(),
            waker: OnceLock::new(),
            inbox: Mutex::default(),
            surroundings: Mutex::default(),
            dead: AtomicBool::new(false),
            relay: Relay::default(),
            active: Count::default(),
            none_active: Mutex::new(()),
            idle: Condvar::new(),
            abandoned: 0,
            is_tidying: AtomicBool::new(false),
            spin: Spin::seldom(LONGEST_SPIN),
            has_cores: OnceLock::new(),
            likely: AtomicI64::new(0),
        }
    }

    fn is_current(&self) -> bool {
        self.generation == sys::generation() && !self.dead.load(Ordering::Acquire)
    }

    /// What the next call will probably run.
    pub(super) fn likely(&self) -> Option<i64> {
        Some(self.likely.load(Ordering::Relaxed)).filter(|entry| *entry != 0)
    }

    pub(super) fn ring(&self) {
        if let Some(waker) = self.waker.get() {
            waker.ring();
        }
    }

    /// Has memory of arguments given back that has not been used for a while.
    pub(super) fn plan_to_tidy(&'static self, now: Instant) {
        if shared::is_any_taken() && !self.is_tidying.swap(true, Ordering::Relaxed) {
            self.tidy_later(now);
        }
    }

    fn tidy_later(&'static self, now: Instant) {
        let tidy = move || match shared::tidy(UNUSED_FOR) {
            true => self.tidy_later(Instant::now()),
            false => self.is_tidying.store(false, Ordering::Relaxed),
        };
        // Without a supervisor there are no calls either.
        let _ = self.send(Command::Later(now + UNUSED_FOR, Box::new(tidy)));
    }

    pub(super) fn send(&self, command: Command) -> Result<(), Cause> {
        let mut inbox = lock(&self.inbox);
        if self.dead.load(Ordering::Acquire) {
            drop(inbox);
            command.end_worker();
            return Err(Cause::Lost {
                what: "the supervisor has ended".into(),
            });
        }
        inbox.commands.push_back(command);
        drop(inbox);
        self.ring();
        Ok(())
    }

    /// Sends a command that brings a new worker.
    fn begin(&self, command: Command) -> Result<(), Cause> {
        self.enter();
        self.send(command).inspect_err(|_| self.leave())
    }

    pub(super) fn enter(&self) {
        self.active.add();
    }

    pub(super) fn leave(&self) {
        if self.active.take() {
            // With the lock: nobody is between looking and sleeping.
            drop(lock(&self.none_active));
            self.idle.notify_all();
        }
    }

    /// Everything that was sent since the last time; the calls to workers that were ready come before the rest, and then those
    /// whose answers were taken.
    pub(super) fn take_commands(&self, commands: &mut VecDeque<Command>) -> (Vec<Called>, Vec<WorkerId>) {
        let mut inbox = lock(&self.inbox);
        commands.append(&mut inbox.commands);
        (
            std::mem::take(&mut inbox.called),
            std::mem::take(&mut inbox.taken),
        )
    }

    /// The supervisor is gone: takes what nobody will handle any more.
    fn die(&self) -> (VecDeque<Command>, Vec<Called>) {
        let mut inbox = lock(&self.inbox);
        self.dead.store(true, Ordering::Release);
        let ready = std::mem::take(&mut inbox.ready);
        let unhandled = (
            std::mem::take(&mut inbox.commands),
            std::mem::take(&mut inbox.called),
        );
        drop(inbox);
        drop(ready);
        unhandled
    }
}

/// This process's context.
pub(super) fn current() -> &'static Context {
    match CURRENT.get() {
        Some(context) if context.is_current() => context,
        old => {
            sys::watch_forks();
            let mut new = Context::new();
            if let Some(old) = old.filter(|old| old.generation == new.generation) {
                new.abandoned = old.abandoned + 1;
            }
            CURRENT.replace(old, Box::new(new))
        }
    }
}

/// This process's context with its threads running.
fn running() -> Result<&'static Context, Cause> {
    let context = current();
    let mut started = lock(&context.started);
    if *started != Started::All {
        start(context, &mut started).map_err(|error| Cause::launch("start the supervisor", error))?;
    }
    Ok(context)
}

fn start(context: &'static Context, started: &mut Started) -> io::Result<()> {
    if *started == Started::Nothing {
        quiet_thread("inparallel-stderr", move || {
            context.relay.run(|| _ = context.send(Command::RelayHasRoom));
        })?;
        *started = Started::Relay;
    }
    let (poller, waker) = Poller::new()?;
    let waker = Arc::new(waker);
    let ear = Arc::clone(&waker);
    quiet_thread("inparallel", move || supervise(context, poller, ear))?;
    if context.waker.set(waker).is_err() {
        unreachable!("a context gets its waker once, with the lock of its start held");
    }
    *started = Started::All;
    sys::at_exit(flush_at_exit);
    Ok(())
}

fn supervise(context: &'static Context, poller: Poller, waker: Arc<Waker>) {
    IS_SUPERVISOR.set(true);
    let mut event_loop = EventLoop::new(context, poller, waker);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| event_loop.run()));
    let what = match result {
        Ok(error) => format!("the supervisor cannot wait any more: {error}"),
        Err(payload) => {
            let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text
                .or_else(|| payload.downcast_ref::<String>().cloned())
                .unwrap_or_default();
            format!("the supervisor panicked: {text}")
        }
    };
    let unhandled = context.die();
    event_loop.fail_all(unhandled, &what);
}

/// A thread of our own that takes no signals of the program's and never ends.
///
/// Returns when it runs: while it starts it may hold locks of std (such as that of the table of threads), which would stay
/// locked in a fork that is made at that moment.
fn quiet_thread(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let builder = std::thread::Builder::new()
        .name(name.to_owned())
        .stack_size(256 << 10);
    let (runs, is_running) = std::sync::mpsc::channel();
    sys::with_signals_blocked(|| {
        builder.spawn(move || {
            // Nobody else receives it, and the receiver waits.
            let _ = runs.send(());
            drop(runs);
            run();
        })
    })?;
    // An end without a word is an end too.
    let _ = is_running.recv();
    Ok(())
}

fn flush_at_exit() {
    if let Some(context) = CURRENT.get().filter(|context| context.is_current()) {
        context.relay.flush();
    }
}

static CURRENT: Global<Context> = Global::new();

/// The supervisor and the relay.
const OWN_QUIET_THREADS: usize = 2;

/// Sends a command past the checks of the layers above.
#[cfg(test)]
pub(super) fn send_for_test(command: Command) {
    current().send(command).ok();
}

/// A program that sends large arguments now and then has the memory for them.
const UNUSED_FOR: Duration = Duration::from_secs(5);
