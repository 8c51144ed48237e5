//! Errors: what the machinery reports. A task's own `Err` is not one of them; it is the task's value.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::wire::{Location, Panic, Reply};

/// What a task future gives: the task's own value, or the [`Error`] that kept it from arriving.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a task gave no value, with the task, the worker and the end of its stderr.
///
/// Match on [`kind`](Error::kind). `{}` is one line for people; `{:?}` adds the worker's stderr and backtrace.
///
/// # Examples
///
/// ```
/// use inparallel::{task, ErrorKind};
///
/// #[task]
/// fn leave() {
///     std::process::exit(7)
/// }
///
/// let error = leave().wait().unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Exited);
/// assert_eq!(error.exit_code(), Some(7));
/// assert!(error.task().ends_with("::leave"));
/// ```
#[derive(Clone)]
pub struct Error(Box<Content>);

#[derive(Clone)]
struct Content {
    task: String,
    pid: Option<u32>,
    attempt: u32,
    stderr: Vec<u8>,
    cause: Cause,
}

/// What happened, to match on.
///
/// # Examples
///
/// ```
/// use inparallel::ErrorKind;
///
/// fn worth_another_try(kind: ErrorKind) -> bool {
///     matches!(kind, ErrorKind::Signaled | ErrorKind::Exited | ErrorKind::Lost)
/// }
/// assert!(!worth_another_try(ErrorKind::TimedOut));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The task panicked: [`Error::panic_message`], [`Error::panic_location`], [`Error::backtrace`].
    Panicked,
    /// The worker exited before it gave a result, even with status 0: [`Error::exit_code`].
    Exited,
    /// A signal ended the worker: [`Error::signal`], [`Error::core_dumped`].
    Signaled,
    /// The task ran longer than its limit and was killed: [`Error::limit`].
    TimedOut,
    /// The task was cancelled.
    Cancelled,
    /// An argument's `Serialize` refused. The task never started.
    ArgumentNotEncodable,
    /// An argument's `Deserialize` refused, in the worker. The task never started.
    ArgumentNotDecodable,
    /// The result's `Serialize` refused, in the worker.
    ResultNotEncodable,
    /// The result's `Deserialize` refused, here.
    ResultNotDecodable,
    /// The result is longer than [`Options::max_result`](crate::Options::max_result).
    ResultTooLarge,
    /// No worker could be made: the step and [`Error::io_error`].
    Launch,
    /// The process that was started is another build of the program, or another program.
    WrongBinary,
    /// [`StartMethod::Fork`](crate::StartMethod::Fork) was refused: the program has other threads.
    ThreadsAlive,
    /// Tasks call tasks too many levels deep.
    TooDeep,
    /// The worker broke the protocol, by garbage in its channel or by closing it.
    Protocol,
    /// The worker went down with the process that watched it.
    Lost,
    /// A value that cannot be used, as an option or argument of this crate.
    Invalid,
    /// The pool takes no tasks any more.
    Closed,
    /// The pool's queue is full.
    Full,
    /// The value was taken out of the future before.
    Taken,
    /// The future belongs to another process: it was carried into a fork.
    OtherProcess,
}

/// The reason behind an [`Error`], with what only that reason knows.
#[derive(Debug, Clone)]
pub(crate) enum Cause {
    Panicked(Panic),
    Exited {
        code: Option<i32>,
    },
    Signaled {
        signal: i32,
        core: bool,
    },
    TimedOut {
        limit: Duration,
    },
    Cancelled,
    ArgumentNotEncodable {
        type_name: String,
        reason: String,
    },
    ArgumentNotDecodable {
        type_name: String,
        reason: String,
    },
    ResultNotEncodable {
        type_name: String,
        reason: String,
    },
    ResultNotDecodable {
        type_name: String,
        reason: String,
    },
    ResultTooLarge {
        len: u64,
        limit: u64,
    },
    Launch {
        step: String,
        error: Option<Arc<io::Error>>,
        advice: &'static str,
    },
    WrongBinary {
        ours: Vec<u8>,
        theirs: Vec<u8>,
    },
    ThreadsAlive {
        count: usize,
    },
    TooDeep {
        limit: u32,
    },
    Protocol {
        what: String,
    },
    Lost {
        what: String,
    },
    Invalid {
        field: &'static str,
        value: String,
        remedy: String,
    },
    Closed {
        pool: String,
    },
    Full {
        pool: String,
        queue: usize,
    },
    /// The pool could not make workers; this is the last reason.
    Broken {
        pool: String,
        reason: Box<Error>,
    },
    Taken,
    OtherProcess,
}

impl Cause {
    pub(crate) fn launch(step: impl Into<String>, error: io::Error) -> Cause {
        let advice = match error.raw_os_error().map(crate::sys::errno_class) {
            Some(crate::sys::ErrnoClass::TooManyFiles) => {
                "start fewer tasks at once (waitfor(..).concurrency(n)) or raise the limit of open files"
            }
            Some(crate::sys::ErrnoClass::TooManyProcesses) => {
                "start fewer tasks at once (waitfor(..).concurrency(n)) or raise the limit of processes and memory"
            }
            _ => "",
        };
        Cause::Launch {
            step: step.into(),
            error: Some(Arc::new(error)),
            advice,
        }
    }

    /// What a worker says of a failure.
    pub(crate) fn of(reply: Reply) -> Cause {
        match reply {
            Reply::Panicked(panic) => Cause::Panicked(panic),
            Reply::ArgumentNotDecodable { type_name, reason } => {
                Cause::ArgumentNotDecodable { type_name, reason }
            }
            Reply::ResultNotEncodable { type_name, reason } => {
                Cause::ResultNotEncodable { type_name, reason }
            }
            Reply::WrongBinary { theirs } => Cause::WrongBinary {
                ours: crate::sys::build_id().to_vec(),
                theirs,
            },
            Reply::Refused { reason } => Cause::refused(reason),
            Reply::Returned { .. }
            | Reply::Ready
            | Reply::Board { .. }
            | Reply::Bell
            | Reply::Lingers
            | Reply::NeedsBytes
            | Reply::Shares
            | Reply::Message
            | Reply::Progress { .. } => Cause::Protocol {
                what: "an answer that tells of no failure".into(),
            },
        }
    }

    pub(crate) fn refused(step: impl Into<String>) -> Cause {
        Cause::Launch {
            step: step.into(),
            error: None,
            advice: "",
        }
    }
}

/// A signal that ended a worker.
///
/// # Examples
///
/// ```no_run
/// # let error: inparallel::Error = unimplemented!();
/// if let Some(signal) = error.signal() {
///     println!("killed by {signal} ({})", signal.number());
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signal(i32);

impl Signal {
    /// Its number, as on this platform.
    pub fn number(self) -> i32 {
        self.0
    }

    /// Its name, such as `SIGSEGV`; `SIG?` for a number without one.
    pub fn name(self) -> &'static str {
        crate::sys::signal_name(self.0)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            "SIG?" => write!(f, "signal {}", self.0),
            name => f.write_str(name),
        }
    }
}

impl Error {
    pub(crate) fn new(task: impl Into<String>, cause: Cause) -> Error {
        Error(Box::new(Content {
            task: task.into(),
            pid: None,
            attempt: 1,
            stderr: Vec::new(),
            cause,
        }))
    }

    /// A value that cannot be used: which, what it was, and what to write instead.
    pub(crate) fn invalid(field: &'static str, value: impl fmt::Display, remedy: impl Into<String>) -> Error {
        Error::new(
            "",
            Cause::Invalid {
                field,
                value: value.to_string(),
                remedy: remedy.into(),
            },
        )
    }

    pub(crate) fn with_worker(mut self, pid: Option<u32>, stderr: Vec<u8>) -> Error {
        self.0.pid = pid;
        self.0.stderr = stderr;
        self
    }

    pub(crate) fn with_attempt(mut self, attempt: u32) -> Error {
        self.0.attempt = attempt;
        self
    }

    pub(crate) fn with_task(mut self, task: impl Into<String>) -> Error {
        self.0.task = task.into();
        self
    }

    pub(crate) fn into_cause(self) -> Cause {
        self.0.cause
    }

    /// What happened.
    pub fn kind(&self) -> ErrorKind {
        match &self.0.cause {
            Cause::Panicked(_) => ErrorKind::Panicked,
            Cause::Exited { .. } => ErrorKind::Exited,
            Cause::Signaled { .. } => ErrorKind::Signaled,
            Cause::TimedOut { .. } => ErrorKind::TimedOut,
            Cause::Cancelled => ErrorKind::Cancelled,
            Cause::ArgumentNotEncodable { .. } => ErrorKind::ArgumentNotEncodable,
            Cause::ArgumentNotDecodable { .. } => ErrorKind::ArgumentNotDecodable,
            Cause::ResultNotEncodable { .. } => ErrorKind::ResultNotEncodable,
            Cause::ResultNotDecodable { .. } => ErrorKind::ResultNotDecodable,
            Cause::ResultTooLarge { .. } => ErrorKind::ResultTooLarge,
            Cause::Launch { .. } => ErrorKind::Launch,
            Cause::WrongBinary { .. } => ErrorKind::WrongBinary,
            Cause::ThreadsAlive { .. } => ErrorKind::ThreadsAlive,
            Cause::TooDeep { .. } => ErrorKind::TooDeep,
            Cause::Protocol { .. } => ErrorKind::Protocol,
            Cause::Lost { .. } => ErrorKind::Lost,
            Cause::Invalid { .. } => ErrorKind::Invalid,
            Cause::Closed { .. } => ErrorKind::Closed,
            Cause::Full { .. } => ErrorKind::Full,
            Cause::Broken { reason, .. } => reason.kind(),
            Cause::Taken => ErrorKind::Taken,
            Cause::OtherProcess => ErrorKind::OtherProcess,
        }
    }

    /// The task as `module::function`; empty where the error concerns no task.
    pub fn task(&self) -> &str {
        &self.0.task
    }

    /// The worker's process id, if there was a worker.
    pub fn pid(&self) -> Option<u32> {
        self.0.pid
    }

    /// Which attempt at the task this was, from 1.
    pub fn attempt(&self) -> u32 {
        self.0.attempt
    }

    /// The last 4 KiB that the worker wrote to its stderr, as text.
    ///
    /// Empty where it is not captured: [`Stderr::Inherit`](crate::Stderr::Inherit), `Null`, and the start methods
    /// `Thread` and `Inline`.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }

    /// The panic's message, for [`ErrorKind::Panicked`].
    pub fn panic_message(&self) -> Option<&str> {
        self.panic().map(|panic| panic.message.as_str())
    }

    /// Where the panic began, as `file:line:column`, for [`ErrorKind::Panicked`].
    pub fn panic_location(&self) -> Option<String> {
        let Location { file, line, column } = self.panic()?.location.as_ref()?;
        Some(format!("{file}:{line}:{column}"))
    }

    /// The worker's backtrace at the panic, as text, for [`ErrorKind::Panicked`].
    pub fn backtrace(&self) -> Option<&str> {
        self.panic().map(|panic| panic.backtrace.as_str())
    }

    /// The exit code, for [`ErrorKind::Exited`]. `None` there: somebody else reaped the worker and the kernel did not
    /// keep its status.
    pub fn exit_code(&self) -> Option<i32> {
        match self.0.cause {
            Cause::Exited { code } => code,
            _ => None,
        }
    }

    /// The signal, for [`ErrorKind::Signaled`].
    pub fn signal(&self) -> Option<Signal> {
        match self.0.cause {
            Cause::Signaled { signal, .. } => Some(Signal(signal)),
            _ => None,
        }
    }

    /// Whether the kernel wrote a core file, for [`ErrorKind::Signaled`].
    pub fn core_dumped(&self) -> bool {
        matches!(self.0.cause, Cause::Signaled { core: true, .. })
    }

    /// The limit that was exceeded, for [`ErrorKind::TimedOut`].
    pub fn limit(&self) -> Option<Duration> {
        match self.0.cause {
            Cause::TimedOut { limit } => Some(limit),
            _ => None,
        }
    }

    /// The operating system's error, for [`ErrorKind::Launch`].
    pub fn io_error(&self) -> Option<&io::Error> {
        match &self.0.cause {
            Cause::Launch { error, .. } => error.as_deref(),
            _ => None,
        }
    }

    fn panic(&self) -> Option<&Panic> {
        match &self.0.cause {
            Cause::Panicked(panic) => Some(panic),
            _ => None,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Panicked(Panic {
                message,
                location: Some(Location { file, line, column }),
                ..
            }) => {
                write!(f, "panicked at {file}:{line}:{column}: {message}")
            }
            Cause::Panicked(Panic { message, .. }) => write!(f, "panicked: {message}"),
            Cause::Exited { code: Some(code) } => {
                write!(f, "worker exited with status {code} before it gave a result")
            }
            Cause::Exited { code: None } => f.write_str(
                "worker ended before it gave a result; its status is unknown, something else reaped it",
            ),
            Cause::Signaled { signal, core } => {
                let core = if *core { " (core dumped)" } else { "" };
                write!(f, "worker killed by {}{core}", Signal(*signal))
            }
            Cause::TimedOut { limit } => write!(f, "exceeded its time limit of {limit:?} and was killed"),
            Cause::Cancelled => f.write_str("cancelled"),
            Cause::ArgumentNotEncodable { type_name, reason } => {
                write!(f, "the arguments {type_name} cannot be encoded: {reason}")
            }
            Cause::ArgumentNotDecodable { type_name, reason } => {
                write!(f, "the worker cannot decode the arguments {type_name}: {reason}")
            }
            Cause::ResultNotEncodable { type_name, reason } => {
                write!(f, "the worker cannot encode the result {type_name}: {reason}")
            }
            Cause::ResultNotDecodable { type_name, reason } => {
                write!(f, "the result {type_name} cannot be decoded: {reason}")
            }
            Cause::ResultTooLarge { len, limit } => {
                write!(
                    f,
                    "the result has {len} bytes, max_result is {limit}; raise it with Options::max_result"
                )
            }
            Cause::Launch { step, error, advice } => {
                write!(f, "launch worker: {step}")?;
                if let Some(error) = error {
                    write!(f, ": {error}")?;
                }
                if advice.is_empty() {
                    Ok(())
                } else {
                    write!(f, "; {advice}")
                }
            }
            Cause::WrongBinary { ours, theirs } => write!(
                f,
                "the worker is another build than this program (build id {}, ours is {}); \
                 start it from this program's own file",
                Hex(theirs),
                Hex(ours)
            ),
            Cause::ThreadsAlive { count } => write!(
                f,
                "StartMethod::Fork refused: {count} other {} alive that a fork would lose in mid-work; \
                 use StartMethod::ForkServer, or see allow_fork_with_threads",
                if *count == 1 { "thread is" } else { "threads are" }
            ),
            Cause::TooDeep { limit } => {
                write!(
                    f,
                    "tasks call tasks {limit} levels deep, the limit; is the recursion meant?"
                )
            }
            Cause::Protocol { what } => write!(f, "protocol broken by the worker: {what}"),
            Cause::Lost { what } => write!(f, "worker lost: {what}"),
            Cause::Invalid { field, value, remedy } => write!(f, "{field}: {value} cannot be used; {remedy}"),
            Cause::Closed { pool } => {
                write!(
                    f,
                    "{pool} takes no tasks any more: it was shut down; make another one"
                )
            }
            Cause::Full { pool, queue } => write!(
                f,
                "the queue of {pool} is full, it holds {queue}; \
                 submit waits for room, and PoolBuilder::queue sets how many it holds"
            ),
            Cause::Broken { pool, reason } => write!(f, "{pool} has no workers: {reason}"),
            Cause::Taken => f.write_str("the value was taken out of this future before"),
            Cause::OtherProcess => f.write_str(
                "this future belongs to the process that started the task, not to this fork of it",
            ),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.task.is_empty() {
            write!(f, "task {}", self.0.task)?;
            match (self.0.pid, self.0.attempt) {
                (Some(pid), 1) => write!(f, " (pid {pid})")?,
                (Some(pid), attempt) => write!(f, " (pid {pid}, attempt {attempt})")?,
                (None, 1) => {}
                (None, attempt) => write!(f, " (attempt {attempt})")?,
            }
            f.write_str(": ")?;
        }
        self.0.cause.fmt(f)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.kind())?;
        if !self.0.stderr.is_empty() {
            write!(f, "\nworker's stderr, its end:\n{}", self.stderr().trim_end())?;
        }
        match self.backtrace() {
            Some(backtrace) if !backtrace.is_empty() => {
                write!(f, "\nworker's backtrace:\n{}", backtrace.trim_end())
            }
            _ => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0.cause {
            Cause::Broken { reason, .. } => Some(&**reason),
            _ => self.io_error().map(|error| error as _),
        }
    }
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("unknown");
        }
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
