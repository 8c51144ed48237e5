//! Tasks that start tasks.

use std::time::{Duration, Instant};

use inparallel::{ErrorKind, StartMethod, task};

use crate::harness::{ALL, FORK, ISOLATED, PROGRAM};
use crate::os;
use crate::place::{Host, Place};
use crate::tasks::{Death, Grandchild, die, meet, meet_with_grandchild};

trials! {
    warm on ALL => {
        tasks_nest_ten_deep,
        runaway_recursion_is_an_error,
    }
    warm on ISOLATED => {
        nested_task_ends_with_a_killed_parent,
        nested_task_ends_with_a_parent_that_returns,
        nested_detached_task_outlives_its_parent,
        nested_detached_task_keeps_no_descriptor_of_its_parents_future,
        detached_task_of_a_killed_parent_ends_with_it,
        error_of_a_nested_task_is_its_own,
    }
    warm on PROGRAM => { start_methods_nest_in_each_other }
    warm on FORK => { copy_may_be_copied_at_once }
}

/// How deep it came, or the kind of error that stopped it.
#[task]
fn nest(methods: Vec<StartName>, depth: u32) -> Result<u32, String> {
    if depth == 0 {
        return Ok(0);
    }
    let method = methods[depth as usize % methods.len()].parse().unwrap();
    let inner = nest::with().start(method).call(methods, depth - 1).wait();
    inner
        .map_err(|error| format!("{:?}", error.kind()))?
        .map(|below| below + 1)
}

type StartName = String;

fn tasks_nest_ten_deep(method: StartMethod) {
    for depth in 2..=10 {
        let result = nest::with()
            .start(method)
            .call(vec![method.to_string()], depth)
            .wait()
            .unwrap();
        assert_eq!(result, Ok(depth));
    }
}

fn runaway_recursion_is_an_error(method: StartMethod) {
    let result = nest::with()
        .start(method)
        .call(vec![method.to_string()], 1000)
        .wait()
        .unwrap();
    assert_eq!(result, Err("TooDeep".to_owned()));
}

fn start_methods_nest_in_each_other(_: StartMethod) {
    let all: Vec<_> = StartMethod::all().iter().map(StartMethod::to_string).collect();
    for method in StartMethod::all() {
        // A task on a thread, and all below it, cannot fork: the program's main thread is another one.
        let methods: Vec<_> = match method {
            StartMethod::Thread => all.iter().filter(|name| *name != "fork").cloned().collect(),
            _ => all.iter().filter(|name| *name != "thread").cloned().collect(),
        };
        let result = nest::with().start(method).call(methods, 9).wait().unwrap();
        assert_eq!(result, Ok(9), "{method}");
    }
}

/// For a second, or for `RACE_TEST_SECS`:
///
/// 1. A copy starts the library's threads, since it starts a task.
/// 2. It is copied before they have come far.
/// 3. Whatever std had locked for them then stays locked in the second copy, which starts threads too.
fn copy_may_be_copied_at_once(method: StartMethod) {
    let seconds = std::env::var("RACE_TEST_SECS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1);
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < deadline {
        let futures: Vec<_> = (0..4)
            .map(|_| nest::with().start(method).call(vec![method.to_string()], 3))
            .collect();
        for future in futures {
            assert_eq!(future.wait().unwrap(), Ok(3));
        }
    }
}

#[task]
fn meet_and_start(place: Place, method: String, then: Then) -> u32 {
    let inner = meet::with().start(method.parse().unwrap()).call(place.clone());
    if then == Then::Detach {
        inner.detach();
    } else {
        std::mem::forget(inner);
    }
    if then == Then::Meet || then == Then::DetachAndMeet {
        std::mem::forget(place.hold());
        place.say(&format!("outer {}", std::process::id()));
        place.wait_for_go();
    }
    std::process::id()
}

#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
enum Then {
    Meet,
    Return,
    Detach,
    DetachAndMeet,
}

/// In every combination of start methods.
fn nested_task_ends_with_a_killed_parent(method: StartMethod) {
    for inner in ISOLATED {
        let mut host = Host::new();
        let future = meet_and_start::with()
            .start(method)
            .call(host.place(), inner.to_string(), Then::Meet);
        let outer = |line: String| line.strip_prefix("outer ").map(|pid| pid.parse().unwrap());
        // Both have arrived, in any order.
        let parents: Vec<u32> = [host.hear(), host.hear()].into_iter().filter_map(outer).collect();
        os::send(parents[0], libc::SIGKILL);
        assert_eq!(future.wait().unwrap_err().kind(), ErrorKind::Signaled);
        host.wait_until_left();
    }
}

/// It was not detached: its parent does not stay for it, and it ends with its parent's process.
fn nested_task_ends_with_a_parent_that_returns(method: StartMethod) {
    for inner in ISOLATED {
        let mut host = Host::new();
        let future = meet_and_start::with()
            .start(method)
            .call(host.place(), inner.to_string(), Then::Return);
        future.wait().unwrap();
        assert!(inparallel::wait_idle(Duration::from_secs(100)));
        host.wait_until_left();
    }
}

fn nested_detached_task_outlives_its_parent(method: StartMethod) {
    for inner in ISOLATED {
        let mut host = Host::new();
        let future = meet_and_start::with()
            .start(method)
            .call(host.place(), inner.to_string(), Then::Detach);
        let nested = host.arrival();
        assert_ne!(future.wait().unwrap(), nested);
        // The parent's result is here; its process stays for the nested task.
        assert!(!inparallel::wait_idle(Duration::from_millis(1500)));
        assert!(!os::is_gone(nested));
        host.release(1);
        assert!(inparallel::wait_idle(Duration::from_secs(100)));
        host.wait_until_left();
    }
}

/// 1. A task detaches another and returns. 2. Other tasks start and end meanwhile. 3. Their ends are seen at once.
fn nested_detached_task_keeps_no_descriptor_of_its_parents_future(method: StartMethod) {
    let mut host = Host::new();
    let future = meet_and_start::with()
        .start(method)
        .call(host.place(), method.to_string(), Then::Detach);
    host.arrival();
    future.wait().unwrap();
    let mut other_host = Host::new();
    let other = die::with().start(method).call(other_host.place(), Death::Exit(3));
    other_host.arrival();
    assert_eq!(other.wait().unwrap_err().exit_code(), Some(3));
    host.release(1);
    // It has said that it is there, and perhaps not opened the pipe yet that tells it to go on.
    host.wait_until_left();
}

fn detached_task_of_a_killed_parent_ends_with_it(method: StartMethod) {
    for inner in ISOLATED {
        let mut host = Host::new();
        let future =
            meet_and_start::with()
                .start(method)
                .call(host.place(), inner.to_string(), Then::DetachAndMeet);
        host.hear();
        host.hear();
        assert!(future.cancel());
        assert_eq!(future.wait().unwrap_err().kind(), ErrorKind::Cancelled);
        host.wait_until_left();
    }
}

#[task]
fn start_and_report(place: Place, method: String) -> (String, Option<i32>) {
    let method = method.parse().unwrap();
    let error = die::with()
        .start(method)
        .call(place.clone(), Death::Exit(5))
        .wait()
        .unwrap_err();
    // What it leaves running ends with this task.
    std::mem::forget(
        meet_with_grandchild::with()
            .start(method)
            .call(place, Grandchild::Ordinary),
    );
    (format!("{:?}", error.kind()), error.exit_code())
}

fn error_of_a_nested_task_is_its_own(method: StartMethod) {
    for inner in ISOLATED {
        let mut host = Host::new();
        let future = start_and_report::with()
            .start(method)
            .call(host.place(), inner.to_string());
        assert_eq!(future.wait().unwrap(), ("Exited".to_owned(), Some(5)));
        assert!(inparallel::wait_idle(Duration::from_secs(100)));
        host.wait_until_left();
    }
}
