//! What tasks and programs do to the ground under their own feet: their rights, their descriptors, their copies.

use std::io::{Read, Seek};
use std::os::fd::AsRawFd;
use std::sync::OnceLock;
use std::time::Duration;

use inparallel::{ErrorKind, StartMethod, allow_fork_with_threads, fork, preload, task, wait_idle};
use nix::sys::signal::Signal;
use nix::unistd::{ForkResult, Uid};

use crate::harness::{FORK, FORK_SERVER, ISOLATED, REMOTE};
use crate::os;
use crate::tasks::{double, nothing};

trials! {
    warm on ISOLATED => {
        worker_has_the_rights_of_the_calls_moment,
        copy_that_a_task_makes_of_itself_does_not_answer,
        answer_is_not_written_into_a_file_of_the_task,
        words_of_nested_tasks_are_complete,
        threads_of_a_task_may_print,
        leftovers_of_a_task_end_with_it_though_the_ends_of_children_are_ignored,
    }
    warm on FORK_SERVER => { launches_that_a_killed_server_had_not_got_go_to_the_next }
    cold on FORK_SERVER => { preload_reaches_the_servers_of_nested_tasks }
    cold on REMOTE => { quick_tasks_in_a_crowd_do_not_run_out_of_time }
    cold on FORK => { forks_beside_a_printing_thread_do_not_wait_for_its_lock }
}

#[task]
fn user() -> u32 {
    nix::unistd::geteuid().as_raw()
}

fn worker_has_the_rights_of_the_calls_moment(method: StartMethod) {
    let call = || user::with().start(method).call().wait();
    assert_eq!(call().unwrap(), nix::unistd::geteuid().as_raw());
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root can give up its rights");
        return;
    }
    let nobody = Uid::from_raw(65534);
    nix::unistd::setresuid(nobody, nobody, nobody).unwrap();
    // The program may lie where only root may execute it; then the call fails, but it never runs as root.
    match call() {
        Ok(user) => assert_eq!(user, 65534),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Launch, "{error}"),
    }
    // The server that had the old rights ends when its last worker has.
    os::eventually(|| match os::children(std::process::id()) {
        servers if servers.len() <= 1 && servers.iter().all(|pid| os::state(*pid) != Some('Z')) => Ok(()),
        servers => Err(format!("more than the server of now: {servers:?}")),
    });
}

#[task]
fn doubles_itself() -> u32 {
    #[expect(clippy::disallowed_methods, reason = "what a task must not do, and may")]
    // SAFETY: a worker has one thread unless its task made more.
    match unsafe { nix::unistd::fork() }.unwrap() {
        ForkResult::Child => 111,
        ForkResult::Parent { child } => {
            #[expect(clippy::disallowed_methods, reason = "the child of this task")]
            nix::sys::wait::waitpid(child, None).unwrap();
            222
        }
    }
}

fn copy_that_a_task_makes_of_itself_does_not_answer(method: StartMethod) {
    for _ in 0..20 {
        assert_eq!(doubles_itself::with().start(method).call().wait().unwrap(), 222);
    }
}

#[task]
fn puts_a_file_in_the_place_of_its_pipes(path: String) -> u32 {
    os::close_range(3, u32::MAX);
    // One of them has the number that the way to answer had.
    for _ in 0..20 {
        std::mem::forget(
            std::fs::OpenOptions::new()
                .append(true)
                .create(true)
                .open(&path)
                .unwrap(),
        );
    }
    5
}

fn answer_is_not_written_into_a_file_of_the_task(method: StartMethod) {
    let mut file = os::unnamed_file();
    let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    let future = puts_a_file_in_the_place_of_its_pipes::with()
        .start(method)
        .call(path);
    let error = future.wait().unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::Exited | ErrorKind::Protocol),
        "{error}"
    );
    let mut content = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut content).unwrap();
    assert_eq!(content, b"");
}

#[task]
fn prints_from_a_thread() -> bool {
    let thread = std::thread::spawn(|| {
        println!("to stdout");
        eprintln!("to stderr");
    });
    thread.join().is_ok()
}

/// The locks that are held while a program is forked are not those of its copy.
fn threads_of_a_task_may_print(method: StartMethod) {
    assert!(prints_from_a_thread::with().start(method).call().wait().unwrap());
}

#[task]
fn speaks() {
    eprintln!("the nested word");
}

#[task]
fn lets_another_speak_and_fails(method: String) {
    speaks::with()
        .start(method.parse().unwrap())
        .call()
        .wait()
        .unwrap();
    std::process::exit(3);
}

#[task]
fn lets_another_speak(method: String) -> bool {
    speaks::with()
        .start(method.parse().unwrap())
        .call()
        .wait()
        .is_ok()
}

fn words_of_nested_tasks_are_complete(method: StartMethod) {
    for _ in 0..20 {
        let future = lets_another_speak_and_fails::with()
            .start(method)
            .call(method.to_string());
        let error = future.wait().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exited, "{error:?}");
        assert!(error.stderr().contains("the nested word"), "{error:?}");
        // Nothing tells here whether it arrived, but that the worker waits for it to be written must not block it.
        assert!(
            lets_another_speak::with()
                .start(method)
                .call(method.to_string())
                .wait()
                .unwrap()
        );
    }
}

#[task]
fn leaves_a_process() -> u32 {
    std::process::Command::new("sleep")
        .arg("1000")
        .spawn()
        .unwrap()
        .id()
}

fn leftovers_of_a_task_end_with_it_though_the_ends_of_children_are_ignored(method: StartMethod) {
    if method != StartMethod::ForkServer && !os::statuses_survive_reaping() {
        println!(
            "skipped: without a pidfd nobody can tell the group of a process that is reaped from a stranger's"
        );
        return;
    }
    os::ignore(Signal::SIGCHLD);
    leaves_a_process::with().start(method).call().wait().unwrap();
    assert!(wait_idle(Duration::from_secs(60)));
    // It was killed before its leader's end was told; the kernel may take a moment to bury it. The harness finds what
    // is left at the end of the trial.
    os::set_default(Signal::SIGCHLD);
}

fn launches_that_a_killed_server_had_not_got_go_to_the_next(method: StartMethod) {
    let server = os::fork_server().unwrap();
    let futures: Vec<_> = (0..300).map(|x| double::with().start(method).call(x)).collect();
    os::send(server, libc::SIGKILL);
    let mut lost = 0;
    for (x, future) in (0..).zip(futures) {
        match future.wait() {
            Ok(value) => assert_eq!(value, x * 2),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Lost, "{error}");
                lost += 1;
            }
        }
    }
    // Those that were under way, and those that ran.
    assert!(lost <= 100, "{lost} of 300 are lost");
    assert_eq!(double::with().start(method).call(4).wait().unwrap(), 8);
}

static LOADED: OnceLock<u32> = OnceLock::new();

#[task(start = "forkserver")]
fn loaded() -> Option<u32> {
    LOADED.get().copied()
}

#[task]
fn loaded_below() -> Option<u32> {
    loaded().wait().unwrap()
}

fn preload_reaches_the_servers_of_nested_tasks(_: StartMethod) {
    preload(|| LOADED.set(7).unwrap()).unwrap();
    for method in [StartMethod::ForkServer, StartMethod::Spawn, StartMethod::Fork] {
        assert_eq!(
            loaded_below::with().start(method).call().wait().unwrap(),
            Some(7),
            "below {method}"
        );
    }
    assert_eq!(LOADED.get(), None);
}

fn quick_tasks_in_a_crowd_do_not_run_out_of_time(method: StartMethod) {
    // Making them all takes longer than any of them may run. What counts for each is its own time.
    let quick = || {
        nothing::with()
            .timeout(Duration::from_secs(2))
            .start(method)
            .call()
    };
    let futures: Vec<_> = (0..400).map(|_| quick()).collect();
    for future in futures {
        future.wait().unwrap();
    }
}

fn forks_beside_a_printing_thread_do_not_wait_for_its_lock(_: StartMethod) {
    // SAFETY: the tasks below touch nothing; the other thread only prints.
    unsafe { allow_fork_with_threads(true) };
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let printer = std::thread::spawn(move || {
        while let Err(std::sync::mpsc::TryRecvError::Empty) = stopped.try_recv() {
            print!(".");
        }
    });
    for round in 0..150 {
        assert_eq!(fork(|| round).wait().unwrap(), round);
    }
    drop(stop);
    printer.join().unwrap();
    println!();
    // SAFETY: back to the rule.
    unsafe { allow_fork_with_threads(false) };
}
