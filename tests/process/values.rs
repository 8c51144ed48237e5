//! Values on their way to a task and back, and what a task sees of its program.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::process::Command;

use inparallel::{ErrorKind, Options, StartMethod, TaskFuture, task};
use serde::{Deserialize, Serialize};

use crate::harness::{ALL, FORK, IN_PROCESS, ISOLATED, scratch};
use crate::place::Host;
use crate::tasks::{double, meet, nothing, own_pid};

trials! {
    warm on ALL => {
        every_start_method_gives_the_same_results,
        error_that_a_task_returns_is_a_value,
        generic_tasks_and_methods_run,
        value_is_taken_once,
    }
    warm on ISOLATED => {
        tasks_run_in_different_processes,
        more_workers_than_cores_run_at_once,
        large_arguments_and_results_arrive_whole,
        environment_and_folder_are_those_of_the_call,
        task_runs_a_program_and_its_stdin_is_empty,
        pid_of_a_future_is_the_workers,
    }
    warm on IN_PROCESS => { tasks_without_a_process_run_in_this_one }
    warm on FORK => {
        closures_capture_anything,
        future_in_a_fork_of_its_program_says_whose_it_is,
    }
}

fn every_start_method_gives_the_same_results(method: StartMethod) {
    assert_eq!(double::with().start(method).call(21).wait().unwrap(), 42);
    assert_eq!(double::inline(21), 42);
    let futures: Vec<_> = (0..10).map(|x| double::with().start(method).call(x)).collect();
    let results: Vec<_> = futures.into_iter().map(|future| future.wait().unwrap()).collect();
    assert_eq!(results, (0..10).map(|x| x * 2).collect::<Vec<_>>());
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct TooSmall {
    is: i32,
}

#[task]
fn root(x: i32) -> Result<i32, TooSmall> {
    if x < 0 {
        Err(TooSmall { is: x })
    } else {
        Ok((0..=x).take_while(|root| root * root <= x).count() as i32 - 1)
    }
}

fn error_that_a_task_returns_is_a_value(method: StartMethod) {
    assert_eq!(root::with().start(method).call(17).wait().unwrap(), Ok(4));
    assert_eq!(
        root::with().start(method).call(-1).wait().unwrap(),
        Err(TooSmall { is: -1 })
    );
}

#[derive(Serialize, Deserialize)]
struct Shape {
    sides: Vec<f64>,
}

impl Shape {
    #[task]
    fn area(&self, scale: f64) -> f64 {
        self.sides.iter().product::<f64>() * scale
    }
}

#[task]
fn largest<T: Ord + Clone + Serialize + serde::de::DeserializeOwned + Send + 'static>(
    values: Vec<T>,
) -> Option<T> {
    values.iter().max().cloned()
}

fn generic_tasks_and_methods_run(method: StartMethod) {
    let shape = Shape {
        sides: vec![2.0, 3.0],
    };
    assert_eq!(
        shape
            .area_with(Options::new().start(method), 10.0)
            .wait()
            .unwrap(),
        60.0
    );
    assert_eq!(shape.area_inline(10.0), 60.0);
    inparallel::set_default_start(method);
    assert_eq!(largest(vec![3, 1, 2]).wait().unwrap(), Some(3));
    assert_eq!(
        largest(vec!["a".to_owned(), "b".to_owned()])
            .wait()
            .unwrap()
            .as_deref(),
        Some("b")
    );
}

fn value_is_taken_once(method: StartMethod) {
    let mut future = double::with().start(method).call(2);
    let limit = std::time::Duration::from_secs(100);
    assert_eq!(future.wait_timeout(limit).unwrap(), Some(4));
    assert!(future.is_done());
    assert_eq!(future.try_wait().unwrap_err().kind(), ErrorKind::Taken);
    assert_eq!(future.wait().unwrap_err().kind(), ErrorKind::Taken);
}

fn tasks_run_in_different_processes(method: StartMethod) {
    let mut host = Host::new();
    let futures: Vec<_> = (0..5)
        .map(|_| meet::with().start(method).call(host.place()))
        .collect();
    let arrived: BTreeSet<_> = host.arrivals(5).into_iter().collect();
    host.release(5);
    let answered: BTreeSet<_> = futures.into_iter().map(|future| future.wait().unwrap()).collect();
    assert_eq!(arrived, answered);
    assert_eq!(answered.len(), 5);
    assert!(!answered.contains(&std::process::id()));
}

/// More than the launches that the fork server is sent at a time, too.
fn more_workers_than_cores_run_at_once(method: StartMethod) {
    let count = std::thread::available_parallelism().unwrap().get() * 2 + 40;
    let mut host = Host::new();
    let futures: Vec<_> = (0..count)
        .map(|_| meet::with().start(method).call(host.place()))
        .collect();
    // All of them are there before any goes on.
    host.arrivals(count);
    host.release(count);
    for future in futures {
        future.wait().unwrap();
    }
}

#[task]
fn invert(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.iter_mut().for_each(|byte| *byte = !*byte);
    bytes
}

#[task]
fn long_text(text: &str) -> String {
    text.to_owned()
}

fn large_arguments_and_results_arrive_whole(method: StartMethod) {
    let numbers: Vec<u8> = (0..4 << 20)
        .map(|index: u32| (index ^ (index >> 8)) as u8)
        .collect();
    let inverted = invert::with().start(method).call(numbers.clone()).wait().unwrap();
    assert!(numbers.iter().map(|byte| !byte).eq(inverted));
    // Text is encoded faster than a list of bytes.
    let text = "0123456789abcdef".repeat(4 << 20);
    assert_eq!(text.len(), 64 << 20);
    assert!(long_text::with().start(method).call(&text).wait().unwrap() == text);
    if std::env::var_os("RACE_TEST_BIG").is_some() {
        let text = "x".repeat((2 << 30) + 17);
        let future = long_text::with().start(method).max_result(u64::MAX).call(&text);
        assert!(future.wait().unwrap() == text);
    }
}

/// Variables as a worker sees them, and its working directory.
type Surroundings = (Vec<(OsString, OsString)>, PathBuf);

#[task]
fn surroundings() -> Surroundings {
    let mut variables: Vec<_> = std::env::vars_os().collect();
    variables.sort();
    (variables, std::env::current_dir().unwrap())
}

/// 1. The fork server has started. 2. The program changes what it passes on. 3. Tasks see the changes, and no more.
fn environment_and_folder_are_those_of_the_call(method: StartMethod) {
    let set = |name: &str, value: OsString| {
        // SAFETY: the other threads of this process are the library's; std's own lock keeps them apart.
        unsafe { std::env::set_var(name, value) };
    };
    set("INPARALLEL_TEST_NEW", "one".into());
    set(
        "INPARALLEL_TEST_BYTES",
        OsString::from_vec(vec![b'=', 0xff, b'\n']),
    );
    // SAFETY: as above.
    unsafe { std::env::remove_var("PATH") };
    std::env::set_current_dir(scratch()).unwrap();
    let first = surroundings::with().start(method).call();
    set("INPARALLEL_TEST_NEW", "two".into());
    std::env::set_current_dir("/").unwrap();
    let second = surroundings::with().start(method).call();

    let value = |seen: &Surroundings, name: &str| {
        seen.0
            .iter()
            .find(|variable| variable.0 == name)
            .map(|(_, value)| value.clone())
    };
    let (first, second) = (first.wait().unwrap(), second.wait().unwrap());
    assert_eq!(value(&first, "INPARALLEL_TEST_NEW"), Some("one".into()));
    assert_eq!(value(&second, "INPARALLEL_TEST_NEW"), Some("two".into()));
    assert_eq!(
        value(&second, "INPARALLEL_TEST_BYTES"),
        Some(OsString::from_vec(vec![b'=', 0xff, b'\n']))
    );
    assert_eq!(value(&second, "PATH"), None);
    assert_eq!(first.1, scratch().canonicalize().unwrap());
    assert_eq!(second.1, PathBuf::from("/"));
    let mut ours: Vec<_> = std::env::vars_os().collect();
    ours.sort();
    assert_eq!(second.0, ours);
}

#[task]
fn run_a_program() -> (String, usize) {
    let output = Command::new("/bin/sh")
        .args(["-c", "echo from below; exit 3"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    let mut input = Vec::new();
    std::io::Read::read_to_end(&mut std::io::stdin(), &mut input).unwrap();
    (String::from_utf8(output.stdout).unwrap(), input.len())
}

fn task_runs_a_program_and_its_stdin_is_empty(method: StartMethod) {
    assert_eq!(
        run_a_program::with().start(method).call().wait().unwrap(),
        ("from below\n".to_owned(), 0)
    );
}

fn pid_of_a_future_is_the_workers(method: StartMethod) {
    let mut host = Host::new();
    let future = meet::with().start(method).call(host.place());
    let pid = host.arrival();
    host.release(1);
    let mut future = future;
    let limit = std::time::Duration::from_secs(100);
    assert_eq!(future.wait_timeout(limit).unwrap(), Some(pid));
    assert_eq!(future.pid(), Some(pid));
    assert!(future.name().ends_with("::meet"), "{}", future.name());
}

fn tasks_without_a_process_run_in_this_one(method: StartMethod) {
    let mut future = own_pid::with().start(method).call();
    let limit = std::time::Duration::from_secs(100);
    assert_eq!(future.wait_timeout(limit).unwrap(), Some(std::process::id()));
    assert_eq!(future.pid(), None);
}

fn closures_capture_anything(_: StartMethod) {
    let words = ["one".to_owned(), "three".to_owned()];
    let raw: *const String = &raw const words[1];
    let local = std::rc::Rc::new(std::cell::Cell::new(1));
    let future = inparallel::fork(|| {
        local.set(local.get() + 1);
        // SAFETY: it points into `words`, which the copy has too.
        (unsafe { (&*raw).len() }, words[0].len(), local.get())
    });
    assert_eq!(future.wait().unwrap(), (5, 3, 2));
    // What it changed, it changed in the copy.
    assert_eq!(local.get(), 1);
}

fn future_in_a_fork_of_its_program_says_whose_it_is(_: StartMethod) {
    let mut host = Host::new();
    let ours: TaskFuture<u32> = meet::with().start(StartMethod::Fork).call(host.place());
    host.arrival();
    let theirs = inparallel::fork(|| {
        let is_cancelled = ours.cancel();
        (is_cancelled, format!("{:?}", ours.wait().unwrap_err().kind()))
    });
    assert_eq!(theirs.wait().unwrap(), (false, "OtherProcess".to_owned()));
    host.release(1);
    nothing::with().start(StartMethod::Fork).call().wait().unwrap();
    assert!(inparallel::wait_idle(std::time::Duration::from_secs(100)));
}
