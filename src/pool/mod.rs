//! Pools: workers that stay, and a queue before them.

mod builder;
mod map;
mod named;
#[cfg(test)]
mod tests;

pub use builder::PoolBuilder;
pub use map::Map;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::attempt;
use crate::call::Call;
use crate::error::{Cause, Error, Result};
use crate::future::TaskFuture;
use crate::ids::TaskId;
use crate::options::{Options, PoolSpec};
use crate::slot::{Again, Slot};
use crate::supervisor::{self, Doing, NotTaken, Patience, PoolCore, Terms};
use crate::work::Work;

pub use crate::supervisor::Shutdown;

/// Workers that stay for many tasks, and a queue before them.
///
/// Cloning gives another handle. **Dropping the last one** lets queued tasks run to their end, without waiting for them,
/// and then ends the workers; a pool with a name is held by that until it is shut down. When the program ends, its workers
/// end with it, and what they run.
///
/// A worker that dies fails the task that it was running, and no other; another takes its place. Tasks run in the order of
/// their [priority](Options::priority), equal ones in the order of submission.
///
/// # Examples
///
/// ```
/// use inparallel::{task, Pool};
///
/// #[task]
/// fn square(x: u64) -> u64 {
///     x * x
/// }
///
/// let pool = Pool::builder().workers(2).build()?;
/// let future = pool.submit(square::later(12))?;
/// assert_eq!(future.wait()?, 144);
///
/// let sum: u64 = pool.map(square::later, 1..=10).sum::<Result<u64, _>>()?;
/// assert_eq!(sum, 385);
/// # Ok::<(), inparallel::Error>(())
/// ```
#[derive(Clone)]
pub struct Pool {
    core: Arc<PoolCore>,
    _handle: Arc<Handle>,
}

/// What all clones of a [`Pool`] share.
struct Handle(Arc<PoolCore>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.close(Shutdown::Finish);
    }
}

/// A call that a pool did not take, handed back with the reason.
pub struct Rejected<T> {
    /// The call, as it was given.
    pub call: Call<T>,
    /// Why: [`Full`](crate::ErrorKind::Full), or any error of [`Pool::submit`].
    pub error: Error,
}

impl<T> fmt::Debug for Rejected<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejected")
            .field("call", &self.call)
            .field("error", &self.error)
            .finish()
    }
}

impl<T> fmt::Display for Rejected<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<T> std::error::Error for Rejected<T> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl<T> From<Box<Rejected<T>>> for Error {
    fn from(rejected: Box<Rejected<T>>) -> Error {
        rejected.error
    }
}

/// What a pool is at, and what it has seen. See [`Pool::stats`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct PoolStats {
    /// Tasks that wait for a worker.
    pub queued: usize,
    /// Tasks that a worker runs.
    pub running: usize,
    /// Tasks that were submitted and have not ended: queued, running, or waiting for a permit or another attempt.
    pub unfinished: usize,
    /// The priority of the task that is next.
    pub next_priority: Option<i32>,
    /// Workers, whatever they do.
    pub workers: usize,
    /// Workers that wait for a task.
    pub idle: usize,
    /// Workers that are being made.
    pub starting: usize,
    /// Tasks that were ever submitted.
    pub submitted: u64,
    /// Workers that were ever made.
    pub workers_made: u64,
    /// Workers that died, were killed, or could not be made.
    pub workers_died: u64,
    /// Calls of `worker_exit` that failed.
    pub exits_failed: u64,
}

/// What a worker of a pool does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WorkerState {
    /// It is being made, or runs `worker_init`.
    Starting,
    /// It waits for a task.
    Idle,
    /// It runs a task.
    Busy,
    /// It runs `worker_exit`, or is about to be gone.
    Leaving,
}

/// One worker of a pool. See [`Pool::workers`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerInfo {
    /// Its process; `None` until that is known, and for a thread.
    pub pid: Option<u32>,
    /// What it does.
    pub state: WorkerState,
    /// The task that it runs.
    pub task: Option<TaskId>,
    /// How many tasks it has done.
    pub tasks_done: u64,
    /// When it began with what it does.
    pub since: Instant,
}

/// While this lives, [`Pool::submit`] waits: see [`Pool::wait_idle`].
#[must_use = "new tasks are held back only while this lives"]
pub struct Idle(Arc<PoolCore>);

impl Drop for Idle {
    fn drop(&mut self) {
        self.0.unguard();
    }
}

impl fmt::Debug for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Idle").field(&self.0.title()).finish()
    }
}

impl Pool {
    /// A pool with the defaults of [`Pool::builder`]: as many workers as the machine runs in parallel for this process,
    /// made as they are needed.
    ///
    /// # Errors
    ///
    /// As [`PoolBuilder::build`].
    pub fn new() -> Result<Pool> {
        Pool::builder().build()
    }

    /// To make a pool otherwise.
    pub fn builder() -> PoolBuilder {
        PoolBuilder::new()
    }

    fn of_core(core: Arc<PoolCore>) -> Pool {
        Pool {
            _handle: Arc::new(Handle(Arc::clone(&core))),
            core,
        }
    }

    /// Runs `work` with a pool of its own; when this returns, all its tasks have ended and its workers are gone.
    ///
    /// If `work` panics, tasks that have not ended are killed, and the panic goes on.
    ///
    /// # Errors
    ///
    /// As [`Pool::new`].
    ///
    /// # Examples
    ///
    /// ```
    /// use inparallel::{task, Pool};
    ///
    /// #[task]
    /// fn double(x: u32) -> u32 {
    ///     x * 2
    /// }
    ///
    /// let future = Pool::scope(|pool| pool.submit(double::later(4)))??;
    /// assert!(future.is_done());
    /// # Ok::<(), inparallel::Error>(())
    /// ```
    pub fn scope<R>(work: impl FnOnce(&Pool) -> R) -> Result<R> {
        struct KillUnlessFinished(Pool);
        impl Drop for KillUnlessFinished {
            fn drop(&mut self) {
                self.0.shutdown(Shutdown::Kill, None);
            }
        }
        let pool = KillUnlessFinished(Pool::new()?);
        let result = work(&pool.0);
        pool.0.shutdown(Shutdown::Finish, None);
        Ok(result)
    }

    /// The pool with this name, if there is one that was not shut down.
    pub fn by_name(name: &str) -> Option<Pool> {
        named::find(name)
    }

    /// All pools that have a name.
    pub fn all() -> Vec<Pool> {
        named::all()
    }

    /// Waits until every task of every named pool has ended and their workers are gone; no more are taken. Whether it came
    /// to that in time.
    pub fn join_all(limit: impl Into<Option<Duration>>) -> bool {
        let deadline = deadline(limit.into());
        for pool in named::all() {
            pool.close();
        }
        // All of them, also those that an earlier call did not see the end of.
        let pools = named::closing();
        pools.iter().all(|pool| pool.wait_over(deadline))
    }

    /// What it is called, if it has a name.
    pub fn name(&self) -> Option<&str> {
        self.core.settings.name.as_deref()
    }

    /// Queues a call, and gives its future. With a [bounded queue](PoolBuilder::queue) that is full, waits for room.
    ///
    /// What the call's options leave open is taken from [those of the pool](PoolBuilder::options).
    ///
    /// # Errors
    ///
    /// [`Closed`](crate::ErrorKind::Closed) after a shutdown; the reason for which the pool has no workers if it came to
    /// that; [`ArgumentNotEncodable`](crate::ErrorKind::ArgumentNotEncodable) and [`Invalid`](crate::ErrorKind::Invalid)
    /// for the call; [`OtherProcess`](crate::ErrorKind::OtherProcess) in a fork of the process that made the pool.
    pub fn submit<T>(&self, call: Call<T>) -> Result<TaskFuture<T>> {
        Ok(self.submit_with(call, Patience::Endless)?)
    }

    /// Queues a call if there is room for it now.
    ///
    /// # Errors
    ///
    /// The call is handed back. [`Full`](crate::ErrorKind::Full), also while a guard of [`wait_idle`](Pool::wait_idle)
    /// lives, and those of [`submit`](Pool::submit), which gives it too if it is called by a
    /// [`Waker`](std::task::Waker), where it must not wait.
    pub fn try_submit<T>(&self, call: Call<T>) -> std::result::Result<TaskFuture<T>, Box<Rejected<T>>> {
        self.submit_with(call, Patience::None)
    }

    /// Queues a call, and waits for room no longer than `limit`.
    ///
    /// # Errors
    ///
    /// As [`try_submit`](Pool::try_submit).
    pub fn submit_timeout<T>(
        &self,
        call: Call<T>,
        limit: Duration,
    ) -> std::result::Result<TaskFuture<T>, Box<Rejected<T>>> {
        let patience = deadline(Some(limit)).map_or(Patience::Endless, Patience::Until);
        self.submit_with(call, patience)
    }

    fn submit_with<T>(
        &self,
        call: Call<T>,
        patience: Patience,
    ) -> std::result::Result<TaskFuture<T>, Box<Rejected<T>>> {
        let name = call.task_name();
        let slot = supervisor::slot(name);
        let merged = call.own_options().map(|own| self.options_for(own));
        let options = merged.as_ref().unwrap_or(&self.core.settings.options);
        let kill_on_drop = options.kill_on_drop;
        let checked = match &merged {
            Some(options) => attempt::checked_depth(options),
            // Those of the pool were checked when it was made.
            None => attempt::depth(),
        };
        let taken = checked
            .and_then(|_| call.work().map_err(|cause| Error::new("", cause)))
            .and_then(|work| self.enter(&slot, merged.as_ref(), work, patience));
        match taken {
            Ok(()) => Ok(TaskFuture::new(slot, kill_on_drop)),
            Err(error) => {
                let error = error.with_task(name.to_string());
                Err(Box::new(Rejected { call, error }))
            }
        }
    }

    /// Applies `call` to every item, in the pool. Results come in the order of the items.
    ///
    /// It is lazy: items are taken from `items`, and calls made, as far ahead as keeps the workers busy; see
    /// [`Map::buffered`]. Nothing runs before the first result is asked for. `call` is `f::later`, or a closure that makes
    /// a call: `|(a, b)| f::later(a, b)`, `|x| f::later(x, &table)`, `|x| f::with().timeout(limit).call_later(x)`; one too
    /// where the items are references to what the function takes.
    ///
    /// Short calls travel many at a time. Each result is a `Result` of its own: an item that fails, or kills its worker,
    /// is one `Err`. To find out which of several quick items killed a worker, those that had begun and those behind them
    /// are run again, one by one.
    ///
    /// # Examples
    ///
    /// ```
    /// use inparallel::{task, Pool};
    ///
    /// #[task]
    /// fn divide(a: u32, b: u32) -> u32 {
    ///     a / b
    /// }
    ///
    /// let pool = Pool::new()?;
    /// let results: Vec<_> = pool.map(|b| divide::later(12, b), [4, 0, 3]).collect();
    /// assert_eq!(results[0].as_ref().ok(), Some(&3));
    /// assert!(results[1].as_ref().unwrap_err().panic_message().unwrap().contains("divide by zero"));
    /// assert_eq!(results[2].as_ref().ok(), Some(&4));
    /// # Ok::<(), inparallel::Error>(())
    /// ```
    pub fn map<T, I, F>(&self, call: F, items: I) -> Map<T, I::IntoIter, F>
    where
        I: IntoIterator,
        F: FnMut(I::Item) -> Call<T>,
    {
        Map::new(self.clone(), call, items.into_iter())
    }

    /// As [`map`](Pool::map), for those who look for it: a closure takes a tuple apart, `|(a, b)| f::later(a, b)`.
    pub fn starmap<T, I, F>(&self, call: F, items: I) -> Map<T, I::IntoIter, F>
    where
        I: IntoIterator,
        F: FnMut(I::Item) -> Call<T>,
    {
        self.map(call, items)
    }

    /// Waits until no task is left, at most for `limit`. Then new ones are held back for as long as the guard lives:
    /// [`submit`](Pool::submit) waits. `None`: it did not come to that in time.
    ///
    /// [Callbacks](crate::TaskFuture::on_done) run after the end of their task: [`wait_idle`](crate::wait_idle) of the crate
    /// waits for them too.
    pub fn wait_idle(&self, limit: impl Into<Option<Duration>>) -> Option<Idle> {
        let is_idle = self
            .core
            .wait(deadline(limit.into()), true, |state| state.outstanding() == 0);
        is_idle.then(|| Idle(Arc::clone(&self.core)))
    }

    /// Takes no tasks any more. Those that were submitted run to their end, and the workers end. Its name is free.
    pub fn close(&self) {
        named::forget(self);
        self.core.close(Shutdown::Finish);
    }

    /// [Closes](Pool::close) it and waits, at most for `limit`, until every task has ended and every worker is gone;
    /// whether it came to that. If not, it may be called again, or [`shutdown`](Pool::shutdown). It does not wait for
    /// [callbacks](crate::TaskFuture::on_done); [`wait_idle`](crate::wait_idle) does.
    pub fn join(&self, limit: impl Into<Option<Duration>>) -> bool {
        self.shutdown(Shutdown::Finish, limit)
    }

    /// Ends the pool: takes no tasks any more, does with those that it has as `how` says, and waits, at most for `limit`,
    /// until every task has ended and every worker is gone. Whether it came to that.
    ///
    /// A second call with a harder `how` counts.
    pub fn shutdown(&self, how: Shutdown, limit: impl Into<Option<Duration>>) -> bool {
        named::forget(self);
        self.core.close(how);
        self.wait_over(deadline(limit.into()))
    }

    #[inline]
    fn is_ours(&self) -> bool {
        self.core.is_ours()
    }

    fn is_over(&self) -> bool {
        self.core.look(|state, _| state.is_over()).unwrap_or(true)
    }

    fn wait_over(&self, deadline: Option<Instant>) -> bool {
        self.core.wait(deadline, false, |state| state.is_over())
    }

    /// Whether it takes no tasks any more.
    pub fn is_closed(&self) -> bool {
        self.core.look(|state, _| state.closing.is_some()).unwrap_or(true)
    }

    /// Sets how many workers there may be. Those that are too many end after their task.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) for zero, and [`Closed`](crate::ErrorKind::Closed).
    pub fn resize(&self, workers: usize) -> Result<()> {
        builder::check_workers(workers)?;
        if self.is_closed() {
            let pool = self.core.title();
            return Err(Error::new("", Cause::Closed { pool }));
        }
        self.core.resize(workers);
        Ok(())
    }

    /// What it is at, and what it has seen.
    pub fn stats(&self) -> PoolStats {
        let look = self.core.look(|state, counts| PoolStats {
            queued: state.queued(),
            running: state.count(Doing::Busy),
            unfinished: state.outstanding(),
            next_priority: state.first_priority(),
            workers: state.workers().count(),
            idle: state.count(Doing::Idle),
            starting: state.count(Doing::Starting) + state.count(Doing::Initializing),
            submitted: counts.submitted,
            workers_made: counts.workers_made,
            workers_died: counts.workers_died,
            exits_failed: counts.hooks_failed,
        });
        look.unwrap_or_default()
    }

    /// Its workers, in no order.
    pub fn workers(&self) -> Vec<WorkerInfo> {
        if !self.is_ours() {
            return Vec::new();
        }
        let at_work = self.core.tasks_at_work();
        let look = self.core.look(|state, _| {
            let workers = state.workers().map(|(id, worker)| WorkerInfo {
                pid: worker.pid,
                state: match worker.doing {
                    Doing::Starting | Doing::Initializing => WorkerState::Starting,
                    Doing::Idle => WorkerState::Idle,
                    Doing::Busy => WorkerState::Busy,
                    Doing::Exiting | Doing::Leaving => WorkerState::Leaving,
                },
                task: worker.task.or_else(|| at_work.get(&id).copied()),
                tasks_done: worker.tasks_done,
                since: worker.since,
            });
            workers.collect()
        });
        look.unwrap_or_default()
    }

    /// How many workers there may be.
    pub fn max_workers(&self) -> usize {
        let look = self.core.look(|state, _| state.rules.max_workers);
        look.unwrap_or(self.core.settings.rules.max_workers)
    }

    /// The pool that an attribute names.
    pub(crate) fn of(spec: &'static PoolSpec, options: &Options) -> Result<Pool> {
        named::of(spec, options)
    }

    /// As [`submit`](Pool::submit), for whoever keeps a bound of his own: it needs no room in the queue, and what is wrong
    /// is the outcome of the future.
    pub(crate) fn start<T>(&self, call: Call<T>) -> TaskFuture<T> {
        let submitted = self.submit_with(call, Patience::Unbounded);
        submitted.unwrap_or_else(|rejected| {
            let Rejected { call, error } = *rejected;
            TaskFuture::failed(call.task_name(), error)
        })
    }

    /// Whether it has given up on making workers.
    pub(crate) fn is_broken(&self) -> bool {
        self.core.look(|state, _| state.is_broken()).unwrap_or(true)
    }

    /// What a task runs with here.
    pub(crate) fn options_for(&self, options: &Options) -> Options {
        let method = self.core.settings.options.method();
        let options = options.clone().or(self.core.settings.options.clone());
        options.start(method)
    }

    /// Takes a task in: it queues, at once or when it has a permit, and again for each attempt.
    pub(crate) fn enter(
        &self,
        slot: &Arc<Slot>,
        options: Option<&Options>,
        work: Work,
        patience: Patience,
    ) -> Result<()> {
        let core = &self.core;
        let terms = options.map(|options| Arc::new(Terms::of(options)));
        let options = options.unwrap_or(&core.settings.options);
        if let Some(rule) = options.retry() {
            let (core, work, terms) = (Arc::clone(core), work.clone(), terms.clone());
            let start = Arc::new(move |slot: &Arc<Slot>, pause| {
                core.queue_again(slot, work.clone(), terms.clone(), pause);
            });
            slot.set_again(Again { rule, start });
        }
        let taken = match &options.limit {
            None => core.submit(slot, work, terms, patience),
            Some(limiter) => core.admit(slot, patience).map(|()| {
                let core = Arc::clone(core);
                attempt::wait_for_permit(slot, limiter, move |slot| {
                    core.queue_again(slot, work, terms, Duration::ZERO);
                });
            }),
        };
        taken.map_err(|not_taken| match not_taken {
            NotTaken::Error(error) => error,
            NotTaken::Full => {
                let queue = self.core.settings.rules.queue.unwrap_or_default();
                let pool = self.core.title();
                Error::new("", Cause::Full { pool, queue })
            }
        })
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("name", &self.name())
            .field("stats", &self.stats())
            .finish()
    }
}

fn deadline(limit: Option<Duration>) -> Option<Instant> {
    Instant::now().checked_add(limit?)
}
