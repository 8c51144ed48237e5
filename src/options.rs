//! How one task is run: start method, limits, what becomes of its stderr.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use crate::error::{Error, Result};
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StartMethod {
    /// A copy of the calling process. Nothing is serialized but the result, and closures work ([`fork`](crate::fork)).
    ///
    /// Refused with [`ErrorKind::ThreadsAlive`](crate::ErrorKind::ThreadsAlive) in a program that has threads of its
    /// own, since a lock that another thread holds at that moment stays locked in the copy for ever.
    Fork,
    /// A fork of one small, single-threaded helper process, which is this program executed again before its `main`.
    ///
    /// Safe whatever threads the program has; the price does not grow with the program's memory. A worker sees what the
    /// helper had when it started, plus the environment, the working directory and the stdout of the call's moment, and
    /// with the user and groups of that moment; resource limits, umask, namespaces and the like are those of the helper's
    /// start, and of open files a worker has the standard ones only. [`preload`](crate::preload) runs a function in the
    /// helper first, so that all workers share what it loaded. The helper keeps one spare worker ready.
    ForkServer,
    /// This program executed again, before its `main`: nothing is shared with the caller but the environment.
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
        let platform = if FORK_SERVER_IS_DEFAULT {
            StartMethod::ForkServer
        } else {
            StartMethod::Spawn
        };
        StartMethod::all()
            .get(usize::from(chosen))
            .copied()
            .unwrap_or(platform)
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
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
}

impl Options {
    /// The defaults.
    pub const fn new() -> Self {
        Options {
            start: None,
            timeout: None,
            grace: None,
            kill_on_drop: false,
            stderr: None,
            max_result: None,
            program: None,
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
        }
    }

    pub(crate) fn grace_or_default(&self) -> Duration {
        self.grace.unwrap_or(Duration::from_millis(500))
    }

    pub(crate) fn stderr_or_default(&self) -> Stderr {
        self.stderr.unwrap_or_default()
    }

    pub(crate) fn max_result_or_default(&self) -> u64 {
        self.max_result.unwrap_or(1 << 30)
    }

    pub(crate) fn method(&self) -> StartMethod {
        self.start.unwrap_or_default()
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

impl Default for Options {
    fn default() -> Self {
        Options::new()
    }
}

/// Index into [`StartMethod::all`]; anything else: the platform's default.
static DEFAULT_START: AtomicU8 = AtomicU8::new(u8::MAX);
