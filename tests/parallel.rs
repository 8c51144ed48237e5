//! `Parallel`: what becomes of each task, how many run at once, `first_ok`, `close`, and that nothing is left behind.

#![allow(
    clippy::unwrap_used,
    reason = "a test's helper that unwraps says where it failed"
)]

mod support;

use std::collections::HashSet;
use std::thread;
use std::time::Duration;

use inparallel::{Call, ErrorKind, Joined, NoneOk, Parallel, Split, StartMethod, Stderr, task};
use serial_test::{parallel, serial};

use support::{ALL, BESIDE, Gate, Holdings, LONG, Watchdog, stand_at};

type Own = std::result::Result<u32, String>;

/// Ends in the way that is asked for.
#[task]
fn end(how: &str) -> Own {
    match how {
        "own" => Err("an error of its own".into()),
        "panic" => panic!("a panic"),
        number => Ok(number.parse().unwrap()),
    }
}

fn quiet(method: StartMethod) -> impl Fn(&'static str) -> Call<Own> + Send + Sync {
    move |how| end::with().start(method).stderr(Stderr::Capture).call_later(how)
}

/// Stands at the gate, then returns its number and its process.
#[task]
fn gated(port: u16, number: u32) -> (u32, u32) {
    stand_at(port, number);
    (number, std::process::id())
}

#[task]
fn process_of(_: u32) -> u32 {
    std::process::id()
}

#[task]
fn leave(code: Option<i32>) -> u32 {
    #[expect(clippy::disallowed_methods, reason = "this is how the worker ends")]
    code.into_iter().for_each(|code| std::process::exit(code));
    std::process::id()
}

// --- join -----------------------------------------------------------------------------------------------------------

#[test]
#[parallel]
fn every_task_is_in_one_list_with_the_number_of_its_input() {
    let _watchdog = Watchdog::new();
    for method in ALL {
        let Joined { results, errors } = Parallel::new(quiet(method))
            .map(["1", "panic", "own", "4", "panic"])
            .join();
        let own = Err("an error of its own".to_owned());
        assert_eq!(results, [(0, Ok(1)), (2, own), (3, Ok(4))], "{method}");
        let kinds: Vec<_> = errors
            .iter()
            .map(|(number, error)| (*number, error.kind()))
            .collect();
        assert_eq!(
            kinds,
            [(1, ErrorKind::Panicked), (4, ErrorKind::Panicked)],
            "{method}"
        );
    }
}

#[test]
#[parallel]
fn split_takes_the_errors_of_the_tasks_from_their_values() {
    let _watchdog = Watchdog::new();
    let joined = Parallel::new(quiet(StartMethod::default()))
        .map(["own", "2", "panic"])
        .join();
    let Split {
        results,
        failures,
        errors,
    } = joined.split();
    assert_eq!(results, [(1, 2)]);
    assert_eq!(failures, [(0, "an error of its own".to_owned())]);
    assert_eq!(errors.len(), 1);
    assert_eq!((errors[0].0, errors[0].1.panic_message()), (2, Some("a panic")));
}

#[test]
#[parallel]
fn without_tasks_there_is_nothing_to_wait_for() {
    let _watchdog = Watchdog::new();
    let none = Parallel::new(end::later);
    assert!(none.join().results.is_empty());
    assert!(matches!(
        none.first_ok(None),
        Err(NoneOk::AllFailed { failed }) if failed.is_empty()
    ));
}

#[test]
#[parallel]
fn all_tasks_run_at_once() {
    let _watchdog = Watchdog::new();
    for method in BESIDE {
        let gate = Gate::new();
        let port = gate.port();
        let all = Parallel::new(move |number| gated::with().start(method).call_later(port, number));
        for number in 10..16 {
            assert_eq!(all.call(number), number as usize - 10, "{method}");
        }
        let here = gate.arrivals(6);
        here.into_iter().rev().for_each(|arrival| arrival.let_go());
        let results = all.join().results;
        let numbers: Vec<_> = results
            .iter()
            .map(|(number, (given, _))| (*number, *given))
            .collect();
        assert_eq!(
            numbers,
            [(0, 10), (1, 11), (2, 12), (3, 13), (4, 14), (5, 15)],
            "{method}"
        );
    }
}

#[test]
#[parallel]
fn tasks_may_be_added_by_many_threads() {
    let _watchdog = Watchdog::new();
    let all = Parallel::with_workers(process_of::later, 2).unwrap();
    let numbers: HashSet<usize> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| [all.call(1), all.call(2), all.call(3)]))
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(numbers, (0..12).collect());
    assert_eq!(all.join().results.len(), 12);
}

// --- workers that stay ----------------------------------------------------------------------------------------------

#[test]
#[parallel]
fn a_task_waits_for_one_of_the_workers() {
    let _watchdog = Watchdog::new();
    let gate = Gate::new();
    let port = gate.port();
    let all = Parallel::with_workers(move |number| gated::later(port, number), 2).unwrap();
    all.map(0..5);
    let mut here = gate.arrivals(2);
    for _ in 2..5 {
        here.remove(0).let_go();
        here.push(gate.arrival());
    }
    drop(here);
    let joined = all.join();
    let processes: HashSet<u32> = joined.results.iter().map(|(_, (_, process))| *process).collect();
    assert_eq!((joined.results.len(), processes.len()), (5, 2));
}

#[test]
#[parallel]
fn workers_stay_for_the_tasks_after_a_join() {
    let _watchdog = Watchdog::new();
    let all = Parallel::with_workers(process_of::later, 1).unwrap();
    let first = all.map([1, 2]).join().results;
    let second = all.map([3]).join().results;
    assert_eq!(first, [(0, second[0].1), (1, second[0].1)]);
}

#[test]
#[parallel]
fn a_worker_that_dies_is_one_error_and_is_replaced() {
    let _watchdog = Watchdog::new();
    let all = Parallel::with_workers(leave::later, 1).unwrap();
    for code in [3, 4] {
        let Joined { results, errors } = all.map([None, Some(code), None]).join();
        let numbers: Vec<_> = results.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [0, 2]);
        assert_ne!(results[0].1, results[1].1, "another process");
        assert_eq!(
            (errors[0].0, errors[0].1.exit_code()),
            (1, Some(code)),
            "{errors:?}"
        );
    }
}

#[test]
#[parallel]
fn no_workers_are_refused_with_a_remedy() {
    let error = Parallel::with_workers(end::later, 0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(
        error.to_string(),
        "workers: 0 cannot be used; a pool needs at least one"
    );
}

// --- close ----------------------------------------------------------------------------------------------------------

#[test]
#[parallel]
fn a_task_after_close_is_an_error_and_those_before_are_kept() {
    let _watchdog = Watchdog::new();
    let with_workers = Parallel::with_workers(end::later, 1).unwrap();
    for all in [Parallel::new(end::later), with_workers] {
        all.map(["1", "2"]);
        all.close();
        all.close();
        assert_eq!(all.call("3"), 2);
        let Joined { results, errors } = all.join();
        assert_eq!(results, [(0, Ok(1)), (1, Ok(2))]);
        assert_eq!((errors[0].0, errors[0].1.kind()), (2, ErrorKind::Closed));
        let text = errors[0].1.to_string();
        assert!(text.contains("the Parallel takes no tasks any more"), "{text}");
    }
}

// --- first_ok -------------------------------------------------------------------------------------------------------

#[test]
#[parallel]
fn first_ok_gives_the_first_value_and_the_rest() {
    let _watchdog = Watchdog::new();
    let gate = Gate::new();
    let port = gate.port();
    for all in [
        Parallel::new(move |number| gated::later(port, number)),
        Parallel::with_workers(move |number| gated::later(port, number), 3).unwrap(),
    ] {
        all.map(0..3);
        let mut here = gate.arrivals(3);
        here.remove(1).let_go();
        let first = all.first_ok(LONG).unwrap();
        assert_eq!((first.index, first.value.0, first.rest.len()), (1, 1, 2));
        first.cancel_rest();
        here.into_iter().for_each(|arrival| arrival.wait_until_gone());
        assert!(all.join().results.is_empty(), "they were given away");
    }
}

#[test]
#[parallel]
fn first_ok_ends_at_its_limit_or_when_all_have_failed() {
    let _watchdog = Watchdog::new();
    let gate = Gate::new();
    let port = gate.port();
    let all = Parallel::new(move |number| gated::later(port, number));
    let none = all.map([7]).first_ok(Duration::from_millis(10)).unwrap_err();
    assert!(none.is_timed_out());
    none.cancel_rest();

    let all = Parallel::with_workers(quiet(StartMethod::default()), 2).unwrap();
    let none = all.map(["own", "panic"]).first_ok(None).unwrap_err();
    assert!(!none.is_timed_out() && none.failed().len() == 2, "{none}");
}

// --- what is left ---------------------------------------------------------------------------------------------------

#[test]
#[serial]
fn dropped_tasks_run_to_their_end_and_nothing_is_left() {
    let _watchdog = Watchdog::new();
    // What is made once and stays: the supervisor, the fork server.
    Parallel::new(process_of::later).map(0..2).join();
    let before = Holdings::now();
    let gate = Gate::new();
    let port = gate.port();
    let all = Parallel::with_workers(move |number| gated::later(port, number), 1).unwrap();
    all.map(0..3);
    let first = gate.arrival();
    drop(all);
    first.let_go();
    for number in [1, 2] {
        let arrival = gate.arrival();
        assert_eq!(arrival.number, number);
        arrival.let_go();
    }
    drop(gate);
    before.check();
}

#[test]
fn it_can_be_used_by_many_threads_whatever_a_task_returns() {
    fn is_send_and_sync<T: Send + Sync + std::fmt::Debug>(_: &T) {}
    let all = Parallel::<u32, std::cell::Cell<u32>>::new(|_| unreachable!("no task is added"));
    is_send_and_sync(&all);
}
