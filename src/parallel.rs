//! `Parallel`: one function, many arguments; then everything that came of them, with the number of its input.

use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::call::Call;
use crate::error::{Cause, Error, Result};
use crate::first_ok::{FirstOk, NoneOk, first_ok};
use crate::future::TaskFuture;
use crate::pool::Pool;
use crate::sync::lock;

/// Tasks of one function, started as they are added, whose results are collected together.
///
/// A task is known by its number: the first since the last [`join`](Parallel::join) or [`first_ok`](Parallel::first_ok) is 0.
/// Adding one never fails by itself: what goes wrong is the outcome of the task, under its number.
///
/// **Dropping it** lets the tasks run to their end, unheard, those too that wait for a worker.
///
/// # Examples
///
/// ```
/// use inparallel::{task, Joined, Parallel};
///
/// #[task]
/// fn request(link: &str) -> usize {
///     assert!(link.starts_with("http"), "{link} is no link");
///     link.len()
/// }
///
/// let links = ["http://a", "b", "http://cde"];
/// let Joined { results, errors } = Parallel::new(request::later).map(links).join();
/// assert_eq!(results, [(0, 8), (2, 10)]);
/// assert_eq!(errors[0].0, 1);
/// assert_eq!(errors[0].1.panic_message(), Some("b is no link"));
/// ```
pub struct Parallel<A, T> {
    make: Box<dyn Fn(A) -> Call<T> + Send + Sync>,
    /// `None`: a worker for each task.
    pool: Option<Pool>,
    added: Mutex<Added<T>>,
}

struct Added<T> {
    futures: Vec<TaskFuture<T>>,
    is_closed: bool,
}

impl<A, T> Parallel<A, T> {
    /// Every task runs at once, each in a worker of its own. `call` is `f::later`, or a closure that makes a call:
    /// `|(a, b)| f::later(a, b)`, `|x| f::with().timeout(limit).call_later(x)`.
    ///
    /// A few hundred tasks at a time are what the limits of the system allow; one beyond them ends in
    /// [`Launch`](crate::ErrorKind::Launch). For more there is [`with_workers`](Parallel::with_workers).
    pub fn new(call: impl Fn(A) -> Call<T> + Send + Sync + 'static) -> Self {
        Parallel::made(call, None)
    }

    /// Tasks share this many workers, which stay for the next ones, also after a [`join`](Parallel::join), and end with this
    /// value.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) for zero workers, and those of [`PoolBuilder::build`](crate::PoolBuilder::build).
    ///
    /// # Examples
    ///
    /// ```
    /// use inparallel::{task, Parallel};
    ///
    /// #[task]
    /// fn square(x: u64) -> u64 {
    ///     x * x
    /// }
    ///
    /// let squares = Parallel::with_workers(square::later, 2)?;
    /// for x in 1..=100 {
    ///     squares.call(x);
    /// }
    /// assert_eq!(squares.join().results.len(), 100);
    /// assert_eq!(squares.map([11, 12]).join().results, [(0, 121), (1, 144)]);
    /// # Ok::<(), inparallel::Error>(())
    /// ```
    pub fn with_workers(call: impl Fn(A) -> Call<T> + Send + Sync + 'static, workers: usize) -> Result<Self> {
        let pool = Pool::builder().workers(workers).build()?;
        Ok(Parallel::made(call, Some(pool)))
    }

    fn made(call: impl Fn(A) -> Call<T> + Send + Sync + 'static, pool: Option<Pool>) -> Self {
        let added = Added {
            futures: Vec::new(),
            is_closed: false,
        };
        Parallel {
            make: Box::new(call),
            pool,
            added: Mutex::new(added),
        }
    }

    /// Adds a task, and gives its number. After [`close`](Parallel::close) it ends in [`Closed`](crate::ErrorKind::Closed).
    pub fn call(&self, argument: A) -> usize {
        let call = (self.make)(argument);
        let is_closed = lock(&self.added).is_closed;
        // Without the lock: a task may run in this very thread.
        let future = match &self.pool {
            _ if is_closed => {
                let pool = "the Parallel".to_owned();
                let error = Error::new(call.name(), Cause::Closed { pool });
                TaskFuture::failed(call.task_name(), error)
            }
            Some(pool) => pool.start(call),
            None => call.start(),
        };
        let futures = &mut lock(&self.added).futures;
        futures.push(future);
        futures.len() - 1
    }

    /// Adds a task for each argument.
    pub fn map(&self, arguments: impl IntoIterator<Item = A>) -> &Self {
        arguments.into_iter().for_each(|argument| _ = self.call(argument));
        self
    }

    /// Takes no tasks any more. Those that were added run to their end, and their results can be collected; then the workers
    /// end.
    pub fn close(&self) {
        lock(&self.added).is_closed = true;
        if let Some(pool) = &self.pool {
            pool.close();
        }
    }

    fn take(&self) -> Vec<TaskFuture<T>> {
        std::mem::take(&mut lock(&self.added).futures)
    }
}

impl<A, T: DeserializeOwned> Parallel<A, T> {
    /// Waits until every task that was added has ended, and gives what came of them. After that, numbers begin at 0 again.
    ///
    /// What a task returns is its result, an `Err` of its own too; [`Joined::split`] tells these apart.
    pub fn join(&self) -> Joined<T> {
        let (mut results, mut errors) = (Vec::new(), Vec::new());
        for (number, future) in self.take().into_iter().enumerate() {
            match future.wait() {
                Ok(result) => results.push((number, result)),
                Err(error) => errors.push((number, error)),
            }
        }
        Joined { results, errors }
    }

    /// Waits for the first task that gives a value, for at most `limit`; a panic, a death, or an `Err` of the task's own is
    /// none. See [`first_ok`](fn@first_ok).
    ///
    /// The other tasks run on, and are given back: [`cancel_rest`](FirstOk::cancel_rest) ends them. A `join` after this knows
    /// nothing of them.
    ///
    /// # Errors
    ///
    /// [`NoneOk`]: every task has failed, or the limit has passed.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use inparallel::{task, Parallel};
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
    /// let fetches = Parallel::new(fetch::later);
    /// let first = fetches.map(["slow", "gone", "near"]).first_ok(Duration::from_secs(60))?;
    /// first.cancel_rest();
    /// assert_eq!((first.index, first.value), (2, Ok("a page from near".into())));
    /// # Ok::<(), inparallel::NoneOk<Result<String, String>>>(())
    /// ```
    pub fn first_ok(&self, limit: impl Into<Option<Duration>>) -> std::result::Result<FirstOk<T>, NoneOk<T>> {
        first_ok(self.take(), limit.into())
    }
}

impl<A, T> fmt::Debug for Parallel<A, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let added = lock(&self.added);
        f.debug_struct("Parallel")
            .field("tasks", &added.futures.len())
            .field("is_closed", &added.is_closed)
            .field("pool", &self.pool)
            .finish_non_exhaustive()
    }
}

/// What [`Parallel::join`] gives: each task is in one of the two lists, with its number, in the order of the numbers.
#[derive(Debug, Clone)]
pub struct Joined<T> {
    /// What the tasks returned.
    pub results: Vec<(usize, T)>,
    /// Why the others did not: they panicked, died, took too long, or were not taken.
    pub errors: Vec<(usize, Error)>,
}

impl<T, E> Joined<std::result::Result<T, E>> {
    /// For tasks that return a `Result`: its values apart from its errors.
    ///
    /// # Examples
    ///
    /// ```
    /// use inparallel::{task, Parallel, Split};
    ///
    /// #[task]
    /// fn parse(text: &str) -> Result<i32, String> {
    ///     match text {
    ///         "crash" => panic!("that text"),
    ///         text => text.parse().map_err(|_| format!("{text} is no number")),
    ///     }
    /// }
    ///
    /// let joined = Parallel::new(parse::later).map(["1", "two", "crash"]).join();
    /// let Split { results, failures, errors } = joined.split();
    /// assert_eq!(results, [(0, 1)]);
    /// assert_eq!(failures, [(1, "two is no number".to_owned())]);   // what the function said
    /// assert_eq!(errors[0].1.panic_message(), Some("that text"));   // what became of its worker
    /// ```
    pub fn split(self) -> Split<T, E> {
        let (mut results, mut failures) = (Vec::new(), Vec::new());
        for (number, result) in self.results {
            match result {
                Ok(value) => results.push((number, value)),
                Err(error) => failures.push((number, error)),
            }
        }
        Split {
            results,
            failures,
            errors: self.errors,
        }
    }
}

/// What [`Joined::split`] gives: each task is in one of the three lists, with its number, in the order of the numbers.
#[derive(Debug, Clone)]
pub struct Split<T, E> {
    /// The values of those that returned `Ok`.
    pub results: Vec<(usize, T)>,
    /// What those said that returned `Err`.
    pub failures: Vec<(usize, E)>,
    /// Why the others did not return.
    pub errors: Vec<(usize, Error)>,
}
