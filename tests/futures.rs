//! One future: its states, its callbacks, its value. Under the standard harness, and with no line of set-up.

#![allow(
    clippy::unwrap_used,
    reason = "a test's helper that unwraps says where it failed"
)]
#![deny(
    unfulfilled_lint_expectations,
    reason = "an expected lint is an assertion here"
)]

mod support;

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Barrier;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use inparallel::{ErrorKind, InFlight, Options, Pool, StartMethod, Stderr, TaskFuture, TaskId, Until, task};
use serde::{Deserialize, Serialize};
use serial_test::{parallel, serial};

use support::{ALL, BESIDE, Gate, Holdings, LONG, Watchdog, stand_at};

/// Stands at the gate, then returns its number.
#[task]
fn gated(port: u16, number: u32) -> u32 {
    stand_at(port, number);
    number
}

/// Goes through one gate after the other.
#[task]
fn twice_gated(first: u16, second: u16) {
    stand_at(first, 1);
    stand_at(second, 2);
}

#[task]
fn double(x: u64) -> u64 {
    x * 2
}

#[task]
fn fall(how: String) -> u64 {
    panic!("fell {how}")
}

#[task]
fn own_pid() -> u32 {
    std::process::id()
}

/// Starts a task that panics, without telling the terminal.
fn fallen(method: StartMethod, how: &str) -> TaskFuture<u64> {
    fall::with()
        .start(method)
        .stderr(Stderr::Capture)
        .call(how.to_owned())
}

/// Waits for the end, and takes nothing.
fn ended<T>(future: TaskFuture<T>) -> TaskFuture<T> {
    let mut done = inparallel::wait([future], Until::All, Some(LONG)).done;
    done.pop().unwrap()
}

// --- states ---------------------------------------------------------------------------------------------------------

#[test]
#[parallel]
fn cancel_is_true_unless_the_task_ended_otherwise() {
    let _watchdog = Watchdog::new();
    let gate = Gate::new();
    for method in BESIDE {
        // 1. Perhaps before there is a worker.
        let early = gated::with().start(method).call(gate.port(), 1);
        assert!(early.cancel(), "{method}");
        assert_eq!(early.wait().unwrap_err().kind(), ErrorKind::Cancelled, "{method}");

        // 2. While it runs, then when it has been cancelled.
        let running = gated::with().start(method).call(gate.port(), 2);
        let here = loop {
            let arrival = gate.arrival();
            if arrival.number == 2 {
                break arrival;
            }
        };
        assert!(running.cancel(), "{method}");
        assert!(running.cancel(), "{method}");
        let running = ended(running);
        assert!(running.cancel(), "{method}: it did end in that way");
        let error = running.wait().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled, "{method}");
        assert_eq!(error.pid().is_some(), method.is_isolated(), "{method}");
        if method.is_isolated() {
            here.wait_until_gone();
        }
    }
    for method in ALL {
        // 3. After it has ended otherwise: the outcome stays.
        let done = ended(double::with().start(method).call(4));
        assert!(!done.cancel(), "{method}");
        assert_eq!(done.wait().unwrap(), 8, "{method}");
        let failed = ended(fallen(method, "down"));
        assert!(!failed.cancel(), "{method}");
        assert_eq!(failed.wait().unwrap_err().kind(), ErrorKind::Panicked, "{method}");
    }
}

#[test]
#[serial]
fn result_after_cancel_is_thrown_away() {
    let _watchdog = Watchdog::new();
    let gate = Gate::new();
    let (seen, outcomes) = mpsc::channel();
    // A thread cannot be stopped, so that its result does arrive.
    let future = twice_gated::with()
        .start(StartMethod::Thread)
        .call(gate.port(), gate.port());
    future.on_done(move |result| {
        seen.send(result.as_ref().map_err(|error| error.kind()).copied())
            .unwrap()
    });
    let first = gate.arrival();
    assert!(future.cancel());
    assert!(future.is_done(), "with nothing to kill it ends at once");
    first.let_go();
    gate.arrival().let_go();
    assert!(inparallel::wait_idle(LONG), "the thread has returned its value");
    assert!(future.cancel());
    assert_eq!(future.wait().unwrap_err().kind(), ErrorKind::Cancelled);
    let outcomes: Vec<_> = outcomes.iter().collect();
    assert_eq!(outcomes, [Err(ErrorKind::Cancelled)], "called once");
}

#[test]
#[parallel]
fn future_is_done_when_its_task_has_ended_in_any_way() {
    let _watchdog = Watchdog::new();
    let gate = Gate::new();
    for method in BESIDE {
        let future = gated::with().start(method).call(gate.port(), 0);
        assert!(!future.is_done(), "{method}");
        let here = gate.arrival();
        assert!(!future.is_done(), "{method}");
        here.let_go();
        assert!(ended(future).is_done(), "{method}");
    }
    for method in ALL {
        assert!(ended(fallen(method, "over")).is_done(), "{method}");
    }
    assert!(double::with().start(StartMethod::Inline).call(1).is_done());
}

#[test]
#[parallel]
fn waiting_with_a_limit_tells_not_yet_from_every_end() {
    let _watchdog = Watchdog::new();
    let gate = Gate::new();
    type Look<T> = fn(&mut TaskFuture<T>) -> inparallel::Result<Option<T>>;
    fn looks<T: serde::de::DeserializeOwned>() -> [Look<T>; 4] {
        [
            TaskFuture::try_wait,
            |future| future.wait_timeout(Duration::ZERO),
            |future| future.wait_timeout(Duration::from_millis(1)),
            |future| future.wait_deadline(Instant::now()),
        ]
    }
    for method in BESIDE {
        for look in looks() {
            let mut future = gated::with().start(method).call(gate.port(), 3);
            assert_eq!(
                look(&mut future).unwrap(),
                None,
                "{method}: not yet, perhaps without a worker"
            );
            let here = gate.arrival();
            assert_eq!(look(&mut future).unwrap(), None, "{method}");
            assert_eq!(
                look(&mut future).unwrap(),
                None,
                "{method}: looking takes nothing"
            );
            here.let_go();
            let mut future = ended(future);
            assert_eq!(look(&mut future).unwrap(), Some(3), "{method}");
            assert_eq!(
                look(&mut future).unwrap_err().kind(),
                ErrorKind::Taken,
                "{method}"
            );

            let cancelled = gated::with().start(method).call(gate.port(), 4);
            let here = gate.arrival();
            cancelled.cancel();
            assert_eq!(
                look(&mut ended(cancelled)).unwrap_err().kind(),
                ErrorKind::Cancelled,
                "{method}"
            );
            drop(here);
        }
    }
    for method in ALL {
        for look in looks() {
            let mut failed = ended(fallen(method, "flat"));
            let error = look(&mut failed).unwrap_err();
            assert_eq!(
                (error.kind(), error.panic_message()),
                (ErrorKind::Panicked, Some("fell flat")),
                "{method}"
            );
            assert_eq!(
                look(&mut failed).unwrap_err().kind(),
                ErrorKind::Taken,
                "{method}"
            );
        }
    }
}

#[test]
#[parallel]
fn limits_beyond_the_clock_wait_as_long_as_it_takes() {
    let _watchdog = Watchdog::new();
    for method in ALL {
        assert_eq!(
            double::with()
                .start(method)
                .call(1)
                .wait_timeout(Duration::MAX)
                .unwrap(),
            Some(2),
            "{method}"
        );
    }
    let waited = inparallel::wait([double(1)], Until::All, Some(Duration::MAX));
    assert_eq!(waited.done.len(), 1);
    assert_eq!(
        inparallel::as_completed([double(1)])
            .timeout(Duration::MAX)
            .count(),
        1
    );
}

#[test]
#[parallel]
fn value_is_taken_once() {
    let _watchdog = Watchdog::new();
    for method in ALL {
        let mut future = double::with().start(method).call(5);
        assert_eq!(future.wait_timeout(LONG).unwrap(), Some(10), "{method}");
        assert!(future.is_done(), "{method}");
        assert!(!future.cancel(), "{method}");
        let error = future.wait().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Taken, "{method}");
        assert!(error.task().ends_with("::double"), "{method}: {error}");
    }
}

#[test]
#[parallel]
fn waiting_thread_is_woken_by_the_end() {
    let _watchdog = Watchdog::new();
    let gate = Gate::new();
    for method in BESIDE {
        for number in 0..5 {
            let future = gated::with().start(method).call(gate.port(), number);
            let here = gate.arrival();
            let ready = Barrier::new(2);
            thread::scope(|scope| {
                let waiter = scope.spawn(|| {
                    ready.wait();
                    future.wait()
                });
                ready.wait();
                here.let_go();
                assert_eq!(waiter.join().unwrap().unwrap(), number, "{method}");
            });
        }
    }
}

#[test]
#[parallel]
fn one_thread_may_start_another_wait_and_a_third_drop() {
    let _watchdog = Watchdog::new();
    for method in ALL {
        let futures: Vec<_> = (0..8)
            .map(|x| thread::spawn(move || double::with().start(method).call(x)))
            .collect();
        // The threads that started them have ended: tasks do not end with them.
        let futures: Vec<_> = futures
            .into_iter()
            .map(|started| started.join().unwrap())
            .collect();
        let waiters: Vec<_> = futures
            .into_iter()
            .map(|future| thread::spawn(move || future.wait().unwrap()))
            .collect();
        let sum: u64 = waiters.into_iter().map(|waiter| waiter.join().unwrap()).sum();
        assert_eq!(sum, 56, "{method}");
        let future = double::with().start(method).call(1);
        thread::spawn(move || drop(future)).join().unwrap();
    }
}

#[test]
#[parallel]
fn dropped_future_lets_its_task_run_to_its_end() {
    let _watchdog = Watchdog::new();
    let (first, second) = (Gate::new(), Gate::new());
    for method in BESIDE {
        let future = twice_gated::with()
            .start(method)
            .call(first.port(), second.port());
        let here = first.arrival();
        drop(future);
        here.let_go();
        second.arrival().let_go();

        // Even before there is a worker.
        drop(
            twice_gated::with()
                .start(method)
                .call(first.port(), second.port()),
        );
        first.arrival().let_go();
        second.arrival().let_go();

        let detached = twice_gated::with()
            .start(method)
            .kill_on_drop()
            .call(first.port(), second.port());
        let here = first.arrival();
        detached.detach();
        here.let_go();
        second.arrival().let_go();
    }
}

#[test]
#[parallel]
fn kill_on_drop_kills_what_runs() {
    let _watchdog = Watchdog::new();
    let gate = Gate::new();
    for method in [StartMethod::ForkServer, StartMethod::Spawn] {
        let by_option = gated::with().start(method).kill_on_drop().call(gate.port(), 0);
        let here = gate.arrival();
        drop(by_option);
        here.wait_until_gone();

        let by_future = gated::with().start(method).call(gate.port(), 0).kill_on_drop();
        let here = gate.arrival();
        drop(by_future);
        here.wait_until_gone();

        // Also through a list that is dropped.
        let list = InFlight::new();
        list.push(gated::with().start(method).call(gate.port(), 0).kill_on_drop());
        let here = gate.arrival();
        drop(list);
        here.wait_until_gone();
    }
    for method in ALL {
        // One that has ended is not harmed.
        let done = ended(double::with().start(method).call(2).kill_on_drop());
        assert_eq!(done.wait().unwrap(), 4, "{method}");
    }
}

#[test]
#[parallel]
fn future_knows_number_name_and_process_of_its_task() {
    let _watchdog = Watchdog::new();
    let gate = Gate::new();
    let mut numbers: Vec<TaskId> = Vec::new();
    for method in ALL {
        let future = own_pid::with().start(method).call();
        numbers.push(future.id());
        assert_eq!(future.name(), "futures::own_pid", "{method}");
        assert!(future.id().to_string().starts_with("task-"), "{method}");
        let future = ended(future);
        let pid = future.pid();
        let text = format!("{future:?}");
        assert!(
            text.contains("futures::own_pid") && text.contains("done: true"),
            "{method}: {text}"
        );
        let seen = future.wait().unwrap();
        match method.is_isolated() {
            true => assert!(
                pid == Some(seen) && seen != std::process::id(),
                "{method}: {pid:?}, {seen}"
            ),
            false => assert!(
                pid.is_none() && seen == std::process::id(),
                "{method}: {pid:?}, {seen}"
            ),
        }
    }
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");
    for method in [StartMethod::ForkServer, StartMethod::Spawn] {
        let future = gated::with().start(method).call(gate.port(), 0);
        let here = gate.arrival();
        // The fork server's word may come after the task has begun.
        let waited = inparallel::wait([future], Until::All, Some(Duration::from_millis(1)));
        here.let_go();
        let future = ended(waited.pending.into_iter().chain(waited.done).next().unwrap());
        assert!(future.pid().is_some(), "{method}");
    }
}

// --- start methods --------------------------------------------------------------------------------------------------

#[task(start = "fork")]
fn forked(x: u64) -> u64 {
    x + 1
}

/// The standard harness runs each test beside its main thread.
#[test]
#[serial]
#[cfg(unix)]
fn fork_is_refused_beside_threads_until_the_caller_vouches_for_them() {
    let _watchdog = Watchdog::new();
    const MORE: usize = 3;
    let (ready, go) = (Barrier::new(MORE + 1), Barrier::new(MORE + 1));
    thread::scope(|scope| {
        for _ in 0..MORE {
            scope.spawn(|| {
                ready.wait();
                go.wait();
            });
        }
        ready.wait();
        for future in [
            inparallel::fork(|| 1),
            forked(0),
            double::with().start(StartMethod::Fork).call(0),
        ] {
            assert!(future.is_done() && future.pid().is_none());
            let error = future.wait().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ThreadsAlive);
            let text = error.to_string();
            let digits = text
                .split_once("refused: ")
                .and_then(|(_, rest)| rest.split(' ').next());
            let count: usize = digits.unwrap().parse().unwrap();
            // Those three, the watchdog, and the harness's main thread, if it has one.
            assert!((MORE + 1..MORE + 20).contains(&count), "{text}");
            assert!(
                text.contains("allow_fork_with_threads") && text.contains("ForkServer"),
                "{text}"
            );
        }
        go.wait();
    });

    let words = ["one".to_owned(), "three".to_owned()];
    // SAFETY: what is forked here adds numbers and takes no lock; glibc makes its allocator usable in a fork.
    unsafe { inparallel::allow_fork_with_threads(true) };
    let longest = inparallel::fork(|| words.iter().map(String::len).max());
    let results = (
        longest.wait(),
        forked(1).wait(),
        double::with().start(StartMethod::Fork).call(4).wait(),
    );
    // SAFETY: this takes the permission back.
    unsafe { inparallel::allow_fork_with_threads(false) };
    assert_eq!(
        (results.0.unwrap(), results.1.unwrap(), results.2.unwrap()),
        (Some(5), 2, 8)
    );
    assert_eq!(forked(1).wait().unwrap_err().kind(), ErrorKind::ThreadsAlive);
}

#[test]
#[parallel]
fn sixteen_test_threads_start_tasks_at_once() {
    let _watchdog = Watchdog::new();
    let threads = 16;
    let ready = Barrier::new(threads);
    thread::scope(|scope| {
        for method in ALL.into_iter().cycle().take(threads) {
            let ready = &ready;
            scope.spawn(move || {
                ready.wait();
                for x in 0..3 {
                    assert_eq!(
                        double::with().start(method).call(x).wait().unwrap(),
                        2 * x,
                        "{method}"
                    );
                }
            });
        }
    });
}

// --- values ---------------------------------------------------------------------------------------------------------

/// An error of the user's own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Refusal {
    TooLong { len: usize, limit: usize },
    Empty,
}

#[task]
fn check_name(name: &str) -> Result<usize, Refusal> {
    match name.len() {
        0 => Err(Refusal::Empty),
        len if len > 5 => Err(Refusal::TooLong { len, limit: 5 }),
        len => Ok(len),
    }
}

#[task]
fn error_as_value() -> Refusal {
    Refusal::Empty
}

#[task]
fn nested(depth: u8) -> Result<Option<Result<u8, Refusal>>, String> {
    match depth {
        0 => Err("zero".into()),
        1 => Ok(None),
        2 => Ok(Some(Err(Refusal::Empty))),
        _ => Ok(Some(Ok(depth))),
    }
}

#[test]
#[parallel]
fn own_error_of_a_task_keeps_its_type() {
    let _watchdog = Watchdog::new();
    for method in ALL {
        let check = |name: &str| check_name::with().start(method).call(name).wait().unwrap();
        assert_eq!(check("four"), Ok(4), "{method}");
        assert_eq!(check(""), Err(Refusal::Empty), "{method}");
        assert_eq!(
            check("length"),
            Err(Refusal::TooLong { len: 6, limit: 5 }),
            "{method}"
        );
        assert_eq!(
            error_as_value::with().start(method).call().wait().unwrap(),
            Refusal::Empty,
            "{method}"
        );
        let nested = |depth| nested::with().start(method).call(depth).wait().unwrap();
        assert_eq!(nested(0), Err("zero".into()), "{method}");
        assert_eq!(nested(1), Ok(None), "{method}");
        assert_eq!(nested(2), Ok(Some(Err(Refusal::Empty))), "{method}");
        assert_eq!(nested(3), Ok(Some(Ok(3))), "{method}");
    }
}

/// What can be sent but not received.
#[derive(Debug, Serialize)]
struct Bomb {
    by_panic: bool,
}

impl<'de> Deserialize<'de> for Bomb {
    fn deserialize<D: serde::Deserializer<'de>>(decoder: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Plain {
            by_panic: bool,
        }
        let Plain { by_panic } = Plain::deserialize(decoder)?;
        assert!(!by_panic, "the decoder fell over");
        Err(serde::de::Error::custom("the decoder refused"))
    }
}

#[task]
fn bomb(by_panic: bool) -> Bomb {
    Bomb { by_panic }
}

#[test]
#[parallel]
fn value_that_cannot_be_decoded_is_an_error_of_its_future_alone() {
    let _watchdog = Watchdog::new();
    for method in ALL {
        let other = double::with().start(method).call(3);
        let error = bomb::with().start(method).call(false).wait().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResultNotDecodable, "{method}");
        let text = error.to_string();
        assert!(
            text.contains("futures::Bomb") && text.contains("the decoder refused"),
            "{method}: {text}"
        );
        assert_eq!(other.wait().unwrap(), 6, "{method}");
    }
}

#[test]
#[parallel]
fn panic_while_decoding_surfaces_in_the_waiting_thread_and_nowhere_else() {
    let _watchdog = Watchdog::new();
    for method in ALL {
        let other = double::with().start(method).call(3);
        let mut future = bomb::with().start(method).call(true);
        let (heard, calls) = mpsc::channel();
        let later = heard.clone();
        // Its value cannot be made: the callback is not called, the one after it is tried all the same.
        future.on_done(move |_| heard.send("the value was decoded").unwrap());
        future.on_done(move |_| later.send("the value was decoded").unwrap());
        let caught = catch_unwind(AssertUnwindSafe(|| future.wait_timeout(LONG))).unwrap_err();
        assert_eq!(
            caught.downcast_ref::<&str>(),
            Some(&"the decoder fell over"),
            "{method}"
        );
        assert_eq!(future.wait().unwrap_err().kind(), ErrorKind::Taken, "{method}");
        assert_eq!(calls.iter().next(), None, "{method}");
        assert_eq!(other.wait().unwrap(), 6, "{method}");
        assert_eq!(
            double::with().start(method).call(4).wait().unwrap(),
            8,
            "{method}"
        );
    }
}

// --- callbacks ------------------------------------------------------------------------------------------------------

#[test]
#[parallel]
fn callback_is_called_once_with_the_outcome() {
    let _watchdog = Watchdog::new();
    let gate = Gate::new();
    for method in BESIDE {
        let (tx, rx) = mpsc::channel();
        let tell = |name: &'static str| {
            let tx = tx.clone();
            move |result: &inparallel::Result<u32>| {
                tx.send((name, result.as_ref().copied().map_err(inparallel::Error::kind)))
                    .unwrap();
            }
        };
        let fine = gated::with().start(method).call(gate.port(), 7);
        fine.on_done(tell("fine"));
        gate.arrival().let_go();
        let cancelled = gated::with().start(method).call(gate.port(), 8);
        cancelled.on_done(tell("cancelled"));
        let here = gate.arrival();
        cancelled.cancel();
        drop(ended(cancelled));
        drop(here);
        assert_eq!(
            fine.wait().unwrap(),
            7,
            "{method}: the callback had a value of its own"
        );
        let failed: TaskFuture<u64> = fallen(method, "off");
        let tx2 = tx.clone();
        failed.on_done(move |result| {
            tx2.send(("failed", Err(result.as_ref().unwrap_err().kind())))
                .unwrap()
        });
        failed.wait().unwrap_err();
        drop(tx);
        let told: Vec<_> = rx.iter().collect();
        assert_eq!(told.len(), 3, "{method}: {told:?}");
        // Between futures the order is that of their ends.
        let told: HashSet<_> = told.into_iter().collect();
        let expected = [
            ("fine", Ok(7)),
            ("cancelled", Err(ErrorKind::Cancelled)),
            ("failed", Err(ErrorKind::Panicked)),
        ];
        assert_eq!(told, expected.into(), "{method}");
    }
}

#[test]
#[parallel]
fn callbacks_run_in_the_order_of_adding_off_the_callers_thread() {
    let _watchdog = Watchdog::new();
    let gate = Gate::new();
    for method in BESIDE {
        let (tx, rx) = mpsc::channel();
        let future = gated::with().start(method).call(gate.port(), 0);
        let here = gate.arrival();
        for number in 0..20 {
            let tx = tx.clone();
            future.on_done(move |_| tx.send((number, thread::current().id())).unwrap());
        }
        drop(tx);
        here.let_go();
        let told: Vec<_> = rx.iter().collect();
        assert!(
            told.iter().map(|(number, _)| *number).eq(0..20),
            "{method}: {told:?}"
        );
        let threads: HashSet<_> = told.iter().map(|(_, thread)| *thread).collect();
        assert!(
            threads.len() == 1 && !threads.contains(&thread::current().id()),
            "{method}"
        );
        future.wait().unwrap();
    }
}

#[test]
#[parallel]
fn callback_on_an_ended_future_runs_at_once_in_the_callers_thread() {
    let _watchdog = Watchdog::new();
    for method in ALL {
        let check = |future: TaskFuture<u64>, expected: Result<u64, ErrorKind>| {
            let (tx, rx) = mpsc::channel();
            future.on_done(move |result| {
                let outcome = result.as_ref().copied().map_err(inparallel::Error::kind);
                tx.send((outcome, thread::current().id())).unwrap();
            });
            assert_eq!(
                rx.try_recv().unwrap(),
                (expected, thread::current().id()),
                "{method}"
            );
            assert_eq!(future.wait().map_err(|error| error.kind()), expected, "{method}");
        };
        check(ended(double::with().start(method).call(1)), Ok(2));
        check(ended(fallen(method, "in")), Err(ErrorKind::Panicked));
    }
    // Taken is not gone: the callback has a value of its own.
    let mut taken = double::with().start(StartMethod::Inline).call(1);
    taken.try_wait().unwrap();
    let (tx, rx) = mpsc::channel();
    taken.on_done(move |result| tx.send(result.as_ref().unwrap().to_owned()).unwrap());
    assert_eq!(rx.try_recv(), Ok(2));
}

#[test]
#[parallel]
fn panic_in_a_callback_harms_nothing() {
    let _watchdog = Watchdog::new();
    let gate = Gate::new();
    for method in BESIDE {
        let future = gated::with().start(method).call(gate.port(), 5);
        let here = gate.arrival();
        let (tx, rx) = mpsc::channel();
        let late = tx.clone();
        future.on_done(|_| panic!("this callback panics on purpose"));
        future.on_done(|_| std::panic::panic_any(PanicsWhenDropped));
        future.on_done(move |result| tx.send(*result.as_ref().unwrap()).unwrap());
        here.let_go();
        assert_eq!(rx.recv().unwrap(), 5, "{method}: the one after it is called");
        // In the caller's thread it is contained as well.
        future.on_done(|_| panic!("this callback panics on purpose, too"));
        future.on_done(move |result| late.send(*result.as_ref().unwrap()).unwrap());
        assert_eq!(rx.recv().unwrap(), 5, "{method}");
        assert_eq!(future.wait().unwrap(), 5, "{method}");
        assert_eq!(
            double::with().start(method).call(1).wait().unwrap(),
            2,
            "{method}"
        );
    }
}

#[test]
#[serial]
fn all_is_quiet_when_the_callbacks_have_run_too() {
    let _watchdog = Watchdog::new();
    let pool = Pool::builder().workers(1).build().unwrap();
    for is_pooled in [false, true] {
        let gate = Gate::new();
        let call = gated::later(gate.port(), 7);
        let future = match is_pooled {
            true => pool.submit(call).unwrap(),
            false => call.start(),
        };
        let (go_on, told) = mpsc::channel();
        let (tx, has_run) = mpsc::channel();
        future.on_done(move |_| {
            told.recv().unwrap();
            tx.send(()).unwrap();
        });
        gate.arrival().let_go();
        assert_eq!(future.wait().unwrap(), 7);
        assert!(!inparallel::wait_idle(Duration::from_millis(10)), "it waits");
        go_on.send(()).unwrap();
        assert!(inparallel::wait_idle(LONG));
        assert_eq!(has_run.try_recv(), Ok(()), "{is_pooled}");
    }
}

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("this payload panics once more");
    }
}

#[test]
#[parallel]
fn blocking_callback_delays_no_other_future() {
    let _watchdog = Watchdog::new();
    for method in BESIDE {
        let gate = Gate::new();
        let blocking = gated::with().start(method).call(gate.port(), 0);
        let here = gate.arrival();
        let (entered, is_in) = mpsc::channel();
        let (leave, may_leave) = mpsc::channel::<()>();
        blocking.on_done(move |_| {
            entered.send(()).unwrap();
            may_leave.recv().unwrap_err();
        });
        here.let_go();
        is_in.recv().unwrap();
        // The callback sits there. Everything else goes on, its own future too.
        assert_eq!(blocking.wait().unwrap(), 0, "{method}");
        for x in 0..5 {
            assert_eq!(
                double::with().start(method).call(x).wait().unwrap(),
                2 * x,
                "{method}"
            );
        }
        let second = ended(double::with().start(method).call(9));
        let (tx, rx) = mpsc::channel();
        second.on_done(move |result| tx.send(*result.as_ref().unwrap()).unwrap());
        assert_eq!(rx.try_recv(), Ok(18), "{method}: in this thread");
        second.detach();
        drop(leave);
    }
}

#[test]
#[parallel]
fn callback_may_start_tasks_and_wait_for_them() {
    let _watchdog = Watchdog::new();
    for method in BESIDE {
        let (tx, rx) = mpsc::channel();
        let future = double::with().start(method).call(10);
        future.on_done(move |result| {
            let inner = double::with().start(method).call(*result.as_ref().unwrap());
            let value = inner.wait();
            tx.send(value).unwrap();
        });
        assert_eq!(rx.recv().unwrap().unwrap(), 40, "{method}");
        future.detach();
    }
}

// --- types ----------------------------------------------------------------------------------------------------------

/// Serializable, and bound to its thread.
#[derive(Serialize, Deserialize)]
struct Unsendable(u8, std::marker::PhantomData<*const u8>);

#[task]
fn unsendable(x: u8) -> Unsendable {
    Unsendable(x, std::marker::PhantomData)
}

/// Neither shown nor copied.
struct Mute;

fn is_send_and_sync<T: Send + Sync>() {}
fn is_unpin<T: Unpin>() {}
fn is_debug<T: std::fmt::Debug>() {}
fn is_static<T: 'static>() {}

/// No value is in a future before it is taken, and it is made by whoever takes it: what `T` is does not matter.
#[test]
fn public_types_are_send_sync_unpin_and_debug() {
    macro_rules! check {
        ($($type:ty),* $(,)?) => {
            $(is_send_and_sync::<$type>(); is_unpin::<$type>(); is_debug::<$type>(); is_static::<$type>();)*
        };
    }
    type Items = std::ops::Range<u32>;
    check!(
        TaskFuture<u8>,
        TaskFuture<Mute>,
        TaskFuture<Unsendable>,
        TaskFuture<std::cell::Cell<u8>>,
        TaskFuture<std::marker::PhantomPinned>,
        InFlight<Mute>,
        InFlight<Unsendable>,
        inparallel::WaitFor<'static, Unsendable>,
        inparallel::WaitForUpTo<'static, Unsendable>,
        inparallel::AsCompleted<Unsendable>,
        inparallel::Waited<Unsendable>,
        inparallel::ParallelResults<Items, fn(u32) -> TaskFuture<Unsendable>, Unsendable>,
        inparallel::Error,
        ErrorKind,
        inparallel::Signal,
        Options,
        StartMethod,
        inparallel::Stderr,
        TaskId,
        Until,
    );
}

#[test]
#[parallel]
fn value_that_is_not_send_is_made_where_it_is_taken() {
    let _watchdog = Watchdog::new();
    for method in ALL {
        let future = unsendable::with().start(method).call(3);
        let value = thread::spawn(move || future.wait().unwrap().0).join().unwrap();
        assert_eq!(value, 3, "{method}");
    }
}

/// That these are expected is the assertion: see the lint at the top of the file.
#[test]
#[parallel]
fn what_must_be_used_says_so() {
    let _watchdog = Watchdog::new();
    #[expect(unused_must_use, reason = "a future")]
    {
        double(1);
    }
    #[expect(unused_must_use, reason = "options for one call")]
    {
        double::with().kill_on_drop();
    }
    #[expect(unused_must_use, reason = "options")]
    {
        Options::new();
    }
    let list = InFlight::<u64>::new();
    #[expect(unused_must_use, reason = "a lazy iterator")]
    {
        inparallel::waitfor(&list);
    }
    #[expect(unused_must_use, reason = "a lazy iterator")]
    {
        inparallel::as_completed(Vec::<TaskFuture<u64>>::new());
    }
}

/// Calls a task when it is dropped.
struct CallsInDrop(StartMethod);

impl Drop for CallsInDrop {
    fn drop(&mut self) {
        assert_eq!(
            double::with().start(self.0).call(2).wait().unwrap(),
            4,
            "{}",
            self.0
        );
    }
}

/// A panic hook cannot be changed then. Only in a process of its own, as under nextest, is this the first task.
#[test]
#[parallel]
fn task_may_be_called_while_a_panic_unwinds() {
    let _watchdog = Watchdog::new();
    for method in [StartMethod::Inline, StartMethod::ForkServer] {
        let caught = catch_unwind(|| {
            let _calls = CallsInDrop(method);
            panic!("on purpose");
        });
        assert!(caught.is_err(), "{method}");
    }
}

// --- leaks ----------------------------------------------------------------------------------------------------------

#[test]
#[serial]
fn futures_leave_no_process_thread_or_descriptor_behind() {
    let _watchdog = Watchdog::new();
    let round = || {
        let gate = Gate::new();
        // Whether a task gets there before its time is up, nobody knows.
        let other_gate = Gate::new();
        for method in BESIDE {
            let kept = gated::with().start(method).call(gate.port(), 0);
            let dropped = gated::with().start(method).call(gate.port(), 1);
            let killed = gated::with().start(method).call(gate.port(), 2).kill_on_drop();
            let cancelled = gated::with()
                .start(method)
                .grace(Duration::ZERO)
                .call(gate.port(), 3);
            kept.on_done(|_| ());
            let here = gate.arrivals(4);
            drop((dropped, killed));
            cancelled.cancel();
            drop(here);
            kept.wait().unwrap();
            cancelled.wait().unwrap_err();
            fallen(method, "out").wait().unwrap_err();
            let late = gated::with()
                .start(method)
                .timeout(Duration::from_millis(1))
                .call(other_gate.port(), 4);
            assert_eq!(late.wait().unwrap_err().kind(), ErrorKind::TimedOut, "{method}");
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
