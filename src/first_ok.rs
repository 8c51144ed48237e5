//! `first_ok`: several ways to the same value; the first that gets there.

use std::fmt;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use crate::error::Result;
use crate::future::TaskFuture;
use crate::waitfor::InFlight;

/// What [`first_ok`] gives: the first value, and what became of the other futures.
///
/// Dropping it drops the rest, which lets their tasks run to their end, unless they are [killed on
/// drop](TaskFuture::kill_on_drop).
pub struct FirstOk<T> {
    /// Which future it was: its place among those that were given, from 0.
    pub index: usize,
    /// What its task returned. Where that is a `Result`, it is an `Ok`.
    pub value: T,
    /// What had failed before, as it ended, each with the place of its future: an [`Error`](crate::Error), or an `Err` of
    /// the task's own.
    pub failed: Vec<(usize, Result<T>)>,
    /// The other futures, in the order in which they were given. Nobody has looked at how they ended, if they have.
    pub rest: Vec<TaskFuture<T>>,
}

/// Why [`first_ok`] gave no value.
///
/// Dropping it drops the rest, which lets their tasks run to their end, unless they are [killed on
/// drop](TaskFuture::kill_on_drop).
// Not `non_exhaustive`: there is no third way, and who matches both need not write one.
pub enum NoneOk<T> {
    /// Every task has failed; or there was none.
    AllFailed {
        /// How they ended, in that order, each with the place of its future: an [`Error`](crate::Error), or an `Err` of the
        /// task's own.
        failed: Vec<(usize, Result<T>)>,
    },
    /// The limit has passed. The tasks of the rest go on.
    TimedOut {
        /// What had failed by then, as in [`AllFailed`](NoneOk::AllFailed).
        failed: Vec<(usize, Result<T>)>,
        /// The other futures, in the order in which they were given.
        rest: Vec<TaskFuture<T>>,
    },
}

/// Waits for the first task that gives a value, for at most `limit`.
///
/// A task that panics, dies, is cancelled, or returns an `Err` of its own has failed, and the wait goes on for the others.
/// Of those that have ended before the call, the first one in the order of the futures counts. No time at all is a
/// look.
///
/// **The rest runs on** and is given back: [`cancel_rest`](FirstOk::cancel_rest) ends it, and it can be waited for like any
/// other futures, with this function too.
///
/// # Errors
///
/// [`NoneOk`]: every task has failed, or the limit has passed. It has what the failed ones gave, and the rest.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use inparallel::{first_ok, task, NoneOk};
///
/// #[task]
/// fn fetch(mirror: &str) -> Result<String, String> {
///     match mirror {
///         "slow" => loop { std::thread::park() },
///         "gone" => Err("no such host".into()),
///         _ => Ok(format!("a page from {mirror}")),
///     }
/// }
///
/// let mirrors = ["slow", "gone", "near"];
/// match first_ok(mirrors.map(fetch), Some(Duration::from_secs(60))) {
///     Ok(first) => {
///         first.cancel_rest();
///         assert_eq!(mirrors[first.index], "near");
///         assert_eq!(first.value.as_deref(), Ok("a page from near"));
///     }
///     Err(NoneOk::TimedOut { rest, .. }) => panic!("{} mirrors still try", rest.len()),
///     Err(NoneOk::AllFailed { failed }) => panic!("{failed:?}"),
/// }
/// ```
pub fn first_ok<T: DeserializeOwned>(
    futures: impl IntoIterator<Item = TaskFuture<T>>,
    limit: Option<Duration>,
) -> std::result::Result<FirstOk<T>, NoneOk<T>> {
    let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
    let in_flight: InFlight<T> = futures.into_iter().collect();
    let mut failed = Vec::new();
    while let Some((key, future)) = in_flight.take(deadline) {
        let index = usize::try_from(key).unwrap_or(usize::MAX);
        let is_failed = future.slot().is_failed();
        match future.wait() {
            Ok(value) if !is_failed => {
                let rest = in_flight.into_futures();
                return Ok(FirstOk {
                    index,
                    value,
                    failed,
                    rest,
                });
            }
            result => failed.push((index, result)),
        }
    }
    let rest = in_flight.into_futures();
    Err(match rest.is_empty() {
        true => NoneOk::AllFailed { failed },
        false => NoneOk::TimedOut { failed, rest },
    })
}

impl<T> FirstOk<T> {
    /// [Cancels](TaskFuture::cancel) what is not needed any more.
    pub fn cancel_rest(&self) {
        cancel(&self.rest);
    }
}

impl<T> NoneOk<T> {
    /// Whether it was for the limit, and not because every task has failed.
    pub fn is_timed_out(&self) -> bool {
        matches!(self, NoneOk::TimedOut { .. })
    }

    /// How tasks have failed: each with the place of its future.
    pub fn failed(&self) -> &[(usize, Result<T>)] {
        match self {
            NoneOk::AllFailed { failed } | NoneOk::TimedOut { failed, .. } => failed,
        }
    }

    /// [Cancels](TaskFuture::cancel) what has not ended in time.
    pub fn cancel_rest(&self) {
        match self {
            NoneOk::AllFailed { .. } => {}
            NoneOk::TimedOut { rest, .. } => cancel(rest),
        }
    }
}

/// One line: what is left, and the first error of the machinery.
impl<T> fmt::Display for NoneOk<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failed = self.failed();
        match self {
            NoneOk::AllFailed { .. } if failed.is_empty() => return write!(f, "no task was given"),
            NoneOk::AllFailed { .. } => write!(f, "every task failed ({})", failed.len())?,
            NoneOk::TimedOut { rest, .. } => {
                let (pending, failed) = (rest.len(), failed.len());
                write!(
                    f,
                    "no task gave a value in time ({pending} not done, {failed} failed)"
                )?;
            }
        }
        match failed.iter().find_map(|(_, result)| result.as_ref().err()) {
            Some(error) => write!(f, ": {error}"),
            None => Ok(()),
        }
    }
}

impl<T> std::error::Error for NoneOk<T> {}

// By hand: a derive would ask for `T: Debug`. A value is not shown.
impl<T> fmt::Debug for FirstOk<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FirstOk")
            .field("index", &self.index)
            .field("failed", &Failed(&self.failed))
            .field("rest", &self.rest)
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for NoneOk<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoneOk::AllFailed { failed } => f
                .debug_struct("AllFailed")
                .field("failed", &Failed(failed))
                .finish(),
            NoneOk::TimedOut { failed, rest } => f
                .debug_struct("TimedOut")
                .field("failed", &Failed(failed))
                .field("rest", rest)
                .finish(),
        }
    }
}

/// Failures by their places: an error of the machinery in full, of a task's own `Err` that it is one.
struct Failed<'a, T>(&'a [(usize, Result<T>)]);

impl<T> fmt::Debug for Failed<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.0.iter();
        f.debug_map()
            .entries(
                entries.map(|(index, result)| (index, result.as_ref().map(|_| format_args!("its own Err")))),
            )
            .finish()
    }
}

fn cancel<T>(rest: &[TaskFuture<T>]) {
    rest.iter().for_each(|future| _ = future.cancel());
}
