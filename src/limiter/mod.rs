//! Limiters: how many may do the same thing at once, whether they are threads or tasks that wait to be started.
//!
//! A limiter is a number and a name; `table.rs` has who holds a permit and who waits for one. Neither knows what a task is,
//! and no lock is held while anything runs.

mod table;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::sys;
use table::{LimiterId, Start, Table};

/// Lets at most so many at a time: a number of [`Permit`]s, which are taken, held, and freed.
///
/// It stands in a `static`, or is a value whose clones share the permits. It is fair: first come, first served, among all
/// that wait, so that a stream of short waits starves nobody.
///
/// A limit holds within one process. A task that runs in another process finds there the limiter of that process, all of
/// its permits free; so does a copy that `fork` made, whatever its parent held at that moment.
///
/// A thread that holds a permit and asks for another may wait for itself: with one permit it does.
///
/// # Examples
///
/// ```
/// use inparallel::Limiter;
///
/// static DOWNLOADS: Limiter = Limiter::new(3);
///
/// fn download(address: &str) -> usize {
///     let _permit = DOWNLOADS.acquire();   // at most three threads are beyond this line
///     address.len()
/// }
///
/// let threads = ["a", "bc", "def", "ghij"].map(|address| std::thread::spawn(|| download(address)));
/// let lengths: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
/// assert_eq!(lengths, [1, 2, 3, 4]);
/// ```
pub struct Limiter {
    permits: usize,
    /// What the table knows it by; 0: nobody has used it yet.
    id: AtomicU64,
}

impl Limiter {
    /// A limiter with that many permits.
    ///
    /// # Panics
    ///
    /// For zero permits, with which nothing would ever run. In a `static` that is an error of the compiler:
    ///
    /// ```compile_fail
    /// static NOTHING: inparallel::Limiter = inparallel::Limiter::new(0);
    /// ```
    ///
    /// # Examples
    ///
    /// ```
    /// use inparallel::Limiter;
    ///
    /// static OF_THE_PROGRAM: Limiter = Limiter::new(2);
    /// let of_this_function = Limiter::new(8);
    /// let the_same = of_this_function.clone();
    ///
    /// let permit = of_this_function.acquire();
    /// assert_eq!((OF_THE_PROGRAM.free(), the_same.free()), (2, 7));
    /// # drop(permit);
    /// ```
    #[track_caller]
    pub const fn new(permits: usize) -> Limiter {
        assert!(permits > 0, "limiter: permits is 0; give at least 1");
        Limiter {
            permits,
            id: AtomicU64::new(0),
        }
    }

    /// Takes a permit; waits until there is one for it.
    pub fn acquire(&self) -> Permit {
        match table::current().acquire(self, None) {
            Some(permit) => permit,
            None => unreachable!("a wait without deadline ends with a permit"),
        }
    }

    /// Takes a permit if one is free now; never blocks, and never overtakes those that wait.
    ///
    /// # Examples
    ///
    /// ```
    /// let limiter = inparallel::Limiter::new(1);
    /// let permit = limiter.try_acquire();
    /// assert!(permit.is_some() && limiter.try_acquire().is_none());
    /// drop(permit);
    /// assert!(limiter.try_acquire().is_some());
    /// ```
    pub fn try_acquire(&self) -> Option<Permit> {
        table::current().try_acquire(self)
    }

    /// Takes a permit; waits for at most `limit`. `None`: it was nobody's turn to give one in that time.
    pub fn acquire_timeout(&self, limit: Duration) -> Option<Permit> {
        table::current().acquire(self, Instant::now().checked_add(limit))
    }

    /// Takes a permit; waits until `deadline` at most.
    pub fn acquire_deadline(&self, deadline: Instant) -> Option<Permit> {
        table::current().acquire(self, Some(deadline))
    }

    /// Runs `work` with a permit, after a wait for it. The permit is freed when `work` returns or panics.
    ///
    /// # Examples
    ///
    /// ```
    /// use inparallel::Limiter;
    ///
    /// static PARSERS: Limiter = Limiter::new(2);
    ///
    /// let number: i32 = PARSERS.run(|| "42".parse())?;
    /// assert_eq!(number, 42);
    /// # Ok::<(), std::num::ParseIntError>(())
    /// ```
    pub fn run<R>(&self, work: impl FnOnce() -> R) -> R {
        let _permit = self.acquire();
        work()
    }

    /// How many permits there are.
    pub const fn permits(&self) -> usize {
        self.permits
    }

    /// How many permits nobody holds at this moment.
    pub fn free(&self) -> usize {
        table::current().look(self).free
    }

    /// Has `start` run with a permit: at once, in this thread, if one is free; else in the thread that frees the one that
    /// is due to it.
    ///
    /// No lock is held then. `start` hands work over and returns: it runs nothing of the user's and waits for nothing, since
    /// other starts may be due in the same thread and wait for its return. If it panics, the permit is freed and the panic
    /// goes no further; whoever waits for its effect must be told by what it captured. If the process ends or is forked
    /// while it waits, it is never called.
    pub(crate) fn enter(&self, start: Start) {
        table::current().enter(self, start);
    }

    fn id(&self) -> LimiterId {
        let there = self.id.load(Ordering::Relaxed);
        if there != 0 {
            return LimiterId(there);
        }
        let new = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        match self
            .id
            .compare_exchange(0, new, Ordering::Relaxed, Ordering::Relaxed)
        {
            Ok(_) => LimiterId(new),
            Err(there) => LimiterId(there),
        }
    }
}

/// The clone shares the permits.
impl Clone for Limiter {
    fn clone(&self) -> Self {
        Limiter {
            permits: self.permits,
            id: AtomicU64::new(self.id().0),
        }
    }
}

/// Two are equal if they share their permits.
impl PartialEq for Limiter {
    fn eq(&self, other: &Limiter) -> bool {
        self.id() == other.id()
    }
}

impl Eq for Limiter {}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seen = table::current().look(self);
        f.debug_struct("Limiter")
            .field("permits", &self.permits)
            .field("free", &seen.free)
            .field("waiting", &seen.waiting)
            .finish()
    }
}

/// The right to be one of those that a [`Limiter`] lets.
///
/// Dropping it frees it, on whatever thread that happens, also by a panic; if somebody waits, it is theirs at once. A
/// task that waits for it is started there and then, by the thread that drops it. In a fork of the process that it was taken
/// in, dropping it does nothing.
///
/// # Examples
///
/// ```
/// let limiter = inparallel::Limiter::new(1);
/// let permit = limiter.acquire();
/// std::thread::spawn(move || drop(permit));
/// let _next = limiter.acquire();   // waits for that thread
/// ```
#[must_use = "a permit that is not kept is freed at once; `let _permit = ..` keeps it, `let _ = ..` does not"]
pub struct Permit {
    table: &'static Table,
    limiter: LimiterId,
}

impl Drop for Permit {
    fn drop(&mut self) {
        // What belongs to another process is not for us to free, and its lock may be held for ever.
        if self.table.generation == sys::generation() {
            self.table.release(self.limiter);
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").finish_non_exhaustive()
    }
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);
