//! Futures: what users hold on their tasks.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use crate::callbacks;
use crate::error::{Cause, Error, Result};
use crate::ids::{Name, TaskId};
use crate::nesting;
use crate::slot::{Callback, Inner, Outcome, Slot, Stay};
use crate::supervisor;
use crate::sync::contain;

/// A task's result that will arrive.
///
/// **Dropping it lets the task run to its end**, unheard; with [`kill_on_drop`](TaskFuture::kill_on_drop) it is killed
/// instead. When the process that started it ends, in whatever way, the task ends too.
///
/// It is a [`Future`] for any runtime, and can be waited for by a plain thread with the `wait` family. The value can be
/// taken once; [`ErrorKind::Taken`](crate::ErrorKind::Taken) after that.
///
/// # Examples
///
/// ```
/// use inparallel::task;
///
/// #[task]
/// fn double(x: u64) -> u64 {
///     x * 2
/// }
///
/// let futures: Vec<_> = (0..4).map(double).collect();   // four processes at once
/// let results: Result<Vec<u64>, _> = futures.into_iter().map(|future| future.wait()).collect();
/// assert_eq!(results?, [0, 2, 4, 6]);
/// # Ok::<(), inparallel::Error>(())
/// ```
#[must_use = "a task that nobody waits for runs on unheard; call .detach() if that is meant"]
pub struct TaskFuture<T> {
    slot: Arc<Slot>,
    kill_on_drop: bool,
    taken: bool,
    value: PhantomData<fn() -> T>,
}

impl<T> TaskFuture<T> {
    pub(crate) fn new(slot: Arc<Slot>, kill_on_drop: bool) -> Self {
        TaskFuture {
            slot,
            kill_on_drop,
            taken: false,
            value: PhantomData,
        }
    }

    /// Of a task that could not be started: it has ended, in this error.
    pub(crate) fn failed(name: Name, error: Error) -> Self {
        let slot = supervisor::slot(name);
        slot.end(Outcome::Failed(error));
        TaskFuture::new(slot, false)
    }

    pub(crate) fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }

    /// The task's number in this process.
    pub fn id(&self) -> TaskId {
        self.slot.id
    }

    /// The task as `module::function`.
    pub fn name(&self) -> String {
        self.slot.name.to_string()
    }

    /// The worker's process id. `None` until the worker exists, and for the start methods without a process. In a pool it is
    /// that of the worker which the task was handed to: it may be at another task before.
    ///
    /// The number may belong to another process once the task has ended.
    pub fn pid(&self) -> Option<u32> {
        self.slot.pid()
    }

    /// Whether the task has ended, in whatever way: then no `wait` blocks. A cancelled task has ended once its process
    /// is gone.
    pub fn is_done(&self) -> bool {
        self.slot.is_done()
    }

    /// Which attempt at the task is under way, or was the last, from 1.
    pub fn attempt(&self) -> u32 {
        self.slot.attempt()
    }

    /// Ends the task: its process group is asked to end, and killed after the [grace](crate::Options::grace). One that
    /// waits for a worker of a pool, for a permit or for its next attempt never starts. The future then is
    /// [`Cancelled`](crate::ErrorKind::Cancelled).
    ///
    /// Returns whether the future ends in that way: false if it had ended before; then its outcome stays. A thread of
    /// [`StartMethod::Thread`](crate::StartMethod::Thread) cannot be stopped: it runs on, unheard.
    pub fn cancel(&self) -> bool {
        self.canceller().cancel()
    }

    /// A handle that can only cancel: for whoever does not hold the future, such as another thread while this one waits.
    ///
    /// # Examples
    ///
    /// ```
    /// use inparallel::{task, ErrorKind};
    ///
    /// #[task]
    /// fn forever() {
    ///     loop {
    ///         std::thread::park();
    ///     }
    /// }
    ///
    /// let future = forever();
    /// let canceller = future.canceller();
    /// std::thread::spawn(move || canceller.cancel());
    /// assert_eq!(future.wait().unwrap_err().kind(), ErrorKind::Cancelled);
    /// ```
    pub fn canceller(&self) -> Canceller {
        Canceller {
            slot: Arc::clone(&self.slot),
        }
    }

    /// Lets the task run on without a handle.
    ///
    /// In a worker, the task that was detached may outlive the task that started it: the worker stays until it has
    /// ended. In any case it ends with the first program.
    pub fn detach(mut self) {
        self.kill_on_drop = false;
        self.slot.peek_mut(|inner| {
            if inner.outcome.is_none() && !inner.detached {
                inner.detached = true;
                nesting::detached_began();
            }
        });
    }

    /// From now on, dropping this future kills the task.
    pub fn kill_on_drop(mut self) -> Self {
        self.kill_on_drop = true;
        self
    }
}

/// Cancels one task: see [`TaskFuture::canceller`]. Dropping it does nothing.
#[derive(Clone)]
pub struct Canceller {
    slot: Arc<Slot>,
}

impl Canceller {
    /// As [`TaskFuture::cancel`].
    pub fn cancel(&self) -> bool {
        self.slot.cancel()
    }
}

impl fmt::Debug for Canceller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canceller")
            .field("id", &self.slot.id.0)
            .finish_non_exhaustive()
    }
}

impl<T: DeserializeOwned> TaskFuture<T> {
    /// Waits for the end of the task.
    ///
    /// # Errors
    ///
    /// Every way in which the machinery fails: see [`ErrorKind`](crate::ErrorKind). The task's own `Err` is part of `T`.
    pub fn wait(mut self) -> Result<T> {
        self.check_taken()?;
        match self.slot.wait(None)? {
            Some(outcome) => {
                self.taken = true;
                // This future goes with the call, and nobody else can ask for the value.
                outcome.decode_last(&self.slot)
            }
            None => unreachable!("a wait without deadline ends with an outcome"),
        }
    }

    /// The result if the task has ended; never blocks.
    ///
    /// # Errors
    ///
    /// As [`wait`](TaskFuture::wait). "Not yet" is `Ok(None)`.
    pub fn try_wait(&mut self) -> Result<Option<T>> {
        self.take_by(Some(Instant::now()))
    }

    /// Waits for at most `limit`. The task goes on when that has passed.
    ///
    /// # Errors
    ///
    /// As [`wait`](TaskFuture::wait). "Not yet" is `Ok(None)`.
    pub fn wait_timeout(&mut self, limit: Duration) -> Result<Option<T>> {
        self.take_by(Instant::now().checked_add(limit))
    }

    /// Waits until `deadline` at most. The task goes on when that has passed.
    ///
    /// # Errors
    ///
    /// As [`wait`](TaskFuture::wait). "Not yet" is `Ok(None)`.
    pub fn wait_deadline(&mut self, deadline: Instant) -> Result<Option<T>> {
        self.take_by(Some(deadline))
    }

    fn take_by(&mut self, deadline: Option<Instant>) -> Result<Option<T>> {
        self.check_taken()?;
        let Some(outcome) = self.slot.wait(deadline)? else {
            return Ok(None);
        };
        self.take(&outcome).map(Some)
    }

    fn take(&mut self, outcome: &Outcome) -> Result<T> {
        self.taken = true;
        outcome.decode(&self.slot)
    }

    fn check_taken(&self) -> Result<()> {
        match self.taken {
            true => Err(Error::new(self.name(), Cause::Taken)),
            false => Ok(()),
        }
    }

    /// Calls `callback` with the outcome when the task has ended; at once, in this thread, if it has.
    ///
    /// Callbacks run once, in the order of adding, on a thread that serves callbacks only, one after the other: a slow
    /// one delays other callbacks, never other futures. A panic in one is reported on stderr and harms nothing. The
    /// callback gets a value of its own, decoded for it; if `T`'s `Deserialize` panics, it is not called.
    ///
    /// # Examples
    ///
    /// ```
    /// use inparallel::task;
    ///
    /// #[task]
    /// fn greet() -> String {
    ///     "hello".to_owned()
    /// }
    ///
    /// let (tx, rx) = std::sync::mpsc::channel();
    /// let future = greet();
    /// future.on_done(move |result| tx.send(result.as_ref().ok().cloned()).unwrap());
    /// assert_eq!(rx.recv().unwrap().as_deref(), Some("hello"));
    /// # future.detach();
    /// ```
    pub fn on_done(&self, callback: impl FnOnce(&Result<T>) + Send + 'static) {
        let callback: Callback = Box::new(move |slot, outcome| {
            callback(&outcome.decode(slot));
        });
        if !self.is_done()
            && let Err(error) = callbacks::prepare()
        {
            // No thread to run it on later: now, with the reason, is better than never.
            return contain(|| callback(&self.slot, &Outcome::Failed(error)));
        }
        let mut callback = Some(callback);
        let ended = self.slot.peek_mut(|inner| {
            if inner.outcome.is_none() {
                inner.rare().callbacks.extend(callback.take());
            }
            inner.outcome.clone()
        });
        if let Some(callback) = callback {
            let lost = || Outcome::Failed(Error::new(self.name(), Cause::OtherProcess));
            let outcome = ended.flatten().unwrap_or_else(lost);
            contain(|| callback(&self.slot, &outcome));
        }
    }
}

impl<T: DeserializeOwned> Future for TaskFuture<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        this.check_taken()?;
        this.slot.help(Stay::Moment);
        // Cloned, and the earlier one dropped, without the lock: both run foreign code.
        let mut waker = Some(context.waker().clone());
        let seen = this.slot.peek_mut(|inner| match &inner.outcome {
            Some(outcome) => Some(outcome.clone()),
            None => {
                std::mem::swap(&mut inner.rare().waker, &mut waker);
                None
            }
        });
        drop(waker);
        match seen {
            Some(Some(outcome)) => Poll::Ready(this.take(&outcome)),
            Some(None) => Poll::Pending,
            None => Poll::Ready(Err(Error::new(this.name(), Cause::OtherProcess))),
        }
    }
}

impl<T> Drop for TaskFuture<T> {
    fn drop(&mut self) {
        // Nobody polls any more: the task may run for long, and what awaited it need not be kept until its end.
        let waker = self.slot.peek_mut(Inner::take_waker).flatten();
        drop(waker);
        if self.kill_on_drop {
            self.slot.cancel();
        }
    }
}

impl<T> fmt::Debug for TaskFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskFuture")
            .field("id", &self.slot.id.0)
            .field("name", &format_args!("{}", self.slot.name))
            .field("pid", &self.pid())
            .field("done", &self.is_done())
            .finish()
    }
}
