//! How a pool is set, and what cannot be meant.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::attempt;
use crate::call::Call;
use crate::error::{Error, Result};
use crate::launch::Surroundings;
use crate::nesting;
use crate::options::{Options, StartMethod};
use crate::pool::{Pool, named};
use crate::supervisor::{self, PoolSettings, Rules};
use crate::sync::{BUSY_TOO_LONG, LONGEST_SPIN, has_cores};
use crate::work::Work;

/// Makes a [`Pool`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use inparallel::{task, Options, Pool};
///
/// #[task]
/// fn prepare(model: &str) {
///     // load what every task of this worker needs
/// }
///
/// let pool = Pool::builder()
///     .workers(4)
///     .worker_init(prepare::later("large"))
///     .max_tasks_per_worker(1000)
///     .queue(10_000)
///     .options(Options::new().timeout(Duration::from_secs(30)))
///     .build()?;
/// assert_eq!(pool.max_workers(), 4);
///
/// let error = Pool::builder().workers(0).build().unwrap_err();
/// assert!(error.to_string().starts_with("workers: 0 cannot be used"));
/// # Ok::<(), inparallel::Error>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "a builder makes nothing until `build`"]
pub struct PoolBuilder {
    name: Option<String>,
    workers: Option<usize>,
    min_workers: usize,
    prestart: bool,
    start: Option<StartMethod>,
    idle_timeout: Duration,
    max_tasks_per_worker: Option<u64>,
    worker_init: Option<Call<()>>,
    worker_exit: Option<Call<()>>,
    environment: Vec<(OsString, OsString)>,
    directory: Option<PathBuf>,
    queue: Option<usize>,
    spin: Duration,
    options: Options,
}

impl PoolBuilder {
    pub(super) fn new() -> Self {
        PoolBuilder {
            name: None,
            workers: None,
            min_workers: 0,
            prestart: false,
            start: None,
            idle_timeout: Duration::from_secs(10),
            max_tasks_per_worker: None,
            worker_init: None,
            worker_exit: None,
            environment: Vec::new(),
            directory: None,
            queue: None,
            spin: LONGEST_SPIN,
            options: Options::new(),
        }
    }

    /// What [`Pool::by_name`] finds it by, until it is shut down. Building a second one with the same name and the same
    /// settings gives the first; with other settings it is refused.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// How many workers there may be. Default: [`std::thread::available_parallelism`], which heeds the CPUs that the process
    /// may run on and the quota of its control group.
    pub fn workers(mut self, most: usize) -> Self {
        self.workers = Some(most);
        self
    }

    /// How many workers are kept even when there is nothing to do. Default: 0.
    pub fn min_workers(mut self, least: usize) -> Self {
        self.min_workers = least;
        self
    }

    /// Makes all workers at once, instead of as they are needed.
    pub fn prestart(mut self, prestart: bool) -> Self {
        self.prestart = prestart;
        self
    }

    /// How workers are made: `ForkServer`, `Spawn`, or `Thread`, which isolates nothing and whose tasks nobody can stop.
    /// Default: [`StartMethod::default`], or that of the platform if that is one of the others.
    pub fn start(mut self, method: StartMethod) -> Self {
        self.start = Some(method);
        self
    }

    /// A worker that had nothing to do for so long ends, unless it is one of the `min_workers`. Default: 10 s.
    pub fn idle_timeout(mut self, limit: Duration) -> Self {
        self.idle_timeout = limit;
        self
    }

    /// A worker that has done so many tasks ends, and another takes its place: for code that leaks. Default: no limit.
    pub fn max_tasks_per_worker(mut self, most: u64) -> Self {
        self.max_tasks_per_worker = Some(most);
        self
    }

    /// A call that each worker runs first. If it fails, the worker is replaced; if that happens five times in a row and no
    /// worker is left, queued tasks end in its error, and the pool takes no more.
    pub fn worker_init(mut self, call: Call<()>) -> Self {
        self.worker_init = Some(call);
        self
    }

    /// A call that each worker runs last, unless it dies or is killed. What fails in it is counted in
    /// [`PoolStats::exits_failed`](crate::PoolStats::exits_failed).
    pub fn worker_exit(mut self, call: Call<()>) -> Self {
        self.worker_exit = Some(call);
        self
    }

    /// A variable in the environment of its workers, beside those of the program at the time of `build`.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// The working directory of its workers. Default: that of the program at the time of `build`.
    pub fn current_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// How many tasks may wait, for a worker, a permit or another attempt; [`Pool::submit`] waits while there are so many.
    /// Default: no limit.
    pub fn queue(mut self, most: usize) -> Self {
        self.queue = Some(most);
        self
    }

    /// How long a thread that waits for a result, and a worker that waits for its next task, may look out for it before
    /// they sleep: waking up takes longer than many a task. They give way to whoever wants their core meanwhile. Default, and at most: 50 µs. Zero: they sleep at once.
    ///
    /// It is left out where the process may use one core only, and after it was in vain, the more often the longer that
    /// lasts: tasks that take long, and machines that are busy, make that so.
    pub fn spin(mut self, limit: Duration) -> Self {
        self.spin = limit;
        self
    }

    /// What its tasks run with where their own options say nothing: time limit, priority, retries and the like. What
    /// becomes of stderr is set here for all its tasks, as is the program of `Spawn`. A start method in it is that of the
    /// pool; a time limit and a grace in it are those of `worker_init` and `worker_exit` too.
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Makes the pool. Workers are made when they are needed, unless [`prestart`](PoolBuilder::prestart) is set.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) for a value that cannot be used, with its name and a remedy;
    /// [`Launch`](crate::ErrorKind::Launch) if no worker could ever be made.
    pub fn build(self) -> Result<Pool> {
        let settings = self.check()?;
        match settings.name {
            None => make(settings),
            Some(_) => named::make(settings),
        }
    }

    pub(crate) fn has_name(&self) -> bool {
        self.name.is_some()
    }

    fn check(self) -> Result<PoolSettings> {
        let depth = attempt::checked_depth(&self.options)?;
        let workers = self.workers.unwrap_or_else(default_workers);
        check_workers(workers)?;
        let invalid =
            |field, value: &dyn std::fmt::Display, remedy: &str| Err(Error::invalid(field, value, remedy));
        if self.name.as_ref().is_some_and(|name| name.trim().is_empty()) {
            return invalid("name", &"\"\"", "give the pool a name, or leave it out");
        }
        if self.min_workers > workers {
            let remedy = format!("it is more than workers, {workers}");
            return invalid("min_workers", &self.min_workers, &remedy);
        }
        if self.queue == Some(0) {
            return invalid("queue", &0, "let at least one task wait, or set no limit");
        }
        if self.max_tasks_per_worker == Some(0) {
            return invalid(
                "max_tasks_per_worker",
                &0,
                "let a worker do at least one task, or set no limit",
            );
        }
        if Instant::now().checked_add(self.idle_timeout).is_none() {
            let value = format!("{:?}", self.idle_timeout);
            return invalid(
                "idle_timeout",
                &value,
                "it is beyond the clock's range; set min_workers",
            );
        }
        let method = self.start.unwrap_or_else(|| self.options.method_of_pool());
        if !method.makes_pools() {
            let remedy = "a pool's workers are made by the supervisor; use forkserver, spawn or thread";
            return invalid("start", &method, remedy);
        }
        if method != StartMethod::Thread {
            attempt::check_reachable().map_err(|cause| Error::new("", cause))?;
        }
        if let Some((name, _)) = self
            .environment
            .iter()
            .find(|(name, _)| name.is_empty() || name.as_encoded_bytes().contains(&b'='))
        {
            let value = format!("{:?}", name.display().to_string());
            return invalid("env", &value, "a variable has a name, without the character =");
        }
        let has_zero = |text: &OsString| text.as_encoded_bytes().contains(&0);
        if let Some((name, value)) = self
            .environment
            .iter()
            .find(|(name, value)| has_zero(name) || has_zero(value))
        {
            let text = format!("{name:?}={value:?}");
            return invalid("env", &text, "a variable has no zero byte");
        }
        if let Some(directory) = &self.directory
            && !directory.is_dir()
        {
            return invalid("current_dir", &format!("{directory:?}"), "it is no directory");
        }
        if self.spin > LONGEST_SPIN {
            let value = format!("{:?}", self.spin);
            return invalid("spin", &value, BUSY_TOO_LONG);
        }
        let hook = |call: Option<Call<()>>| -> Result<Option<Work>> {
            let work = call.map(|call| call.work()).transpose();
            work.map_err(|cause| Error::new("", cause))
        };
        let mut surroundings = Surroundings::now();
        surroundings.environment = surroundings.environment.with(&self.environment);
        if let Some(directory) = &self.directory {
            surroundings.directory = Some(std::path::absolute(directory).unwrap_or(directory.clone()).into());
        }
        let (init, exit) = (hook(self.worker_init)?, hook(self.worker_exit)?);
        Ok(PoolSettings {
            name: self.name,
            rules: Rules {
                min_workers: self.min_workers,
                max_workers: workers,
                idle_timeout: self.idle_timeout,
                max_tasks_per_worker: self.max_tasks_per_worker,
                queue: self.queue,
                has_init: init.is_some(),
                has_exit: exit.is_some(),
            },
            prestart: if self.prestart { workers } else { 0 },
            options: self.options.start(method),
            init,
            exit,
            environment: self.environment,
            directory: self.directory,
            depth: depth.max(nesting::depth() + 1),
            spin: if has_cores() { self.spin } else { Duration::ZERO },
            surroundings: Arc::new(surroundings),
        })
    }
}

pub(super) fn make(settings: PoolSettings) -> Result<Pool> {
    let core = supervisor::pool(settings).map_err(|cause| Error::new("", cause))?;
    Ok(Pool::of_core(core))
}

pub(super) fn check_workers(workers: usize) -> Result<()> {
    match workers {
        0 => Err(Error::invalid("workers", 0, "a pool needs at least one")),
        _ if workers > MOST_WORKERS => {
            let remedy = format!("a pool has at most {MOST_WORKERS}");
            Err(Error::invalid("workers", workers, remedy))
        }
        _ => Ok(()),
    }
}

/// More processes than that no system has.
const MOST_WORKERS: usize = 1 << 22;

fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
