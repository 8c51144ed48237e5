//! Tasks in a pool: values, errors, who runs them, and what they see.

use std::path::PathBuf;

use inparallel::{ErrorKind, Limiter, Options, Pool, StartMethod, task};

use crate::harness::{POOLS, REMOTE};
use crate::os;
use crate::place::{Host, Place};
use crate::pools::{LONG, end, kind, pool, say, stay};
use crate::tasks::{Death, die, double, meet, nothing, own_pid};

trials! {
    warm on POOLS => {
        submitted_call_gives_its_value,
        parameters_named_like_options_arrive,
        attribute_pool_and_limit_pass_all_arguments,
        methods_run_in_pools,
        returned_error_is_a_value,
        failing_task_leaves_the_worker_alone,
        saturated_pool_has_no_more_workers_than_it_may,
        sequential_tasks_have_one_worker,
        more_workers_than_processors_run_at_once,
        large_arguments_and_results_arrive,
        queued_task_that_is_cancelled_never_starts,
        options_of_the_pool_fill_those_of_the_call,
        limit_counts_from_the_start_of_the_task,
        future_of_a_pool_is_like_any_other,
        call_may_be_submitted_more_than_once,
        tasks_of_a_pool_count_as_active,
    }
    warm on REMOTE => {
        tasks_that_run_at_once_are_in_different_processes,
        each_death_fails_its_own_task_alone,
        cancelled_task_is_replaced_with_its_worker,
        task_that_exceeds_its_limit_is_killed_in_a_pool,
        environment_and_directory_are_those_of_the_pool,
        what_a_task_prints_to_stderr_is_in_its_own_error,
        cancel_at_any_moment_in_a_pool,
        task_runs_subprocesses_and_reads_no_input,
    }
}

#[task]
fn pow(base: u64, exponent: u32) -> u64 {
    base.pow(exponent)
}

fn submitted_call_gives_its_value(method: StartMethod) {
    let pool = pool(method, 2);
    assert_eq!(pool.submit(pow::later(2, 8)).unwrap().wait().unwrap(), 256);
    let futures: Vec<_> = (0..100).map(|x| pool.submit(double::later(x)).unwrap()).collect();
    for (future, x) in futures.into_iter().zip(0..) {
        assert_eq!(future.wait().unwrap(), x * 2);
    }
    assert!(pool.join(LONG));
    let stats = pool.stats();
    assert_eq!((stats.submitted, stats.unfinished), (101, 0));
    assert_eq!((stats.workers_died, stats.workers), (0, 0));
    assert!(stats.workers_made <= 2);
}

#[task]
fn named(name: String, timeout: u32, priority: i32, pool: char, options: Option<u8>, later: bool) -> String {
    format!("{name} {timeout} {priority} {pool} {options:?} {later}")
}

fn parameters_named_like_options_arrive(method: StartMethod) {
    let pool = pool(method, 1);
    let call = named::later("n".into(), 1, -2, 'p', Some(3), true);
    assert_eq!(
        pool.submit(call).unwrap().wait().unwrap(),
        "n 1 -2 p Some(3) true"
    );
    end(pool);
}

#[task(pool = "three", workers = 2, limit = 1, priority = -1)]
fn three(a: u8, b: u16, x: &str) -> String {
    format!("{a} {b} {x}")
}

fn attribute_pool_and_limit_pass_all_arguments(method: StartMethod) {
    assert!(Pool::by_name("three").is_none());
    assert_eq!(
        three::with().start(method).call(1, 2, "x").wait().unwrap(),
        "1 2 x"
    );
    let pool = Pool::by_name("three").unwrap();
    assert_eq!((pool.max_workers(), pool.stats().submitted), (2, 1));
    // Submitted elsewhere, it runs there.
    let other = self::pool(method, 1);
    assert_eq!(
        other.submit(three::later(1, 2, "y")).unwrap().wait().unwrap(),
        "1 2 y"
    );
    assert_eq!((other.stats().submitted, pool.stats().submitted), (1, 1));
    end(other);
    end(pool);
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Square(u32);
#[derive(serde::Serialize, serde::Deserialize)]
struct Circle(u32);

trait Shape {
    const CORNERS: u32;
}
impl Shape for Square {
    const CORNERS: u32 = 4;
}
impl Shape for Circle {
    const CORNERS: u32 = 0;
}

impl Square {
    #[task]
    fn describe(&self, prefix: &str) -> String {
        format!("{prefix} square of {} with {}", self.0, Self::CORNERS)
    }
}

impl Circle {
    #[task]
    fn describe(&self, prefix: &str) -> String {
        format!("{prefix} circle of {} with {}", self.0, Self::CORNERS)
    }
}

fn methods_run_in_pools(method: StartMethod) {
    let pool = pool(method, 1);
    let square = pool.submit(Square(2).describe_later("a")).unwrap();
    let circle = pool.submit(Circle(3).describe_later("b")).unwrap();
    assert_eq!(square.wait().unwrap(), "a square of 2 with 4");
    assert_eq!(circle.wait().unwrap(), "b circle of 3 with 0");
    end(pool);
}

#[task]
fn check(x: u32) -> Result<u32, String> {
    match x {
        0 => Err("zero".into()),
        1 => panic!("one"),
        x => Ok(x),
    }
}

fn returned_error_is_a_value(method: StartMethod) {
    let pool = pool(method, 1);
    let run = |x| pool.submit(check::later(x)).unwrap().wait();
    assert_eq!(run(0).unwrap(), Err("zero".to_owned()));
    assert_eq!(run(2).unwrap(), Ok(2));
    end(pool);
}

fn failing_task_leaves_the_worker_alone(method: StartMethod) {
    let pool = pool(method, 1);
    let before = pool.submit(own_pid::later()).unwrap().wait().unwrap();
    for x in 0..3 {
        let _ = pool.submit(check::later(x)).unwrap().wait();
    }
    let error = pool.submit(check::later(1)).unwrap().wait().unwrap_err();
    assert_eq!(
        (error.kind(), error.panic_message()),
        (ErrorKind::Panicked, Some("one"))
    );
    if method != StartMethod::Thread {
        assert_eq!(error.pid(), Some(before));
    }
    assert_eq!(pool.submit(own_pid::later()).unwrap().wait().unwrap(), before);
    assert_eq!((pool.stats().workers_made, pool.stats().workers_died), (1, 0));
    end(pool);
}

fn saturated_pool_has_no_more_workers_than_it_may(method: StartMethod) {
    let mut host = Host::new();
    let pool = pool(method, 3);
    let futures: Vec<_> = (0..45)
        .map(|x| pool.submit(stay::later(host.place(), x)).unwrap())
        .collect();
    let mut begun: Vec<_> = host.arrivals(3);
    begun.sort_unstable();
    assert_eq!(begun, [0, 1, 2]);
    let stats = pool.stats();
    assert_eq!((stats.workers, stats.running, stats.queued), (3, 3, 42));
    assert_eq!(
        (stats.unfinished, stats.workers_made, stats.idle, stats.starting),
        (45, 3, 0, 0)
    );
    assert_eq!(pool.workers().len(), 3);
    assert!(!host.has_news());
    host.release(45);
    for (future, x) in futures.into_iter().zip(0..) {
        assert_eq!(future.wait().unwrap(), x);
    }
    host.arrivals(42);
    assert_eq!(pool.stats().workers_made, 3);
    end(pool);
}

fn sequential_tasks_have_one_worker(method: StartMethod) {
    let pool = pool(method, 4);
    let first = pool.submit(own_pid::later()).unwrap().wait().unwrap();
    for _ in 0..20 {
        assert_eq!(pool.submit(own_pid::later()).unwrap().wait().unwrap(), first);
    }
    assert_eq!(pool.stats().workers_made, 1);
    end(pool);
}

/// All must have begun before any may end.
fn more_workers_than_processors_run_at_once(method: StartMethod) {
    let count = 2 * std::thread::available_parallelism().unwrap().get() + 2;
    let mut host = Host::new();
    let pool = pool(method, count);
    let futures: Vec<_> = (0..count as u32)
        .map(|x| pool.submit(stay::later(host.place(), x)).unwrap())
        .collect();
    host.arrivals(count);
    host.release(count);
    for future in futures {
        future.wait().unwrap();
    }
    end(pool);
}

#[task]
fn reversed(text: String) -> String {
    let mut bytes = text.into_bytes();
    bytes.reverse();
    String::from_utf8(bytes).unwrap()
}

/// More than any pipe holds, several times on one worker, and small ones between.
fn large_arguments_and_results_arrive(method: StartMethod) {
    let pool = pool(method, 1);
    let mut text = "x".repeat((64 << 20) - 3);
    text.push_str("end");
    let call = reversed::later(text);
    let futures: Vec<_> = (0..2)
        .map(|_| {
            let large = pool.submit(call.clone()).unwrap();
            (large, pool.submit(double::later(1)).unwrap())
        })
        .collect();
    drop(call);
    for (large, small) in futures {
        let back = large.wait().unwrap();
        assert!(back.len() == 64 << 20 && back.starts_with("dnex") && back.ends_with("x"));
        assert_eq!(small.wait().unwrap(), 2);
    }
    end(pool);
}

fn queued_task_that_is_cancelled_never_starts(method: StartMethod) {
    let mut host = Host::new();
    let pool = pool(method, 1);
    let first = pool.submit(stay::later(host.place(), 0)).unwrap();
    assert_eq!(host.hear(), "0");
    let queued: Vec<_> = (1..20)
        .map(|x| pool.submit(say::later(host.place(), x.to_string())).unwrap())
        .collect();
    let last = pool.submit(stay::later(host.place(), 20)).unwrap();
    assert_eq!(pool.stats().queued, 20);
    for future in &queued {
        assert!(future.cancel());
        // At once, in this thread.
        assert!(future.is_done());
        assert!(future.cancel());
    }
    assert_eq!((pool.stats().queued, pool.stats().unfinished), (1, 2));
    // Dropping is cancelling, if that was asked for.
    drop(
        pool.submit(say::later(host.place(), "dropped".into()))
            .unwrap()
            .kill_on_drop(),
    );
    for future in queued {
        assert_eq!(kind(future.wait()), Err(ErrorKind::Cancelled));
    }
    host.release(2);
    assert_eq!((first.wait().unwrap(), last.wait().unwrap()), (0, 20));
    assert_eq!(host.hear(), "20", "the next to start after the first");
    assert!(!host.has_news());
    end(pool);
}

fn options_of_the_pool_fill_those_of_the_call(method: StartMethod) {
    let limiter = Limiter::new(1);
    let options = Options::new().timeout(LONG).priority(7).limit(&limiter);
    let pool = Pool::builder()
        .workers(1)
        .start(method)
        .options(options)
        .build()
        .unwrap();
    let mut host = Host::new();
    let first = pool.submit(stay::later(host.place(), 0)).unwrap();
    host.hear();
    assert_eq!(limiter.free(), 0);
    // The pool's start method is that of its workers, whatever a call says.
    let call = nothing::with().start(StartMethod::Spawn).call_later();
    let second = pool.submit(call).unwrap();
    let waiting = pool.stats();
    assert_eq!(
        (waiting.queued, waiting.unfinished),
        (0, 2),
        "it waits for the permit"
    );
    host.release(1);
    first.wait().unwrap();
    second.wait().unwrap();
    // Options that cannot be meant are refused as elsewhere, and the call comes back.
    let call = double::with().timeout(std::time::Duration::ZERO).call_later(1);
    let rejected = pool.try_submit(call).unwrap_err();
    assert_eq!(rejected.error.kind(), ErrorKind::Invalid);
    assert!(rejected.error.task().ends_with("::double"), "{rejected}");
    let call = rejected.call.with(Options::new().timeout(LONG));
    assert_eq!(pool.submit(call).unwrap().wait().unwrap(), 2);
    end(pool);
}

/// Queued for longer than its limit.
fn limit_counts_from_the_start_of_the_task(method: StartMethod) {
    let mut host = Host::new();
    let pool = pool(method, 1);
    let limit = std::time::Duration::from_secs(1);
    let first = pool.submit(stay::later(host.place(), 0)).unwrap();
    host.hear();
    let begun = std::time::Instant::now();
    let second = pool.submit(double::with().timeout(limit).call_later(4)).unwrap();
    let mut first = first;
    assert_eq!(first.wait_deadline(begun + limit + limit / 20).unwrap(), None);
    host.release(1);
    assert_eq!(second.wait().unwrap(), 8);
    drop(first);
    end(pool);
}

fn future_of_a_pool_is_like_any_other(method: StartMethod) {
    let mut host = Host::new();
    let pool = pool(method, 2);
    let (tx, rx) = std::sync::mpsc::channel();
    let future = pool.submit(stay::later(host.place(), 5)).unwrap();
    let other = pool.submit(double::later(2)).unwrap();
    assert!(future.name().ends_with("::stay"));
    assert!(future.id() < other.id());
    future.on_done(move |result| tx.send(result.as_ref().ok().copied()).unwrap());
    host.hear();
    assert_eq!(future.pid().is_some(), method != StartMethod::Thread);
    host.release(1);
    let mut future = future;
    assert_eq!(future.wait_timeout(LONG).unwrap(), Some(5));
    assert_eq!(future.try_wait().unwrap_err().kind(), ErrorKind::Taken);
    assert_eq!(rx.recv().unwrap(), Some(5));
    assert!(!future.cancel());
    assert_eq!(other.wait().unwrap(), 4);
    end(pool);
}

fn call_may_be_submitted_more_than_once(method: StartMethod) {
    let pool = pool(method, 2);
    let call = double::later(21);
    let futures: Vec<_> = (0..5).map(|_| pool.submit(call.clone()).unwrap()).collect();
    for future in futures {
        assert_eq!(future.wait().unwrap(), 42);
    }
    // Without a pool too.
    let call = call.with(Options::new().start(method));
    assert_eq!(call.start().wait().unwrap(), 42);
    end(pool);
}

/// Who waits for the end of all tasks also waits for those that a pool has not begun.
fn tasks_of_a_pool_count_as_active(method: StartMethod) {
    let mut host = Host::new();
    let pool = pool(method, 1);
    for x in 0..2 {
        pool.submit(stay::later(host.place(), x)).unwrap().detach();
    }
    assert!(!inparallel::wait_idle(std::time::Duration::from_millis(1)));
    host.hear();
    host.release(2);
    assert!(inparallel::wait_idle(LONG));
    assert!(host.has_news(), "the second has run");
    host.hear();
    end(pool);
}

fn tasks_that_run_at_once_are_in_different_processes(method: StartMethod) {
    let mut host = Host::new();
    let pool = pool(method, 2);
    let futures: Vec<_> = (0..5)
        .map(|_| pool.submit(meet::later(host.place())).unwrap())
        .collect();
    let mut pids = host.arrivals(2);
    host.release(5);
    pids.extend(host.arrivals(3));
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), 2);
    for future in futures {
        assert!(pids.contains(&future.wait().unwrap()));
    }
    assert!(!pids.contains(&std::process::id()));
    end(pool);
}

fn each_death_fails_its_own_task_alone(method: StartMethod) {
    let pool = pool(method, 1);
    let place = Host::new();
    for (death, kind) in [
        (Death::Exit(0), ErrorKind::Exited),
        (Death::Exit(7), ErrorKind::Exited),
        (Death::ExitNow(3), ErrorKind::Exited),
        (Death::Signal(libc::SIGKILL), ErrorKind::Signaled),
        (Death::Signal(libc::SIGTERM), ErrorKind::Signaled),
        (Death::Abort, ErrorKind::Signaled),
        (Death::Fault, ErrorKind::Signaled),
        (Death::StackOverflow, ErrorKind::Signaled),
        (Death::Panic, ErrorKind::Panicked),
    ] {
        let made = pool.stats().workers_made;
        let before = pool.submit(double::later(1)).unwrap();
        let dying = pool.submit(die::later(place.place(), death)).unwrap();
        let after = pool.submit(double::later(2)).unwrap();
        assert_eq!(before.wait().unwrap(), 2);
        let error = dying.wait().unwrap_err();
        assert_eq!(error.kind(), kind, "{death:?}: {error}");
        assert!(error.pid().is_some() && error.task().ends_with("::die"));
        assert_eq!(after.wait().unwrap(), 4);
        if death != Death::Panic {
            assert!(os::is_gone(error.pid().unwrap()));
        }
        assert!(pool.stats().workers_made <= made + 2);
    }
    assert_eq!(pool.stats().workers_died, 8);
    end(pool);
}

fn cancelled_task_is_replaced_with_its_worker(method: StartMethod) {
    let mut host = Host::new();
    let pool = pool(method, 1);
    let cancelled = pool.submit(meet::later(host.place())).unwrap();
    let pid = host.arrival();
    let next = pool.submit(own_pid::later()).unwrap();
    assert!(cancelled.cancel());
    assert_eq!(kind(cancelled.wait()), Err(ErrorKind::Cancelled));
    assert!(os::is_gone(pid));
    assert_ne!(next.wait().unwrap(), pid);
    end(pool);
}

fn task_that_exceeds_its_limit_is_killed_in_a_pool(method: StartMethod) {
    let host = Host::new();
    let pool = pool(method, 1);
    let limit = std::time::Duration::from_millis(100);
    let late = meet::with().timeout(limit).grace(limit / 10);
    let late = pool.submit(late.call_later(host.place())).unwrap();
    let next = pool.submit(own_pid::later()).unwrap();
    let error = late.wait().unwrap_err();
    assert_eq!((error.kind(), error.limit()), (ErrorKind::TimedOut, Some(limit)));
    assert!(os::is_gone(error.pid().unwrap()));
    assert_ne!(next.wait().ok(), error.pid());
    end(pool);
}

#[task]
fn surroundings() -> (Option<String>, Option<String>, PathBuf) {
    let var = |name| std::env::var(name).ok();
    (var("OF_THE_POOL"), var("LATER"), std::env::current_dir().unwrap())
}

fn environment_and_directory_are_those_of_the_pool(method: StartMethod) {
    let folder = crate::harness::scratch();
    let builder = Pool::builder().workers(1).start(method).env("OF_THE_POOL", "yes");
    for (name, value) in [("", "x"), ("A=B", "x"), ("A\0B", "x"), ("A", "x\0B=x")] {
        let error = builder.clone().env(name, value).build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("env"), "{error}");
    }
    let there = builder.clone().current_dir(&folder).build().unwrap();
    let here = builder.env("OF_THE_POOL", "once more").build().unwrap();
    // SAFETY: no other thread of this program reads or writes the environment.
    unsafe { std::env::set_var("LATER", "1") };
    let text = |text: &str| Some(text.to_owned());
    let seen = || there.submit(surroundings::later()).unwrap().wait().unwrap();
    assert_eq!(seen(), (text("yes"), None, folder));
    assert_eq!(seen(), seen());
    let seen = here.submit(surroundings::later()).unwrap().wait().unwrap();
    assert_eq!(seen, (text("once more"), None, std::env::current_dir().unwrap()));
    assert_eq!(std::env::var_os("OF_THE_POOL"), None);
    end(there);
    end(here);
}

#[task]
fn murmur(text: String, dies: bool) {
    eprintln!("{text}");
    if dies {
        os::raise(libc::SIGKILL);
    }
}

fn what_a_task_prints_to_stderr_is_in_its_own_error(method: StartMethod) {
    let options = Options::new().stderr(inparallel::Stderr::Capture);
    let pool = Pool::builder()
        .workers(1)
        .start(method)
        .options(options)
        .build()
        .unwrap();
    let calm = pool.submit(murmur::later("calm".into(), false)).unwrap();
    let dead = pool.submit(murmur::later("last words".into(), true)).unwrap();
    calm.wait().unwrap();
    let error = dead.wait().unwrap_err();
    assert_eq!(
        (error.kind(), error.stderr().as_str()),
        (ErrorKind::Signaled, "last words\n")
    );
    end(pool);
}

/// Cancelled before, while and after it runs: it ends in one of two ways, and the pool works on.
fn cancel_at_any_moment_in_a_pool(method: StartMethod) {
    let options = Options::new().grace(std::time::Duration::ZERO);
    let pool = Pool::builder()
        .workers(1)
        .start(method)
        .options(options)
        .build()
        .unwrap();
    for spins in 0..60 {
        let future = pool.submit(double::later(3)).unwrap();
        for _ in 0..spins * spins {
            std::hint::spin_loop();
        }
        let is_cancelled = future.cancel();
        match future.wait() {
            Ok(value) => assert_eq!((value, is_cancelled), (6, false)),
            Err(error) => assert_eq!((error.kind(), is_cancelled), (ErrorKind::Cancelled, true)),
        }
    }
    assert_eq!(pool.submit(double::later(4)).unwrap().wait().unwrap(), 8);
    end(pool);
}

#[task]
fn use_a_subprocess(place: Place) -> (String, usize) {
    let echo = std::process::Command::new("/bin/echo")
        .arg("hello")
        .output()
        .unwrap();
    let read = std::io::Read::read_to_end(&mut std::io::stdin(), &mut Vec::new()).unwrap();
    place.say("done");
    (String::from_utf8(echo.stdout).unwrap(), read)
}

fn task_runs_subprocesses_and_reads_no_input(method: StartMethod) {
    let pool = pool(method, 1);
    for _ in 0..3 {
        let future = pool.submit(use_a_subprocess::later(Host::new().place())).unwrap();
        let _ = future.cancel();
        drop(future);
    }
    let mut host = Host::new();
    let future = pool.submit(use_a_subprocess::later(host.place())).unwrap();
    assert_eq!(future.wait().unwrap(), ("hello\n".to_owned(), 0));
    assert_eq!(host.hear(), "done");
    end(pool);
}
