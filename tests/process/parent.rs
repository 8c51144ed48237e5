//! The end of the program, in whatever way: its tasks end with it, and nobody is left.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Stdio};
use std::time::Duration;

use inparallel::StartMethod;

use crate::harness::{ISOLATED, Role, role};
use crate::os;
use crate::place::{Host, Place};
use crate::tasks::{Grandchild, meet, meet_with_grandchild};

trials! {
    cold on ISOLATED => {
        killed_program_takes_its_workers_along,
        killed_program_takes_stopped_workers_along,
        killed_program_takes_tasks_of_tasks_along,
        program_that_returns_from_main_ends_its_tasks,
        program_that_exits_or_panics_ends_its_tasks,
        interrupt_from_the_terminal_ends_all_without_noise,
        program_may_wait_for_its_detached_tasks,
        program_that_forks_by_itself_keeps_its_tasks,
    }
}

pub(crate) const ROLES: &[Role] = &[("boss", boss), ("patient_boss", patient_boss)];

/// Starts tasks that wait for ever, and ends in one way or another once it is told.
fn boss(arguments: &[String]) {
    let [method, path, count, grandchild, handle, end] = arguments else {
        panic!("{arguments:?}")
    };
    let method: StartMethod = method.parse().unwrap();
    let place = Place::at(path);
    // A shell starts programs in the background with SIGINT ignored, and they pass that on.
    os::set_default(nix::sys::signal::Signal::SIGINT);
    for _ in 0..count.parse().unwrap() {
        let future = match grandchild.as_str() {
            "-" => meet::with().start(method).call(place.clone()),
            "stubborn" => meet_with_grandchild::with()
                .start(method)
                .call(place.clone(), Grandchild::Stubborn),
            _ => meet_with_grandchild::with()
                .start(method)
                .call(place.clone(), Grandchild::Ordinary),
        };
        match handle.as_str() {
            "drop" => drop(future),
            "detach" => future.detach(),
            _ => std::mem::forget(future),
        }
    }
    // Released like a task of its own.
    place.say("started");
    let _ =
        std::fs::File::open(place.file("end")).map(|mut file| std::io::Read::read_exact(&mut file, &mut [0]));
    match end.as_str() {
        "return" => {}
        "exit" => std::process::exit(7),
        "panic" => panic!("the program panics"),
        "exit_now" => os::exit_now(8),
        "abort" => std::process::abort(),
        other => panic!("{other}"),
    }
}

struct Started {
    program: Child,
    end: std::fs::File,
    workers: Vec<u32>,
}

/// A boss whose tasks all run.
fn start(host: &mut Host, arguments: [&str; 5]) -> Started {
    let end = host.place().file("end");
    nix::unistd::mkfifo(&end, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let end = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(end)
        .unwrap();
    let [method, rest @ ..] = arguments;
    let mut command = role("boss", &[&[method, host.path()], &rest[..]].concat());
    let program = command
        .process_group(0)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let count: usize = rest[0].parse().unwrap();
    // Its own word may come among those of its tasks.
    let said: Vec<_> = (0..=count).map(|_| host.hear()).collect();
    let workers: Vec<_> = said.iter().filter_map(|line| line.parse().ok()).collect();
    assert_eq!(workers.len(), count, "{said:?}");
    Started {
        program,
        end,
        workers,
    }
}

fn killed_program_takes_its_workers_along(method: StartMethod) {
    for grandchild in ["-", "ordinary", "stubborn"] {
        let mut host = Host::new();
        let mut started = start(
            &mut host,
            [&method.to_string(), "3", grandchild, "keep", "return"],
        );
        started.program.kill().unwrap();
        host.wait_until_left();
        assert_eq!(started.program.wait().unwrap().signal(), Some(libc::SIGKILL));
    }
}

fn killed_program_takes_stopped_workers_along(method: StartMethod) {
    let mut host = Host::new();
    let mut started = start(&mut host, [&method.to_string(), "2", "-", "keep", "return"]);
    started.workers.iter().for_each(|pid| os::stop(*pid));
    started.program.kill().unwrap();
    host.wait_until_left();
    started.program.wait().unwrap();
}

/// A task that starts bosses of its own kind: the program, its tasks, and their tasks.
#[inparallel::task]
fn start_below(place: Place, method: String) {
    let inner = meet::with().start(method.parse().unwrap()).call(place.clone());
    place.arrive();
    inner.wait().unwrap();
}

fn patient_boss(arguments: &[String]) {
    let method: StartMethod = arguments[0].parse().unwrap();
    let place = Place::at(&arguments[1]);
    if let Some(inner) = arguments.get(2) {
        start_below::with()
            .start(method)
            .call(place, inner.clone())
            .wait()
            .unwrap();
        return;
    }
    for _ in 0..3 {
        meet::with().start(method).call(place.clone()).detach();
    }
    assert!(!inparallel::wait_idle(Duration::from_millis(10)));
    place.say("waiting");
    assert!(inparallel::wait_idle(Duration::from_secs(100)));
}

fn killed_program_takes_tasks_of_tasks_along(method: StartMethod) {
    for inner in ISOLATED {
        let mut host = Host::new();
        let arguments = [method.to_string(), host.path().to_owned(), inner.to_string()];
        let mut program = role("patient_boss", &arguments.each_ref().map(String::as_str))
            .spawn()
            .unwrap();
        host.arrivals(2);
        program.kill().unwrap();
        host.wait_until_left();
        program.wait().unwrap();
    }
}

fn program_that_returns_from_main_ends_its_tasks(method: StartMethod) {
    for handle in ["keep", "drop", "detach"] {
        let mut host = Host::new();
        let mut started = start(
            &mut host,
            [&method.to_string(), "3", "ordinary", handle, "return"],
        );
        std::io::Write::write_all(&mut started.end, b"!").unwrap();
        let output = started.program.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        host.wait_until_left();
    }
}

fn program_that_exits_or_panics_ends_its_tasks(method: StartMethod) {
    for (end, code) in [
        ("exit", Some(7)),
        ("panic", Some(101)),
        ("exit_now", Some(8)),
        ("abort", None),
    ] {
        let mut host = Host::new();
        let mut started = start(&mut host, [&method.to_string(), "2", "-", "keep", end]);
        std::io::Write::write_all(&mut started.end, b"!").unwrap();
        let output = started.program.wait_with_output().unwrap();
        assert_eq!(output.status.code(), code, "{output:?}");
        host.wait_until_left();
    }
}

/// As when the user types ctrl-C: the signal goes to the program's group, in which no worker is.
fn interrupt_from_the_terminal_ends_all_without_noise(method: StartMethod) {
    let mut host = Host::new();
    let started = start(&mut host, [&method.to_string(), "10", "-", "keep", "return"]);
    let group = nix::unistd::Pid::from_raw(started.program.id().cast_signed());
    nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGINT).unwrap();
    let output = started.program.wait_with_output().unwrap();
    assert_eq!(output.status.signal(), Some(libc::SIGINT));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    host.wait_until_left();
}

fn program_may_wait_for_its_detached_tasks(method: StartMethod) {
    let mut host = Host::new();
    let mut program = role("patient_boss", &[&method.to_string(), host.path()])
        .spawn()
        .unwrap();
    let said: Vec<_> = (0..4).map(|_| host.hear()).collect();
    assert!(said.contains(&"waiting".to_owned()), "{said:?}");
    assert!(program.try_wait().unwrap().is_none());
    host.release(3);
    assert!(program.wait().unwrap().success());
    host.wait_until_left();
}

/// A program with tasks calls `fork` without this library, and the copy ends. The tasks go on, and the copy could start
/// tasks of its own.
fn program_that_forks_by_itself_keeps_its_tasks(method: StartMethod) {
    let mut host = Host::new();
    let future = meet::with().start(method).call(host.place());
    let pid = host.arrival();
    // SAFETY: this thread is the program's only one; the library's own hold nothing that the copy needs.
    match unsafe { nix::unistd::fork() }.unwrap() {
        nix::unistd::ForkResult::Child => {
            let own = crate::tasks::double::with().start(method).call(4).wait();
            let is_cancelled = future.cancel();
            drop(future);
            os::exit_now(if matches!(own, Ok(8)) && !is_cancelled {
                0
            } else {
                1
            });
        }
        nix::unistd::ForkResult::Parent { child } => {
            let status = nix::sys::wait::waitpid(child, None).unwrap();
            assert_eq!(status, nix::sys::wait::WaitStatus::Exited(child, 0));
        }
    }
    host.release(1);
    assert_eq!(future.wait().unwrap(), pid);
}
