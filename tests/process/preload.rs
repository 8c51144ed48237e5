//! What the fork server loads for all its workers. It is set before the first task, so each trial begins cold.

use std::sync::OnceLock;

use inparallel::{ErrorKind, StartMethod, preload, task};

use crate::harness::{self, FORK_SERVER};
use crate::os;
use crate::tasks::double;

trials! {
    cold on FORK_SERVER => {
        preload_runs_once_for_all_workers,
        preload_is_refused_after_the_first_task,
        preload_of_a_killed_server_runs_again,
        preload_that_panics_is_told_by_each_call,
        preload_that_leaves_a_thread_is_told_by_each_call,
        preload_that_exits_is_told_by_each_call,
        preload_may_use_threads_that_it_joins,
        preload_may_run_tasks_of_its_own,
    }
}

/// Who loaded it.
static LOADED_BY: OnceLock<u32> = OnceLock::new();

#[task(start = "forkserver")]
fn loaded_by() -> Option<u32> {
    LOADED_BY.get().copied()
}

fn load() {
    LOADED_BY.set(std::process::id()).unwrap();
    println!("loading");
    // A file for each run.
    std::fs::write(
        harness::scratch().join(format!("loaded-{}", std::process::id())),
        "",
    )
    .unwrap();
}

fn times_loaded() -> usize {
    std::fs::read_dir(harness::scratch()).unwrap().count()
}

fn preload_runs_once_for_all_workers(_: StartMethod) {
    preload(load).unwrap();
    let futures: Vec<_> = (0..10).map(|_| loaded_by()).collect();
    let mut loaders: Vec<_> = futures.into_iter().map(|future| future.wait().unwrap()).collect();
    loaders.dedup();
    assert_eq!(loaders, [os::fork_server()]);
    assert_eq!(times_loaded(), 1);
    assert_eq!(LOADED_BY.get(), None);
    // Workers that are made otherwise have not loaded it.
    assert_eq!(
        loaded_by::with().start(StartMethod::Spawn).call().wait().unwrap(),
        None
    );
}

fn preload_is_refused_after_the_first_task(method: StartMethod) {
    double::with().start(method).call(1).wait().unwrap();
    let error = preload(load).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("before the first task"), "{error}");
    assert_eq!(loaded_by().wait().unwrap(), None);
}

fn preload_of_a_killed_server_runs_again(_: StartMethod) {
    preload(load).unwrap();
    let first = loaded_by().wait().unwrap().unwrap();
    os::send(first, libc::SIGKILL);
    // The next call may still reach the dying server, and is lost with it.
    let second = loop {
        match loaded_by().wait() {
            Ok(Some(pid)) if pid != first => break pid,
            Ok(other) => assert_eq!(other, Some(first)),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Lost, "{error}"),
        }
    };
    assert_eq!(Some(second), os::fork_server());
    assert_eq!(times_loaded(), 2);
}

/// Each call says what is wrong, and the program goes on by other ways.
fn is_told_by_each_call(method: StartMethod, text: &str) {
    for _ in 0..3 {
        let futures: Vec<_> = (0..3).map(|x| double::with().start(method).call(x)).collect();
        for future in futures {
            let error = future.wait().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Launch, "{error}");
            assert!(error.to_string().contains(text), "{error}");
        }
    }
    assert_eq!(
        double::with().start(StartMethod::Spawn).call(1).wait().unwrap(),
        2
    );
    assert_eq!(double::with().start(StartMethod::Fork).call(1).wait().unwrap(), 2);
}

fn preload_that_panics_is_told_by_each_call(method: StartMethod) {
    preload(|| panic!("nothing to load")).unwrap();
    is_told_by_each_call(method, "nothing to load");
}

fn preload_that_leaves_a_thread_is_told_by_each_call(method: StartMethod) {
    preload(|| {
        std::thread::spawn(std::thread::park);
    })
    .unwrap();
    is_told_by_each_call(method, "preload left 1 thread");
}

fn preload_that_exits_is_told_by_each_call(method: StartMethod) {
    preload(|| std::process::exit(4)).unwrap();
    is_told_by_each_call(method, "exited with status 4");
}

fn preload_may_use_threads_that_it_joins(_: StartMethod) {
    preload(|| {
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(std::process::id)).collect();
        let pids: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        LOADED_BY.set(pids[3]).unwrap();
    })
    .unwrap();
    assert_eq!(loaded_by().wait().unwrap(), os::fork_server());
}

/// `Inline` needs no thread. Others would leave the library's own running in the server.
fn preload_may_run_tasks_of_its_own(_: StartMethod) {
    preload(|| {
        let doubled = double::with().start(StartMethod::Inline).call(4).wait().unwrap();
        LOADED_BY.set(u32::try_from(doubled).unwrap()).unwrap();
    })
    .unwrap();
    assert_eq!(loaded_by().wait().unwrap(), Some(8));
}
