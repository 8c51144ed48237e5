//! Each way in which one task can end, told by name.

use std::time::{Duration, Instant};

use inparallel::{Error, ErrorKind, StartMethod, task};

use crate::harness::{ALL, FORK, ISOLATED, scratch};
use crate::os;
use crate::place::{Host, Place};
use crate::tasks::{Death, die, double};

trials! {
    warm on ISOLATED => {
        exit_is_told_with_its_status,
        signal_is_told_by_name,
        stack_overflow_ends_the_worker_alone,
        core_file_is_reported_as_the_kernel_does,
        no_result_is_lost_when_the_worker_exits_at_once,
        failures_leave_other_tasks_alone,
    }
    warm on ALL => { panic_is_told_with_message_place_and_backtrace }
    warm on FORK => { nothing_runs_the_callers_code_twice }
}

/// The error of a task that dies in this way, its pid checked.
fn death(method: StartMethod, how: Death) -> Error {
    let mut host = Host::new();
    let future = die::with().start(method).call(host.place(), how);
    let pid = host.arrival();
    let error = future.wait().unwrap_err();
    assert_eq!(error.pid(), Some(pid));
    assert!(error.task().ends_with("::die"), "{error}");
    assert!(os::is_gone(pid));
    error
}

fn exit_is_told_with_its_status(method: StartMethod) {
    for (how, code) in [
        (Death::Exit(99), 99),
        (Death::Exit(0), 0),
        (Death::ExitNow(42), 42),
        (Death::ExitNow(0), 0),
        (Death::ExitNow(255), 255),
    ] {
        let error = death(method, how);
        assert_eq!(
            (error.kind(), error.exit_code()),
            (ErrorKind::Exited, Some(code)),
            "{error}"
        );
        assert_eq!(error.signal(), None);
    }
}

fn signal_is_told_by_name(method: StartMethod) {
    for (how, name) in [
        (Death::Abort, "SIGABRT"),
        (Death::Fault, "SIGSEGV"),
        (Death::Signal(libc::SIGKILL), "SIGKILL"),
        (Death::Signal(libc::SIGTERM), "SIGTERM"),
        (Death::Signal(libc::SIGHUP), "SIGHUP"),
        (Death::Signal(libc::SIGINT), "SIGINT"),
    ] {
        let error = death(method, how);
        assert_eq!(error.kind(), ErrorKind::Signaled, "{error}");
        assert_eq!(error.signal().map(|signal| signal.name()), Some(name));
        assert!(error.to_string().contains(name), "{error}");
        assert_eq!(error.exit_code(), None);
    }
}

/// With std's handler it is an abort with a message, without it a fault.
fn stack_overflow_ends_the_worker_alone(method: StartMethod) {
    let error = death(method, Death::StackOverflow);
    let name = error.signal().map(|signal| signal.name());
    assert!(matches!(name, Some("SIGSEGV" | "SIGABRT" | "SIGBUS")), "{error}");
}

#[task]
fn abort_with_core(place: Place) {
    std::env::set_current_dir(place.file("")).unwrap();
    os::set_limit(libc::RLIMIT_CORE, os::limit(libc::RLIMIT_CORE).1);
    std::process::abort()
}

/// Whether there is a core file depends on the machine: a plain child shows what to expect.
fn core_file_is_reported_as_the_kernel_does(method: StartMethod) {
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    let mut plain = std::process::Command::new("/bin/sh");
    plain.args(["-c", "kill -ABRT $$"]).current_dir(scratch());
    let allow = || {
        os::set_limit(libc::RLIMIT_CORE, os::limit(libc::RLIMIT_CORE).1);
        Ok(())
    };
    // SAFETY: the closure makes two system calls and touches nothing else.
    unsafe { plain.pre_exec(allow) };
    let expected = plain.status().unwrap().core_dumped();
    let host = Host::new();
    let error = abort_with_core::with()
        .start(method)
        .call(host.place())
        .wait()
        .unwrap_err();
    assert_eq!(error.signal().map(|signal| signal.number()), Some(libc::SIGABRT));
    assert_eq!(error.core_dumped(), expected);
    assert_eq!(error.to_string().contains("core dumped"), expected);
    let without = death(method, Death::Abort);
    assert!(!without.core_dumped());
}

#[task]
fn text(len: usize) -> String {
    "x".repeat(len)
}

/// A worker exits right after its answer. For a second, or for `RACE_TEST_SECS`.
fn no_result_is_lost_when_the_worker_exits_at_once(method: StartMethod) {
    let seconds = std::env::var("RACE_TEST_SECS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1);
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let sizes = [
        0,
        1,
        4095,
        4096,
        (64 << 10) - 40,
        64 << 10,
        (64 << 10) + 1,
        1 << 20,
        5 << 20,
    ];
    loop {
        let futures: Vec<_> = sizes
            .iter()
            .map(|size| text::with().start(method).call(*size))
            .collect();
        for (future, size) in futures.into_iter().zip(sizes) {
            assert_eq!(future.wait().unwrap().len(), size);
        }
        if Instant::now() >= deadline {
            return;
        }
    }
}

fn failures_leave_other_tasks_alone(method: StartMethod) {
    let mut host = Host::new();
    let deaths = [
        Death::Panic,
        Death::Exit(0),
        Death::Signal(libc::SIGKILL),
        Death::Fault,
    ];
    for how in deaths {
        let before = double::with().start(method).call(1);
        let failing = die::with().start(method).call(host.place(), how);
        let after = double::with().start(method).call(2);
        failing.wait().unwrap_err();
        assert_eq!((before.wait().unwrap(), after.wait().unwrap()), (2, 4));
    }
    host.arrivals(deaths.len());
}

#[task]
fn look_for_trouble(number: u32) -> u32 {
    find_it(number)
}

#[inline(never)]
fn find_it(number: u32) -> u32 {
    panic!("found {number}")
}

fn panic_is_told_with_message_place_and_backtrace(method: StartMethod) {
    let error = look_for_trouble::with()
        .start(method)
        .call(123)
        .wait()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Panicked);
    assert_eq!(error.panic_message(), Some("found 123"));
    let source = include_str!("endings.rs");
    let line = source
        .lines()
        .position(|line| line.trim_start().starts_with("panic!(\"found"))
        .unwrap()
        + 1;
    let place = error.panic_location().unwrap();
    assert!(place.contains(&format!("endings.rs:{line}:")), "{place}");
    let backtrace = error.backtrace().unwrap();
    assert!(
        backtrace.contains("find_it") && backtrace.contains("look_for_trouble"),
        "{backtrace}"
    );
    if method.is_isolated() {
        assert!(error.stderr().contains("found 123"), "{error:?}");
        assert!(error.pid().is_some());
    }
    assert!(format!("{error:?}").contains("find_it"));
}

#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
enum Escape {
    Return,
    Die(Death),
    PanicTwice,
    Undeliverable,
}

#[task]
fn try_to_escape(way: Escape) -> u32 {
    struct PanicsWhenDropped;
    impl Drop for PanicsWhenDropped {
        fn drop(&mut self) {
            panic!("again");
        }
    }
    match way {
        Escape::Return => 1,
        Escape::Die(death) => death.happen(),
        Escape::PanicTwice => std::panic::panic_any(PanicsWhenDropped),
        // Nobody hears its answer.
        Escape::Undeliverable => {
            os::close_range(3, u32::MAX);
            2
        }
    }
}

/// 1. The caller catches panics, and has code after the call. 2. The copy ends in some way. 3. That code ran once.
fn nothing_runs_the_callers_code_twice(method: StartMethod) {
    let log = scratch().join("log");
    let write = |what: &str| {
        use std::io::Write;
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&log)
            .unwrap();
        writeln!(file, "{what}").unwrap();
    };
    struct Guard<'a>(&'a dyn Fn(&str));
    impl Drop for Guard<'_> {
        fn drop(&mut self) {
            (self.0)("dropped");
        }
    }
    let ways = [
        Escape::Return,
        Escape::Die(Death::Exit(3)),
        Escape::Die(Death::Exit(0)),
        Escape::Die(Death::Panic),
        Escape::PanicTwice,
        Escape::Undeliverable,
    ];
    for way in ways {
        let caught = std::panic::catch_unwind(|| {
            let _guard = Guard(&write);
            let future = try_to_escape::with().start(method).call(way);
            write("called");
            future.wait()
        });
        write("caught");
        assert_eq!(caught.unwrap().is_ok(), matches!(way, Escape::Return), "{way:?}");
        assert!(inparallel::wait_idle(Duration::from_secs(100)));
        assert_eq!(
            std::fs::read_to_string(&log).unwrap(),
            "called\ndropped\ncaught\n",
            "{way:?}"
        );
        std::fs::remove_file(&log).unwrap();
    }
}
