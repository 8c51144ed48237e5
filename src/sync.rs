//! Locks and conditions, taken in one way everywhere, and user code kept from spreading its panics.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Locks, whatever happened to an earlier holder: every critical section here leaves its data whole at each step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One sleep on a condition; `Err` when the deadline has passed.
pub(crate) fn sleep_on<'a, T>(
    condition: &Condvar,
    guard: MutexGuard<'a, T>,
    deadline: Option<Instant>,
) -> std::result::Result<MutexGuard<'a, T>, MutexGuard<'a, T>> {
    let Some(deadline) = deadline else {
        return Ok(condition.wait(guard).unwrap_or_else(PoisonError::into_inner));
    };
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(guard);
    }
    Ok(condition
        .wait_timeout(guard, left)
        .unwrap_or_else(PoisonError::into_inner)
        .0)
}

/// Runs user code whose panic must not spread. The panic hook has reported it by then.
pub(crate) fn contain(run: impl FnOnce()) {
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
    if let Err(payload) = caught {
        // A payload may panic again when it is dropped.
        std::mem::forget(payload);
    }
}

/// Looks again and again, for no longer than `limit`; whether it came to be so.
fn spin(limit: Duration, is_so: impl Fn() -> bool) -> bool {
    let mut began = None;
    loop {
        for _ in 0..LOOKS {
            if is_so() {
                return true;
            }
            for _ in 0..PAUSES {
                std::hint::spin_loop();
            }
        }
        if began.get_or_insert_with(Instant::now).elapsed() > limit {
            return false;
        }
        // Whoever is waited for may wait for this core.
        give_way();
    }
}

/// Lets those run who wait for this core.
#[expect(clippy::disallowed_methods, reason = "nothing depends on what it does")]
pub(crate) fn give_way() {
    std::thread::yield_now();
}

/// The time, from when it is first asked for: looking at the clock costs as much as many of the steps that may need it.
#[derive(Debug, Default)]
pub(crate) struct Now(Cell<Option<Instant>>);

impl Now {
    pub(crate) fn get(&self) -> Instant {
        let now = self.0.get().unwrap_or_else(Instant::now);
        self.0.set(Some(now));
        now
    }
}

/// How many there are of something: one number, for all who have a clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Count(Arc<AtomicUsize>);

impl Count {
    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// Whether there was none before.
    pub(crate) fn add(&self) -> bool {
        self.0.fetch_add(1, Ordering::SeqCst) == 0
    }

    /// Whether that was the last.
    pub(crate) fn take(&self) -> bool {
        self.0.fetch_sub(1, Ordering::SeqCst) == 1
    }
}

/// Looking out for a change without sleep, for as long as that pays.
#[derive(Debug)]
pub(crate) struct Spin {
    limit: Duration,
    /// How often in a row it was in vain, and how often it is left out because of that.
    misses: AtomicU32,
    most_misses: u32,
    skips: AtomicU32,
}

impl Spin {
    /// `limit`: how long at most; zero: not at all.
    pub(crate) fn new(limit: Duration) -> Spin {
        Spin::giving_up(limit, MOST_MISSES)
    }

    /// For what costs more than a look-out in vain: it is left out fewer times.
    pub(crate) fn seldom(limit: Duration) -> Spin {
        Spin::giving_up(limit, MOST_SELDOM_MISSES)
    }

    fn giving_up(limit: Duration, most_misses: u32) -> Spin {
        Spin {
            limit,
            most_misses,
            misses: AtomicU32::new(0),
            skips: AtomicU32::new(0),
        }
    }

    /// Whether it came to be so.
    pub(crate) fn until(&self, is_so: impl Fn() -> bool) -> bool {
        self.within(self.limit, is_so)
    }

    /// As [`until`](Spin::until), with a shorter limit.
    pub(crate) fn within(&self, limit: Duration, is_so: impl Fn() -> bool) -> bool {
        let limit = limit.min(self.limit);
        if limit.is_zero() {
            return false;
        }
        let skips = self.skips.load(Ordering::Relaxed);
        if skips > 0 {
            self.skips.store(skips - 1, Ordering::Relaxed);
            return is_so();
        }
        let hit = spin(limit, is_so);
        let misses = match hit {
            true => 0,
            false => (self.misses.load(Ordering::Relaxed) + 1).min(self.most_misses),
        };
        self.misses.store(misses, Ordering::Relaxed);
        self.skips.store((1 << misses) - 1, Ordering::Relaxed);
        hit
    }
}

/// A core is not kept busy for longer. It is longer than it takes to wake a thread.
pub(crate) const LONGEST_SPIN: Duration = Duration::from_micros(50);

/// What is wrong with more.
pub(crate) const BUSY_TOO_LONG: &str = "a core is not kept busy for longer than 50 µs";

/// Whether two threads of this process can run at once: else it helps nobody to look out.
pub(crate) fn has_cores() -> bool {
    std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1)
}

/// After so many spins in vain they are left out 2^n times.
const MOST_MISSES: u32 = 10;
const MOST_SELDOM_MISSES: u32 = 2;

/// Between two looks at the clock, and between two of these: who looks all the time keeps the line from the core that writes it.
const LOOKS: u32 = 8;
const PAUSES: u32 = 4;
