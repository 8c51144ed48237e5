//! Many futures: `wait`, `as_completed`, `waitfor` with its requests for work, `in_parallel`.

#![allow(
    clippy::unwrap_used,
    reason = "a test's helper that unwraps says where it failed"
)]

mod support;

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, mpsc};
use std::thread;
use std::time::Duration;

use inparallel::{
    ErrorKind, InFlight, InParallel, StartMethod, Stderr, TaskFuture, Until, Waited, as_completed, task,
    wait, waitfor,
};
use serial_test::{parallel, serial};

use support::{ALL, BESIDE, Gate, Holdings, LONG, Watchdog, stand_at};

/// Stands at the gate, then returns its number.
#[task]
fn gated(port: u16, number: u32) -> u32 {
    stand_at(port, number);
    number
}

#[task]
fn double(x: u32) -> u32 {
    x * 2
}

/// Ends in the way that is asked for, or stands at the gate.
#[task]
fn fail(how: &str, port: u16) -> Result<u32, String> {
    match how {
        "own" => Err("an error of its own".into()),
        "panic" => panic!("a panic"),
        "fine" => Ok(1),
        _ => {
            stand_at(port, 0);
            Ok(0)
        }
    }
}

fn failing(method: StartMethod, how: &str, gate: &Gate) -> TaskFuture<Result<u32, String>> {
    fail::with()
        .start(method)
        .stderr(Stderr::Capture)
        .grace(Duration::ZERO)
        .call(how, gate.port())
}

/// Waits for each.
fn values(futures: Vec<TaskFuture<u32>>) -> Vec<u32> {
    futures.into_iter().map(|future| future.wait().unwrap()).collect()
}

// --- wait -----------------------------------------------------------------------------------------------------------

#[test]
#[parallel]
fn wait_for_all_counts_every_way_to_end() {
    let _watchdog = Watchdog::new();
    let gate = Gate::new();
    for method in BESIDE {
        let futures = ["fine", "own", "panic", "stand"].map(|how| failing(method, how, &gate));
        assert!(futures[3].cancel(), "{method}");
        let Waited { done, pending } = wait(futures, Until::All, None);
        assert!(
            pending.is_empty() && done.iter().all(TaskFuture::is_done),
            "{method}"
        );
        let results: Vec<_> = done
            .into_iter()
            .map(|future| future.wait().map_err(|error| error.kind()))
            .collect();
        let expected = [
            Ok(Ok(1)),
            Ok(Err("an error of its own".into())),
            Err(ErrorKind::Panicked),
            Err(ErrorKind::Cancelled),
        ];
        assert_eq!(
            results, expected,
            "{method}: in the order in which they were given"
        );
    }
}

#[test]
#[parallel]
fn wait_for_the_first_leaves_the_others_pending_in_their_order() {
    let _watchdog = Watchdog::new();
    let gate = Gate::new();
    for method in BESIDE {
        let start = |number| gated::with().start(method).call(gate.port(), number);
        let futures = [start(0), start(1), start(2), start(3)];
        let mut here = gate.arrivals(4);
        here.remove(2).let_go();
        let Waited { done, pending } = wait(futures, Until::FirstDone, None);
        assert_eq!(values(done), [2], "{method}");
        // Given once more, the rest is as good as new.
        here.remove(1).let_go();
        let Waited { done, pending } = wait(pending, Until::FirstDone, Some(LONG));
        assert_eq!(values(done), [1], "{method}");
        drop(here);
        assert_eq!(values(pending), [0, 3], "{method}");
    }
}

#[test]
#[parallel]
fn wait_for_the_first_error_counts_own_errors_panics_and_cancels() {
    let _watchdog = Watchdog::new();
    let gate = Gate::new();
    for method in BESIDE {
        for how in ["own", "panic", "cancel"] {
            let blocked = failing(method, "stand", &gate).kill_on_drop();
            let fails = failing(method, how, &gate);
            if how == "cancel" {
                fails.cancel();
            }
            let Waited { done, pending } = wait(
                [failing(method, "fine", &gate), blocked, fails],
                Until::FirstError,
                None,
            );
            let kinds: Vec<_> = done
                .into_iter()
                .map(|future| future.wait().map_err(|error| error.kind()))
                .collect();
            let last = kinds.last().unwrap();
            match how {
                "own" => assert_eq!(*last, Ok(Err("an error of its own".into())), "{method}"),
                "panic" => assert_eq!(*last, Err(ErrorKind::Panicked), "{method}"),
                _ => assert_eq!(*last, Err(ErrorKind::Cancelled), "{method}"),
            }
            assert_eq!(pending.len() + kinds.len(), 3, "{method}, {how}");
            assert!(
                pending.iter().any(|future| !future.is_done()),
                "{method}, {how}: the blocked one"
            );
            pending.iter().for_each(|future| _ = future.cancel());
        }
        let fine = || failing(method, "fine", &gate);
        let Waited { done, pending } = wait([fine(), fine(), fine()], Until::FirstError, None);
        assert_eq!(
            (done.len(), pending.len()),
            (3, 0),
            "{method}: without an error, all of them"
        );
    }
}

/// The result `Err` is told from other values that look like it on the wire.
#[test]
#[parallel]
fn first_error_does_not_take_other_values_for_errors() {
    let _watchdog = Watchdog::new();
    #[derive(Debug, serde::Serialize, serde::Deserialize)]
    enum Answer {
        Err(String),
    }
    #[task]
    fn answer(port: Option<u16>) -> Answer {
        port.into_iter().for_each(|port| stand_at(port, 0));
        Answer::Err("by name only".into())
    }
    #[task]
    fn inner(port: Option<u16>) -> Result<Result<u8, u8>, u8> {
        port.into_iter().for_each(|port| stand_at(port, 0));
        Ok(Err(1))
    }
    #[task]
    fn none(port: Option<u16>) -> Option<Result<u8, u8>> {
        port.into_iter().for_each(|port| stand_at(port, 0));
        None
    }
    fn is_error<T>(quick: TaskFuture<T>, start_blocked: impl FnOnce(Option<u16>) -> TaskFuture<T>) -> bool {
        let gate = Gate::new();
        let blocked = start_blocked(Some(gate.port()));
        let here = gate.arrival();
        let mut futures = wait([quick], Until::All, None).done;
        futures.push(blocked);
        thread::scope(|scope| {
            scope.spawn(|| {
                // An error would end the wait before this.
                thread::park_timeout(Duration::from_millis(20));
                here.let_go();
            });
            wait(futures, Until::FirstError, None).done.len() == 1
        })
    }
    for method in BESIDE {
        let start = |port| answer::with().start(method).call(port);
        assert!(!is_error(start(None), start), "{method}");
        let start = |port| inner::with().start(method).call(port);
        assert!(!is_error(start(None), start), "{method}");
        let start = |port| none::with().start(method).call(port);
        assert!(!is_error(start(None), start), "{method}");
    }
}

#[test]
#[parallel]
fn wait_ends_at_its_limit() {
    let _watchdog = Watchdog::new();
    let gate = Gate::new();
    for method in BESIDE {
        let blocked = gated::with().start(method).call(gate.port(), 9);
        let here = gate.arrival();
        let done = wait(
            (0..3).map(|x| double::with().start(method).call(x)),
            Until::All,
            None,
        )
        .done;
        let futures = done.into_iter().chain([blocked]);
        let Waited { done, pending } = wait(futures, Until::All, Some(Duration::from_millis(20)));
        assert_eq!(values(done), [0, 2, 4], "{method}");
        assert_eq!(pending.len(), 1, "{method}");
        for until in [Until::All, Until::FirstDone, Until::FirstError] {
            let Waited { done, pending } = wait(Vec::<TaskFuture<u32>>::new(), until, None);
            assert!(
                done.is_empty() && pending.is_empty(),
                "{method}: nothing to wait for"
            );
        }
        // No time at all is a look.
        let Waited { done, pending } = wait(pending, Until::All, Some(Duration::ZERO));
        assert_eq!((done.len(), pending.len()), (0, 1), "{method}");
        here.let_go();
        assert_eq!(values(pending), [9], "{method}: the task went on");
    }
    let inline = (0..3).map(|x| double::with().start(StartMethod::Inline).call(x));
    assert_eq!(
        values(wait(inline, Until::All, Some(Duration::ZERO)).done),
        [0, 2, 4]
    );
}

// --- as_completed ---------------------------------------------------------------------------------------------------

#[test]
#[parallel]
fn as_completed_yields_each_once_in_the_order_in_which_they_end() {
    let _watchdog = Watchdog::new();
    let gate = Gate::new();
    for method in BESIDE {
        let futures: Vec<_> = (0..5)
            .map(|number| gated::with().start(method).call(gate.port(), number))
            .collect();
        let mut here: Vec<_> = gate.arrivals(5).into_iter().map(Some).collect();
        let order = [3, 0, 4, 1, 2];
        let mut next = order.into_iter();
        let mut let_next_go = || {
            next.next()
                .map(|number: usize| here[number].take().unwrap().let_go())
        };
        let_next_go();
        let mut seen = Vec::new();
        for done in as_completed(futures) {
            assert!(done.is_done(), "{method}");
            seen.push(done.wait().unwrap() as usize);
            let_next_go();
        }
        assert_eq!(seen, order, "{method}");
    }
}

#[test]
#[parallel]
fn as_completed_yields_done_failed_and_cancelled_alike() {
    let _watchdog = Watchdog::new();
    let gate = Gate::new();
    for method in BESIDE {
        let early = wait(
            [failing(method, "fine", &gate), failing(method, "own", &gate)],
            Until::All,
            None,
        )
        .done;
        let cancelled = failing(method, "stand", &gate);
        cancelled.cancel();
        let live = [failing(method, "fine", &gate), failing(method, "panic", &gate)];
        let futures: Vec<_> = early.into_iter().chain([cancelled]).chain(live).collect();
        let given: HashSet<_> = futures.iter().map(TaskFuture::id).collect();
        let yielded: Vec<_> = as_completed(futures).map(|future| future.id()).collect();
        assert_eq!(yielded.len(), 5, "{method}");
        assert_eq!(yielded.into_iter().collect::<HashSet<_>>(), given, "{method}");
    }
}

#[test]
#[parallel]
fn as_completed_ends_at_its_limit_and_gives_back_the_rest() {
    let _watchdog = Watchdog::new();
    let gate = Gate::new();
    for method in BESIDE {
        let start = |number| gated::with().start(method).call(gate.port(), number);
        let futures = [start(0), start(1), start(2), start(3)];
        let mut here = gate.arrivals(4);
        here.remove(1).let_go();
        let Waited { done, mut pending } = wait(futures, Until::FirstDone, None);
        // What has ended is yielded even if no time is left.
        pending.splice(2..2, done);
        let mut completed = as_completed(pending).timeout(Duration::ZERO);
        assert_eq!(completed.next().unwrap().wait().unwrap(), 1, "{method}");
        assert!(completed.next().is_none(), "{method}");
        assert!(completed.next().is_none(), "{method}");
        let pending = completed.into_pending();
        assert!(pending.iter().all(|future| !future.is_done()), "{method}");
        here.into_iter().for_each(support::Arrival::let_go);
        assert_eq!(
            values(pending),
            [0, 2, 3],
            "{method}: in the order in which they were given"
        );

        let blocked = start(4);
        let here = gate.arrival();
        let (tx, rx) = mpsc::channel();
        blocked.on_done(move |_| tx.send(()).unwrap());
        let mut completed = as_completed([blocked]).timeout(Duration::from_millis(5));
        assert!(completed.next().is_none(), "{method}");
        // Ended since, and not yielded.
        here.let_go();
        rx.recv().unwrap();
        assert_eq!(values(completed.into_pending()), [4], "{method}");
    }
}

/// A moment of work.
#[task]
fn ten_milliseconds(x: u32) -> u32 {
    thread::park_timeout(Duration::from_millis(10));
    x
}

#[test]
#[parallel]
fn as_completed_never_loses_a_task() {
    let _watchdog = Watchdog::new();
    for method in BESIDE {
        for round in 0..60 {
            let futures = (0..3).map(|x| ten_milliseconds::with().start(method).call(x));
            let mut seen = values(as_completed(futures).collect());
            seen.sort_unstable();
            assert_eq!(seen, [0, 1, 2], "{method}, round {round}");
        }
    }
}

// --- waitfor --------------------------------------------------------------------------------------------------------

#[test]
#[parallel]
fn waitfor_takes_what_it_yields_out_of_the_list() {
    let _watchdog = Watchdog::new();
    for method in ALL {
        let list: InFlight<u32> = (0..5).map(|x| double::with().start(method).call(x)).collect();
        assert_eq!(list.len(), 5, "{method}");
        let mut seen = Vec::new();
        for done in waitfor(&list) {
            seen.push(done.wait().unwrap());
            assert_eq!(list.len(), 5 - seen.len(), "{method}");
        }
        seen.sort_unstable();
        assert_eq!(seen, [0, 2, 4, 6, 8], "{method}");
        assert!(list.is_empty(), "{method}");
        // The list is as good as new.
        list.push(double::with().start(method).call(9));
        assert_eq!(values(waitfor(&list).collect()), [18], "{method}");
        assert!(waitfor(&list).next().is_none(), "{method}");
    }
}

#[test]
#[parallel]
fn waitfor_yields_in_the_order_of_ending_not_of_pushing() {
    let _watchdog = Watchdog::new();
    let gate = Gate::new();
    for method in BESIDE {
        for most in [None, Some(3)] {
            let list: InFlight<u32> = (0..3)
                .map(|x| gated::with().start(method).call(gate.port(), x))
                .collect();
            let mut here: Vec<_> = gate.arrivals(3).into_iter().map(Some).collect();
            let order = [2, 0, 1];
            let mut seen = Vec::new();
            here[order[0]].take().unwrap().let_go();
            let mut see = |done: TaskFuture<u32>| {
                seen.push(done.wait().unwrap() as usize);
                if let Some(next) = order.get(seen.len()) {
                    here[*next].take().unwrap().let_go();
                }
            };
            match most {
                None => waitfor(&list).for_each(&mut see),
                Some(most) => waitfor(&list)
                    .concurrency(most)
                    .unwrap()
                    .flatten()
                    .for_each(&mut see),
            }
            assert_eq!(seen, order, "{method}, {most:?}");
        }
    }
}

#[test]
#[parallel]
fn list_may_grow_inside_the_loop() {
    let _watchdog = Watchdog::new();
    for method in ALL {
        let list = InFlight::new();
        list.push(double::with().start(method).call(1));
        let mut seen = Vec::new();
        for done in waitfor(&list) {
            let value = done.wait().unwrap();
            seen.push(value);
            if value < 100 {
                list.push(double::with().start(method).call(value));
            }
        }
        assert_eq!(seen, [2, 4, 8, 16, 32, 64, 128], "{method}");
    }
}

#[test]
#[parallel]
fn another_thread_may_push_while_waitfor_blocks() {
    let _watchdog = Watchdog::new();
    let gate = Gate::new();
    for method in BESIDE {
        let list = InFlight::new();
        list.push(gated::with().start(method).call(gate.port(), 7));
        let mut here = Some(gate.arrival());
        let looping = Barrier::new(2);
        let mut seen = Vec::new();
        thread::scope(|scope| {
            scope.spawn(|| {
                looping.wait();
                list.push(double::with().start(method).call(2));
            });
            let iterator = waitfor(&list);
            looping.wait();
            // Nothing that is in the list now can end before what the other thread pushes has been yielded.
            for done in iterator {
                seen.push(done.wait().unwrap());
                here.take().into_iter().for_each(support::Arrival::let_go);
            }
        });
        assert_eq!(seen, [4, 7], "{method}");
    }
}

#[test]
#[parallel]
fn two_threads_may_empty_one_list() {
    let _watchdog = Watchdog::new();
    for method in ALL {
        for round in 0..10 {
            let list: InFlight<u32> = (0..12).map(|x| double::with().start(method).call(x)).collect();
            let empty = || values(waitfor(&list).collect());
            let mut seen = thread::scope(|scope| {
                let other = scope.spawn(empty);
                let mut seen = empty();
                seen.extend(other.join().unwrap());
                seen
            });
            seen.sort_unstable();
            assert!(
                seen.iter().copied().eq((0..12).map(|x| 2 * x)),
                "{method}, round {round}: {seen:?}"
            );
            assert!(list.is_empty());
        }
    }
}

#[test]
#[parallel]
fn two_threads_may_feed_and_empty_one_list() {
    let _watchdog = Watchdog::new();
    for method in ALL {
        let list = InFlight::new();
        let jobs = AtomicUsize::new(0);
        let work = || {
            let mut seen = Vec::new();
            for next in waitfor(&list).concurrency(3).unwrap() {
                match next {
                    Some(done) => seen.push(TaskFuture::wait(done).unwrap()),
                    None => {
                        let job = jobs.fetch_add(1, Ordering::Relaxed) as u32;
                        if job < 20 {
                            list.push(double::with().start(method).call(job));
                        }
                    }
                }
            }
            seen
        };
        let mut seen = thread::scope(|scope| {
            let other = scope.spawn(work);
            let mut seen = work();
            seen.extend(other.join().unwrap());
            seen
        });
        seen.sort_unstable();
        assert!(
            seen.iter().copied().eq((0..20).map(|x| 2 * x)),
            "{method}: {seen:?}"
        );
    }
}

/// Tells how many tasks are inside at once, itself included.
#[task]
fn counted(folder: &Path, port: u16, number: u32) -> usize {
    let own = folder.join(number.to_string());
    std::fs::write(&own, "").unwrap();
    stand_at(port, number);
    let inside = std::fs::read_dir(folder).unwrap().count();
    std::fs::remove_file(own).unwrap();
    inside
}

#[test]
#[parallel]
fn concurrency_runs_as_many_as_asked_for_and_no_more() {
    let _watchdog = Watchdog::new();
    let folder = std::env::temp_dir().join(format!("inparallel-waitfor-{}", std::process::id()));
    for method in BESIDE {
        std::fs::create_dir_all(&folder).unwrap();
        let gate = Gate::new();
        let port = gate.port();
        let keeper = thread::spawn(move || {
            for _ in 0..4 {
                // With fewer than three at once this would wait for ever.
                gate.arrivals(3).into_iter().for_each(support::Arrival::let_go);
            }
        });
        let mut jobs = 0..12;
        let (mut requests, mut results) = (0, Vec::new());
        let list = InFlight::new();
        for next in waitfor(&list).concurrency(3).unwrap() {
            match next {
                Some(done) => results.push(TaskFuture::wait(done).unwrap()),
                None => {
                    requests += 1;
                    let started = jobs
                        .next()
                        .map(|job| counted::with().start(method).call(&folder, port, job));
                    started.into_iter().for_each(|future| list.push(future));
                }
            }
            assert!(list.len() <= 3, "{method}");
        }
        assert_eq!(results.len(), 12, "{method}");
        assert!(
            results.iter().all(|inside| (1..=3).contains(inside)),
            "{method}: {results:?}"
        );
        // One for each job, and at most one more after each of the last three.
        assert!((13..=15).contains(&requests), "{method}: {requests}");
        keeper.join().unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
    }
}

#[test]
#[parallel]
fn work_is_asked_for_once_for_each_free_place() {
    let _watchdog = Watchdog::new();
    let gate = Gate::new();
    for method in BESIDE {
        let list = InFlight::new();
        let mut work = waitfor(&list).concurrency(3).unwrap();
        let start = |number| list.push(gated::with().start(method).call(gate.port(), number));
        let mut here = Vec::new();
        for number in 0..3 {
            assert!(
                work.next().unwrap().is_none(),
                "{method}: room for number {number}"
            );
            start(number);
            here.push(gate.arrival());
        }
        // Full: what comes next is the end of a task.
        here.remove(1).let_go();
        assert_eq!(work.next().unwrap().unwrap().wait().unwrap(), 1, "{method}");
        // Declined: nothing is asked until another task has ended.
        assert!(work.next().unwrap().is_none(), "{method}");
        here.remove(0).let_go();
        assert_eq!(work.next().unwrap().unwrap().wait().unwrap(), 0, "{method}");
        // Two places are free: asked twice, since the first request is met.
        assert!(work.next().unwrap().is_none(), "{method}");
        start(3);
        here.push(gate.arrival());
        assert!(work.next().unwrap().is_none(), "{method}");
        here.remove(1).let_go();
        assert_eq!(work.next().unwrap().unwrap().wait().unwrap(), 3, "{method}");
        assert!(work.next().unwrap().is_none(), "{method}");
        here.remove(0).let_go();
        assert_eq!(work.next().unwrap().unwrap().wait().unwrap(), 2, "{method}");
        // Empty: asked one last time.
        assert!(work.next().unwrap().is_none(), "{method}");
        assert!(work.next().is_none(), "{method}");
    }
}

#[test]
#[parallel]
fn empty_list_is_asked_about_once() {
    let list = InFlight::<u32>::new();
    for most in [1, 3, usize::MAX] {
        let requests: Vec<_> = waitfor(&list).concurrency(most).unwrap().collect();
        assert_eq!(requests.len(), 1, "{most}");
        assert!(requests[0].is_none());
    }
}

#[test]
#[parallel]
fn caller_that_declines_is_not_asked_again_while_nothing_happens() {
    let _watchdog = Watchdog::new();
    let gate = Gate::new();
    for method in BESIDE {
        let list = InFlight::new();
        list.push(gated::with().start(method).call(gate.port(), 1));
        let mut here = Some(gate.arrival());
        let mut seen = Vec::new();
        for next in waitfor(&list).concurrency(5).unwrap() {
            seen.push(next.map(|done| done.wait().unwrap()));
            here.take().into_iter().for_each(support::Arrival::let_go);
        }
        assert_eq!(seen, [None, Some(1), None], "{method}");
    }
}

#[test]
#[parallel]
fn number_of_requests_is_exact_with_tasks_that_end_at_once() {
    let mut work = 0..12;
    let (mut requests, mut results) = (0, Vec::new());
    let list = InFlight::new();
    for next in waitfor(&list).concurrency(3).unwrap() {
        match next {
            Some(done) => results.push(TaskFuture::wait(done).unwrap()),
            None => {
                requests += 1;
                work.next()
                    .into_iter()
                    .for_each(|x| list.push(double::with().start(StartMethod::Inline).call(x)));
            }
        }
    }
    assert!(results.into_iter().eq((0..12).map(|x| 2 * x)));
    assert_eq!(requests, 13);
}

#[test]
#[parallel]
fn concurrency_is_advice() {
    let _watchdog = Watchdog::new();
    let gate = Gate::new();
    for method in BESIDE {
        let list = InFlight::new();
        let mut work = waitfor(&list).concurrency(2).unwrap();
        assert!(work.next().unwrap().is_none());
        (0..5).for_each(|number| list.push(gated::with().start(method).call(gate.port(), number)));
        // All five run at once.
        gate.arrivals(5).into_iter().for_each(support::Arrival::let_go);
        let mut seen = values(work.flatten().collect());
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2, 3, 4], "{method}");
    }
}

#[test]
#[parallel]
fn no_concurrency_is_refused_with_advice() {
    let list = InFlight::<u32>::new();
    let errors = [
        waitfor(&list).concurrency(0).map(drop).unwrap_err(),
        (0..3).in_parallel(0, double).map(drop).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert_eq!(
            error.to_string(),
            "concurrency: 0 cannot be used; let at least one task run at a time"
        );
        assert_eq!((error.task(), error.pid()), ("", None));
    }
}

/// `bench/` has the price of each: it must not grow with the list.
#[test]
#[parallel]
fn hundred_thousand_futures_fit_in_one_list() {
    let _watchdog = Watchdog::new();
    let most = 100_000;
    let list: InFlight<u32> = (0..most)
        .map(|x| double::with().start(StartMethod::Inline).call(x))
        .collect();
    assert_eq!(list.len(), most as usize);
    let mut expected = 0;
    for done in waitfor(&list) {
        assert_eq!(done.wait().unwrap(), 2 * expected);
        expected += 1;
    }
    assert_eq!((expected, list.len()), (most, 0));
}

// --- the loops of the Python library, line by line ------------------------------------------------------------------

#[task]
fn get_os(server: String) -> String {
    format!("Linux {server}")
}

fn servers() -> Vec<String> {
    let names = [
        "alpha.local",
        "bravo.local",
        "charlie.local",
        "delta.local",
        "echo.local",
        "foxtrot.local",
        "golf.local",
        "hotel.local",
        "india.local",
        "juliet.local",
        "kilo.local",
        "lima.local",
    ];
    names.map(String::from).to_vec()
}

fn check_lines(mut printed: Vec<String>) {
    printed.sort();
    let expected: Vec<_> = servers()
        .into_iter()
        .map(|server| format!("Linux {server}"))
        .collect();
    assert_eq!(printed, expected);
}

#[test]
#[parallel]
fn first_loop_of_the_original_works_line_by_line() {
    let _watchdog = Watchdog::new();
    let mut printed = Vec::new();
    let mut servers = servers();

    let active_futures = InFlight::new();

    while !servers.is_empty() {
        active_futures.push(get_os(servers.remove(0)));
    }

    for future in waitfor(&active_futures) {
        printed.push(future.wait().unwrap());
    }

    check_lines(printed);
}

#[test]
#[parallel]
fn second_loop_of_the_original_works_line_by_line() {
    let _watchdog = Watchdog::new();
    let mut printed = Vec::new();
    let mut servers = servers();

    let active_futures = InFlight::new();

    for future in waitfor(&active_futures).concurrency(3).unwrap() {
        if let Some(future) = future {
            // waitfor() yielded a completed future
            printed.push(TaskFuture::<String>::wait(future).unwrap());
        } else {
            // waitfor() wants you to run more tasks
            if !servers.is_empty() {
                active_futures.push(get_os(servers.remove(0)));
            }
        }
    }

    check_lines(printed);
}

// --- in_parallel ----------------------------------------------------------------------------------------------------

#[test]
#[parallel]
fn endless_iterator_is_taken_from_as_places_become_free() {
    let _watchdog = Watchdog::new();
    for method in ALL {
        let taken = AtomicUsize::new(0);
        let endless = (0..).inspect(|_| _ = taken.fetch_add(1, Ordering::Relaxed));
        let mut results = endless
            .in_parallel(3, |x| double::with().start(method).call(x))
            .unwrap();
        assert_eq!(taken.load(Ordering::Relaxed), 0, "{method}: lazy");
        let mut seen = Vec::new();
        for turn in 0..10 {
            seen.push(results.next().unwrap().unwrap());
            assert_eq!(taken.load(Ordering::Relaxed), 3 + turn, "{method}");
        }
        // In the order in which they end: what is missing is still running.
        seen.sort_unstable();
        seen.dedup();
        assert!(
            seen.len() == 10 && seen.iter().all(|x| x % 2 == 0 && *x < 24),
            "{method}: {seen:?}"
        );
        let taken_ten: Vec<u32> = (0..)
            .in_parallel(2, double)
            .unwrap()
            .take(10)
            .map(Result::unwrap)
            .collect();
        assert_eq!(taken_ten.len(), 10, "{method}");
    }
}

#[test]
#[parallel]
fn in_parallel_runs_as_many_as_asked_for_in_the_order_of_ending() {
    let _watchdog = Watchdog::new();
    for method in BESIDE {
        let gate = Gate::new();
        let port = gate.port();
        let keeper = thread::spawn(move || {
            for _ in 0..3 {
                // Within each three, the last goes first.
                for arrival in gate.arrivals(3).into_iter().rev() {
                    arrival.let_go();
                }
            }
        });
        let items = 0..9;
        let results = items
            .in_parallel(3, |number| gated::with().start(method).call(port, number))
            .unwrap();
        let mut indexed: Vec<_> = results
            .indexed()
            .map(|(index, result)| (index, result.unwrap()))
            .collect();
        assert!(
            indexed.iter().all(|(index, number)| *index == *number as usize),
            "{method}: {indexed:?}"
        );
        indexed.sort_unstable();
        assert!(indexed.into_iter().map(|(index, _)| index).eq(0..9), "{method}");
        keeper.join().unwrap();
    }
}

#[test]
#[parallel]
fn failed_item_ends_nothing() {
    let _watchdog = Watchdog::new();
    let gate = Gate::new();
    for method in ALL {
        let items = ["fine", "own", "panic", "fine", "own"];
        let results = items
            .into_iter()
            .in_parallel(2, |how| failing(method, how, &gate))
            .unwrap();
        let mut results: Vec<_> = results
            .indexed()
            .map(|(index, result)| (index, result.map_err(|error| error.kind())))
            .collect();
        results.sort_by_key(|(index, _)| *index);
        let own = || Ok(Err("an error of its own".to_owned()));
        let expected = [
            (0, Ok(Ok(1))),
            (1, own()),
            (2, Err(ErrorKind::Panicked)),
            (3, Ok(Ok(1))),
            (4, own()),
        ];
        assert_eq!(results, expected, "{method}");
        let no_items = std::iter::empty::<&str>();
        assert_eq!(
            no_items
                .in_parallel(4, |how| failing(method, how, &gate))
                .unwrap()
                .count(),
            0,
            "{method}"
        );
    }
}

#[test]
#[parallel]
fn panicking_iterator_tells_its_caller_and_loses_nothing_that_runs() {
    let _watchdog = Watchdog::new();
    for method in ALL {
        let items = (0..5).inspect(|x| assert!(*x != 3, "no more items"));
        let mut results = items
            .in_parallel(2, |x| double::with().start(method).call(x))
            .unwrap();
        let mut seen = vec![results.next().unwrap().unwrap(), results.next().unwrap().unwrap()];
        let caught = catch_unwind(AssertUnwindSafe(|| results.next().map(drop))).unwrap_err();
        assert_eq!(caught.downcast_ref::<&str>(), Some(&"no more items"), "{method}");
        seen.extend(results.map(Result::unwrap));
        seen.sort_unstable();
        assert_eq!(
            seen,
            [0, 2, 4, 8],
            "{method}: the iterator went on after its panic"
        );
    }
}

/// Goes through one gate after the other.
#[task]
fn twice_gated(first: u16, second: u16, number: u32) {
    stand_at(first, number);
    stand_at(second, number);
}

#[test]
#[parallel]
fn dropped_in_parallel_lets_its_tasks_run_on() {
    let _watchdog = Watchdog::new();
    for method in BESIDE {
        let (first, second) = (Gate::new(), Gate::new());
        let ports = (first.port(), second.port());
        let start = |number| twice_gated::with().start(method).call(ports.0, ports.1, number);
        let mut results = (0..).in_parallel(3, start).unwrap();
        let here = thread::scope(|scope| {
            let first_ends = scope.spawn(|| {
                let mut here = first.arrivals(3);
                here.remove(0).let_go();
                second.arrival().let_go();
                here
            });
            results.next().unwrap().unwrap();
            first_ends.join().unwrap()
        });
        drop(results);
        here.into_iter().for_each(support::Arrival::let_go);
        second.arrivals(2).into_iter().for_each(support::Arrival::let_go);
    }
}

#[test]
#[parallel]
fn dropped_list_kills_only_what_was_to_be_killed() {
    let _watchdog = Watchdog::new();
    let gate = Gate::new();
    for method in [StartMethod::ForkServer, StartMethod::Spawn] {
        let start = |number| gated::with().start(method).call(gate.port(), number);
        for of_a_list in [true, false] {
            let futures = [start(0).kill_on_drop(), start(1)];
            let mut here = gate.arrivals(2);
            match of_a_list {
                true => drop(InFlight::from_iter(futures)),
                false => drop(as_completed(futures)),
            }
            let runs_on = here.pop().unwrap();
            here.pop().unwrap().wait_until_gone();
            runs_on.let_go();
        }
        // The rest of a wait is not dropped.
        let waited = wait([start(2).kill_on_drop()], Until::All, Some(Duration::ZERO));
        gate.arrival().let_go();
        assert_eq!(values(waited.pending), [2], "{method}");
    }
}

// --- leaks ----------------------------------------------------------------------------------------------------------

#[test]
#[serial]
fn lists_leave_no_process_thread_or_descriptor_behind() {
    let _watchdog = Watchdog::new();
    let round = || {
        let gate = Gate::new();
        for method in BESIDE {
            let start = |number| gated::with().start(method).call(gate.port(), number);
            let Waited { pending, .. } = wait(
                (0..3).map(start),
                Until::FirstDone,
                Some(Duration::from_millis(1)),
            );
            let completed = as_completed(pending).timeout(Duration::from_millis(1));
            let list: InFlight<u32> = completed.into_pending().into_iter().collect();
            let here = gate.arrivals(3);
            assert_eq!(list.len(), 3, "{method}");
            drop(here);
            assert_eq!(waitfor(&list).count(), 3, "{method}");
            let results = (0..8)
                .in_parallel(4, |x| double::with().start(method).call(x))
                .unwrap();
            assert_eq!(
                results.take(5).filter(|result| result.is_ok()).count(),
                5,
                "{method}"
            );
            // Dropped as a whole, before and after their ends.
            list.push(double::with().start(method).call(1));
            drop(list);
        }
    };
    // The library's own threads and its fork server stay.
    round();
    let before = Holdings::now();
    for _ in 0..5 {
        round();
    }
    before.check();
}
