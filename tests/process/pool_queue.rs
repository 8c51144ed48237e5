//! What waits in a pool: a bounded queue, priorities, and the guard of an idle pool.

use std::sync::mpsc::{TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

use inparallel::{ErrorKind, Limiter, Options, Pool, StartMethod, TaskContext, task};

use crate::harness::POOLS;
use crate::os;
use crate::place::{Host, Place};
use crate::pools::{LONG, end, kind, pool, say, stay};
use crate::tasks::double;

trials! {
    warm on POOLS => {
        full_queue_hands_the_call_back,
        submission_waits_until_there_is_room,
        submission_waits_no_longer_than_it_may,
        cancelled_task_makes_room,
        closing_wakes_those_that_wait_for_room,
        many_threads_share_a_bounded_queue,
        map_needs_no_room_in_the_queue,
        tasks_that_wait_for_a_permit_take_room,
        task_that_rests_takes_room_until_it_runs_again,
        smaller_priorities_run_first,
        equal_priorities_run_in_order,
        idle_guard_holds_back_new_tasks,
        idle_guard_waits_for_every_task,
        idle_guard_is_not_given_in_time,
    }
}

/// A pool with one worker, which runs task 0, and a full queue.
fn full(method: StartMethod, host: &mut Host, queue: u32) -> (Pool, Vec<inparallel::TaskFuture<u32>>) {
    let pool = Pool::builder()
        .workers(1)
        .start(method)
        .queue(queue as usize)
        .build()
        .unwrap();
    let mut futures = vec![pool.submit(stay::later(host.place(), 0)).unwrap()];
    assert_eq!(host.hear(), "0");
    futures.extend((1..=queue).map(|x| pool.submit(stay::later(host.place(), x)).unwrap()));
    (pool, futures)
}

fn finish(host: &mut Host, pool: Pool, futures: Vec<inparallel::TaskFuture<u32>>) {
    host.release(futures.len());
    host.arrivals(futures.len() - 1);
    for (future, x) in futures.into_iter().zip(0..) {
        assert_eq!(future.wait().unwrap(), x);
    }
    end(pool);
}

fn full_queue_hands_the_call_back(method: StartMethod) {
    let mut host = Host::new();
    let (pool, mut futures) = full(method, &mut host, 3);
    let rejected = pool.try_submit(stay::later(host.place(), 4)).unwrap_err();
    assert_eq!(rejected.error.kind(), ErrorKind::Full);
    assert!(rejected.to_string().contains('3'), "{rejected}");
    assert!(rejected.call.name().ends_with("::stay"));
    let source = std::error::Error::source(&*rejected).unwrap();
    assert_eq!(source.to_string(), rejected.to_string());
    assert_eq!((pool.stats().submitted, pool.stats().queued), (4, 3));
    host.release(1);
    assert_eq!(host.hear(), "1");
    // The first has ended, and what it held is free.
    assert_eq!(futures[0].wait_timeout(LONG).unwrap(), Some(0));
    drop(futures.remove(0));
    futures.push(pool.try_submit(rejected.call).unwrap());
    host.release(futures.len());
    host.arrivals(3);
    for (future, x) in futures.into_iter().zip(1..) {
        assert_eq!(future.wait().unwrap(), x);
    }
    end(pool);
}

fn submission_waits_until_there_is_room(method: StartMethod) {
    let mut host = Host::new();
    let (pool, mut futures) = full(method, &mut host, 2);
    let (tx, rx) = channel();
    let (place, other) = (host.place(), pool.clone());
    let submitter = thread::spawn(move || {
        for x in 3..6 {
            tx.send(other.submit(stay::later(place.clone(), x)).unwrap())
                .unwrap();
        }
    });
    assert_eq!(rx.try_recv().unwrap_err(), TryRecvError::Empty);
    for x in 3..6 {
        assert!(pool.stats().queued <= 2);
        host.release(1);
        assert_eq!(host.hear(), (x - 2).to_string());
        futures.push(rx.recv().unwrap());
    }
    submitter.join().unwrap();
    host.release(3);
    host.arrivals(2);
    for (future, x) in futures.into_iter().zip(0..) {
        assert_eq!(future.wait().unwrap(), x);
    }
    end(pool);
}

fn submission_waits_no_longer_than_it_may(method: StartMethod) {
    let mut host = Host::new();
    let (pool, futures) = full(method, &mut host, 1);
    for limit in [Duration::ZERO, Duration::from_millis(20)] {
        let begun = Instant::now();
        let rejected = pool.submit_timeout(double::later(1), limit).unwrap_err();
        assert_eq!(rejected.error.kind(), ErrorKind::Full);
        assert!(begun.elapsed() >= limit);
    }
    futures[1].cancel();
    let call = say::later(host.place(), "in".into());
    let future = pool.submit_timeout(call, Duration::MAX).unwrap();
    host.release(1);
    future.wait().unwrap();
    assert_eq!(host.hear(), "in");
    end(pool);
}

fn cancelled_task_makes_room(method: StartMethod) {
    let mut host = Host::new();
    let (pool, futures) = full(method, &mut host, 1);
    let canceller = futures[1].canceller();
    let other = thread::spawn(move || assert!(canceller.cancel()));
    // It waits for that.
    let late = pool.submit(double::later(4)).unwrap();
    other.join().unwrap();
    host.release(1);
    assert_eq!(late.wait().unwrap(), 8);
    let kinds: Vec<_> = futures.into_iter().map(|future| kind(future.wait())).collect();
    assert_eq!(kinds, [Ok(0), Err(ErrorKind::Cancelled)]);
    end(pool);
}

fn closing_wakes_those_that_wait_for_room(method: StartMethod) {
    let mut host = Host::new();
    let (pool, futures) = full(method, &mut host, 1);
    let other = pool.clone();
    let submitter = thread::spawn(move || other.submit(double::later(1)).map(drop).unwrap_err().kind());
    pool.close();
    assert_eq!(submitter.join().unwrap(), ErrorKind::Closed);
    finish(&mut host, pool, futures);
}

fn many_threads_share_a_bounded_queue(method: StartMethod) {
    let pool = Pool::builder().workers(2).start(method).queue(2).build().unwrap();
    thread::scope(|scope| {
        for start in (0..400).step_by(100) {
            let pool = &pool;
            scope.spawn(move || {
                for x in start..start + 100 {
                    let future = pool.submit(double::later(x)).unwrap();
                    if x % 3 == 0 {
                        future.detach();
                    } else {
                        assert_eq!(future.wait().unwrap(), x * 2);
                    }
                }
            });
        }
    });
    assert_eq!(pool.stats().submitted, 400);
    end(pool);
}

fn map_needs_no_room_in_the_queue(method: StartMethod) {
    let mut host = Host::new();
    let (pool, mut futures) = full(method, &mut host, 1);
    host.release(2);
    let map = pool.map(double::later, 0..50).chunk_size(1).unwrap();
    assert!(map.map(Result::unwrap).eq((0..50).map(|x| x * 2)));
    assert_eq!(host.hear(), "1");
    futures.drain(..).for_each(|future| _ = future.wait().unwrap());
    end(pool);
}

fn tasks_that_wait_for_a_permit_take_room(method: StartMethod) {
    let limiter = Limiter::new(1);
    let permit = limiter.acquire();
    let pool = Pool::builder().workers(1).start(method).queue(2).build().unwrap();
    let mut limited: Vec<_> = (0..2)
        .map(|x| pool.submit(double::with().limit(&limiter).call_later(x)).unwrap())
        .collect();
    let rejected = pool.try_submit(double::later(1)).unwrap_err();
    assert_eq!(rejected.error.kind(), ErrorKind::Full);
    limited[0].cancel();
    // There is room for one, which a thread waited for.
    assert_eq!(pool.submit(double::later(5)).unwrap().wait().unwrap(), 10);
    drop(permit);
    assert_eq!(limited.remove(1).wait().unwrap(), 2);
    end(pool);
}

/// Fails at once, and the second time waits to be released.
#[task]
fn fail_then_stay(context: &TaskContext, place: Place) {
    assert!(context.attempt() > 1, "the first attempt fails");
    stay::inline(place, 2);
}

fn task_that_rests_takes_room_until_it_runs_again(method: StartMethod) {
    let mut host = Host::new();
    let pool = Pool::builder().workers(1).start(method).queue(1).build().unwrap();
    let again = fail_then_stay::with().retries(1).retry_on(ErrorKind::Panicked);
    let again = again.backoff(Duration::from_millis(100)).call_later(host.place());
    let again = pool.submit(again).unwrap();
    os::eventually(|| match again.attempt() {
        2 => Ok(()),
        attempt => Err(format!("it is at attempt {attempt}")),
    });
    // It rests, and nobody has room; until it runs again, whatever it does then.
    let next = pool.submit(double::later(2)).unwrap();
    assert_eq!(host.hear(), "2");
    host.release(1);
    again.wait().unwrap();
    assert_eq!(next.wait().unwrap(), 4);
    end(pool);
}

fn order(method: StartMethod, priorities: &[i32], wanted: &[&str]) {
    let mut host = Host::new();
    let pool = pool(method, 1);
    let first = pool.submit(stay::later(host.place(), 0)).unwrap();
    assert_eq!(host.hear(), "0");
    let futures: Vec<_> = priorities
        .iter()
        .zip(0..)
        .map(|(priority, number)| {
            let call = say::later(host.place(), format!("{priority}/{number}"));
            pool.submit(call.with(Options::new().priority(*priority)))
                .unwrap()
        })
        .collect();
    assert_eq!(pool.stats().next_priority, priorities.iter().min().copied());
    host.release(1);
    first.wait().unwrap();
    futures.into_iter().for_each(|future| future.wait().unwrap());
    let said: Vec<_> = priorities.iter().map(|_| host.hear()).collect();
    assert_eq!(said, wanted);
    assert_eq!(pool.stats().next_priority, None);
    end(pool);
}

fn smaller_priorities_run_first(method: StartMethod) {
    let priorities = [1, 0, i32::MAX, -1, 1, i32::MIN, 0];
    let first = format!("{}/5", i32::MIN);
    let last = format!("{}/2", i32::MAX);
    order(
        method,
        &priorities,
        &[&first, "-1/3", "0/1", "0/6", "1/0", "1/4", &last],
    );
}

fn equal_priorities_run_in_order(method: StartMethod) {
    for priority in [0, 5] {
        let wanted: Vec<_> = (0..8).map(|number| format!("{priority}/{number}")).collect();
        let wanted: Vec<_> = wanted.iter().map(String::as_str).collect();
        order(method, &[priority; 8], &wanted);
    }
}

fn idle_guard_holds_back_new_tasks(method: StartMethod) {
    let pool = pool(method, 1);
    let guard = pool.wait_idle(None).unwrap();
    let second = pool.wait_idle(Duration::ZERO).unwrap();
    assert!(format!("{guard:?}").contains("the pool"));
    assert_eq!(
        pool.try_submit(double::later(1)).unwrap_err().error.kind(),
        ErrorKind::Full
    );
    let late = pool
        .submit_timeout(double::later(1), Duration::from_millis(1))
        .unwrap_err();
    assert_eq!(late.error.kind(), ErrorKind::Full);
    let other = pool.clone();
    let submitter = thread::spawn(move || other.submit(double::later(3)).unwrap().wait().unwrap());
    drop(guard);
    assert_eq!(pool.stats().submitted, 0, "there is another");
    drop(second);
    assert_eq!(submitter.join().unwrap(), 6);
    end(pool);
}

fn idle_guard_waits_for_every_task(method: StartMethod) {
    let mut host = Host::new();
    let pool = pool(method, 2);
    for x in 0..6 {
        pool.submit(stay::later(host.place(), x)).unwrap().detach();
    }
    let limiter = Limiter::new(1);
    let permit = limiter.acquire();
    let limited = double::with().limit(&limiter).call_later(2);
    let limited = pool.submit(limited).unwrap();
    host.release(6);
    host.arrivals(6);
    assert!(
        pool.wait_idle(Duration::from_millis(1)).is_none(),
        "one waits for its permit"
    );
    drop(permit);
    let guard = pool.wait_idle(None).unwrap();
    assert!(limited.is_done());
    assert_eq!(pool.stats().unfinished, 0);
    drop(guard);
    assert_eq!(pool.submit(double::later(5)).unwrap().wait().unwrap(), 10);
    end(pool);
}

fn idle_guard_is_not_given_in_time(method: StartMethod) {
    let mut host = Host::new();
    let pool = pool(method, 1);
    let future = pool.submit(stay::later(host.place(), 1)).unwrap();
    host.hear();
    assert!(pool.wait_idle(Duration::from_millis(5)).is_none());
    // Nothing is held back by an attempt.
    let other = pool.try_submit(double::later(2)).unwrap();
    host.release(1);
    assert_eq!((future.wait().unwrap(), other.wait().unwrap()), (1, 4));
    end(pool);
}
