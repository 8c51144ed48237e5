//! Time limits, cancelling, dropping and detaching.

use std::time::Duration;

use inparallel::{ErrorKind, StartMethod, TaskFuture, task};

use crate::harness::{ALL, IN_PROCESS, ISOLATED};
use crate::os;
use crate::place::{Host, Place};
use crate::tasks::{Grandchild, double, meet, meet_with_grandchild, own_pid};

trials! {
    warm on ALL => {
        limits_that_cannot_be_meant_are_refused,
        cancel_after_the_end_keeps_the_value,
    }
    warm on ISOLATED => {
        task_that_exceeds_its_limit_is_killed,
        time_limit_kills_grandchildren,
        result_in_time_is_a_result,
        cancelled_task_is_gone_when_its_future_ends,
        cancelling_kills_grandchildren_that_do_not_listen,
        cancel_at_any_moment_ends_in_cancelled,
        worker_that_does_not_listen_is_killed_after_the_grace,
        worker_may_clean_up_within_the_grace,
        cancel_from_another_thread_wakes_the_waiter,
        dropped_future_lets_the_task_run_to_its_end,
        detached_task_runs_to_its_end,
        kill_on_drop_kills_when_the_future_is_dropped,
    }
    warm on IN_PROCESS => { task_without_a_process_cannot_be_stopped_but_its_future_ends }
}

fn limits_that_cannot_be_meant_are_refused(method: StartMethod) {
    let check = |future: TaskFuture<u32>, field: &str, value: &str| {
        assert!(future.is_done());
        assert_eq!(future.pid(), None);
        let error = future.wait().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        let text = error.to_string();
        let remedy = text.split("; ").nth(1).unwrap_or_default();
        assert!(
            text.contains(field) && text.contains(value) && remedy.len() > 10,
            "{text}"
        );
        assert!(error.task().ends_with("::own_pid"), "{error}");
    };
    let with = || own_pid::with().start(method);
    check(with().timeout(Duration::ZERO).call(), "timeout", "0s");
    check(
        with().timeout(Duration::MAX).call(),
        "timeout",
        "18446744073709551615",
    );
    check(
        with().grace(Duration::MAX).call(),
        "grace",
        "18446744073709551615",
    );
    check(with().spin(Duration::from_micros(51)).call(), "spin", "51µs");
    own_pid::with()
        .start(method)
        .timeout(Duration::from_secs(1000))
        .grace(Duration::ZERO)
        .call()
        .wait()
        .unwrap();
}

fn cancel_after_the_end_keeps_the_value(method: StartMethod) {
    let mut future = double::with().start(method).call(4);
    // Waiting for the end without taking the value.
    let other = double::with().start(method).call(5);
    let waited = inparallel::wait([future, other], inparallel::Until::All, None);
    assert!(waited.pending.is_empty());
    for (done, value) in waited.done.into_iter().zip([8, 10]) {
        future = done;
        assert!(future.is_done());
        assert!(!future.cancel());
        assert!(!future.cancel());
        assert_eq!(future.wait().unwrap(), value);
    }
}

fn task_that_exceeds_its_limit_is_killed(method: StartMethod) {
    let host = Host::new();
    let limit = Duration::from_millis(100);
    let future = meet::with().start(method).timeout(limit).call(host.place());
    let error = future.wait().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert_eq!(error.limit(), Some(limit));
    assert!(error.to_string().contains("100ms"), "{error}");
    let pid = error.pid().unwrap();
    assert!(os::is_gone(pid));
    assert_ne!(own_pid::with().start(method).call().wait().unwrap(), pid);
}

/// On a busy machine the limit may be over before the grandchild exists: then again with a longer one.
fn time_limit_kills_grandchildren(method: StartMethod) {
    for grandchild in [Grandchild::Ordinary, Grandchild::Stubborn] {
        let mut limit = Duration::from_millis(200);
        loop {
            let mut host = Host::new();
            let with = meet_with_grandchild::with().start(method).timeout(limit);
            let error = with.call(host.place(), grandchild).wait().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut);
            host.wait_until_left();
            if host.has_news() {
                break;
            }
            limit *= 2;
        }
    }
}

fn result_in_time_is_a_result(method: StartMethod) {
    let with = double::with().start(method).timeout(Duration::from_secs(100));
    assert_eq!(with.call(4).wait().unwrap(), 8);
}

fn cancelled_task_is_gone_when_its_future_ends(method: StartMethod) {
    let mut host = Host::new();
    let future = meet::with().start(method).call(host.place());
    let pid = host.arrival();
    assert!(!future.is_done());
    assert!(future.cancel());
    assert!(future.cancel());
    let error = future.wait().unwrap_err();
    assert_eq!((error.kind(), error.pid()), (ErrorKind::Cancelled, Some(pid)));
    assert!(os::is_gone(pid));
    assert_ne!(own_pid::with().start(method).call().wait().unwrap(), pid);
}

fn cancelling_kills_grandchildren_that_do_not_listen(method: StartMethod) {
    let mut host = Host::new();
    let future = meet_with_grandchild::with()
        .start(method)
        .call(host.place(), Grandchild::Stubborn);
    host.arrival();
    assert!(future.cancel());
    assert_eq!(future.wait().unwrap_err().kind(), ErrorKind::Cancelled);
    host.wait_until_left();
}

fn cancel_at_any_moment_ends_in_cancelled(method: StartMethod) {
    let host = Host::new();
    for _ in 0..20 {
        let futures: Vec<_> = (0..5)
            .map(|_| meet::with().start(method).call(host.place()))
            .collect();
        assert!(futures.iter().all(TaskFuture::cancel));
        for future in futures {
            assert_eq!(future.wait().unwrap_err().kind(), ErrorKind::Cancelled);
        }
    }
    // Against tasks that end by themselves: one of both, and never neither.
    for _ in 0..50 {
        let future = double::with().start(method).call(4);
        let is_cancelled = future.cancel();
        match future.wait() {
            Ok(value) => assert_eq!((is_cancelled, value), (false, 8)),
            Err(error) => assert_eq!((is_cancelled, error.kind()), (true, ErrorKind::Cancelled)),
        }
    }
}

#[task]
fn meet_deaf(place: Place) {
    os::ignore(nix::sys::signal::Signal::SIGTERM);
    place.arrive();
    place.wait_for_go();
}

fn worker_that_does_not_listen_is_killed_after_the_grace(method: StartMethod) {
    for grace in [Duration::ZERO, Duration::from_millis(50)] {
        let mut host = Host::new();
        let future = meet_deaf::with().start(method).grace(grace).call(host.place());
        let pid = host.arrival();
        assert!(future.cancel());
        assert_eq!(future.wait().unwrap_err().kind(), ErrorKind::Cancelled);
        assert!(os::is_gone(pid));
    }
}

static CLEANING_PLACE: std::sync::OnceLock<Place> = std::sync::OnceLock::new();

/// Says goodbye when it is asked to end.
#[task]
fn meet_politely(place: Place) {
    extern "C" fn clean_up(_: i32) {
        // What it interrupts is a read; no lock is held.
        CLEANING_PLACE.get().unwrap().say("goodbye");
        os::exit_now(0)
    }
    let action = nix::sys::signal::SigHandler::Handler(clean_up);
    CLEANING_PLACE.set(place.clone()).unwrap();
    // SAFETY: the handler allocates, but it only ever interrupts the read below.
    unsafe { nix::sys::signal::signal(nix::sys::signal::Signal::SIGTERM, action) }.unwrap();
    place.arrive();
    place.wait_for_go();
}

fn worker_may_clean_up_within_the_grace(method: StartMethod) {
    let mut host = Host::new();
    let future = meet_politely::with()
        .start(method)
        .grace(Duration::from_secs(100))
        .call(host.place());
    host.arrival();
    assert!(future.cancel());
    assert_eq!(host.hear(), "goodbye");
    assert_eq!(future.wait().unwrap_err().kind(), ErrorKind::Cancelled);
}

fn cancel_from_another_thread_wakes_the_waiter(method: StartMethod) {
    let mut host = Host::new();
    let future = meet::with().start(method).call(host.place());
    host.arrival();
    let (tx, rx) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(move || {
            let mut future = future;
            tx.send(()).unwrap();
            // Cancelled through a clone of nothing: the handle moves back after the wait.
            let first = future.wait_timeout(Duration::from_millis(1)).unwrap();
            assert_eq!(first, None);
            assert!(future.cancel());
            future.wait().unwrap_err().kind()
        });
        rx.recv().unwrap();
        assert_eq!(waiting.join().unwrap(), ErrorKind::Cancelled);
    });
}

#[task]
fn meet_and_say_done(place: Place) {
    place.arrive();
    place.wait_for_go();
    place.say("done");
}

fn dropped_future_lets_the_task_run_to_its_end(method: StartMethod) {
    let mut host = Host::new();
    let future = meet_and_say_done::with().start(method).call(host.place());
    host.arrival();
    drop(future);
    host.release(1);
    assert_eq!(host.hear(), "done");
    host.wait_until_left();
}

fn detached_task_runs_to_its_end(method: StartMethod) {
    let mut host = Host::new();
    let with = meet_and_say_done::with().start(method).kill_on_drop();
    with.call(host.place()).detach();
    host.arrival();
    assert!(!inparallel::wait_idle(Duration::ZERO));
    host.release(1);
    assert_eq!(host.hear(), "done");
    assert!(inparallel::wait_idle(Duration::from_secs(100)));
}

fn kill_on_drop_kills_when_the_future_is_dropped(method: StartMethod) {
    for by_option in [true, false] {
        let mut host = Host::new();
        let future = match by_option {
            true => meet::with().start(method).kill_on_drop().call(host.place()),
            false => meet::with().start(method).call(host.place()).kill_on_drop(),
        };
        host.arrival();
        drop(future);
        host.wait_until_left();
    }
    // Before it is launched, too.
    let mut host = Host::new();
    for _ in 0..20 {
        drop(meet::with().start(method).kill_on_drop().call(host.place()));
    }
    assert!(inparallel::wait_idle(Duration::from_secs(100)));
    host.wait_until_left();
}

#[task]
fn wait_for_go(place: Place) -> u32 {
    place.wait_for_go();
    1
}

/// `Inline` has ended when the call returns; a thread runs on, unheard.
fn task_without_a_process_cannot_be_stopped_but_its_future_ends(method: StartMethod) {
    let mut host = Host::new();
    if method == StartMethod::Inline {
        host.release(1);
        let future = wait_for_go::with()
            .start(method)
            .timeout(Duration::from_nanos(1))
            .call(host.place());
        assert!(!future.cancel());
        assert_eq!(future.wait().unwrap(), 1);
        return;
    }
    let late = wait_for_go::with()
        .start(method)
        .timeout(Duration::from_millis(50))
        .call(host.place());
    assert_eq!(late.wait().unwrap_err().kind(), ErrorKind::TimedOut);
    let unwanted = wait_for_go::with().start(method).call(host.place());
    assert!(unwanted.cancel());
    assert_eq!(unwanted.wait().unwrap_err().kind(), ErrorKind::Cancelled);
    assert!(!inparallel::wait_idle(Duration::ZERO));
    host.release(2);
    assert!(inparallel::wait_idle(Duration::from_secs(100)));
}
