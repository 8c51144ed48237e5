//! `waitfor`: started tasks in the order in which they end, and how many run at once; `as_completed` and `wait`.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::future::TaskFuture;
use crate::ready::Ready;
use crate::sync::lock;

/// A list of started tasks that [`waitfor`] empties. Pushing and taking cost the same however long it is.
///
/// Dropping it drops the futures in it, which lets their tasks run to their end.
///
/// # Examples
///
/// ```
/// use inparallel::{task, waitfor, InFlight};
///
/// #[task]
/// fn square(x: u64) -> u64 {
///     x * x
/// }
///
/// let active = InFlight::new();
/// for x in 1..=3 {
///     active.push(square(x));
/// }
/// let mut sum = 0;
/// for done in waitfor(&active) {
///     sum += done.wait()?;
/// }
/// assert_eq!(sum, 14);
/// # Ok::<(), inparallel::Error>(())
/// ```
pub struct InFlight<T> {
    held: Mutex<Held<T>>,
    ready: Arc<Ready>,
}

struct Held<T> {
    futures: HashMap<u64, TaskFuture<T>>,
    pushed: u64,
}

impl<T> InFlight<T> {
    /// An empty list.
    pub fn new() -> Self {
        InFlight {
            held: Mutex::new(Held {
                futures: HashMap::new(),
                pushed: 0,
            }),
            ready: Arc::default(),
        }
    }

    /// Adds a started task; also in the body of a loop over [`waitfor`].
    pub fn push(&self, future: TaskFuture<T>) {
        let mut held = lock(&self.held);
        let key = held.pushed;
        held.pushed += 1;
        let slot = Arc::clone(future.slot());
        held.futures.insert(key, future);
        drop(held);
        // In the list before it is watched: its key leads to it, however soon it comes.
        slot.watch(&self.ready, key);
    }

    /// How many futures are in it, ended ones too.
    pub fn len(&self) -> usize {
        lock(&self.held).futures.len()
    }

    /// Whether none is in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// [Cancels](TaskFuture::cancel) every task in the list; they are yielded by [`waitfor`] as they end.
    pub fn cancel_all(&self) {
        // Without the lock: a task on a thread ends at once, and tells the list.
        let all: Vec<_> = lock(&self.held)
            .futures
            .values()
            .map(TaskFuture::canceller)
            .collect();
        all.iter().for_each(|one| _ = one.cancel());
    }

    fn pushed(&self) -> u64 {
        lock(&self.held).pushed
    }

    fn remove(&self, key: u64) -> Option<TaskFuture<T>> {
        let mut held = lock(&self.held);
        let future = held.futures.remove(&key);
        let is_empty = held.futures.is_empty();
        drop(held);
        if is_empty {
            // Others that wait on the same list have nothing to wait for any more.
            self.ready.wake_all();
        }
        future
    }

    /// One that has ended, if there is one.
    fn try_take(&self) -> Option<(u64, TaskFuture<T>)> {
        loop {
            let key = self.ready.try_next()?;
            if let Some(future) = self.remove(key) {
                return Some((key, future));
            }
        }
    }

    /// The next one that ends; `None`: the list is empty, or the deadline has passed.
    pub(crate) fn take(&self, deadline: Option<Instant>) -> Option<(u64, TaskFuture<T>)> {
        loop {
            let key = self.ready.next(deadline, || self.is_empty())?;
            if let Some(future) = self.remove(key) {
                return Some((key, future));
            }
        }
    }

    /// Those that were not taken, in the order of pushing.
    pub(crate) fn into_futures(self) -> Vec<TaskFuture<T>> {
        let held = self
            .held
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut futures: Vec<_> = held.futures.into_iter().collect();
        futures.sort_unstable_by_key(|(key, _)| *key);
        for (_, future) in &futures {
            future.slot().unwatch(&self.ready);
        }
        futures.into_iter().map(|(_, future)| future).collect()
    }
}

impl<T> Default for InFlight<T> {
    fn default() -> Self {
        InFlight::new()
    }
}

impl<T> FromIterator<TaskFuture<T>> for InFlight<T> {
    fn from_iter<I: IntoIterator<Item = TaskFuture<T>>>(futures: I) -> Self {
        let list = InFlight::new();
        futures.into_iter().for_each(|future| list.push(future));
        list
    }
}

impl<T> fmt::Debug for InFlight<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InFlight")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// Yields the futures of `in_flight` as they end, and takes them out of the list; ends when the list is empty.
///
/// With [`concurrency`](WaitFor::concurrency) it also asks for more work, to keep that many tasks running.
pub fn waitfor<T>(in_flight: &InFlight<T>) -> WaitFor<'_, T> {
    WaitFor { in_flight }
}

/// An iterator over futures that have ended: see [`waitfor`].
#[must_use = "an iterator does nothing until it is used"]
pub struct WaitFor<'a, T> {
    in_flight: &'a InFlight<T>,
}

impl<'a, T> WaitFor<'a, T> {
    /// Yields `Some(future)` for a task that ended, and `None` when there is room for one more task: then push one to the
    /// list, or do not if there is no more work.
    ///
    /// It asks once for each free place. If nothing was pushed, it asks again only after another task has ended; when the
    /// list is empty and nothing was pushed, it ends. The number is advice: whatever is pushed runs. Asked again after its
    /// end, it begins anew.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) for zero, with which nothing would ever run.
    ///
    /// # Examples
    ///
    /// ```
    /// use inparallel::{task, waitfor, InFlight};
    ///
    /// #[task]
    /// fn square(x: u64) -> u64 {
    ///     x * x
    /// }
    ///
    /// let mut work = 1..=10;
    /// let mut sum = 0;
    /// let active = InFlight::new();
    /// for next in waitfor(&active).concurrency(3)? {
    ///     match next {
    ///         Some(done) => sum += done.wait()?,
    ///         None => work.next().into_iter().for_each(|x| active.push(square(x))),
    ///     }
    /// }
    /// assert_eq!(sum, 385);
    /// # Ok::<(), inparallel::Error>(())
    /// ```
    pub fn concurrency(self, most: usize) -> Result<WaitForUpTo<'a, T>> {
        check_concurrency(most)?;
        Ok(WaitForUpTo {
            in_flight: self.in_flight,
            most,
            pushed_when_asked: None,
            is_declined: false,
        })
    }
}

// By hand, here and below: a derive would ask for `T: Debug`, though no `T` is shown.
impl<T> fmt::Debug for WaitFor<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitFor")
            .field("in_flight", self.in_flight)
            .finish()
    }
}

impl<T> Iterator for WaitFor<'_, T> {
    type Item = TaskFuture<T>;

    fn next(&mut self) -> Option<Self::Item> {
        self.in_flight.take(None).map(|(_, future)| future)
    }
}

/// An iterator over ended futures and requests for work: see [`WaitFor::concurrency`].
#[must_use = "an iterator does nothing until it is used"]
pub struct WaitForUpTo<'a, T> {
    in_flight: &'a InFlight<T>,
    most: usize,
    /// How many futures had ever been pushed when work was asked for.
    pushed_when_asked: Option<u64>,
    /// The last request brought nothing, and no task has ended since.
    is_declined: bool,
}

impl<T> fmt::Debug for WaitForUpTo<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("WaitForUpTo");
        shown
            .field("in_flight", self.in_flight)
            .field("most", &self.most)
            .finish_non_exhaustive()
    }
}

impl<T> Iterator for WaitForUpTo<'_, T> {
    type Item = Option<TaskFuture<T>>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(pushed) = self.pushed_when_asked.take() {
            self.is_declined = self.in_flight.pushed() == pushed;
        }
        if let Some((_, future)) = self.in_flight.try_take() {
            self.is_declined = false;
            return Some(Some(future));
        }
        if !self.is_declined && self.in_flight.len() < self.most {
            self.pushed_when_asked = Some(self.in_flight.pushed());
            return Some(None);
        }
        self.is_declined = false;
        self.in_flight.take(None).map(|(_, future)| Some(future))
    }
}

fn check_concurrency(most: usize) -> Result<()> {
    match most {
        0 => Err(Error::invalid(
            "concurrency",
            0,
            "let at least one task run at a time",
        )),
        _ => Ok(()),
    }
}

/// Yields the futures in the order in which they end.
///
/// Each is yielded once; that one is given twice cannot be written.
///
/// # Examples
///
/// ```
/// use inparallel::{as_completed, task};
///
/// #[task]
/// fn double(x: u64) -> u64 {
///     x * 2
/// }
///
/// let mut results = Vec::new();
/// for done in as_completed((1..=3).map(double)) {
///     results.push(done.wait()?);
/// }
/// results.sort();
/// assert_eq!(results, [2, 4, 6]);
/// # Ok::<(), inparallel::Error>(())
/// ```
pub fn as_completed<T>(futures: impl IntoIterator<Item = TaskFuture<T>>) -> AsCompleted<T> {
    AsCompleted {
        in_flight: futures.into_iter().collect(),
        deadline: None,
    }
}

/// An iterator over futures as they end: see [`as_completed`].
#[must_use = "an iterator does nothing until it is used"]
pub struct AsCompleted<T> {
    in_flight: InFlight<T>,
    deadline: Option<Instant>,
}

impl<T> AsCompleted<T> {
    /// Ends `limit` from now, whatever is left; [`into_pending`](AsCompleted::into_pending) has that.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.deadline = Instant::now().checked_add(limit);
        self
    }

    /// The futures that were not yielded, in the order in which they were given.
    pub fn into_pending(self) -> Vec<TaskFuture<T>> {
        self.in_flight.into_futures()
    }
}

impl<T> fmt::Debug for AsCompleted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("AsCompleted");
        shown
            .field("in_flight", &self.in_flight)
            .field("deadline", &self.deadline)
            .finish()
    }
}

impl<T> Iterator for AsCompleted<T> {
    type Item = TaskFuture<T>;

    fn next(&mut self) -> Option<Self::Item> {
        self.in_flight.take(self.deadline).map(|(_, future)| future)
    }
}

/// What [`wait`] waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Until {
    /// Every task has ended.
    All,
    /// A task has ended.
    FirstDone,
    /// A task has failed, in the machinery or with its own `Err`; or every task has ended.
    FirstError,
}

/// What [`wait`] gives: the futures, each in the order in which they were given.
pub struct Waited<T> {
    /// Those that have ended.
    pub done: Vec<TaskFuture<T>>,
    /// The others.
    pub pending: Vec<TaskFuture<T>>,
}

impl<T> fmt::Debug for Waited<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waited")
            .field("done", &self.done)
            .field("pending", &self.pending)
            .finish()
    }
}

/// Waits for several futures, for at most `limit`, and sorts them.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use inparallel::{task, wait, Until};
///
/// #[task]
/// fn double(x: u64) -> u64 {
///     x * 2
/// }
///
/// let waited = wait((1..=3).map(double), Until::All, Some(Duration::from_secs(60)));
/// assert_eq!((waited.done.len(), waited.pending.len()), (3, 0));
/// ```
pub fn wait<T>(
    futures: impl IntoIterator<Item = TaskFuture<T>>,
    until: Until,
    limit: Option<Duration>,
) -> Waited<T> {
    let futures: Vec<_> = futures.into_iter().collect();
    let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
    let ready = Arc::new(Ready::default());
    for (key, future) in (0..).zip(&futures) {
        future.slot().watch(&ready, key);
    }
    for _ in 0..futures.len() {
        let Some(key) = ready.next(deadline, || false) else {
            break;
        };
        let ended = usize::try_from(key).ok().and_then(|key| futures.get(key));
        let is_enough = match until {
            Until::All => false,
            Until::FirstDone => true,
            Until::FirstError => ended.is_some_and(|future| future.slot().is_failed()),
        };
        if is_enough {
            break;
        }
    }
    for future in &futures {
        future.slot().unwatch(&ready);
    }
    let (done, pending) = futures.into_iter().partition(TaskFuture::is_done);
    Waited { done, pending }
}

/// `items.in_parallel(n, task)`: for every iterator.
pub trait InParallel: Iterator + Sized {
    /// Calls `task` for each item, at most `most` at a time, and yields the results as they arrive.
    ///
    /// Items are taken as places become free, so that an endless iterator works. A result that is not the first to arrive
    /// is told from the others by [`indexed`](ParallelResults::indexed). Dropping the iterator lets the tasks that run go
    /// on to their end.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) for zero tasks at a time. The items are `Result`s of their tasks.
    ///
    /// # Examples
    ///
    /// ```
    /// use inparallel::{task, InParallel};
    ///
    /// #[task]
    /// fn length(word: String) -> usize {
    ///     word.len()
    /// }
    ///
    /// let words = ["a", "list", "of", "words"].map(String::from);
    /// let mut total = 0;
    /// for length in words.into_iter().in_parallel(2, length)? {
    ///     total += length?;
    /// }
    /// assert_eq!(total, 12);
    /// # Ok::<(), inparallel::Error>(())
    /// ```
    fn in_parallel<T, F>(self, most: usize, task: F) -> Result<ParallelResults<Self, F, T>>
    where
        F: FnMut(Self::Item) -> TaskFuture<T>,
    {
        check_concurrency(most)?;
        Ok(ParallelResults {
            items: self.fuse(),
            task,
            most,
            in_flight: InFlight::new(),
        })
    }
}

impl<I: Iterator> InParallel for I {}

/// An iterator over results as they arrive: see [`InParallel`].
#[must_use = "an iterator does nothing until it is used"]
pub struct ParallelResults<I: Iterator, F, T> {
    items: std::iter::Fuse<I>,
    task: F,
    most: usize,
    in_flight: InFlight<T>,
}

impl<I, F, T> ParallelResults<I, F, T>
where
    I: Iterator,
    F: FnMut(I::Item) -> TaskFuture<T>,
    T: serde::de::DeserializeOwned,
{
    /// Yields each result with the number of its item, from 0.
    pub fn indexed(mut self) -> impl Iterator<Item = (usize, Result<T>)> {
        std::iter::from_fn(move || self.advance())
    }

    fn advance(&mut self) -> Option<(usize, Result<T>)> {
        while self.in_flight.len() < self.most {
            match self.items.next() {
                Some(item) => self.in_flight.push((self.task)(item)),
                None => break,
            }
        }
        let (key, future) = self.in_flight.take(None)?;
        Some((usize::try_from(key).unwrap_or(usize::MAX), future.wait()))
    }
}

impl<I, F, T> Iterator for ParallelResults<I, F, T>
where
    I: Iterator,
    F: FnMut(I::Item) -> TaskFuture<T>,
    T: serde::de::DeserializeOwned,
{
    type Item = Result<T>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().map(|(_, result)| result)
    }
}

impl<I: Iterator, F, T> fmt::Debug for ParallelResults<I, F, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParallelResults")
            .field("in_flight", &self.in_flight.len())
            .finish_non_exhaustive()
    }
}
