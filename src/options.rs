//! How one task is run: start method, limits, what becomes of its stderr.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::limiter::Limiter;
use crate::sync::{BUSY_TOO_LONG, LONGEST_SPIN, lock};
use crate::sys::FORK_SERVER_IS_DEFAULT;

/// How the worker for a task is made.
///
/// | method | worker | price of one | safe beside threads | arguments | platforms |
/// | --- | --- | --- | --- | --- | --- |
/// | `Fork` | copy of the caller | grows with the caller's memory | no: refused | not serialized | Unix |
/// | `ForkServer` | fork of a small helper process | a small fork, flat | yes | serialized | Unix; default on Linux |
/// | `Spawn` | this program, executed again | about 1 ms, flat | yes | serialized | Unix; default elsewhere |
/// | `Thread` | a thread of this process: no isolation | a thread | yes | serialized | all |
/// | `Inline` | the calling thread, at once: no isolation | nothing | yes | not serialized | all |
///
/// The environment variable that names one is yours to read: the type is [`FromStr`].
///
/// # Examples
///
/// ```
/// use inparallel::StartMethod;
///
/// let method: StartMethod = "forkserver".parse()?;
/// assert_eq!(method, StartMethod::ForkServer);
/// assert!("frok".parse::<StartMethod>().unwrap_err().to_string().contains("fork, forkserver, spawn"));
/// # Ok::<(), inparallel::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum StartMethod {
    /// A copy of the calling process. Nothing is serialized but the result, and closures work ([`fork`](crate::fork)).
    ///
    /// Refused with [`ErrorKind::ThreadsAlive`] in a program that has threads of its
    /// own, since a lock that another thread holds at that moment stays locked in the copy for ever.
    Fork,
    /// A fork of one small, single-threaded helper process, which is this program executed again before its `main`.
    ///
    /// Safe whatever threads the program has; the price does not grow with the program's memory. A worker sees what the
    /// helper had when it started, plus the environment, the working directory and the stdout of the call's moment, and
    /// with the user and groups of that moment; resource limits, umask, namespaces and the like are those of the helper's
    /// start, and of open files a worker has the standard ones only. [`preload`](crate::preload) runs a function in the
    /// helper first, so that all workers share what it loaded. From the first call on, two workers that have run nothing
    /// are kept ready for the next.
    ForkServer,
    /// This program executed again, before its `main`: nothing is shared with the caller but the environment.
    ///
    /// The calling thread makes the process before the call returns, which takes some tenths of a millisecond. What belongs to
    /// that thread alone is the worker's, too: the cores it may use, and its scheduling priority.
    Spawn,
    /// A thread of the calling process. No isolation: a crash takes the program along, and a time limit or a cancel
    /// resolves the future but cannot stop the thread.
    Thread,
    /// The calling thread itself, before the call returns. No isolation, no time limit.
    Inline,
}

impl StartMethod {
    /// All of them.
    pub const fn all() -> [StartMethod; 5] {
        use StartMethod::{Fork, ForkServer, Inline, Spawn, Thread};
        [Fork, ForkServer, Spawn, Thread, Inline]
    }

    /// Whether the task gets a process of its own.
    pub const fn is_isolated(self) -> bool {
        matches!(
            self,
            StartMethod::Fork | StartMethod::ForkServer | StartMethod::Spawn
        )
    }

    const OF_PLATFORM: StartMethod = if FORK_SERVER_IS_DEFAULT {
        StartMethod::ForkServer
    } else {
        StartMethod::Spawn
    };

    /// Whether workers can be made so before there is a task.
    pub(crate) fn makes_pools(self) -> bool {
        !matches!(self, StartMethod::Fork | StartMethod::Inline)
    }

    const fn as_str(self) -> &'static str {
        match self {
            StartMethod::Fork => "fork",
            StartMethod::ForkServer => "forkserver",
            StartMethod::Spawn => "spawn",
            StartMethod::Thread => "thread",
            StartMethod::Inline => "inline",
        }
    }
}

impl Default for StartMethod {
    /// What [`set_default_start`] chose, else the platform's default.
    fn default() -> Self {
        let chosen = DEFAULT_START.load(Ordering::Relaxed);
        StartMethod::all()
            .get(usize::from(chosen))
            .copied()
            .unwrap_or(StartMethod::OF_PLATFORM)
    }
}

impl fmt::Display for StartMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for StartMethod {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let known = || StartMethod::all().map(StartMethod::as_str).join(", ");
        StartMethod::all()
            .into_iter()
            .find(|method| method.as_str() == text)
            .ok_or_else(|| {
                Error::invalid(
                    "start method",
                    format!("{text:?}"),
                    format!("use one of {}", known()),
                )
            })
    }
}

/// Chooses the start method of calls that do not name one, for the whole program from now on.
///
/// # Examples
///
/// ```
/// use inparallel::{set_default_start, StartMethod};
///
/// set_default_start(StartMethod::Spawn);
/// assert_eq!(StartMethod::default(), StartMethod::Spawn);
/// ```
pub fn set_default_start(method: StartMethod) {
    DEFAULT_START.store(method as u8, Ordering::Relaxed);
}

/// What becomes of what a worker writes to its stderr. [`Error::stderr`](crate::Error::stderr) has the end of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Stderr {
    /// Captured, and passed on to the program's own stderr, past the capture of a test harness. It is a pipe to the
    /// worker, not the terminal.
    #[default]
    Tee,
    /// Captured only.
    Capture,
    /// The program's own stderr; nothing is captured.
    Inherit,
    /// Thrown away.
    Null,
}

/// How one task is run; the setters of `f::with()` are these.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use inparallel::{task, Options, StartMethod};
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Square(f64);
///
/// impl Square {
///     #[task]
///     fn area(&self) -> f64 {
///         self.0 * self.0
///     }
/// }
///
/// let options = Options::new().timeout(Duration::from_secs(60)).start(StartMethod::Spawn);
/// assert_eq!(Square(2.0).area_with(options).wait()?, 4.0);
/// # Ok::<(), inparallel::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "options do nothing until a task is called with them"]
pub struct Options {
    start: Option<StartMethod>,
    pub(crate) timeout: Option<Duration>,
    grace: Option<Duration>,
    pub(crate) kill_on_drop: bool,
    stderr: Option<Stderr>,
    max_result: Option<u64>,
    pub(crate) program: Option<PathBuf>,
    pub(crate) priority: Option<i32>,
    retries: Option<u32>,
    retry_on: Vec<ErrorKind>,
    retry_errors: bool,
    backoff: Option<Duration>,
    spin: Option<Duration>,
    pub(crate) limit: Option<Limiter>,
    pub(crate) pool: Option<&'static PoolSpec>,
}

/// The pool that `#[task(pool)]` and the like ask for.
#[doc(hidden)]
#[derive(Debug, PartialEq, Eq)]
pub struct PoolSpec {
    /// What it is called among all pools.
    pub name: &'static str,
    /// How many workers it has at most.
    pub workers: Option<usize>,
    /// One worker that lives as long as the pool.
    pub daemon: bool,
}

impl PoolSpec {
    /// One that lives as long as the process. The attributes that ask for pools are few.
    fn interned(name: String, workers: Option<usize>, daemon: bool) -> &'static PoolSpec {
        static SPECS: Mutex<Vec<&'static PoolSpec>> = Mutex::new(Vec::new());
        let mut specs = lock(&SPECS);
        let is_it = |spec: &&&PoolSpec| spec.name == name && spec.workers == workers && spec.daemon == daemon;
        if let Some(spec) = specs.iter().find(is_it) {
            return spec;
        }
        let spec: &'static PoolSpec = Box::leak(Box::new(PoolSpec {
            name: name.leak(),
            workers,
            daemon,
        }));
        specs.push(spec);
        spec
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Well,
    /// In the task's own `Err`.
    InErr,
    Failed(ErrorKind),
}

/// What is left of the attempts at a task.
#[derive(Debug, Clone)]
pub(crate) struct Retry {
    left: u32,
    on: Vec<ErrorKind>,
    on_err: bool,
    pause: Duration,
}

impl Retry {
    /// How long to wait before the next attempt; `None`: there is none.
    pub(crate) fn next(&mut self, ended: Ended) -> Option<Duration> {
        let is_wanted = match ended {
            Ended::Well => false,
            Ended::InErr => self.on_err,
            Ended::Failed(kind) => self.on.contains(&kind),
        };
        if !is_wanted || self.left == 0 {
            return None;
        }
        self.left -= 1;
        let pause = self.pause;
        self.pause = pause.saturating_mul(2).min(LONGEST_PAUSE.max(pause));
        Some(pause)
    }
}

/// A back-off is doubled up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

impl Options {
    /// The defaults.
    #[inline]
    pub const fn new() -> Self {
        Options {
            start: None,
            timeout: None,
            grace: None,
            kill_on_drop: false,
            stderr: None,
            max_result: None,
            program: None,
            priority: None,
            retries: None,
            retry_on: Vec::new(),
            retry_errors: false,
            backoff: None,
            spin: None,
            limit: None,
            pool: None,
        }
    }

    /// How the worker is made. Default: [`StartMethod::default`].
    pub fn start(mut self, method: StartMethod) -> Self {
        self.start = Some(method);
        self
    }

    /// The longest that the task may run; then its process group is killed and the future is
    /// [`TimedOut`](crate::ErrorKind::TimedOut). It counts from the moment the worker exists. Default: no limit.
    ///
    /// Zero, and a limit too long for the clock, are refused when the task is called.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// The time between asking a worker to end (SIGTERM) and killing it. Default: 500 ms. Zero kills at once.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = Some(grace);
        self
    }

    /// Kills the task when its future is dropped, instead of letting it run to its end.
    pub fn kill_on_drop(mut self) -> Self {
        self.kill_on_drop = true;
        self
    }

    /// What becomes of the worker's stderr. Default: [`Stderr::Tee`].
    pub fn stderr(mut self, stderr: Stderr) -> Self {
        self.stderr = Some(stderr);
        self
    }

    /// The longest result, in bytes, that is taken from the worker. Default: 1 GiB.
    pub fn max_result(mut self, bytes: u64) -> Self {
        self.max_result = Some(bytes);
        self
    }

    /// The executable that [`StartMethod::Spawn`] runs. Default: the file of this program. It must be the same build,
    /// else the call ends in [`WrongBinary`](crate::ErrorKind::WrongBinary). For programs under an emulator or without
    /// `/proc`. A preset, not a place for another program.
    pub fn program(mut self, path: impl Into<PathBuf>) -> Self {
        self.program = Some(path.into());
        self
    }

    /// Where the task stands in the queue of a pool: smaller numbers run first, equal ones in the order of submission.
    /// Default: 0. Without a pool nothing queues, and it says nothing.
    pub fn priority(mut self, priority: i32) -> Self {
        self.priority = Some(priority);
        self
    }

    /// How often the task is tried again when its worker dies: [`Signaled`](ErrorKind::Signaled),
    /// [`Exited`](ErrorKind::Exited), [`Lost`](ErrorKind::Lost) and [`Protocol`](ErrorKind::Protocol), and what
    /// [`retry_on`](Options::retry_on) and [`retry_errors`](Options::retry_errors) add. Default: never.
    ///
    /// A cancelled task is not tried again. [`Error::attempt`](crate::Error::attempt) and
    /// [`TaskContext::attempt`](crate::TaskContext::attempt) count from 1. Not for `Fork`, which keeps no copy of the
    /// arguments, and not for `Inline`.
    pub fn retries(mut self, count: u32) -> Self {
        self.retries = Some(count);
        self
    }

    /// An ending to try again after, beside the death of a worker: such as [`TimedOut`](ErrorKind::TimedOut) or
    /// [`Panicked`](ErrorKind::Panicked). May be called for several.
    pub fn retry_on(mut self, kind: ErrorKind) -> Self {
        self.retry_on.push(kind);
        self
    }

    /// Also tries again when the task returns its own `Err`.
    pub fn retry_errors(mut self) -> Self {
        self.retry_errors = true;
        self
    }

    /// How long to wait before the second attempt; doubled for each more, up to a minute. Default: not at all.
    pub fn backoff(mut self, pause: Duration) -> Self {
        self.backoff = Some(pause);
        self
    }

    /// How long a thread that waits for the result of a task of [`ForkServer`](StartMethod::ForkServer) may look out for it
    /// before it sleeps: waking up takes longer than many a task. It gives way to whoever wants its core meanwhile. Default,
    /// and at most: 50 µs. Zero: it sleeps at once, and no worker that is ready is woken before the call is made, to look out
    /// for that. In a pool, [`PoolBuilder::spin`](crate::PoolBuilder::spin) says it.
    ///
    /// It is left out where the process may use one core only, and after it was in vain, the more often the longer that
    /// lasts.
    pub fn spin(mut self, limit: Duration) -> Self {
        self.spin = Some(limit);
        self
    }

    /// A task starts when it has a permit of this limiter, and gives it back when it has ended, in whatever way. While it
    /// waits it has no worker; only with `Fork` and `Inline`, which start in the calling thread, the call itself waits.
    pub fn limit(mut self, limiter: &Limiter) -> Self {
        self.limit = Some(limiter.clone());
        self
    }

    #[doc(hidden)]
    pub fn in_pool(mut self, pool: &'static PoolSpec) -> Self {
        self.pool = Some(pool);
        self
    }

    /// What is not set here is taken from `other`.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use inparallel::Options;
    ///
    /// let usual = Options::new().timeout(Duration::from_secs(60)).kill_on_drop();
    /// let longer = Options::new().timeout(Duration::from_secs(600));
    /// assert_eq!(longer.clone().or(usual), longer.kill_on_drop());
    /// ```
    pub fn or(self, other: Options) -> Self {
        Options {
            start: self.start.or(other.start),
            timeout: self.timeout.or(other.timeout),
            grace: self.grace.or(other.grace),
            kill_on_drop: self.kill_on_drop || other.kill_on_drop,
            stderr: self.stderr.or(other.stderr),
            max_result: self.max_result.or(other.max_result),
            program: self.program.or(other.program),
            priority: self.priority.or(other.priority),
            retries: self.retries.or(other.retries),
            retry_on: [self.retry_on, other.retry_on].concat(),
            retry_errors: self.retry_errors || other.retry_errors,
            backoff: self.backoff.or(other.backoff),
            spin: self.spin.or(other.spin),
            limit: self.limit.or(other.limit),
            pool: self.pool.or(other.pool),
        }
    }

    /// Whether they are the defaults. Asked of every call, and told by looking.
    #[inline]
    pub(crate) fn say_nothing(&self) -> bool {
        let Options {
            start: None,
            timeout: None,
            grace: None,
            kill_on_drop: false,
            stderr: None,
            max_result: None,
            program: None,
            priority: None,
            retries: None,
            retry_on,
            retry_errors: false,
            backoff: None,
            spin: None,
            limit: None,
            pool: None,
        } = self
        else {
            return false;
        };
        retry_on.is_empty()
    }

    pub(crate) fn is_retried(&self) -> bool {
        self.retries.is_some_and(|count| count > 0)
    }

    /// How the task is tried again, if it is.
    pub(crate) fn retry(&self) -> Option<Retry> {
        let left = self.retries.filter(|count| *count > 0)?;
        let mut on = vec![
            ErrorKind::Signaled,
            ErrorKind::Exited,
            ErrorKind::Lost,
            ErrorKind::Protocol,
        ];
        on.extend(&self.retry_on);
        Some(Retry {
            left,
            on,
            on_err: self.retry_errors,
            pause: self.backoff.unwrap_or_default(),
        })
    }

    pub(crate) fn grace_or_default(&self) -> Duration {
        self.grace.unwrap_or(Duration::from_millis(500))
    }

    pub(crate) fn stderr_or_default(&self) -> Stderr {
        self.stderr.unwrap_or_default()
    }

    pub(crate) fn spin_or_default(&self) -> Duration {
        self.spin.unwrap_or(LONGEST_SPIN)
    }

    pub(crate) fn max_result_or_default(&self) -> u64 {
        self.max_result.unwrap_or(1 << 30)
    }

    pub(crate) fn method(&self) -> StartMethod {
        self.start.unwrap_or_default()
    }

    /// For a pool: a default that was chosen for single tasks, and that no pool can have, is not meant.
    pub(crate) fn method_of_pool(&self) -> StartMethod {
        let default = StartMethod::default();
        let default = if default.makes_pools() {
            default
        } else {
            StartMethod::OF_PLATFORM
        };
        self.start.unwrap_or(default)
    }

    /// Refuses what cannot be meant, before anything is started.
    pub(crate) fn check(&self) -> Result<()> {
        let now = std::time::Instant::now();
        match self.timeout {
            Some(Duration::ZERO) => Err(Error::invalid(
                "timeout",
                "0s",
                "give the task some time, or set no limit",
            )),
            Some(limit) if now.checked_add(limit).is_none() => Err(Error::invalid(
                "timeout",
                format!("{limit:?}"),
                "it is beyond the clock's range; set no limit",
            )),
            _ if self.retries.is_some_and(|count| count > 0)
                && matches!(self.method(), StartMethod::Fork | StartMethod::Inline) =>
            {
                Err(Error::invalid(
                    "retries",
                    self.retries.unwrap_or_default(),
                    format!(
                        "StartMethod::{:?} keeps no copy of the arguments; use ForkServer or Spawn",
                        self.method()
                    ),
                ))
            }
            _ if self.retries.is_none()
                && (!self.retry_on.is_empty() || self.retry_errors || self.backoff.is_some()) =>
            {
                Err(Error::invalid(
                    "retries",
                    "0",
                    "retry_on, retry_errors and backoff say when and how to retry; say how often with retries",
                ))
            }
            _ if now.checked_add(self.backoff.unwrap_or_default()).is_none() => Err(Error::invalid(
                "backoff",
                format!("{:?}", self.backoff.unwrap_or_default()),
                "it is beyond the clock's range; give some seconds",
            )),
            _ if self.spin_or_default() > LONGEST_SPIN => Err(Error::invalid(
                "spin",
                format!("{:?}", self.spin_or_default()),
                BUSY_TOO_LONG,
            )),
            _ if now.checked_add(self.grace_or_default()).is_none() => {
                let grace = format!("{:?}", self.grace_or_default());
                Err(Error::invalid(
                    "grace",
                    grace,
                    "it is beyond the clock's range; give some seconds",
                ))
            }
            _ => Ok(()),
        }
    }
}

/// [`Options`] as they travel with a call.
#[derive(Serialize, Deserialize)]
pub(crate) struct Portable {
    start: Option<StartMethod>,
    timeout: Option<Duration>,
    grace: Option<Duration>,
    kill_on_drop: bool,
    stderr: Option<Stderr>,
    max_result: Option<u64>,
    program: Option<PathBuf>,
    priority: Option<i32>,
    retries: Option<u32>,
    retry_on: Vec<ErrorKind>,
    retry_errors: bool,
    backoff: Option<Duration>,
    spin: Option<Duration>,
    /// Name, workers, daemon.
    pool: Option<(String, Option<usize>, bool)>,
}

impl Options {
    /// Refused with a limiter, which counts in this process only.
    pub(crate) fn portable(&self) -> std::result::Result<Portable, &'static str> {
        if self.limit.is_some() {
            return Err("a call with a limit cannot be serialized: the limiter counts in this process only");
        }
        Ok(Portable {
            start: self.start,
            timeout: self.timeout,
            grace: self.grace,
            kill_on_drop: self.kill_on_drop,
            stderr: self.stderr,
            max_result: self.max_result,
            program: self.program.clone(),
            priority: self.priority,
            retries: self.retries,
            retry_on: self.retry_on.clone(),
            retry_errors: self.retry_errors,
            backoff: self.backoff,
            spin: self.spin,
            pool: self
                .pool
                .map(|pool| (pool.name.to_owned(), pool.workers, pool.daemon)),
        })
    }
}

impl From<Portable> for Options {
    fn from(portable: Portable) -> Self {
        Options {
            start: portable.start,
            timeout: portable.timeout,
            grace: portable.grace,
            kill_on_drop: portable.kill_on_drop,
            stderr: portable.stderr,
            max_result: portable.max_result,
            program: portable.program,
            priority: portable.priority,
            retries: portable.retries,
            retry_on: portable.retry_on,
            retry_errors: portable.retry_errors,
            backoff: portable.backoff,
            spin: portable.spin,
            limit: None,
            pool: portable
                .pool
                .map(|(name, workers, daemon)| PoolSpec::interned(name, workers, daemon)),
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Options::new()
    }
}

/// Index into [`StartMethod::all`]; anything else: the platform's default.
static DEFAULT_START: AtomicU8 = AtomicU8::new(u8::MAX);
