//! `Hydra`: heads compete, every item comes out once, and nothing is left behind.

#![allow(
    clippy::unwrap_used,
    reason = "a test's helper that unwraps says where it failed"
)]

mod support;

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use inparallel::{Error, ErrorKind, Hydra, Options, Pool, PoolBuilder, StartMethod, Stderr, Worked, task};
use serial_test::{parallel, serial};

use support::{ALL, BESIDE, Gate, Holdings, LONG, Watchdog, stand_at};

#[task]
fn double(x: u32) -> u32 {
    x * 2
}

/// Stands at the gate before it returns.
#[task]
fn gated(port: u16, number: u32) -> u32 {
    stand_at(port, number);
    number
}

/// Stands at the gate twice.
#[task]
fn twice_gated(port: u16, number: u32) -> u32 {
    stand_at(port, number);
    stand_at(port, number + 100);
    number
}

#[task]
fn end(how: &str) -> Result<u32, String> {
    match how {
        "own" => Err("an error of its own".into()),
        "panic" => panic!("a panic"),
        #[expect(clippy::disallowed_methods, reason = "this is how the worker ends")]
        "exit" => std::process::exit(3),
        number => Ok(number.parse().unwrap()),
    }
}

#[task]
fn stand(port: u16) {
    stand_at(port, 0);
}

#[task]
fn refuse() {
    panic!("no worker today");
}

fn one_worker(method: StartMethod) -> PoolBuilder {
    let options = Options::new().stderr(Stderr::Capture).grace(Duration::ZERO);
    Pool::builder().workers(1).start(method).options(options)
}

fn gated_hydra(gate: &Gate, method: StartMethod) -> Hydra<u32, u32> {
    let port = gate.port();
    let hydra = Hydra::new().unwrap();
    hydra
        .do_work("gated", move |number| gated::later(port, number))
        .pool(one_worker(method))
        .unwrap();
    hydra
}

fn add_all(hydra: &Hydra<u32, u32>, items: impl IntoIterator<Item = u32>) {
    items.into_iter().for_each(|item| _ = hydra.add_work(item));
}

fn outcome<In, Out>(done: Worked<In, Out>) -> (usize, String, Result<Out, ErrorKind>) {
    (done.index, done.head, done.result.map_err(|error| error.kind()))
}

fn indices<In, Out>(done: &[Worked<In, Out>]) -> BTreeSet<usize> {
    done.iter().map(|done| done.index).collect()
}

// --- heads ----------------------------------------------------------------------------------------------------------

#[test]
#[parallel]
fn heads_take_items_of_one_queue_as_their_workers_are_free() {
    let _watchdog = Watchdog::new();
    let gate = Gate::new();
    let port = gate.port();
    let hydra = Hydra::new().unwrap();
    add_all(&hydra, 0..6);
    hydra
        .do_work("one", move |number| gated::later(port, number))
        .workers(1)
        .unwrap();
    hydra
        .do_work("two", move |number| gated::later(port, number))
        .workers(2)
        .unwrap();
    let mut here = gate.arrivals(3);
    assert_eq!(hydra.waiting(), 3);
    for _ in 3..6 {
        here.remove(0).let_go();
        here.push(gate.arrival());
    }
    drop(here);
    let results = hydra.get_results(6);
    assert_eq!(indices(&results), (0..6).collect());
    for head in ["one", "two"] {
        assert!(results.iter().any(|done| done.head == head), "{results:?}");
    }
    assert!(
        results
            .iter()
            .all(|done| done.result.as_ref().ok() == Some(&done.item))
    );
}

#[test]
#[parallel]
fn what_one_head_is_busy_with_keeps_no_other_from_working() {
    let _watchdog = Watchdog::new();
    for method in BESIDE {
        let gate = Gate::new();
        let hydra = gated_hydra(&gate, method);
        hydra.add_work(0);
        let stuck = gate.arrival();
        hydra
            .do_work("double", double::later)
            .pool(one_worker(method))
            .unwrap();
        add_all(&hydra, 1..=20);
        for (number, done) in (1..=20).zip(hydra.get_results(20)) {
            assert_eq!(
                (done.item, done.head.as_str(), done.result.unwrap()),
                (number, "double", 2 * number),
                "{method}"
            );
        }
        stuck.let_go();
        let last = hydra.get_result().unwrap();
        assert_eq!(outcome(last), (0, "gated".into(), Ok(0)), "{method}");
        assert!(hydra.get_result().is_none(), "{method}");
    }
}

#[test]
#[parallel]
fn an_item_that_fails_is_a_result_that_names_it() {
    let _watchdog = Watchdog::new();
    let hydra = Hydra::new().unwrap();
    hydra
        .do_work("end", end::later)
        .pool(one_worker(StartMethod::default()))
        .unwrap();
    let items = ["1", "panic", "exit", "own", "5"];
    for (index, item) in items.into_iter().enumerate() {
        assert_eq!(hydra.add_work(item), index);
    }
    let results: Vec<_> = hydra.get_results(5);
    assert!(results.iter().all(|done| done.item == items[done.index]));
    let results: Vec<_> = results.into_iter().map(outcome).collect();
    let own = Ok(Err("an error of its own".to_owned()));
    let expected = [
        (0, "end".to_owned(), Ok(Ok(1))),
        (1, "end".to_owned(), Err(ErrorKind::Panicked)),
        (2, "end".to_owned(), Err(ErrorKind::Exited)),
        (3, "end".to_owned(), own),
        (4, "end".to_owned(), Ok(Ok(5))),
    ];
    assert_eq!(results, expected);
}

#[test]
#[parallel]
fn a_head_has_workers_of_every_method_that_a_pool_has() {
    let _watchdog = Watchdog::new();
    for method in ALL {
        let hydra = Hydra::new().unwrap();
        let head = hydra.do_work("double", double::later);
        match head.pool(one_worker(method)) {
            Ok(()) => {
                hydra.add_work(3);
                let done = hydra.get_result().unwrap();
                assert_eq!(outcome(done), (0, "double".into(), Ok(6)), "{method}");
            }
            Err(error) => assert_eq!(
                (method, error.kind()),
                (StartMethod::Inline, ErrorKind::Invalid),
                "{error}"
            ),
        }
    }
}

#[test]
#[parallel]
fn a_closure_that_panics_costs_its_item_only() {
    let _watchdog = Watchdog::new();
    let hydra = Hydra::new().unwrap();
    let call = |x| match x {
        1 => panic!("no call of 1"),
        x => double::later(x),
    };
    hydra.do_work("picky", call).workers(1).unwrap();
    add_all(&hydra, 0..3);
    let mut results = hydra.get_results(3);
    results.sort_by_key(|done| done.index);
    let error = results[1].result.as_ref().unwrap_err();
    assert_eq!(error.panic_message(), Some("no call of 1"));
    assert_eq!(results[2].result.as_ref().unwrap(), &4);
}

#[test]
#[parallel]
fn a_head_whose_workers_cannot_be_made_does_not_eat_the_items() {
    let _watchdog = Watchdog::new();
    let hydra = Hydra::new().unwrap();
    let broken = one_worker(StartMethod::default()).worker_init(refuse::later());
    hydra.do_work("broken", double::later).pool(broken).unwrap();
    add_all(&hydra, 0..10);
    let failed = hydra.get_result().unwrap();
    assert_eq!(failed.head, "broken");
    let text = failed.result.unwrap_err().to_string();
    assert!(text.contains("no worker today"), "{text}");
    assert!(hydra.get_result().is_none(), "nobody works any more");
    hydra.do_work("other", double::later).workers(1).unwrap();
    let rest = hydra.get_results(10);
    assert_eq!(rest.len(), 9);
    assert!(rest.iter().all(|done| done.head == "other"));
}

// --- waiting --------------------------------------------------------------------------------------------------------

#[test]
#[parallel]
fn what_has_come_by_the_limit_is_given() {
    let _watchdog = Watchdog::new();
    let gate = Gate::new();
    let port = gate.port();
    let hydra = Hydra::new().unwrap();
    let call = move |x| match x {
        2 => gated::later(port, x),
        x => double::later(x),
    };
    hydra.do_work("some", call).workers(1).unwrap();
    add_all(&hydra, 0..4);
    // It is given an item when it is done with the one before.
    let stuck = gate.arrival();
    let limit = Duration::from_millis(10);
    assert_eq!(indices(&hydra.get_results_timeout(4, limit)), [0, 1].into());
    assert!(hydra.get_results_timeout(4, Duration::ZERO).is_empty());
    stuck.let_go();
    assert_eq!(indices(&hydra.get_results_timeout(4, LONG)), [2, 3].into());
    assert!(hydra.get_results_timeout(1, LONG).is_empty());
}

#[test]
#[parallel]
fn without_heads_nobody_waits() {
    let _watchdog = Watchdog::new();
    let hydra = Hydra::<u32, u32>::new().unwrap();
    assert!(hydra.get_result().is_none());
    add_all(&hydra, 5..8);
    assert!(hydra.get_results(3).is_empty());
    assert_eq!(hydra.cleanup(), [(0, 5), (1, 6), (2, 7)]);
    assert!(hydra.cleanup().is_empty());
}

#[test]
#[parallel]
fn who_waits_is_told_when_the_last_head_is_gone() {
    let _watchdog = Watchdog::new();
    for method in BESIDE {
        let gate = Gate::new();
        let hydra = gated_hydra(&gate, method);
        add_all(&hydra, 0..2);
        let _stuck = gate.arrival();
        thread::scope(|scope| {
            let waits = scope.spawn(|| hydra.get_results(2));
            hydra.kill_worker("gated").unwrap();
            let results: Vec<_> = waits.join().unwrap().into_iter().map(outcome).collect();
            assert_eq!(
                results,
                [(0, "gated".into(), Err(ErrorKind::Cancelled))],
                "{method}"
            );
        });
        assert_eq!(hydra.cleanup(), [(1, 1)], "{method}");
    }
}

// --- kill_worker, cleanup, drop -------------------------------------------------------------------------------------

#[test]
#[parallel]
fn a_killed_head_leaves_its_waiting_items_to_the_others() {
    let _watchdog = Watchdog::new();
    let gate = Gate::new();
    let hydra = gated_hydra(&gate, StartMethod::default());
    add_all(&hydra, 0..5);
    let stuck = gate.arrival();
    hydra.kill_worker("gated").unwrap();
    stuck.wait_until_gone();
    // The name is free again.
    hydra.do_work("gated", double::later).workers(1).unwrap();
    let mut results: Vec<_> = hydra.get_results(5).into_iter().map(outcome).collect();
    results.sort_by_key(|(index, ..)| *index);
    let of = |index, result| (index, "gated".to_owned(), result);
    let expected = [
        of(0, Err(ErrorKind::Cancelled)),
        of(1, Ok(2)),
        of(2, Ok(4)),
        of(3, Ok(6)),
        of(4, Ok(8)),
    ];
    assert_eq!(results, expected);
}

#[test]
#[parallel]
fn an_item_whose_worker_had_not_begun_is_not_lost() {
    let _watchdog = Watchdog::new();
    for method in BESIDE {
        let gate = Gate::new();
        let hydra = Hydra::new().unwrap();
        let not_ready = one_worker(method).worker_init(stand::later(gate.port()));
        hydra.do_work("late", double::later).pool(not_ready).unwrap();
        hydra.add_work(7);
        // The worker is not ready before it is let go, and was wanted for the item.
        let _stuck = gate.arrival();
        hydra.kill_worker("late").unwrap();
        hydra
            .do_work("other", double::later)
            .pool(one_worker(method))
            .unwrap();
        let done = hydra.get_result().unwrap();
        assert_eq!(outcome(done), (0, "other".into(), Ok(14)), "{method}");
    }
}

#[test]
#[parallel]
fn cleanup_gives_back_what_was_not_begun() {
    let _watchdog = Watchdog::new();
    for method in BESIDE {
        let gate = Gate::new();
        let hydra = gated_hydra(&gate, method);
        add_all(&hydra, 10..14);
        let stuck = gate.arrival();
        assert_eq!(hydra.cleanup(), [(1, 11), (2, 12), (3, 13)], "{method}");
        if method != StartMethod::Thread {
            stuck.wait_until_gone();
        }
        let killed = hydra.get_result().unwrap();
        assert_eq!(
            outcome(killed),
            (0, "gated".into(), Err(ErrorKind::Cancelled)),
            "{method}"
        );
        // As new, but for the numbers.
        hydra
            .do_work("double", double::later)
            .pool(one_worker(method))
            .unwrap();
        assert_eq!(hydra.add_work(1), 4, "{method}");
        let done = hydra.get_result().unwrap();
        assert_eq!(outcome(done), (4, "double".into(), Ok(2)), "{method}");
    }
}

#[test]
#[serial]
fn dropping_it_lets_what_runs_come_to_its_end_and_leaves_nothing() {
    let _watchdog = Watchdog::new();
    for method in BESIDE {
        // What is made once and stays: the supervisor, the fork server.
        double::with().start(method).call(1).wait().unwrap();
        let before = Holdings::now();
        let gate = Gate::new();
        let port = gate.port();
        let hydra = Hydra::new().unwrap();
        hydra
            .do_work("gated", move |number| twice_gated::later(port, number))
            .pool(one_worker(method))
            .unwrap();
        add_all(&hydra, 0..3);
        let here = gate.arrival();
        drop(hydra);
        here.let_go();
        let again = gate.arrival();
        assert_eq!(again.number, 100, "{method}: no other has begun");
        again.let_go();
        drop(gate);
        before.check();
    }
}

#[test]
#[parallel]
fn every_item_comes_out_once_whatever_is_killed() {
    let _watchdog = Watchdog::new();
    let seconds = std::env::var("RACE_TEST_SECS").map_or(1, |text| text.parse().unwrap());
    let end = Instant::now() + Duration::from_secs(seconds);
    for method in BESIDE.into_iter().cycle() {
        let hydra = Hydra::new().unwrap();
        let add_head = |name: &str| {
            let head = hydra.do_work(name, double::later);
            head.pool(one_worker(method).workers(2)).unwrap();
        };
        add_head("left");
        add_head("right");
        let got = |count| hydra.get_results(count).into_iter().map(|done| done.index);
        let back = || hydra.cleanup().into_iter().map(|(index, _)| index);
        let mut seen: Vec<usize> = thread::scope(|scope| {
            let kills = || {
                for name in ["left", "right", "left"] {
                    // After a cleanup there is none.
                    if hydra.kill_worker(name).is_ok() {
                        add_head(name);
                    }
                }
            };
            scope.spawn(kills);
            let gets = scope.spawn(|| got(100).collect::<Vec<_>>());
            let cleans = scope.spawn(|| got(20).chain(back()).collect::<Vec<_>>());
            add_all(&hydra, 0..300);
            [gets, cleans]
                .into_iter()
                .flat_map(|thread| thread.join().unwrap())
                .collect()
        });
        seen.extend(back());
        seen.extend(got(300));
        seen.sort_unstable();
        assert_eq!(seen, (0..300).collect::<Vec<_>>(), "{method}");
        assert!(hydra.get_result().is_none(), "{method}");
        if Instant::now() > end {
            break;
        }
    }
}

// --- bad input ------------------------------------------------------------------------------------------------------

#[test]
#[parallel]
fn bad_input_is_named_with_a_remedy() {
    let _watchdog = Watchdog::new();
    let hydra = Hydra::<u32, u32>::new().unwrap();
    let check = |result: Result<(), Error>, expected: &str| {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert_eq!(error.to_string(), expected);
    };
    check(
        hydra.kill_worker("adder"),
        "head: \"adder\" cannot be used; there is no head; do_work adds one",
    );
    check(
        hydra.do_work("adder", double::later).workers(0),
        "workers: 0 cannot be used; a pool needs at least one",
    );
    hydra.do_work("adder", double::later).workers(1).unwrap();
    hydra.do_work("other", double::later).workers(1).unwrap();
    check(
        hydra.do_work("adder", double::later).workers(1),
        "head: \"adder\" cannot be used; there is a head of this name; give each its own, or kill_worker the other before",
    );
    check(
        hydra.kill_worker("Adder"),
        "head: \"Adder\" cannot be used; there are: adder, other",
    );
    check(
        hydra
            .do_work("third", double::later)
            .pool(Pool::builder().name("shared")),
        "pool name: a name cannot be used; the pool of a head is its own; leave the name out",
    );
    assert!(Pool::by_name("shared").is_none());
}

#[test]
fn it_can_be_used_by_many_threads_whatever_a_task_returns() {
    fn is_send_and_sync<T: Send + Sync + std::fmt::Debug>(_: &T) {}
    is_send_and_sync(&Hydra::<u32, std::cell::Cell<u32>>::new().unwrap());
}

// --- many -----------------------------------------------------------------------------------------------------------

#[test]
#[serial]
fn an_item_that_waits_costs_no_descriptor() {
    let _watchdog = Watchdog::new();
    let descriptors = || std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let hydra = Hydra::new().unwrap();
    hydra.do_work("double", double::later).workers(2).unwrap();
    hydra.add_work(0);
    hydra.get_result().unwrap().result.unwrap();
    let before = descriptors();
    add_all(&hydra, 1..=31_337);
    let during = descriptors();
    let results = hydra.get_results(31_337);
    assert_eq!(indices(&results), (1..=31_337).collect());
    assert!(results.iter().all(|done| done.result.is_ok()));
    // Both workers, and what they are given.
    assert!(during <= before + 8, "{before} {during}");
}
