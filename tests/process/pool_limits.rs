//! Limiters and retries, with pools and without.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use inparallel::{ErrorKind, Limiter, Options, StartMethod, TaskContext, TaskFuture, limit, task};

use crate::harness::{FORK, POOLS, PROGRAM, REMOTE};
use crate::os;
use crate::place::{Host, Place};
use crate::pools::{LONG, end, kind, pool, say, stay};
use crate::tasks::{Death, die, double, meet, own_pid};

trials! {
    warm on POOLS => {
        limited_tasks_run_so_many_at_once,
        limited_tasks_of_a_pool_occupy_no_worker,
        permit_is_free_after_a_task_that_ends_in_itself,
        permit_is_free_as_soon_as_the_end_is_seen,
        task_cancelled_while_it_waits_for_a_permit_never_starts,
        limiter_is_shared_by_whoever_names_it,
        limited_tasks_count_as_active,
        wanted_errors_are_tried_again,
        unwanted_errors_are_not_tried_again,
        back_off_keeps_no_worker_busy,
        task_cancelled_between_two_attempts_never_runs_again,
        permit_is_held_through_all_attempts,
    }
    warm on REMOTE => {
        permit_is_free_after_every_death,
        crash_is_tried_again_until_it_does_not,
        last_crash_is_the_error,
        time_limit_is_tried_again_if_that_is_asked_for,
        cancelled_task_is_not_tried_again,
    }
    warm on FORK => { forked_call_waits_for_its_permit }
    warm on PROGRAM => { attribute_limits_plain_functions }
}

/// By a pool and by itself.
fn both(method: StartMethod, run: impl Fn(&dyn Fn(inparallel::Call<u32>) -> TaskFuture<u32>)) {
    let pool = pool(method, 4);
    run(&|call| pool.submit(call).unwrap());
    end(pool);
    run(&|call| call.with(Options::new().start(method)).start());
    assert!(inparallel::wait_idle(LONG));
}

fn limited_tasks_run_so_many_at_once(method: StartMethod) {
    both(method, |start| {
        let mut host = Host::new();
        let limiter = Limiter::new(2);
        let futures: Vec<_> = (0..6)
            .map(|x| start(stay::with().limit(&limiter).call_later(host.place(), x)))
            .collect();
        // In the order in which they were asked for.
        let mut begun = host.arrivals(2);
        begun.sort_unstable();
        assert_eq!((begun, limiter.free()), (vec![0, 1], 0));
        for next in 2..6 {
            assert!(!host.has_news());
            host.release(1);
            assert_eq!(host.hear(), next.to_string());
        }
        host.release(2);
        for (future, x) in futures.into_iter().zip(0..) {
            assert_eq!(future.wait().unwrap(), x);
        }
        assert_eq!(limiter.free(), 2);
    });
}

fn limited_tasks_of_a_pool_occupy_no_worker(method: StartMethod) {
    let limiter = Limiter::new(1);
    let permit = limiter.acquire();
    let pool = pool(method, 1);
    let limited: Vec<_> = (0..5)
        .map(|x| pool.submit(double::with().limit(&limiter).call_later(x)).unwrap())
        .collect();
    let stats = pool.stats();
    assert_eq!((stats.workers_made, stats.queued, stats.unfinished), (0, 0, 5));
    for x in 0..5 {
        assert_eq!(pool.submit(double::later(x)).unwrap().wait().unwrap(), x * 2);
    }
    assert!(limited.iter().all(|future| !future.is_done()));
    drop(permit);
    for (future, x) in limited.into_iter().zip(0..) {
        assert_eq!(future.wait().unwrap(), x * 2);
    }
    end(pool);
}

#[task]
fn fail(how: u32) -> Result<u32, String> {
    match how {
        0 => Ok(0),
        1 => Err("an error".into()),
        _ => panic!("a panic"),
    }
}

struct Shy;

impl serde::Serialize for Shy {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("shy"))
    }
}

impl<'de> serde::Deserialize<'de> for Shy {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Shy, D::Error> {
        Err(serde::de::Error::custom("shy"))
    }
}

#[task]
fn take_shy(shy: Shy) {
    let Shy = shy;
}

#[task]
fn give_shy() -> Shy {
    Shy
}

/// With one permit the next task runs only if the one before it gave that back; and at once when its future has ended.
fn permit_is_free_after_a_task_that_ends_in_itself(method: StartMethod) {
    let limiter = Limiter::new(1);
    let pool = pool(method, 1);
    let options = || Options::new().limit(&limiter);
    for how in 0..3 {
        let _ = pool.submit(fail::later(how).with(options())).unwrap().wait();
        assert_eq!(limiter.free(), 1, "{how}");
        let _ = fail::later(how).with(options().start(method)).start().wait();
        assert_eq!(limiter.free(), 1, "{how}");
    }
    // Neither argument nor result can be encoded.
    let error = pool
        .submit(take_shy::later(Shy).with(options()))
        .map(drop)
        .unwrap_err();
    assert_eq!(
        (error.kind(), limiter.free()),
        (ErrorKind::ArgumentNotEncodable, 1)
    );
    let error = take_shy::with()
        .limit(&limiter)
        .start(method)
        .call(Shy)
        .wait()
        .unwrap_err();
    assert_eq!(
        (error.kind(), limiter.free()),
        (ErrorKind::ArgumentNotEncodable, 1)
    );
    let shy = pool.submit(give_shy::later().with(options())).unwrap();
    assert_eq!(
        (kind(shy.wait().map(drop)), limiter.free()),
        (Err(ErrorKind::ResultNotEncodable), 1)
    );
    // A pool that takes nothing.
    pool.close();
    let error = pool.submit(double::later(1).with(options())).unwrap_err();
    assert_eq!((error.kind(), limiter.free()), (ErrorKind::Closed, 1));
    end(pool);
}

/// Nobody is woken here: the end is seen at the moment when it is to be seen.
fn permit_is_free_as_soon_as_the_end_is_seen(method: StartMethod) {
    let limiter = Limiter::new(1);
    let pool = pool(method, 1);
    for x in 0..500 {
        let future = pool.submit(double::with().limit(&limiter).call_later(x)).unwrap();
        while !future.is_done() {
            std::hint::spin_loop();
        }
        assert_eq!(limiter.free(), 1);
        assert_eq!(future.wait().unwrap(), x * 2);
    }
    end(pool);
}

fn permit_is_free_after_every_death(method: StartMethod) {
    let mut host = Host::new();
    let limiter = Limiter::new(1);
    let pool = pool(method, 1);
    let place = host.place();
    let start = |in_pool, options: Options, call: inparallel::Call<u32>| {
        let call = call.with(options.limit(&limiter).grace(Duration::ZERO));
        match in_pool {
            true => pool.submit(call).unwrap(),
            false => call.with(Options::new().start(method)).start(),
        }
    };
    for in_pool in [true, false] {
        for death in [
            Death::Exit(0),
            Death::ExitNow(1),
            Death::Signal(libc::SIGKILL),
            Death::Abort,
        ] {
            let future = start(in_pool, Options::new(), die::later(place.clone(), death));
            host.arrival();
            assert!(future.wait().is_err());
            assert_eq!(limiter.free(), 1, "{death:?}");
        }
        let late = Options::new().timeout(Duration::from_millis(20));
        let late = start(in_pool, late, hang::later(place.clone()));
        assert_eq!((kind(late.wait()), limiter.free()), (Err(ErrorKind::TimedOut), 1));
        let cancelled = start(in_pool, Options::new(), meet::later(place.clone()));
        host.arrival();
        let next = start(in_pool, Options::new(), own_pid::later());
        assert!(cancelled.cancel());
        assert_eq!(kind(cancelled.wait()), Err(ErrorKind::Cancelled));
        next.wait().unwrap();
        // Dropped with its future.
        drop(start(
            in_pool,
            Options::new().kill_on_drop(),
            meet::later(place.clone()),
        ));
        start(in_pool, Options::new(), own_pid::later()).wait().unwrap();
        assert_eq!(limiter.free(), 1);
        while host.has_news() {
            host.hear();
        }
    }
    // And with the pool.
    let killed = start(true, Options::new(), meet::later(place.clone()));
    let waits = start(true, Options::new(), meet::later(place.clone()));
    assert!(pool.shutdown(inparallel::Shutdown::Kill, LONG));
    assert_eq!(kind(killed.wait()), Err(ErrorKind::Cancelled));
    assert_eq!(kind(waits.wait()), Err(ErrorKind::Cancelled));
    assert_eq!(limiter.free(), 1);
    // Of a program that is no worker.
    if method == StartMethod::Spawn {
        let with = own_pid::with().limit(&limiter).start(method).program("/nowhere");
        assert_eq!(
            (kind(with.call().wait()), limiter.free()),
            (Err(ErrorKind::Launch), 1)
        );
    }
}

#[task]
fn hang(place: Place) -> u32 {
    place.wait_for_go();
    0
}

fn task_cancelled_while_it_waits_for_a_permit_never_starts(method: StartMethod) {
    both(method, |start| {
        let mut host = Host::new();
        let limiter = Limiter::new(1);
        let permit = limiter.acquire();
        let waiting: Vec<_> = (0..5)
            .map(|x| start(stay::with().limit(&limiter).call_later(host.place(), x)))
            .collect();
        for future in &waiting[..4] {
            assert!(future.cancel());
            assert!(future.is_done());
        }
        drop(permit);
        assert_eq!(host.hear(), "4");
        host.release(1);
        let kinds: Vec<_> = waiting.into_iter().map(|future| kind(future.wait())).collect();
        assert_eq!(kinds[..4], [Err(ErrorKind::Cancelled); 4]);
        assert_eq!(kinds[4], Ok(4));
        assert_eq!(limiter.free(), 1);
    });
}

static SHARED: Limiter = Limiter::new(1);

#[task(limit = SHARED)]
fn first(place: Place) -> u32 {
    stay::inline(place, 1)
}

#[task(limit = SHARED)]
fn second(place: Place) -> u32 {
    stay::inline(place, 2)
}

#[task(limit = 1)]
fn third(place: Place) -> u32 {
    stay::inline(place, 3)
}

fn limiter_is_shared_by_whoever_names_it(method: StartMethod) {
    both(method, |start| {
        let mut host = Host::new();
        let one = start(first::later(host.place()));
        assert_eq!(host.hear(), "1");
        let two = start(second::later(host.place()));
        // One of its own waits for nobody.
        let three = start(third::later(host.place()));
        assert_eq!(host.hear(), "3");
        assert!(!host.has_news());
        assert_eq!(SHARED.free(), 0);
        host.release(3);
        assert_eq!(host.hear(), "2");
        for (future, x) in [one, two, three].into_iter().zip(1..) {
            assert_eq!(future.wait().unwrap(), x);
        }
        assert_eq!(SHARED.free(), 1);
    });
}

/// Who waits for the end of all tasks also waits for those that have no permit yet, or rest.
fn limited_tasks_count_as_active(method: StartMethod) {
    both(method, |start| {
        let mut host = Host::new();
        let limiter = Limiter::new(1);
        let permit = limiter.acquire();
        start(say_one::with().limit(&limiter).call_later(host.place())).detach();
        assert!(!inparallel::wait_idle(Duration::from_millis(1)));
        drop(permit);
        assert!(inparallel::wait_idle(LONG));
        assert!(host.has_news());
        host.hear();
        let again = Options::new()
            .retries(1)
            .retry_on(ErrorKind::Panicked)
            .backoff(Duration::from_millis(20));
        start(say_twice::later(host.place()).with(again)).detach();
        host.hear();
        assert!(inparallel::wait_idle(LONG));
        assert!(host.has_news(), "the second attempt was not waited for");
    });
}

#[task]
fn say_one(place: Place) -> u32 {
    place.say("1");
    1
}

#[task]
fn say_twice(context: &TaskContext, place: Place) -> u32 {
    place.say("once");
    assert!(context.attempt() > 1, "the first attempt fails");
    1
}

/// Fails in the given ways, one attempt after the other, then gives the number of the attempt.
#[task]
fn fail_at_first(context: &TaskContext, place: Place, ways: Vec<Way>) -> Result<u32, String> {
    place.say(&format!("attempt {}", context.attempt()));
    match ways.get(context.attempt() as usize - 1) {
        None => Ok(context.attempt()),
        Some(Way::Err) => Err(format!("not at attempt {}", context.attempt())),
        Some(Way::Panic) => panic!("not at attempt {}", context.attempt()),
        Some(Way::Die) => Ok(Death::Signal(libc::SIGKILL).happen()),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
enum Way {
    Err,
    Panic,
    Die,
}
use Way::{Err as Fails, Panic as Panics};

type Attempted = Result<Result<u32, String>, (ErrorKind, u32)>;

/// By a pool and by itself; how it ended, and after how many attempts.
fn attempts(method: StartMethod, options: &Options, ways: &[Way]) -> Attempted {
    let pool = pool(method, 1);
    let mut ended = Vec::new();
    for in_pool in [true, false] {
        let mut host = Host::new();
        let call = fail_at_first::later(host.place(), ways.to_vec()).with(options.clone());
        let mut future = match in_pool {
            true => pool.submit(call).unwrap(),
            false => call.with(Options::new().start(method)).start(),
        };
        let begun = Instant::now();
        let result = future.wait_timeout(LONG);
        assert!(begun.elapsed() < LONG, "nobody told of the end");
        let result = match result {
            Ok(value) => Ok(value.unwrap()),
            Err(error) => {
                assert_eq!(error.attempt(), future.attempt());
                Err((error.kind(), error.attempt()))
            }
        };
        for attempt in 1..=future.attempt() {
            assert_eq!(host.hear(), format!("attempt {attempt}"));
        }
        assert!(!host.has_news());
        ended.push(result);
    }
    end(pool);
    assert_eq!(ended[0], ended[1], "in a pool and by itself");
    ended.remove(0)
}

fn wanted_errors_are_tried_again(method: StartMethod) {
    let three = || Options::new().retries(3);
    let panics = three().retry_on(ErrorKind::Panicked);
    assert_eq!(attempts(method, &panics, &[Panics, Panics]), Ok(Ok(3)));
    assert_eq!(attempts(method, &panics, &[]), Ok(Ok(1)));
    assert_eq!(
        attempts(method, &panics, &[Panics; 4]),
        Err((ErrorKind::Panicked, 4))
    );
    let errors = three().retry_errors();
    assert_eq!(attempts(method, &errors, &[Fails, Fails]), Ok(Ok(3)));
    assert_eq!(
        attempts(method, &errors, &[Fails; 9]),
        Ok(Err("not at attempt 4".into()))
    );
    assert_eq!(
        attempts(method, &errors.retry_on(ErrorKind::Panicked), &[Fails, Panics]),
        Ok(Ok(3))
    );
    let begun = Instant::now();
    let slow = panics.backoff(Duration::from_millis(5));
    assert_eq!(attempts(method, &slow, &[Panics; 3]), Ok(Ok(4)));
    assert!(begun.elapsed() >= Duration::from_millis(2 * (5 + 10 + 20)));
}

fn unwanted_errors_are_not_tried_again(method: StartMethod) {
    let three = Options::new().retries(3);
    assert_eq!(attempts(method, &three, &[Panics]), Err((ErrorKind::Panicked, 1)));
    assert_eq!(
        attempts(method, &three, &[Fails]),
        Ok(Err("not at attempt 1".into()))
    );
    let none = Options::new().retries(0);
    assert_eq!(attempts(method, &none, &[Panics]), Err((ErrorKind::Panicked, 1)));
    let errors = three.retry_errors();
    assert_eq!(
        attempts(method, &errors, &[Fails, Panics]),
        Err((ErrorKind::Panicked, 2))
    );
}

fn crash_is_tried_again_until_it_does_not(method: StartMethod) {
    let two = Options::new().retries(2);
    assert_eq!(attempts(method, &two, &[Way::Die, Way::Die]), Ok(Ok(3)));
    assert_eq!(attempts(method, &two, &[Way::Die]), Ok(Ok(2)));
}

fn last_crash_is_the_error(method: StartMethod) {
    let two = Options::new().retries(2);
    assert_eq!(
        attempts(method, &two, &[Way::Die; 9]),
        Err((ErrorKind::Signaled, 3))
    );
    assert_eq!(
        attempts(method, &two, &[Way::Die, Panics]),
        Err((ErrorKind::Panicked, 2))
    );
}

/// Hangs at first.
#[task]
fn hang_at_first(context: &TaskContext, place: Place) -> u32 {
    if context.attempt() == 1 {
        place.wait_for_go();
    }
    context.attempt()
}

fn time_limit_is_tried_again_if_that_is_asked_for(method: StartMethod) {
    both(method, |start| {
        let host = Host::new();
        let limit = Duration::from_millis(200);
        let options = Options::new().timeout(limit).grace(Duration::ZERO).retries(50);
        let error = start(hang_at_first::later(host.place()).with(options.clone()))
            .wait()
            .unwrap_err();
        assert_eq!((error.kind(), error.attempt()), (ErrorKind::TimedOut, 1));
        let options = options.retry_on(ErrorKind::TimedOut);
        // On a busy machine the limit may be too short even for an attempt that does nothing.
        let attempt = start(hang_at_first::later(host.place()).with(options))
            .wait()
            .unwrap();
        assert!(attempt >= 2);
    });
}

fn cancelled_task_is_not_tried_again(method: StartMethod) {
    both(method, |start| {
        let mut host = Host::new();
        let call = meet::with()
            .retries(5)
            .retry_on(ErrorKind::Cancelled)
            .call_later(host.place());
        let future = start(call);
        host.arrival();
        assert!(future.cancel());
        let error = future.wait().unwrap_err();
        assert_eq!((error.kind(), error.attempt()), (ErrorKind::Cancelled, 1));
        assert!(!host.has_news());
    });
}

fn back_off_keeps_no_worker_busy(method: StartMethod) {
    let mut host = Host::new();
    let pool = pool(method, 1);
    let options = Options::new()
        .retries(1)
        .retry_on(ErrorKind::Panicked)
        .backoff(LONG * 10);
    let call = fail_at_first::later(host.place(), vec![Panics]).with(options);
    let resting = pool.submit(call).unwrap();
    assert_eq!(host.hear(), "attempt 1");
    for x in 0..5 {
        assert_eq!(pool.submit(double::later(x)).unwrap().wait().unwrap(), x * 2);
    }
    assert_eq!((resting.attempt(), resting.is_done()), (2, false));
    os::eventually(|| match (pool.stats().unfinished, pool.stats().running) {
        (1, 0) => Ok(()),
        stats => Err(format!("{stats:?}")),
    });
    assert!(resting.cancel() && resting.is_done());
    assert_eq!(pool.stats().unfinished, 0);
    end(pool);
}

fn task_cancelled_between_two_attempts_never_runs_again(method: StartMethod) {
    let pool = pool(method, 1);
    for in_pool in [true, false] {
        let mut host = Host::new();
        let options = Options::new()
            .retries(1)
            .retry_on(ErrorKind::Panicked)
            .backoff(LONG * 10);
        let call = fail_at_first::later(host.place(), vec![Panics]).with(options);
        let future = match in_pool {
            true => pool.submit(call).unwrap(),
            false => call.with(Options::new().start(method)).start(),
        };
        os::eventually(|| match future.attempt() {
            2 => Ok(()),
            attempt => Err(format!("it is at attempt {attempt}")),
        });
        assert!(future.cancel());
        let error = future.wait().unwrap_err();
        assert_eq!((error.kind(), error.attempt()), (ErrorKind::Cancelled, 2));
        assert_eq!(host.hear(), "attempt 1");
        assert!(!host.has_news());
    }
    end(pool);
    assert!(inparallel::wait_idle(LONG));
}

/// Nobody else runs between two attempts.
fn permit_is_held_through_all_attempts(method: StartMethod) {
    let mut host = Host::new();
    let limiter = Limiter::new(1);
    let pool = pool(method, 2);
    let options = Options::new()
        .retries(1)
        .retry_on(ErrorKind::Panicked)
        .limit(&limiter);
    let call = fail_at_first::later(host.place(), vec![Panics]).with(options);
    let future = pool.submit(call).unwrap();
    let other = pool.submit(say::later(host.place(), "other".into()).with(Options::new().limit(&limiter)));
    assert_eq!(future.wait().unwrap(), Ok(2));
    other.unwrap().wait().unwrap();
    let said: Vec<_> = (0..3).map(|_| host.hear()).collect();
    assert_eq!(said, ["attempt 1", "attempt 2", "other"]);
    assert_eq!(limiter.free(), 1);
    end(pool);
}

fn forked_call_waits_for_its_permit(method: StartMethod) {
    let mut host = Host::new();
    let limiter = Limiter::new(1);
    let place = host.place();
    let start = || meet::with().start(method).limit(&limiter).call(place.clone());
    let first = start();
    assert_eq!(limiter.free(), 0);
    host.release(1);
    // The call itself waits: it forks when the permit is there.
    let second = start();
    first.wait().unwrap();
    host.release(1);
    second.wait().unwrap();
    host.arrivals(2);
    assert_eq!(limiter.free(), 1);
}

static RUNNING: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

#[limit(2)]
fn limited(x: u32, y: u32) -> u32 {
    let now = RUNNING.fetch_add(1, Ordering::SeqCst) + 1;
    MOST.fetch_max(now, Ordering::SeqCst);
    thread::yield_now();
    RUNNING.fetch_sub(1, Ordering::SeqCst);
    x * 10 + y
}

fn attribute_limits_plain_functions(_: StartMethod) {
    thread::scope(|scope| {
        for x in 0..8 {
            scope.spawn(move || {
                for y in 0..50 {
                    assert_eq!(limited(x, y), x * 10 + y);
                }
            });
        }
    });
    assert!((1..=2).contains(&MOST.load(Ordering::SeqCst)));
}
