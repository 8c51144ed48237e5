use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use super::table::{Seen, Table, current_in};
use super::*;
use crate::sync::lock;
use crate::sys::Global;

/// Longer than anything here takes, on a machine under strain too.
const LONG: Duration = Duration::from_secs(60);

/// Waits until so many wait for a permit.
fn until_waiting(limiter: &Limiter, count: usize) {
    let give_up = Instant::now() + LONG;
    while table::current().look(limiter).waiting != count {
        assert!(Instant::now() < give_up, "{limiter:?}, and not {count} waiting");
        thread::park_timeout(Duration::from_micros(100));
    }
}

#[track_caller]
fn check_is_unused(limiter: &Limiter) {
    let unused = Seen {
        free: limiter.permits(),
        waiting: 0,
    };
    assert_eq!(table::current().look(limiter), unused);
}

/// A new table, as the copy of a process would have: it never is the one of this process.
fn other_table(generation: u64) -> &'static Table {
    current_in(Box::leak(Box::new(Global::new())), generation)
}

// --- permits --------------------------------------------------------------------------------------------------------

#[test]
fn permits_are_taken_and_freed_one_by_one() {
    let limiter = Limiter::new(2);
    assert_eq!((limiter.permits(), limiter.free()), (2, 2));
    let first = limiter.acquire();
    let second = limiter.acquire_timeout(Duration::ZERO).unwrap();
    assert_eq!(limiter.free(), 0);
    assert!(limiter.try_acquire().is_none());
    assert!(limiter.acquire_deadline(Instant::now()).is_none());
    drop(first);
    let third = limiter.try_acquire().unwrap();
    drop((second, third));
    // Beyond the clock is for ever, and needs none here.
    drop(limiter.acquire_timeout(Duration::MAX).unwrap());
    check_is_unused(&limiter);
}

#[test]
fn zero_permits_are_refused_with_a_remedy() {
    let payload = catch_unwind(|| Limiter::new(0)).unwrap_err();
    let message = payload.downcast_ref::<&str>();
    assert_eq!(message, Some(&"limiter: permits is 0; give at least 1"));
}

#[test]
fn static_and_its_clones_share_their_permits_and_others_do_not() {
    static LIMIT: Limiter = Limiter::new(2);
    static OTHER: Limiter = Limiter::new(2);
    let clone = LIMIT.clone();
    let of_static = LIMIT.acquire();
    let of_clone = thread::spawn({
        let clone = clone.clone();
        move || clone.acquire()
    });
    let of_clone = of_clone.join().unwrap();
    assert_eq!((LIMIT.free(), clone.free(), OTHER.free()), (0, 0, 2));
    drop((of_static, of_clone));
    check_is_unused(&LIMIT);
}

#[test]
fn first_uses_at_once_by_many_threads_agree_on_the_limiter() {
    for _ in 0..200 {
        let limiter = Limiter::new(1);
        let is_first = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let permit = limiter.clone().try_acquire();
                    is_first.fetch_add(usize::from(permit.is_some()), Ordering::Relaxed);
                    std::mem::forget(permit);
                });
            }
        });
        assert_eq!(is_first.into_inner(), 1);
        assert_eq!(limiter.free(), 0);
    }
}

#[test]
fn debug_shows_what_is_free_and_who_waits() {
    let limiter = Limiter::new(3);
    let permits: Vec<_> = (0..3).map(|_| limiter.acquire()).collect();
    limiter.enter(Box::new(drop));
    let shown = format!("{limiter:?} {:?}", permits[0]);
    assert_eq!(shown, "Limiter { permits: 3, free: 0, waiting: 1 } Permit { .. }");
}

#[test]
fn permit_goes_to_any_thread_and_outlives_its_limiter() {
    fn is_shareable<T: Send + Sync + std::panic::UnwindSafe + std::panic::RefUnwindSafe + 'static>() {}
    is_shareable::<Permit>();
    is_shareable::<Limiter>();
    let limiter = Limiter::new(1);
    let watched = limiter.clone();
    let permit = { limiter }.acquire();
    thread::spawn(move || drop(permit)).join().unwrap();
    check_is_unused(&watched);
}

#[test]
fn panic_frees_the_permit() {
    let limiter = Limiter::new(1);
    for _ in 0..3 {
        let caught = catch_unwind(AssertUnwindSafe(|| {
            limiter.run(|| std::panic::resume_unwind(Box::new("meant")))
        }));
        assert_eq!(caught.unwrap_err().downcast_ref::<&str>(), Some(&"meant"));
        check_is_unused(&limiter);
    }
    assert_eq!(limiter.run(|| limiter.free()), 0);
}

#[test]
fn contending_threads_are_never_more_than_the_permits() {
    const THREADS: usize = 12;
    const ROUNDS: usize = 500;
    let limiter = Limiter::new(3);
    let (inside, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (limiter, inside, done) = (&limiter, &inside, &done);
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let permit = match (number + round) % 4 {
                        0 => limiter.try_acquire(),
                        1 => limiter.acquire_timeout(Duration::from_micros(50)),
                        _ => Some(limiter.acquire()),
                    };
                    if let Some(permit) = permit {
                        assert!(inside.fetch_add(1, Ordering::Relaxed) < 3);
                        done.fetch_add(1, Ordering::Relaxed);
                        inside.fetch_sub(1, Ordering::Relaxed);
                        drop(permit);
                    }
                }
            });
        }
    });
    assert!(done.into_inner() >= THREADS * ROUNDS / 2);
    check_is_unused(&limiter);
}

/// What is not in use takes no memory.
#[test]
fn unused_limiters_are_not_in_the_table() {
    let table = other_table(sys::generation());
    let limiters: Vec<_> = (0..100).map(|_| Limiter::new(1)).collect();
    for limiter in &limiters {
        assert_eq!(table.look(limiter).free, 1);
        let permit = table.try_acquire(limiter);
        assert!(table.acquire(limiter, Some(Instant::now())).is_none());
        table.enter(limiter, Box::new(drop));
        drop(permit);
    }
    assert_eq!(table.used(), 0);
}

// --- turns ----------------------------------------------------------------------------------------------------------

#[test]
fn threads_and_starts_come_in_the_order_of_asking() {
    const WAITERS: usize = 24;
    let limiter = Limiter::new(1);
    let order = Arc::new(Mutex::new(Vec::new()));
    let permit = limiter.acquire();
    thread::scope(|scope| {
        for number in 0..WAITERS {
            let order = Arc::clone(&order);
            match number % 3 {
                0 => limiter.enter(Box::new(move |_permit| lock(&order).push(number))),
                // Those that would give up have their turn as well.
                1 => {
                    let limiter = &limiter;
                    _ = scope.spawn(move || {
                        let permit = limiter.acquire_timeout(LONG);
                        lock(&order).push(number);
                        assert!(permit.is_some());
                    });
                }
                _ => {
                    let limiter = &limiter;
                    _ = scope.spawn(move || limiter.run(|| lock(&order).push(number)));
                }
            }
            until_waiting(&limiter, number + 1);
        }
        drop(permit);
    });
    assert_eq!(*lock(&order), (0..WAITERS).collect::<Vec<_>>());
    check_is_unused(&limiter);
}

#[test]
fn try_acquire_does_not_overtake() {
    let limiter = Limiter::new(1);
    let permit = limiter.acquire();
    let (tx, rx) = mpsc::channel();
    limiter.enter(Box::new(move |permit| tx.send(permit).unwrap()));
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| limiter.acquire());
        until_waiting(&limiter, 2);
        drop(permit);
        let of_start = rx.recv().unwrap();
        assert!(limiter.try_acquire().is_none());
        drop(of_start);
        // It is the sleeper's, awake or not.
        assert_eq!(limiter.free(), 0);
        assert!(limiter.try_acquire().is_none());
        drop(sleeper.join().unwrap());
    });
    check_is_unused(&limiter);
}

#[test]
fn permits_that_come_back_together_wake_as_many() {
    let limiter = Limiter::new(4);
    let permits: Vec<_> = (0..4).map(|_| limiter.acquire()).collect();
    let all_inside = std::sync::Barrier::new(4);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                limiter.run(|| {
                    all_inside.wait();
                })
            });
        }
        until_waiting(&limiter, 4);
        drop(permits);
    });
    check_is_unused(&limiter);
}

// --- deadlines ------------------------------------------------------------------------------------------------------

#[test]
fn who_gives_up_leaves_the_queue() {
    let limiter = Limiter::new(1);
    let permit = limiter.acquire();
    let (tx, rx) = mpsc::channel();
    for number in 0..3 {
        let tx = tx.clone();
        limiter.enter(Box::new(move |_permit| tx.send(number).unwrap()));
        let began = Instant::now();
        assert!(limiter.acquire_timeout(Duration::from_millis(2)).is_none());
        assert!(began.elapsed() >= Duration::from_millis(2));
        assert!(limiter.acquire_timeout(Duration::ZERO).is_none());
    }
    until_waiting(&limiter, 3);
    drop(permit);
    assert_eq!(rx.try_iter().collect::<Vec<_>>(), [0, 1, 2]);
    check_is_unused(&limiter);
}

/// A permit that comes at the moment in which its waiter gives up is taken, or goes to the next.
#[test]
fn no_permit_is_lost_at_a_deadline() {
    let limiter = Limiter::new(1);
    for round in 0..400 {
        let permit = limiter.acquire();
        // The moment moves over the deadline from both sides.
        let deadline = Instant::now() + Duration::from_micros(500);
        let freed = deadline + Duration::from_micros(round % 100) - Duration::from_micros(20);
        thread::scope(|scope| {
            scope.spawn(|| limiter.acquire_deadline(deadline));
            let next = scope.spawn(|| limiter.acquire_timeout(LONG).is_some());
            while Instant::now() < freed {
                std::hint::spin_loop();
            }
            drop(permit);
            assert!(next.join().unwrap(), "round {round}: {limiter:?}");
        });
        check_is_unused(&limiter);
    }
}

// --- starts ---------------------------------------------------------------------------------------------------------

#[test]
fn start_runs_here_if_a_permit_is_free_and_else_where_one_is_freed() {
    let limiter = Limiter::new(1);
    let (tx, rx) = mpsc::channel();
    let start = || {
        let tx = tx.clone();
        Box::new(move |permit| tx.send((thread::current().id(), permit)).unwrap())
    };
    limiter.enter(start());
    let (ran_in, permit) = rx.try_recv().unwrap();
    assert_eq!(ran_in, thread::current().id());
    limiter.enter(start());
    assert!(rx.try_recv().is_err());
    let freeing = thread::spawn(move || drop(permit));
    let freed_in = freeing.thread().id();
    freeing.join().unwrap();
    let (ran_in, permit) = rx.try_recv().unwrap();
    assert_eq!(ran_in, freed_in);
    drop(permit);
    check_is_unused(&limiter);
}

#[test]
fn hundred_thousand_starts_that_free_at_once_need_no_stack() {
    const STARTS: usize = 100_000;
    for permits in [1, 3] {
        let limiter = Limiter::new(permits);
        let held: Vec<_> = (0..permits).map(|_| limiter.acquire()).collect();
        let order = Arc::new(Mutex::new(Vec::new()));
        let began = Instant::now();
        for number in 0..STARTS {
            let order = Arc::clone(&order);
            limiter.enter(Box::new(move |_permit| lock(&order).push(number)));
        }
        let small = thread::Builder::new().stack_size(128 << 10);
        small.spawn(move || drop(held)).unwrap().join().unwrap();
        // Some 100 ms; what grows with the square would take minutes.
        assert!(began.elapsed() < LONG / 2, "{:?}", began.elapsed());
        assert!(lock(&order).iter().copied().eq(0..STARTS));
        check_is_unused(&limiter);
    }
}

/// Two limiters whose starts free each other's permits do not build a tower either.
#[test]
fn starts_of_two_limiters_do_not_stand_on_each_other() {
    const STARTS: usize = 20_000;
    let limiters = [Limiter::new(1), Limiter::new(1)];
    let first = limiters[0].acquire();
    let kept = Arc::new(Mutex::new(vec![limiters[1].acquire()]));
    let ran = Arc::new(AtomicUsize::new(0));
    for number in 0..STARTS {
        let (kept, ran) = (Arc::clone(&kept), Arc::clone(&ran));
        limiters[number % 2].enter(Box::new(move |permit| {
            ran.fetch_add(1, Ordering::Relaxed);
            let other = std::mem::replace(&mut *lock(&kept), vec![permit]);
            drop(other);
        }));
    }
    let small = thread::Builder::new().stack_size(128 << 10);
    small.spawn(move || drop(first)).unwrap().join().unwrap();
    lock(&kept).clear();
    assert_eq!(ran.load(Ordering::Relaxed), STARTS);
    limiters.iter().for_each(check_is_unused);
}

#[test]
fn panicking_start_harms_nobody() {
    let limiter = Limiter::new(1);
    let (tx, rx) = mpsc::channel();
    let panicking = || Box::new(|_permit| std::panic::resume_unwind(Box::new("meant")));
    limiter.enter(panicking());
    check_is_unused(&limiter);
    let permit = limiter.acquire();
    for number in 0..3 {
        limiter.enter(panicking());
        let tx = tx.clone();
        limiter.enter(Box::new(move |_permit| tx.send(number).unwrap()));
    }
    drop(permit);
    assert_eq!(rx.try_iter().collect::<Vec<_>>(), [0, 1, 2]);
    check_is_unused(&limiter);
}

#[test]
fn start_may_use_its_limiter() {
    let limiter = Limiter::new(1);
    let (tx, rx) = mpsc::channel();
    let start = || {
        let (limiter, tx) = (limiter.clone(), tx.clone());
        Box::new(move |permit| {
            assert!(limiter.try_acquire().is_none());
            let again = tx.clone();
            limiter.enter(Box::new(move |_permit| again.send("again").unwrap()));
            tx.send("once").unwrap();
            // With the permit gone, what was entered is due, after this.
            drop(permit);
            tx.send("still").unwrap();
            assert!(format!("{limiter:?}").contains("permits: 1"));
        })
    };
    limiter.enter(start());
    // Not the start of a release: what it makes due runs there and then.
    assert_eq!(rx.try_iter().collect::<Vec<_>>(), ["once", "again", "still"]);
    let permit = limiter.acquire();
    limiter.enter(start());
    drop(permit);
    assert_eq!(rx.try_iter().collect::<Vec<_>>(), ["once", "still", "again"]);
    check_is_unused(&limiter);
}

#[test]
fn threads_and_starts_contend() {
    const ROUNDS: usize = 2_000;
    let limiter = Limiter::new(2);
    let (inside, done) = (Arc::new(AtomicUsize::new(0)), mpsc::channel());
    thread::scope(|scope| {
        for number in 0..4 {
            let (limiter, inside, tx) = (&limiter, Arc::clone(&inside), done.0.clone());
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    let (inside, tx) = (Arc::clone(&inside), tx.clone());
                    let work = move || {
                        assert!(inside.fetch_add(1, Ordering::Relaxed) < 2);
                        inside.fetch_sub(1, Ordering::Relaxed);
                        tx.send(()).unwrap();
                    };
                    match number % 2 {
                        0 => limiter.run(work),
                        _ => limiter.enter(Box::new(move |_permit| work())),
                    }
                }
            });
        }
    });
    // Whoever was the last to free has run what was queued.
    check_is_unused(&limiter);
    assert_eq!(done.1.try_iter().count(), 4 * ROUNDS);
}

#[test]
fn permit_that_is_freed_by_the_end_of_a_thread_starts_the_next() {
    thread_local! {
        static KEPT: RefCell<Option<Permit>> = const { RefCell::new(None) };
    }
    let limiter = Limiter::new(1);
    let (tx, rx) = mpsc::channel();
    let thread = thread::spawn({
        let limiter = limiter.clone();
        move || {
            KEPT.set(Some(limiter.acquire()));
            for number in 0..3 {
                let tx = tx.clone();
                limiter.enter(Box::new(move |_permit| tx.send(number).unwrap()));
            }
        }
    });
    thread.join().unwrap();
    assert_eq!(rx.try_iter().collect::<Vec<_>>(), [0, 1, 2]);
    check_is_unused(&limiter);
}

// --- forks ----------------------------------------------------------------------------------------------------------

#[test]
fn copy_of_the_process_begins_with_all_permits_free() {
    let place = Box::leak(Box::new(Global::new()));
    let here = sys::generation();
    let parents = current_in(place, here + 1);
    let limiter = Limiter::new(1);
    let _held = parents.try_acquire(&limiter);
    parents.enter(
        &limiter,
        Box::new(|_permit| unreachable!("it waits in another process")),
    );
    // A thread that does not exist in the copy is in the middle of something.
    parents.while_locked(|| {
        assert!(std::ptr::eq(current_in(place, here + 1), parents));
        let copys = current_in(place, here);
        assert!(!std::ptr::eq(copys, parents));
        let permit = copys.try_acquire(&limiter).unwrap();
        assert!(copys.try_acquire(&limiter).is_none());
        drop(permit);
        assert_eq!(copys.look(&limiter), Seen { free: 1, waiting: 0 });
    });
    assert_eq!(parents.look(&limiter), Seen { free: 0, waiting: 1 });
}

#[test]
fn permit_of_another_process_frees_nothing() {
    let parents = other_table(sys::generation() + 1);
    let limiter = Limiter::new(1);
    let permit = parents.try_acquire(&limiter).unwrap();
    let own = limiter.acquire();
    // It would wait for ever otherwise.
    parents.while_locked(|| drop(permit));
    assert_eq!((parents.look(&limiter).free, limiter.free()), (0, 0));
    drop(own);
    check_is_unused(&limiter);
}

/// A start that forks: its copy never comes back to what is due after it, and has permits of its own to free.
#[test]
fn copy_that_a_start_made_runs_its_own_starts_only() {
    let parents = other_table(sys::generation());
    let limiter = Limiter::new(1);
    let (tx, rx) = mpsc::channel();
    let permit = parents.try_acquire(&limiter);
    let send = |what| {
        let tx = tx.clone();
        Box::new(move |_permit| tx.send(what).unwrap())
    };
    let in_the_copy = {
        let (limiter, in_copy) = (limiter.clone(), send("of the copy"));
        Box::new(move |permit| {
            // What is due after this one is the parent's.
            drop(permit);
            let copys = other_table(sys::generation());
            let permit = copys.try_acquire(&limiter);
            copys.enter(&limiter, in_copy);
            drop(permit);
        })
    };
    parents.enter(&limiter, in_the_copy);
    parents.enter(&limiter, send("of the parent"));
    drop(permit);
    assert_eq!(rx.try_iter().collect::<Vec<_>>(), ["of the copy"]);
}
