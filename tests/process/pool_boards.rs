//! Tasks that a pool hands to its workers ahead: short ones are at hand by the dozen, behind one that takes long as well. What
//! is promised of a queued task holds for them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use inparallel::{ErrorKind, Pool, StartMethod, TaskContext, TaskFuture, task};

use crate::harness::{POOLS, REMOTE};
use crate::os;
use crate::place::{Host, Place};
use crate::pools::{LONG, end, kind, stay};
use crate::tasks::{Death, double};

trials! {
    warm on POOLS => {
        tasks_at_hand_are_cancelled_before_they_begin,
        better_priority_goes_before_tasks_at_hand,
        worker_that_runs_dry_takes_over_from_one_that_is_busy,
        results_of_a_stream_come_to_whoever_wants_them,
        rapid_submissions_are_answered_though_nobody_waits,
        wait_ends_at_its_deadline_while_tasks_go_on,
        closed_pool_runs_what_is_at_hand,
        cancelled_pool_drops_what_is_at_hand,
        results_of_every_length_come_whole,
        nobody_looks_at_a_worker_again_and_again,
    }
    warm on REMOTE => {
        death_takes_the_running_task_alone,
        time_limit_ends_the_running_task_alone,
        cancel_ends_the_running_task_alone,
        cancel_reaches_a_task_behind_an_answer_that_is_not_read,
        copy_of_a_worker_answers_nothing,
        killed_worker_gives_its_tasks_back,
        worker_whose_call_is_taken_back_takes_over_from_one_that_is_busy,
        waits_of_many_threads_end,
    }
}

/// A pool whose workers have been busy with tasks that take no time, and `busy` of which are now at one that waits.
fn quick(method: StartMethod, workers: usize, host: &mut Host, busy: usize) -> (Pool, Vec<TaskFuture<u32>>) {
    let pool = Pool::builder()
        .workers(workers)
        .min_workers(workers)
        .prestart(true)
        .start(method)
        .build()
        .unwrap();
    for _ in 0..3 {
        let futures: Vec<_> = (0..500).map(|x| pool.submit(double::later(x)).unwrap()).collect();
        for (future, x) in futures.into_iter().zip(0..) {
            assert_eq!(future.wait().unwrap(), x * 2);
        }
    }
    let held = (0..busy)
        .map(|x| pool.submit(stay::later(host.place(), x as u32)).unwrap())
        .collect();
    for _ in 0..busy {
        host.hear();
    }
    (pool, held)
}

/// Says its number and gives it.
#[task]
fn note(place: Place, number: u32) -> u32 {
    place.say(&number.to_string());
    number
}

fn notes(pool: &Pool, host: &Host, count: u32) -> Vec<TaskFuture<u32>> {
    (0..count)
        .map(|x| pool.submit(note::later(host.place(), x)).unwrap())
        .collect()
}

fn heard(host: &mut Host, count: usize) -> Vec<u32> {
    (0..count).map(|_| host.hear().parse().unwrap()).collect()
}

fn tasks_at_hand_are_cancelled_before_they_begin(method: StartMethod) {
    let mut host = Host::new();
    let (pool, held) = quick(method, 1, &mut host, 1);
    let futures = notes(&pool, &host, 40);
    for future in futures.iter().step_by(2) {
        assert!(future.cancel());
        assert!(
            future.is_done(),
            "what has not begun has ended when `cancel` returns"
        );
    }
    host.release(1);
    assert_eq!(heard(&mut host, 20), (1..40).step_by(2).collect::<Vec<_>>());
    for (future, x) in futures.into_iter().zip(0..) {
        match x % 2 {
            0 => assert_eq!(kind(future.wait()), Err(ErrorKind::Cancelled)),
            _ => assert_eq!(future.wait().unwrap(), x),
        }
    }
    for future in held {
        future.wait().unwrap();
    }
    end(pool);
    assert!(!host.has_news(), "a cancelled task ran");
}

fn better_priority_goes_before_tasks_at_hand(method: StartMethod) {
    let mut host = Host::new();
    let (pool, held) = quick(method, 1, &mut host, 1);
    let mut futures = notes(&pool, &host, 20);
    for x in [100, 101] {
        let first = note::with().priority(-1).call_later(host.place(), x);
        futures.push(pool.submit(first).unwrap());
    }
    let last = note::with().priority(1).call_later(host.place(), 102);
    futures.push(pool.submit(last).unwrap());
    host.release(1);
    let wanted: Vec<u32> = [100, 101].into_iter().chain(0..20).chain([102]).collect();
    assert_eq!(heard(&mut host, 23), wanted);
    for future in futures.into_iter().chain(held) {
        future.wait().unwrap();
    }
    end(pool);
}

fn worker_that_runs_dry_takes_over_from_one_that_is_busy(method: StartMethod) {
    let mut host = Host::new();
    let (pool, mut held) = quick(method, 2, &mut host, 2);
    let futures = notes(&pool, &host, 60);
    // One of the two goes on: it does its own, and those of the other.
    host.release(1);
    let all: BTreeSet<u32> = heard(&mut host, 60).into_iter().collect();
    assert_eq!(all, (0..60).collect());
    for (future, x) in futures.into_iter().zip(0..) {
        assert_eq!(future.wait().unwrap(), x);
    }
    host.release(1);
    for future in held.drain(..) {
        future.wait().unwrap();
    }
    end(pool);
}

/// The idle worker is stopped, so that its call does not begin before it is cancelled. Where there are no boards it is ended for
/// that, and another one takes over.
fn worker_whose_call_is_taken_back_takes_over_from_one_that_is_busy(method: StartMethod) {
    for _ in 0..10 {
        let mut host = Host::new();
        let (pool, held) = quick(method, 2, &mut host, 1);
        let busy = held[0].pid();
        let idle = pool.workers().into_iter().find(|worker| worker.pid != busy);
        let idle = idle.unwrap().pid.unwrap();
        os::stop(idle);
        let first = pool.submit(double::later(1)).unwrap();
        let futures = notes(&pool, &host, 1);
        assert!(first.cancel());
        os::send(idle, libc::SIGCONT);
        assert_eq!(heard(&mut host, 1), [0]);
        host.release(1);
        for future in futures.into_iter().chain(held) {
            future.wait().unwrap();
        }
        end(pool);
    }
}

fn results_of_a_stream_come_to_whoever_wants_them(method: StartMethod) {
    let mut host = Host::new();
    let (pool, held) = quick(method, 2, &mut host, 0);
    assert!(held.is_empty());
    // By callbacks, by threads that wait from the end, and by those that only look.
    let (tx, rx) = std::sync::mpsc::channel();
    let futures: Vec<_> = (0..2000)
        .map(|x| {
            let future = pool.submit(double::later(x)).unwrap();
            let tx = tx.clone();
            future.on_done(move |result| tx.send(*result.as_ref().unwrap()).unwrap());
            future
        })
        .collect();
    for (x, future) in futures.into_iter().enumerate().rev() {
        assert_eq!(future.wait().unwrap(), x as u64 * 2);
    }
    drop(tx);
    let told: BTreeSet<u64> = rx.iter().collect();
    assert!(told.into_iter().eq((0..2000).map(|x| x * 2)));
    let futures: Vec<_> = (0..300).map(|x| pool.submit(double::later(x)).unwrap()).collect();
    for mut future in futures {
        os::eventually(|| match future.is_done() {
            true => Ok(()),
            false => Err("it has not ended".to_owned()),
        });
        assert!(future.try_wait().unwrap().is_some());
    }
    end(pool);
}

fn rapid_submissions_are_answered_though_nobody_waits(method: StartMethod) {
    let mut host = Host::new();
    let (pool, _) = quick(method, 2, &mut host, 0);
    let (tx, rx) = std::sync::mpsc::channel();
    for count in [1, 15, 16, 17, 40, 200, 1000].repeat(5) {
        for x in 0..count {
            let tx = tx.clone();
            // Some of another priority go another way.
            let priority = i32::from(x % 50 == 49);
            let call = double::with().priority(priority).call_later(x);
            let future = pool.submit(call).unwrap();
            future.on_done(move |result| tx.send(*result.as_ref().unwrap()).unwrap());
        }
        let told: BTreeSet<u64> = rx.iter().take(count as usize).collect();
        assert!(told.into_iter().eq((0..count).map(|x| x * 2)));
    }
    end(pool);
}

fn wait_ends_at_its_deadline_while_tasks_go_on(method: StartMethod) {
    let mut host = Host::new();
    let (pool, mut held) = quick(method, 1, &mut host, 1);
    let mut futures = notes(&pool, &host, 5);
    let began = Instant::now();
    assert!(held[0].wait_timeout(Duration::from_millis(5)).unwrap().is_none());
    assert!(
        futures[4]
            .wait_timeout(Duration::from_millis(5))
            .unwrap()
            .is_none()
    );
    assert!(held[0].wait_deadline(began).unwrap().is_none());
    assert!(began.elapsed() < LONG / 2, "it slept on");
    host.release(1);
    assert_eq!(held[0].wait_timeout(LONG).unwrap(), Some(0));
    assert_eq!(heard(&mut host, 5), [0, 1, 2, 3, 4]);
    assert_eq!(futures[4].wait_timeout(LONG).unwrap(), Some(4));
    for future in futures.drain(..4) {
        future.wait().unwrap();
    }
    end(pool);
}

/// While it is at something long, with more at hand, after many short ones.
fn nobody_looks_at_a_worker_again_and_again(method: StartMethod) {
    let mut host = Host::new();
    let (pool, _) = quick(method, 1, &mut host, 0);
    let futures: Vec<_> = (0..8)
        .map(|x| pool.submit(stay::later(host.place(), x)).unwrap())
        .collect();
    assert_eq!(host.hear(), "0");
    os::rest();
    let before: u64 = os::wake_ups_of_other_threads().iter().sum();
    os::rest();
    let since = os::wake_ups_of_other_threads().iter().sum::<u64>() - before;
    assert!(since < 20, "{since} times in a fifth of a second");
    host.release(8);
    for (future, x) in futures.into_iter().zip(0..) {
        assert_eq!(future.wait().unwrap(), x);
    }
    end(pool);
}

fn closed_pool_runs_what_is_at_hand(method: StartMethod) {
    let mut host = Host::new();
    let (pool, held) = quick(method, 1, &mut host, 1);
    let futures = notes(&pool, &host, 30);
    pool.close();
    host.release(1);
    assert_eq!(heard(&mut host, 30), (0..30).collect::<Vec<_>>());
    for future in futures.into_iter().chain(held) {
        future.wait().unwrap();
    }
    end(pool);
}

fn cancelled_pool_drops_what_is_at_hand(method: StartMethod) {
    let mut host = Host::new();
    let (pool, held) = quick(method, 1, &mut host, 1);
    let futures = notes(&pool, &host, 30);
    assert!(!pool.shutdown(inparallel::Shutdown::Cancel, Duration::from_millis(1)));
    for future in futures {
        assert_eq!(kind(future.wait()), Err(ErrorKind::Cancelled));
    }
    host.release(1);
    for future in held {
        future.wait().unwrap();
    }
    end(pool);
    assert!(!host.has_news(), "a cancelled task ran");
}

/// As many bytes as it gets.
#[task]
fn same(bytes: String) -> String {
    bytes
}

fn results_of_every_length_come_whole(method: StartMethod) {
    let mut host = Host::new();
    let (pool, _) = quick(method, 2, &mut host, 0);
    // Round the sizes of a payload in place, of a cell, and of a pipe.
    let lengths = (0..40).chain(200..260).chain([4000, 70_000]);
    let texts: Vec<String> = lengths.map(|len| "x".repeat(len)).collect();
    for _ in 0..3 {
        let futures: Vec<_> = texts
            .iter()
            .map(|text| pool.submit(same::later(text.clone())).unwrap())
            .collect();
        for (future, text) in futures.into_iter().zip(&texts) {
            assert!(future.wait().unwrap() == *text, "of {} bytes", text.len());
        }
    }
    end(pool);
}

/// Says its number; then it dies, when it is told to.
#[task]
fn last(place: Place, number: u32) -> u32 {
    place.say(&number.to_string());
    place.wait_for_go();
    Death::Signal(libc::SIGKILL).happen();
    number
}

fn death_takes_the_running_task_alone(method: StartMethod) {
    let mut host = Host::new();
    let (pool, _) = quick(method, 1, &mut host, 0);
    let victim = pool.submit(last::later(host.place(), 99)).unwrap();
    assert_eq!(host.hear(), "99");
    let futures = notes(&pool, &host, 50);
    host.release(1);
    assert_eq!(kind(victim.wait()), Err(ErrorKind::Signaled));
    // Each once, and in order.
    assert_eq!(heard(&mut host, 50), (0..50).collect::<Vec<_>>());
    for (future, x) in futures.into_iter().zip(0..) {
        assert_eq!(future.wait().unwrap(), x);
    }
    assert_eq!(pool.stats().workers_died, 1);
    end(pool);
    assert!(!host.has_news(), "a task ran twice");
}

fn time_limit_ends_the_running_task_alone(method: StartMethod) {
    let mut host = Host::new();
    let (pool, _) = quick(method, 1, &mut host, 0);
    let limit = Duration::from_millis(30);
    let slow = stay::with().timeout(limit).call_later(host.place(), 99);
    let slow = pool.submit(slow).unwrap();
    assert_eq!(host.hear(), "99");
    // Their time begins when they do, however long they were at hand.
    let futures: Vec<_> = (0..50)
        .map(|x| {
            let call = note::with().timeout(LONG / 4).call_later(host.place(), x);
            pool.submit(call).unwrap()
        })
        .collect();
    assert_eq!(kind(slow.wait()), Err(ErrorKind::TimedOut));
    assert_eq!(heard(&mut host, 50), (0..50).collect::<Vec<_>>());
    for (future, x) in futures.into_iter().zip(0..) {
        assert_eq!(future.wait().unwrap(), x);
    }
    end(pool);
    assert!(!host.has_news(), "a task ran twice");
}

fn cancel_ends_the_running_task_alone(method: StartMethod) {
    let mut host = Host::new();
    for _ in 0..5 {
        let (pool, held) = quick(method, 1, &mut host, 1);
        let futures = notes(&pool, &host, 50);
        assert!(held[0].cancel());
        for future in held {
            assert_eq!(kind(future.wait()), Err(ErrorKind::Cancelled));
        }
        assert_eq!(heard(&mut host, 50), (0..50).collect::<Vec<_>>());
        for (future, x) in futures.into_iter().zip(0..) {
            assert_eq!(future.wait().unwrap(), x);
        }
        end(pool);
        assert!(!host.has_news(), "a task ran twice");
    }
}

/// Fills its mailbox, says one word more, and ends.
#[task]
fn flood(context: &TaskContext, place: Place) {
    place.say("flood");
    place.wait_for_go();
    context.send(&"x".repeat((4 << 20) - 1000)).unwrap();
    context.send(&"y".repeat(2000)).unwrap();
    context.send(&"z").unwrap();
}

/// The one before it has filled its mailbox, so that its answer lies in a pipe that nobody reads; it counts nevertheless.
fn cancel_reaches_a_task_behind_an_answer_that_is_not_read(method: StartMethod) {
    let mut host = Host::new();
    for _ in 0..5 {
        let (pool, _) = quick(method, 1, &mut host, 0);
        let first = pool.submit(flood::later(host.place())).unwrap();
        let messages = first.messages::<String>();
        assert_eq!(host.hear(), "flood");
        let behind = pool.submit(stay::later(host.place(), 1)).unwrap();
        host.release(1);
        // Where nothing is handed ahead, it stays in the queue until that answer is read.
        if os::tasks_are_handed_ahead() {
            assert_eq!(host.hear(), "1");
        }
        assert!(behind.cancel());
        assert_eq!(kind(behind.wait()), Err(ErrorKind::Cancelled));
        assert_eq!(messages.count(), 3);
        first.wait().unwrap();
        end(pool);
    }
}

/// Comes back twice: in the worker, and in a copy of it.
#[task]
fn doubled(x: u32) -> u32 {
    #[expect(clippy::disallowed_methods, reason = "what a task must not do, and may")]
    // SAFETY: a worker has one thread, and its copy does no more than return.
    match unsafe { nix::unistd::fork() }.unwrap() {
        nix::unistd::ForkResult::Child => x + 1000,
        nix::unistd::ForkResult::Parent { child } => {
            #[expect(clippy::disallowed_methods, reason = "the child of this task")]
            nix::sys::wait::waitpid(child, None).unwrap();
            x
        }
    }
}

fn copy_of_a_worker_answers_nothing(method: StartMethod) {
    let mut host = Host::new();
    let (pool, _) = quick(method, 1, &mut host, 0);
    let futures: Vec<_> = (0..10).map(|x| pool.submit(doubled::later(x)).unwrap()).collect();
    for (future, x) in futures.into_iter().zip(0..) {
        assert_eq!(future.wait().unwrap(), x);
    }
    end(pool);
}

fn killed_worker_gives_its_tasks_back(method: StartMethod) {
    let mut host = Host::new();
    for _ in 0..5 {
        let (pool, held) = quick(method, 1, &mut host, 1);
        let futures = notes(&pool, &host, 50);
        let pid = pool.workers()[0].pid.unwrap();
        os::send(pid, libc::SIGKILL);
        for future in held {
            assert_eq!(kind(future.wait()), Err(ErrorKind::Signaled));
        }
        assert_eq!(heard(&mut host, 50), (0..50).collect::<Vec<_>>());
        for (future, x) in futures.into_iter().zip(0..) {
            assert_eq!(future.wait().unwrap(), x);
        }
        end(pool);
    }
}

fn waits_of_many_threads_end(method: StartMethod) {
    let mut host = Host::new();
    let (pool, held) = quick(method, 2, &mut host, 2);
    // They sleep on the same boards, and are woken by an answer, a cancel, a death and the end of the pool.
    std::thread::scope(|scope| {
        for (x, future) in notes(&pool, &host, 8).into_iter().enumerate() {
            let canceller = future.canceller();
            scope.spawn(move || _ = future.wait());
            if x % 2 == 0 {
                canceller.cancel();
            }
        }
        for future in held {
            scope.spawn(move || _ = future.wait());
        }
        os::send(pool.workers()[0].pid.unwrap(), libc::SIGKILL);
        pool.shutdown(inparallel::Shutdown::Kill, LONG);
    });
    end(pool);
}
