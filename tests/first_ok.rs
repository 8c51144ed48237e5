//! `first_ok`: what counts as a value, what is given back, and that its limit holds.

#![allow(
    clippy::unwrap_used,
    reason = "a test's helper that unwraps says where it failed"
)]

mod support;

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use inparallel::{
    ErrorKind, FirstOk, NoneOk, Result, StartMethod, Stderr, TaskFuture, TaskId, Until, first_ok, task, wait,
};
use serde::{Deserialize, Serialize};
use serial_test::{parallel, serial};

use support::{ALL, BESIDE, Gate, Holdings, LONG, Watchdog, stand_at};

type Own = std::result::Result<u32, String>;
type Ending = std::result::Result<Own, ErrorKind>;

/// Stands at the gate, if it is given one, and then ends in the way that is asked for.
#[task]
fn end(how: &str, gate: Option<(u16, u32)>) -> Own {
    gate.into_iter().for_each(|(port, number)| stand_at(port, number));
    match how {
        "own" => Err("an error of its own".into()),
        "panic" => panic!("a panic"),
        number => Ok(number.parse().unwrap()),
    }
}

fn ends(method: StartMethod, how: &str, gate: Option<(u16, u32)>) -> TaskFuture<Own> {
    end::with()
        .start(method)
        .stderr(Stderr::Capture)
        .grace(Duration::ZERO)
        .call(how, gate)
}

fn endings(failed: Vec<(usize, Result<Own>)>) -> Vec<(usize, Ending)> {
    let failed = failed.into_iter();
    failed
        .map(|(index, result)| (index, result.map_err(|error| error.kind())))
        .collect()
}

fn own() -> Ending {
    Ok(Err("an error of its own".into()))
}

fn ids<T>(futures: &[TaskFuture<T>]) -> Vec<TaskId> {
    futures.iter().map(TaskFuture::id).collect()
}

// --- the first value ------------------------------------------------------------------------------------------------

#[test]
#[parallel]
fn failures_of_every_kind_are_passed_over_and_told() {
    let _watchdog = Watchdog::new();
    for method in BESIDE {
        let gate = Gate::new();
        let gated = |how, number| ends(method, how, Some((gate.port(), number)));
        let futures = [
            gated("10", 0),
            ends(method, "own", None),
            ends(method, "panic", None),
            gated("13", 3),
            gated("14", 4),
            gated("15", 5),
        ];
        let mut here = gate.arrivals(4);
        futures[3].cancel();
        let (tx, rx) = mpsc::channel();
        for future in &futures[1..4] {
            let tx = tx.clone();
            future.on_done(move |_| tx.send(()).unwrap());
        }
        (0..3).for_each(|_| rx.recv().unwrap());
        let blocked = [futures[0].id(), futures[5].id()];
        here.remove(2).let_go();
        let first = first_ok(futures, Some(LONG)).unwrap();
        assert_eq!((first.index, &first.value), (4, &Ok(14)), "{method}");
        assert_eq!(ids(&first.rest), blocked, "{method}: in the order of giving");
        first.cancel_rest();
        let expected = [
            (1, own()),
            (2, Err(ErrorKind::Panicked)),
            (3, Err(ErrorKind::Cancelled)),
        ];
        assert_eq!(endings(first.failed), expected, "{method}");
        for future in first.rest {
            assert_eq!(
                future.wait().unwrap_err().kind(),
                ErrorKind::Cancelled,
                "{method}"
            );
        }
    }
}

#[test]
#[parallel]
fn first_to_end_counts_and_of_those_that_have_ended_the_first_in_order() {
    let _watchdog = Watchdog::new();
    for method in BESIDE {
        let gate = Gate::new();
        let gated = |number| ends(method, "1", Some((gate.port(), number)));
        let futures = [gated(0), gated(1), gated(2)];
        gate.arrivals(3).remove(1).let_go();
        // The others were let go as well; whichever it was, two are given back.
        let FirstOk { rest, failed, .. } = first_ok(futures, None).unwrap();
        assert_eq!((rest.len(), failed.len()), (2, 0), "{method}");
        let done = wait(rest, Until::All, None).done;
        let first = first_ok(done, Some(Duration::ZERO)).unwrap();
        assert_eq!((first.index, first.rest.len()), (0, 1), "{method}");

        let futures = [gated(3), gated(4), gated(5)];
        let mut here = gate.arrivals(3);
        here.remove(1).let_go();
        let first = first_ok(futures, None).unwrap();
        assert_eq!(first.index, 1, "{method}");
        here.remove(1).let_go();
        let again = first_ok(first.rest, Some(LONG)).unwrap();
        assert_eq!(
            (again.index, again.rest.len()),
            (1, 1),
            "{method}: as good as new"
        );
    }
    for method in ALL {
        let futures = ["own", "2", "3"].map(|how| ends(method, how, None));
        let done = wait(futures, Until::All, None).done;
        let first = first_ok(done, None).unwrap();
        assert_eq!((first.index, first.value), (1, Ok(2)), "{method}");
        assert_eq!(endings(first.failed), [(0, own())], "{method}");
        assert_eq!(
            first.rest.into_iter().next().unwrap().wait().unwrap(),
            Ok(3),
            "{method}"
        );
    }
}

/// Only the result's own `Err` is a failure, not what looks like it.
#[test]
#[parallel]
fn values_that_look_like_errors_are_values() {
    let _watchdog = Watchdog::new();
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Answer {
        Err(String),
    }
    #[task]
    fn answer() -> Answer {
        Answer::Err("by name only".into())
    }
    #[task]
    fn inner() -> std::result::Result<std::result::Result<u8, u8>, u8> {
        Ok(Err(1))
    }
    #[task]
    fn none() -> Option<u8> {
        None
    }
    for method in ALL {
        let first = first_ok([answer::with().start(method).call()], None).unwrap();
        assert_eq!(first.value, Answer::Err("by name only".into()), "{method}");
        let first = first_ok([inner::with().start(method).call()], None).unwrap();
        assert_eq!(first.value, Ok(Err(1)), "{method}");
        let first = first_ok([none::with().start(method).call()], None).unwrap();
        assert_eq!(first.value, None, "{method}");
    }
}

/// Is written, and never read.
#[derive(Debug, Serialize)]
struct Unreadable;

impl<'de> Deserialize<'de> for Unreadable {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> std::result::Result<Self, D::Error> {
        Err(serde::de::Error::custom("not to be read"))
    }
}

#[test]
#[parallel]
fn value_that_cannot_be_had_is_a_failure() {
    let _watchdog = Watchdog::new();
    #[task]
    fn unreadable() -> Unreadable {
        Unreadable
    }
    for method in ALL {
        let none = first_ok([unreadable::with().start(method).call()], None).unwrap_err();
        let error = none.failed()[0].1.as_ref().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResultNotDecodable, "{method}");

        let mut taken = ends(method, "1", None);
        assert_eq!(taken.wait_timeout(LONG).unwrap(), Some(Ok(1)), "{method}");
        let first = first_ok([taken, ends(method, "2", None)], None).unwrap();
        assert_eq!((first.index, first.value), (1, Ok(2)), "{method}");
        assert_eq!(endings(first.failed), [(0, Err(ErrorKind::Taken))], "{method}");
    }
}

// --- none -----------------------------------------------------------------------------------------------------------

#[test]
#[parallel]
fn when_all_have_failed_each_is_told_in_the_order_of_ending() {
    let _watchdog = Watchdog::new();
    for method in BESIDE {
        let gate = Gate::new();
        let kinds = ["own", "panic", "own"];
        let futures = [0, 1, 2].map(|number| {
            let how = kinds[number as usize];
            ends(method, how, Some((gate.port(), number)))
        });
        let mut here: Vec<_> = gate.arrivals(3).into_iter().map(Some).collect();
        let (tx, rx) = mpsc::channel();
        for future in &futures {
            let tx = tx.clone();
            future.on_done(move |_| tx.send(()).unwrap());
        }
        let none = thread::scope(|scope| {
            scope.spawn(move || {
                for number in [2, 0, 1] {
                    here[number].take().unwrap().let_go();
                    rx.recv().unwrap();
                }
            });
            first_ok(futures, Some(LONG)).unwrap_err()
        });
        assert!(!none.is_timed_out(), "{method}");
        none.cancel_rest();
        let said = none.to_string();
        assert!(
            said.starts_with("every task failed (3): ") && said.contains("a panic"),
            "{said}"
        );
        let NoneOk::AllFailed { failed } = none else {
            panic!("{method}: {none:?}");
        };
        let expected = [(2, own()), (0, own()), (1, Err(ErrorKind::Panicked))];
        assert_eq!(endings(failed), expected, "{method}");
    }
    for limit in [None, Some(Duration::ZERO), Some(LONG)] {
        let none = first_ok(Vec::<TaskFuture<u32>>::new(), limit).unwrap_err();
        assert!(matches!(&none, NoneOk::AllFailed { failed } if failed.is_empty()));
        assert_eq!(none.to_string(), "no task was given");
    }
}

#[test]
#[parallel]
fn limit_holds_whatever_has_failed_and_loses_nothing() {
    let _watchdog = Watchdog::new();
    for method in BESIDE {
        let gate = Gate::new();
        let blocked = [0, 1].map(|number| ends(method, "5", Some((gate.port(), number))));
        let mut here = gate.arrivals(2);
        let given = ids(&blocked);
        let [first, second] = blocked;
        let failing = wait([ends(method, "own", None)], Until::All, None).done;
        let futures: Vec<_> = [first].into_iter().chain(failing).chain([second]).collect();
        let (limit, began) = (Duration::from_millis(20), Instant::now());
        let none = first_ok(futures, Some(limit)).unwrap_err();
        assert!(began.elapsed() >= limit && began.elapsed() < LONG, "{method}");
        assert!(none.is_timed_out(), "{method}");
        let said = "no task gave a value in time (2 not done, 1 failed)";
        assert_eq!(none.to_string(), said, "{method}");
        let NoneOk::TimedOut { failed, rest } = none else {
            panic!("{method}: {none:?}");
        };
        assert_eq!(endings(failed), [(1, own())], "{method}");
        assert_eq!(ids(&rest), given, "{method}: in the order of giving");

        // No time at all is a look.
        let none = first_ok(rest, Some(Duration::ZERO)).unwrap_err();
        let NoneOk::TimedOut { failed, rest } = none else {
            panic!("{method}: {none:?}");
        };
        assert_eq!((failed.len(), ids(&rest)), (0, given), "{method}");

        // The tasks went on.
        here.remove(1).let_go();
        let first = first_ok(rest, Some(LONG)).unwrap();
        assert_eq!((first.index, first.value), (1, Ok(5)), "{method}");
    }
}

#[test]
#[parallel]
fn cancelled_rest_ends_and_dropped_rest_runs_on() {
    let _watchdog = Watchdog::new();
    for method in BESIDE {
        let gate = Gate::new();
        let gated = |number| ends(method, "1", Some((gate.port(), number)));
        let none = first_ok([gated(0), gated(1)], Some(Duration::ZERO)).unwrap_err();
        none.cancel_rest();
        let NoneOk::TimedOut { rest, .. } = none else {
            panic!("{method}: {none:?}");
        };
        let none = first_ok(rest, None).unwrap_err();
        let kinds = none
            .failed()
            .iter()
            .map(|(_, result)| result.as_ref().unwrap_err().kind());
        assert!(kinds.eq([ErrorKind::Cancelled; 2]), "{method}");
        // Threads cannot be stopped: they stand at the gate.
        drop(gate);

        let gate = Gate::new();
        let gated = |number| ends(method, "1", Some((gate.port(), number)));
        let futures = [gated(0), gated(1), gated(2).kill_on_drop()];
        let mut here = gate.arrivals(3);
        here.remove(0).let_go();
        let first = first_ok(futures, None).unwrap();
        assert_eq!(first.index, 0, "{method}");
        drop(first);
        if method != StartMethod::Thread {
            here.pop().unwrap().wait_until_gone();
        }
        here.remove(0).let_go();
    }
}

// --- types and leaks ------------------------------------------------------------------------------------------------

#[test]
fn types_are_shown_and_travel_whatever_the_value_is() {
    struct Mute;
    fn check<T: Send + Sync + Unpin + std::fmt::Debug + 'static>() {}
    fn is_error<T: std::error::Error>() {}
    check::<FirstOk<Mute>>();
    check::<NoneOk<Mute>>();
    is_error::<NoneOk<Mute>>();
    let futures = ["own", "panic"].map(|how| ends(StartMethod::Thread, how, None));
    let shown = format!("{:?}", first_ok(futures, None).unwrap_err());
    assert!(
        shown.contains("its own Err") && shown.contains("a panic"),
        "{shown}"
    );
}

#[test]
#[serial]
fn first_ok_leaves_no_process_thread_or_descriptor_behind() {
    let _watchdog = Watchdog::new();
    let round = || {
        let gate = Gate::new();
        for method in BESIDE {
            let futures = [Some((gate.port(), 0)), None, Some((gate.port(), 1))];
            let first = first_ok(futures.map(|gate| ends(method, "1", gate)), None).unwrap();
            drop(gate.arrivals(2));
            first.cancel_rest();
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
