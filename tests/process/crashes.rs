//! Many workers that die at once, workers that others kill, and the death of the fork server.

use std::time::Duration;

use inparallel::{ErrorKind, StartMethod, task};

use crate::harness::{FORK_SERVER, ISOLATED};
use crate::os;
use crate::place::{Host, Place};
use crate::tasks::{Death, Grandchild, die, double, meet, meet_with_grandchild};

trials! {
    warm on ISOLATED => {
        killed_worker_fails_only_its_own_task,
        workers_that_kill_each_other_all_fail,
        a_hundred_endings_leave_nothing,
        killed_worker_takes_its_grandchildren_along,
        stopped_worker_can_be_cancelled,
        stopped_worker_runs_out_of_time,
    }
    warm on FORK_SERVER => {
        killed_fork_server_loses_its_tasks_and_is_replaced,
        terminated_fork_server_loses_its_tasks_and_is_replaced,
        fork_server_that_dies_amid_large_arguments_blocks_nobody,
        fork_server_dies_again_and_again,
        server_killed_when_idle_is_replaced,
    }
}

fn killed_worker_fails_only_its_own_task(method: StartMethod) {
    let mut host = Host::new();
    let victim = meet::with().start(method).call(host.place());
    let pid = host.arrival();
    let others: Vec<_> = (0..3)
        .map(|_| meet::with().start(method).call(host.place()))
        .collect();
    host.arrivals(3);
    os::send(pid, libc::SIGTERM);
    let error = victim.wait().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Signaled);
    assert_eq!(error.signal().map(|signal| signal.name()), Some("SIGTERM"));
    assert_eq!(error.pid(), Some(pid));
    host.release(3);
    for other in others {
        other.wait().unwrap();
    }
    assert_eq!(double::with().start(method).call(2).wait().unwrap(), 4);
}

/// Learns of its peers' pids when it is let go, and kills them, then itself.
#[task]
fn fight(place: Place) {
    place.arrive();
    place.wait_for_go();
    let pids = std::fs::read_to_string(place.file("pids")).unwrap();
    let own = std::process::id();
    pids.split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .filter(|pid| *pid != own)
        .for_each(|pid| os::send(pid, libc::SIGKILL));
    os::send(own, libc::SIGKILL);
}

fn workers_that_kill_each_other_all_fail(method: StartMethod) {
    for count in [1, 2, 5, 13] {
        let mut host = Host::new();
        let futures: Vec<_> = (0..count)
            .map(|_| fight::with().start(method).call(host.place()))
            .collect();
        let pids: Vec<_> = host.arrivals(count).iter().map(u32::to_string).collect();
        std::fs::write(host.place().file("pids"), pids.join(" ")).unwrap();
        host.release(count);
        for future in futures {
            let error = future.wait().unwrap_err();
            assert_eq!(
                error.signal().map(|signal| signal.name()),
                Some("SIGKILL"),
                "{error}"
            );
        }
        assert_eq!(double::with().start(method).call(2).wait().unwrap(), 4);
    }
}

fn a_hundred_endings_leave_nothing(method: StartMethod) {
    let host = Host::new();
    let deaths = [
        Death::Signal(libc::SIGKILL),
        Death::Exit(1),
        Death::Panic,
        Death::ExitNow(0),
    ];
    for round in 0..10 {
        let dying: Vec<_> = deaths
            .iter()
            .map(|how| die::with().start(method).call(host.place(), *how))
            .collect();
        let living: Vec<_> = (0..4).map(|x| double::with().start(method).call(x)).collect();
        let cancelled = meet::with().start(method).call(host.place());
        let killed = meet::with().start(method).kill_on_drop().call(host.place());
        assert!(cancelled.cancel());
        drop(killed);
        for future in dying {
            future.wait().unwrap_err();
        }
        for (future, x) in living.into_iter().zip(0..) {
            assert_eq!(future.wait().unwrap(), x * 2, "round {round}");
        }
        assert_eq!(cancelled.wait().unwrap_err().kind(), ErrorKind::Cancelled);
    }
}

fn killed_worker_takes_its_grandchildren_along(method: StartMethod) {
    for grandchild in [Grandchild::Ordinary, Grandchild::Stubborn] {
        let mut host = Host::new();
        let future = meet_with_grandchild::with()
            .start(method)
            .call(host.place(), grandchild);
        os::send(host.arrival(), libc::SIGKILL);
        assert_eq!(future.wait().unwrap_err().kind(), ErrorKind::Signaled);
        host.wait_until_left();
    }
}

fn stopped_worker_can_be_cancelled(method: StartMethod) {
    let mut host = Host::new();
    let future = meet::with().start(method).call(host.place());
    let pid = host.arrival();
    os::stop(pid);
    assert!(future.cancel());
    assert_eq!(future.wait().unwrap_err().kind(), ErrorKind::Cancelled);
    assert!(os::is_gone(pid));
}

/// It stops itself, so that it is stopped before its time is over.
#[task]
fn stop_yourself(place: Place) {
    place.arrive();
    os::raise(libc::SIGSTOP);
    place.wait_for_go();
}

fn stopped_worker_runs_out_of_time(method: StartMethod) {
    let host = Host::new();
    let limit = Duration::from_millis(300);
    let future = stop_yourself::with()
        .start(method)
        .timeout(limit)
        .call(host.place());
    assert_eq!(future.wait().unwrap_err().kind(), ErrorKind::TimedOut);
}

fn killed_fork_server_loses_its_tasks_and_is_replaced(method: StartMethod) {
    lose_server(method, libc::SIGKILL);
}

fn terminated_fork_server_loses_its_tasks_and_is_replaced(method: StartMethod) {
    lose_server(method, libc::SIGTERM);
}

fn lose_server(method: StartMethod, signal: i32) {
    let mut host = Host::new();
    let futures: Vec<_> = (0..3)
        .map(|_| meet::with().start(method).call(host.place()))
        .collect();
    let workers = host.arrivals(3);
    let server = os::fork_server().unwrap();
    os::send(server, signal);
    for future in futures {
        let error = future.wait().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Lost, "{error}");
        // The server may have ended before it told the number.
        assert!(error.pid().is_none_or(|pid| workers.contains(&pid)));
    }
    // Every worker went down with it.
    host.wait_until_left();
    assert_eq!(double::with().start(method).call(2).wait().unwrap(), 4);
    assert_ne!(os::fork_server(), Some(server));
}

/// 1. The server is stopped, so that it takes no launches. 2. Large arguments fill the pipes of ten workers to be.
/// 3. The server dies. No write blocks, and each future ends.
fn fork_server_that_dies_amid_large_arguments_blocks_nobody(method: StartMethod) {
    let server = os::fork_server().unwrap();
    os::stop(server);
    let text = "x".repeat(1 << 20);
    let futures: Vec<_> = (0..10)
        .map(|_| length::with().start(method).call(&text))
        .collect();
    os::send(server, libc::SIGKILL);
    for future in futures {
        // The last ones may be called after the supervisor has seen the server's end, and get another.
        match future.wait() {
            Ok(len) => assert_eq!(len, 1 << 20),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Lost, "{error}"),
        }
    }
    assert_eq!(length::with().start(method).call(&text).wait().unwrap(), 1 << 20);
}

#[task]
fn length(text: &str) -> usize {
    text.len()
}

/// The server may die at any point of a launch. Each task ends in a result or a name.
fn fork_server_dies_again_and_again(method: StartMethod) {
    for _ in 0..20 {
        let futures: Vec<_> = (0..8).map(|x| double::with().start(method).call(x)).collect();
        if let Some(server) = os::fork_server() {
            os::send(server, libc::SIGKILL);
        }
        for (future, x) in futures.into_iter().zip(0..) {
            match future.wait() {
                Ok(result) => assert_eq!(result, x * 2),
                Err(error) => {
                    assert!(
                        matches!(error.kind(), ErrorKind::Lost | ErrorKind::Launch),
                        "{error}"
                    );
                }
            }
        }
    }
    assert_eq!(double::with().start(method).call(2).wait().unwrap(), 4);
}

fn server_killed_when_idle_is_replaced(method: StartMethod) {
    let server = os::fork_server().unwrap();
    os::send(server, libc::SIGKILL);
    // The call may still reach the dying server: then it is lost with it, and the next one is not.
    let results: Vec<_> = (0..50)
        .map(|_| double::with().start(method).call(2).wait())
        .collect();
    assert_eq!(*results.last().unwrap().as_ref().unwrap(), 4);
    for error in results.into_iter().filter_map(Result::err) {
        assert_eq!(error.kind(), ErrorKind::Lost, "{error}");
    }
}
