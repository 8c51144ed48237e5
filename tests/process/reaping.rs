//! Programs that reap children which are not theirs, or have the kernel do it: every outcome is still right, but for a
//! status that nobody kept.

use inparallel::{Error, ErrorKind, StartMethod, task};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use crate::harness::ISOLATED;
use crate::os;
use crate::place::{Host, Place};
use crate::tasks::{Death, Grandchild, die, double, meet, meet_with_grandchild};

trials! {
    warm on ISOLATED => {
        program_that_ignores_the_ends_of_children,
        program_that_reaps_every_child_in_a_handler,
        program_that_reaps_every_child_in_a_loop,
    }
}

/// The fork server reaps its workers itself.
fn is_status_known(method: StartMethod) -> bool {
    method == StartMethod::ForkServer || os::statuses_survive_reaping()
}

/// Dies when it is let go.
#[task]
fn meet_and_die(place: Place, how: Death) -> u32 {
    place.arrive();
    place.wait_for_go();
    how.happen()
}

/// The kernel keeps a status for whoever holds a pidfd: a task that ends before the program has one ends unknown.
fn every_outcome_is_right(method: StartMethod) {
    let known = is_status_known(method);
    let mut host = Host::new();
    let mut check = |how: Death, is_at_once: bool, expected: &dyn Fn(&Error) -> bool| {
        let future = match is_at_once {
            true => die::with().start(method).call(host.place(), how),
            false => meet_and_die::with().start(method).call(host.place(), how),
        };
        let pid = host.arrival();
        if !is_at_once {
            // The number is there when the pidfd is, and nobody waits for the number alone.
            os::eventually(|| future.pid().map(|_| ()).ok_or("no pid".to_owned()));
            host.release(1);
        }
        let error = future.wait().unwrap_err();
        assert_eq!(error.pid(), Some(pid));
        let is_unknown = error.kind() == ErrorKind::Exited && error.exit_code().is_none();
        assert!(
            expected(&error) || (is_unknown && (is_at_once || !known)),
            "{how:?}: {error}"
        );
        assert!(!is_unknown || error.to_string().contains("unknown"), "{error}");
    };
    for is_at_once in [true, false].repeat(5) {
        assert_eq!(double::with().start(method).call(4).wait().unwrap(), 8);
        check(Death::Exit(99), is_at_once, &|error| {
            error.exit_code() == Some(99)
        });
        check(Death::ExitNow(0), is_at_once, &|error| {
            error.exit_code() == Some(0)
        });
        check(Death::Signal(libc::SIGKILL), is_at_once, &|error| {
            error
                .signal()
                .is_some_and(|signal| signal.number() == libc::SIGKILL)
        });
        check(Death::Fault, is_at_once, &|error| {
            error.signal().is_some_and(|signal| signal.name() == "SIGSEGV")
        });
    }
    let panicked = die::with().start(method).call(host.place(), Death::Panic);
    host.arrival();
    assert_eq!(panicked.wait().unwrap_err().kind(), ErrorKind::Panicked);
    let cancelled = meet_with_grandchild::with()
        .start(method)
        .call(host.place(), Grandchild::Ordinary);
    host.arrival();
    assert!(cancelled.cancel());
    assert_eq!(cancelled.wait().unwrap_err().kind(), ErrorKind::Cancelled);
    let late = meet::with()
        .start(method)
        .timeout(std::time::Duration::from_millis(100))
        .call(host.place());
    assert_eq!(late.wait().unwrap_err().kind(), ErrorKind::TimedOut);
    // Whoever was late may have said so or not.
    host.wait_until_left();
}

fn program_that_ignores_the_ends_of_children(method: StartMethod) {
    os::ignore(Signal::SIGCHLD);
    every_outcome_is_right(method);
}

fn program_that_reaps_every_child_in_a_handler(method: StartMethod) {
    extern "C" fn reap(_: i32) {
        let errno = nix::errno::Errno::last();
        // SAFETY: waitpid is async-signal-safe; a null status is allowed.
        while unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } > 0 {}
        errno.set();
    }
    let action = SigAction::new(SigHandler::Handler(reap), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler makes one async-signal-safe call, and keeps errno as it was.
    unsafe { sigaction(Signal::SIGCHLD, &action) }.unwrap();
    every_outcome_is_right(method);
}

/// As a program does that is the first process of a container.
fn program_that_reaps_every_child_in_a_loop(method: StartMethod) {
    if method == StartMethod::Fork {
        // SAFETY: the other thread only waits for children.
        unsafe { inparallel::allow_fork_with_threads(true) };
    }
    let (tx, rx) = std::sync::mpsc::channel();
    // A child of its own tells the thread when to end; while it lives the thread has somebody to wait for.
    let mut last = std::process::Command::new("/bin/cat");
    last.stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null());
    #[expect(clippy::zombie_processes, reason = "the thread below reaps it")]
    let mut last = last.spawn().unwrap();
    let last_pid = nix::unistd::Pid::from_raw(last.id().cast_signed());
    let reaper = std::thread::spawn(move || {
        loop {
            match nix::sys::wait::waitpid(None, None) {
                Ok(status) if status.pid() == Some(last_pid) => break,
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => panic!("waitpid: {error}"),
            }
        }
        tx.send(()).unwrap();
    });
    every_outcome_is_right(method);
    drop(last.stdin.take());
    rx.recv().unwrap();
    reaper.join().unwrap();
}
