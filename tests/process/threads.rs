//! Threads of the program: which start methods live with them, and tasks that outlive the thread that called.

use std::sync::mpsc;

use inparallel::{ErrorKind, StartMethod, task};

use crate::harness::{FORK, ISOLATED, PROGRAM, REMOTE};
use crate::os;
use crate::place::{Host, Place};
use crate::tasks::{double, meet};

trials! {
    warm on FORK => {
        fork_beside_threads_is_refused_with_their_number,
        fork_beside_threads_can_be_allowed,
        panic_in_the_caller_between_call_and_wait_harms_nobody,
    }
    warm on REMOTE => {
        tasks_start_from_many_threads_at_once,
    }
    warm on ISOLATED => {
        task_outlives_the_thread_that_called_it,
        blocked_signals_and_handlers_of_the_caller_are_not_the_workers,
        task_with_threads_of_its_own_ends_with_its_answer,
    }
    cold on PROGRAM => { library_starts_no_thread_before_it_is_used }
}

/// Threads that do nothing until they are let go.
struct Idle {
    go: Vec<mpsc::Sender<()>>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Idle {
    fn new(count: usize) -> Idle {
        let mut idle = Idle {
            go: Vec::new(),
            threads: Vec::new(),
        };
        for _ in 0..count {
            let (tx, rx) = mpsc::channel();
            idle.go.push(tx);
            idle.threads.push(std::thread::spawn(move || _ = rx.recv()));
        }
        idle
    }

    fn end(self) {
        drop(self.go);
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}

fn fork_beside_threads_is_refused_with_their_number(method: StartMethod) {
    for count in [1, 2, 7] {
        let idle = Idle::new(count);
        for error in [
            double::with().start(method).call(1).wait().unwrap_err(),
            inparallel::fork(|| 1).wait().unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::ThreadsAlive);
            assert!(
                error.to_string().contains(&format!("{count} other thread")),
                "{error}"
            );
            assert_eq!(error.pid(), None);
        }
        assert_eq!(
            double::with().start(StartMethod::Spawn).call(1).wait().unwrap(),
            2
        );
        idle.end();
        assert_eq!(double::with().start(method).call(1).wait().unwrap(), 2);
    }
}

fn fork_beside_threads_can_be_allowed(method: StartMethod) {
    let idle = Idle::new(3);
    // SAFETY: the other threads only wait.
    unsafe { inparallel::allow_fork_with_threads(true) };
    assert_eq!(double::with().start(method).call(1).wait().unwrap(), 2);
    // From another thread, too.
    let called = std::thread::spawn(move || double::with().start(method).call(2).wait());
    assert_eq!(called.join().unwrap().unwrap(), 4);
    // SAFETY: it forbids again.
    unsafe { inparallel::allow_fork_with_threads(false) };
    assert_eq!(
        double::with().start(method).call(1).wait().unwrap_err().kind(),
        ErrorKind::ThreadsAlive
    );
    idle.end();
}

fn panic_in_the_caller_between_call_and_wait_harms_nobody(method: StartMethod) {
    let mut host = Host::new();
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _future = meet::with().start(method).kill_on_drop().call(host.place());
        host.arrival();
        panic!("the caller panics");
    }));
    caught.unwrap_err();
    host.wait_until_left();
    assert_eq!(double::with().start(method).call(1).wait().unwrap(), 2);
}

fn tasks_start_from_many_threads_at_once(method: StartMethod) {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                scope.spawn(move || {
                    (0..5)
                        .map(|x| double::with().start(method).call(thread * x).wait().unwrap())
                        .sum::<u64>()
                })
            })
            .collect();
        for (thread, number) in threads.into_iter().zip(0..) {
            assert_eq!(thread.join().unwrap(), number * 20);
        }
    });
}

/// A worker must not depend on the thread that made it: the kernel ties some things to it.
fn task_outlives_the_thread_that_called_it(method: StartMethod) {
    if method == StartMethod::Fork {
        // SAFETY: the other threads only wait.
        unsafe { inparallel::allow_fork_with_threads(true) };
    }
    let mut host = Host::new();
    let place = host.place();
    let called = std::thread::spawn(move || meet::with().start(method).call(place));
    let future = called.join().unwrap();
    let pid = host.arrival();
    host.release(1);
    assert_eq!(future.wait().unwrap(), pid);
}

/// Numbers of the signals that are blocked or ignored here, as the kernel writes them.
#[task]
fn signals() -> Vec<String> {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let lines = status
        .lines()
        .filter(|line| ["SigBlk", "SigIgn", "SigCgt"].contains(&&line[..6.min(line.len())]));
    lines.map(str::to_owned).collect()
}

fn blocked_signals_and_handlers_of_the_caller_are_not_the_workers(method: StartMethod) {
    use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
    extern "C" fn nothing(_: i32) {}
    let before = signals::with().start(method).call().wait().unwrap();
    let mut blocked = SigSet::empty();
    blocked.add(Signal::SIGTERM);
    blocked.add(Signal::SIGUSR2);
    blocked.thread_block().unwrap();
    os::ignore(Signal::SIGHUP);
    // SAFETY: the handler does nothing.
    unsafe { signal(Signal::SIGUSR1, SigHandler::Handler(nothing)) }.unwrap();
    let after = signals::with().start(method).call().wait().unwrap();
    assert_eq!(before, after);
    assert!(
        after
            .iter()
            .any(|line| line.ends_with("\t0000000000000000") && line.starts_with("SigBlk")),
        "{after:?}"
    );
    // It listens when it is asked to end, and the caller's mask is as it was.
    let mut host = Host::new();
    let future = meet::with()
        .start(method)
        .grace(std::time::Duration::from_secs(100))
        .call(host.place());
    host.arrival();
    assert!(future.cancel());
    assert_eq!(future.wait().unwrap_err().kind(), ErrorKind::Cancelled);
    assert!(SigSet::thread_get_mask().unwrap().contains(Signal::SIGUSR2));
}

#[task]
fn leave_threads(place: Place) -> u32 {
    for _ in 0..3 {
        let place = place.clone();
        std::thread::spawn(move || place.wait_for_go());
    }
    place.arrive();
    3
}

fn task_with_threads_of_its_own_ends_with_its_answer(method: StartMethod) {
    let mut host = Host::new();
    assert_eq!(
        leave_threads::with()
            .start(method)
            .call(host.place())
            .wait()
            .unwrap(),
        3
    );
    host.wait_until_left();
}

fn library_starts_no_thread_before_it_is_used(_: StartMethod) {
    assert_eq!(os::threads().len(), 1);
    assert_eq!(double::inline(2), 4);
    assert_eq!(
        double::with().start(StartMethod::Inline).call(2).wait().unwrap(),
        4
    );
    assert!(inparallel::wait_idle(std::time::Duration::ZERO));
    assert_eq!(os::threads().len(), 1);
}
