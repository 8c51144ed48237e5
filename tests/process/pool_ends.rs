//! The end of a pool, and of the program that has one.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Stdio;
use std::time::Duration;

use inparallel::{ErrorKind, Limiter, Options, Pool, Shutdown, StartMethod, task};

use crate::harness::{POOLS, REMOTE, Role, role};
use crate::os;
use crate::place::{Host, Place};
use crate::pools::{LONG, end, kind, let_threads_end, pool, say, stay};
use crate::tasks::{double, meet, nothing};

trials! {
    warm on POOLS => {
        closed_pool_takes_nothing,
        shutdown_runs_what_is_queued,
        closing_waits_for_nothing,
        shutdown_at_any_moment_ends,
        cancelling_shutdown_spares_what_runs,
        killing_shutdown_ends_everything,
        shutdown_ends_what_waits_elsewhere,
        shutdown_may_be_tried_again_and_harder,
        dropped_pool_finishes_its_work,
        scope_ends_with_its_tasks,
        panic_in_a_scope_kills_its_tasks,
        name_finds_its_pool_until_it_is_shut_down,
        name_with_other_settings_is_refused,
        all_named_pools_are_joined,
        pool_that_never_ran_anything_ends,
        task_may_use_its_own_pool_in_its_process,
    }
    warm on REMOTE => {
        crowd_of_tasks_and_deaths_leaves_nothing,
        fork_of_the_program_cannot_use_the_pool,
        pools_nest_up_to_a_depth,
    }
    cold on REMOTE => {
        killed_program_takes_its_pool_along,
        program_that_returns_ends_its_pool,
        program_may_join_its_pools,
        interrupt_starts_nothing_more,
    }
}

pub(crate) const ROLES: &[Role] = &[("pool_owner", pool_owner)];

fn closed_pool_takes_nothing(method: StartMethod) {
    for how in [Shutdown::Finish, Shutdown::Cancel, Shutdown::Kill] {
        let pool = pool(method, 1);
        pool.submit(nothing::later()).unwrap().wait().unwrap();
        assert!(!pool.is_closed());
        assert!(pool.shutdown(how, LONG));
        assert!(pool.is_closed());
        for error in [
            pool.submit(double::later(1)).unwrap_err(),
            pool.try_submit(double::later(1)).unwrap_err().error,
            pool.submit_timeout(double::later(1), LONG).unwrap_err().error,
        ] {
            assert_eq!(error.kind(), ErrorKind::Closed);
            assert!(error.task().ends_with("::double"), "{error}");
        }
        assert_eq!((pool.stats().workers, pool.stats().submitted), (0, 1));
        // Over is over, and once more.
        assert!(pool.shutdown(Shutdown::Kill, Duration::ZERO) && pool.join(None));
        assert!(pool.wait_idle(Duration::ZERO).is_some());
    }
}

fn shutdown_runs_what_is_queued(method: StartMethod) {
    let pool = pool(method, 2);
    let futures: Vec<_> = (0..50).map(|x| pool.submit(double::later(x)).unwrap()).collect();
    assert!(pool.shutdown(Shutdown::Finish, LONG));
    for (future, x) in futures.into_iter().zip(0..) {
        assert!(future.is_done());
        assert_eq!(future.wait().unwrap(), x * 2);
    }
}

fn closing_waits_for_nothing(method: StartMethod) {
    let mut host = Host::new();
    let pool = pool(method, 1);
    let futures: Vec<_> = (0..4)
        .map(|x| pool.submit(stay::later(host.place(), x)).unwrap())
        .collect();
    host.hear();
    pool.close();
    assert!(!pool.shutdown(Shutdown::Finish, Duration::ZERO));
    assert_eq!(pool.stats().unfinished, 4);
    host.release(4);
    for (future, x) in futures.into_iter().zip(0..) {
        assert_eq!(future.wait().unwrap(), x);
    }
    end(pool);
}

fn shutdown_at_any_moment_ends(method: StartMethod) {
    for tasks in [0, 1, 2, 3, 5] {
        for how in [Shutdown::Finish, Shutdown::Cancel, Shutdown::Kill] {
            for spins in [0, 100, 10_000, 300_000] {
                let pool = pool(method, 2);
                let futures: Vec<_> = (0..tasks)
                    .map(|x| pool.submit(double::later(x)).unwrap())
                    .collect();
                for _ in 0..spins {
                    std::hint::spin_loop();
                }
                assert!(pool.shutdown(how, LONG));
                for (future, x) in futures.into_iter().zip(0..) {
                    assert!(future.is_done());
                    match kind(future.wait()) {
                        Ok(value) => assert_eq!(value, x * 2),
                        Err(kind) => assert_eq!((kind, how > Shutdown::Finish), (ErrorKind::Cancelled, true)),
                    }
                }
            }
        }
    }
}

fn cancelling_shutdown_spares_what_runs(method: StartMethod) {
    let mut host = Host::new();
    let pool = pool(method, 1);
    let running = pool.submit(stay::later(host.place(), 0)).unwrap();
    host.hear();
    let queued: Vec<_> = (1..9)
        .map(|x| pool.submit(say::later(host.place(), x.to_string())).unwrap())
        .collect();
    assert!(!pool.shutdown(Shutdown::Cancel, Duration::ZERO));
    for future in queued {
        assert_eq!(kind(future.wait()), Err(ErrorKind::Cancelled));
    }
    assert!(!running.is_done());
    host.release(1);
    assert_eq!(running.wait().unwrap(), 0);
    end(pool);
    assert!(!host.has_news(), "what was cancelled ran");
}

fn killing_shutdown_ends_everything(method: StartMethod) {
    let mut host = Host::new();
    let pool = pool(method, 2);
    let futures: Vec<_> = (0..6)
        .map(|x| pool.submit(stay::later(host.place(), x)).unwrap())
        .collect();
    host.arrivals(2);
    let pids: Vec<_> = pool
        .workers()
        .into_iter()
        .filter_map(|worker| worker.pid)
        .collect();
    assert!(pool.shutdown(Shutdown::Kill, LONG));
    for future in futures {
        assert!(future.is_done());
        assert_eq!(kind(future.wait()), Err(ErrorKind::Cancelled));
    }
    assert!(pids.into_iter().all(os::is_gone));
    let_threads_end(&mut host, method, 2);
    assert!(!host.has_news());
}

/// Tasks that wait for a permit, and those that wait for another attempt, are not in the queue.
fn shutdown_ends_what_waits_elsewhere(method: StartMethod) {
    for how in [Shutdown::Cancel, Shutdown::Kill] {
        let limiter = Limiter::new(1);
        let permit = limiter.acquire();
        let host = Host::new();
        let pool = pool(method, 1);
        let limited: Vec<_> = (0..3)
            .map(|x| pool.submit(double::with().limit(&limiter).call_later(x)).unwrap())
            .collect();
        let again = fail::with()
            .retries(3)
            .retry_on(ErrorKind::Panicked)
            .backoff(LONG * 10);
        let resting = pool.submit(again.call_later(host.place())).unwrap();
        os::eventually(|| match resting.attempt() {
            2 => Ok(()),
            attempt => Err(format!("it is at attempt {attempt}")),
        });
        assert_eq!((pool.stats().unfinished, pool.stats().queued), (4, 0));
        assert!(pool.shutdown(how, LONG));
        for future in limited {
            assert_eq!(kind(future.wait()), Err(ErrorKind::Cancelled));
        }
        let error = resting.wait().unwrap_err();
        assert_eq!((error.kind(), error.attempt()), (ErrorKind::Cancelled, 2));
        drop(permit);
        assert_eq!(limiter.free(), 1);
    }
    // What is to be finished is, whatever it waits for.
    let limiter = Limiter::new(1);
    let permit = limiter.acquire();
    let pool = pool(method, 1);
    let limited = pool.submit(double::with().limit(&limiter).call_later(4)).unwrap();
    pool.submit(nothing::later()).unwrap().wait().unwrap();
    assert!(!pool.join(Duration::from_millis(1)));
    drop(permit);
    assert_eq!(limited.wait().unwrap(), 8);
    end(pool);
}

#[task]
fn fail(place: Place) {
    panic!("it failed at {}", place.file("").display());
}

fn shutdown_may_be_tried_again_and_harder(method: StartMethod) {
    let mut host = Host::new();
    let pool = pool(method, 1);
    let futures: Vec<_> = (0..3)
        .map(|x| pool.submit(stay::later(host.place(), x)).unwrap())
        .collect();
    host.hear();
    assert!(!pool.join(Duration::from_millis(5)));
    assert!(!pool.shutdown(Shutdown::Cancel, Duration::from_millis(5)));
    os::eventually(|| match [1, 2].map(|queued: usize| futures[queued].is_done()) {
        [true, true] => Ok(()),
        done => Err(format!("what was queued is done: {done:?}")),
    });
    assert!(!futures[0].is_done());
    assert!(pool.shutdown(Shutdown::Kill, LONG));
    assert!(pool.join(Duration::ZERO));
    for future in futures {
        assert_eq!(kind(future.wait()), Err(ErrorKind::Cancelled));
    }
    let_threads_end(&mut host, method, 1);
}

fn dropped_pool_finishes_its_work(method: StartMethod) {
    let before = os::descriptors(std::process::id());
    let mut host = Host::new();
    let pool = pool(method, 2);
    let futures: Vec<_> = (0..6)
        .map(|x| pool.submit(stay::later(host.place(), x)).unwrap())
        .collect();
    let pids: Vec<_> = (0..2).map(|x| pool.submit(double::later(x)).unwrap()).collect();
    host.arrivals(2);
    let workers: Vec<_> = pool
        .workers()
        .into_iter()
        .filter_map(|worker| worker.pid)
        .collect();
    let other = pool.clone();
    drop(pool);
    assert!(!other.is_closed(), "there is another handle");
    drop(other);
    host.release(6);
    host.arrivals(4);
    for (future, x) in futures.into_iter().zip(0..) {
        assert_eq!(future.wait().unwrap(), x);
    }
    for (future, x) in pids.into_iter().zip(0..) {
        assert_eq!(future.wait().unwrap(), x * 2);
    }
    // Nobody says when a pool that nobody holds is gone.
    drop(host);
    os::eventually(|| match workers.iter().find(|pid| !os::is_gone(**pid)) {
        None => Ok(()),
        Some(pid) => Err(os::describe(*pid)),
    });
    os::eventually(|| match os::descriptors(std::process::id()) {
        now if now == before => Ok(()),
        now => Err(format!("{now:?} are open, {before:?} were")),
    });
}

fn scope_ends_with_its_tasks(method: StartMethod) {
    inparallel::set_default_start(method);
    let (pool, futures) = Pool::scope(|pool| {
        let futures: Vec<_> = (0..20).map(|x| pool.submit(double::later(x)).unwrap()).collect();
        (pool.clone(), futures)
    })
    .unwrap();
    assert!(pool.is_closed() && pool.workers().is_empty());
    for (future, x) in futures.into_iter().zip(0..) {
        assert!(future.is_done());
        assert_eq!(future.wait().unwrap(), x * 2);
    }
}

fn panic_in_a_scope_kills_its_tasks(method: StartMethod) {
    inparallel::set_default_start(method);
    let mut host = Host::new();
    let mut kept = None;
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        Pool::scope(|pool| {
            kept = Some(pool.submit(stay::later(host.place(), 1)).unwrap());
            host.hear();
            panic!("in the scope");
        })
    }));
    assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"in the scope"));
    let future = kept.unwrap();
    assert!(future.is_done());
    assert_eq!(kind(future.wait()), Err(ErrorKind::Cancelled));
    let_threads_end(&mut host, method, 1);
}

fn name_finds_its_pool_until_it_is_shut_down(method: StartMethod) {
    let new = || {
        Pool::builder()
            .name("n")
            .workers(1)
            .start(method)
            .build()
            .unwrap()
    };
    assert!(Pool::by_name("n").is_none());
    let pool = new();
    assert_eq!(pool.name(), Some("n"));
    // The same, as often as it is built.
    let again = new();
    pool.submit(nothing::later()).unwrap().wait().unwrap();
    assert_eq!(
        (
            again.stats().submitted,
            Pool::by_name("n").unwrap().stats().submitted
        ),
        (1, 1)
    );
    assert_eq!(Pool::all().len(), 1);
    // The name holds it.
    drop((pool, again));
    let pool = Pool::by_name("n").unwrap();
    assert!(!pool.is_closed());
    assert_eq!(pool.submit(double::later(1)).unwrap().wait().unwrap(), 2);
    pool.close();
    assert!(Pool::by_name("n").is_none() && Pool::all().is_empty());
    let error = pool.submit(double::later(1)).unwrap_err();
    assert!(error.to_string().contains("\"n\""), "{error}");
    // Free for another one, also before the first is gone.
    let other = Pool::builder()
        .name("n")
        .workers(3)
        .start(method)
        .build()
        .unwrap();
    assert_eq!(other.stats().submitted, 0);
    end(pool);
    assert!(Pool::by_name("n").is_some());
    end(other);
    assert!(Pool::all().is_empty());
}

#[task(pool = "shared", workers = 2)]
fn first_of_the_shared(x: u32) -> u32 {
    x + 1
}

#[task(pool = "shared")]
fn second_of_the_shared(x: u32) -> u32 {
    x + 2
}

#[task(pool = "shared", workers = 5)]
fn other_of_the_shared(x: u32) -> u32 {
    x + 3
}

fn name_with_other_settings_is_refused(method: StartMethod) {
    let first = first_of_the_shared::with().start(method).call(1);
    let second = second_of_the_shared::with().start(method).call(1);
    assert_eq!((first.wait().unwrap(), second.wait().unwrap()), (2, 3));
    let pool = Pool::by_name("shared").unwrap();
    assert_eq!(
        (pool.stats().submitted, pool.max_workers(), Pool::all().len()),
        (2, 2, 1)
    );
    let error = other_of_the_shared::with()
        .start(method)
        .call(1)
        .wait()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("\"shared\""), "{error}");
    let error = Pool::builder()
        .name("shared")
        .workers(7)
        .start(method)
        .build()
        .unwrap_err();
    assert!(error.to_string().contains("other settings"), "{error}");
    end(pool);
    // Once it is gone, the next has its own way.
    assert_eq!(
        other_of_the_shared::with().start(method).call(1).wait().unwrap(),
        4
    );
    assert_eq!(Pool::by_name("shared").unwrap().max_workers(), 5);
    assert!(Pool::join_all(LONG));
}

fn all_named_pools_are_joined(method: StartMethod) {
    let mut host = Host::new();
    let named = |name: &str| {
        Pool::builder()
            .name(name)
            .workers(1)
            .start(method)
            .build()
            .unwrap()
    };
    let (a, b) = (named("a"), named("b"));
    let nameless = pool(method, 1);
    let futures = [&a, &b].map(|pool| pool.submit(stay::later(host.place(), 3)).unwrap());
    host.arrivals(2);
    assert!(!Pool::join_all(Duration::from_millis(5)));
    assert!(a.is_closed() && b.is_closed() && !nameless.is_closed());
    host.release(2);
    for future in futures {
        assert_eq!(future.wait().unwrap(), 3);
    }
    end(a);
    end(b);
    end(nameless);
    assert!(Pool::join_all(None));
}

fn pool_that_never_ran_anything_ends(method: StartMethod) {
    for prestart in [false, true] {
        for how in [Shutdown::Finish, Shutdown::Cancel, Shutdown::Kill] {
            let pool = Pool::builder()
                .workers(2)
                .start(method)
                .prestart(prestart)
                .build()
                .unwrap();
            assert!(pool.shutdown(how, LONG));
        }
        drop(Pool::builder().workers(1).start(method).build().unwrap());
    }
}

/// In its own process a task has pools of its own; on a thread they are those of the program.
#[task]
fn names_of_pools() -> usize {
    Pool::all().len()
}

fn task_may_use_its_own_pool_in_its_process(method: StartMethod) {
    let pool = Pool::builder()
        .name("p")
        .workers(1)
        .start(method)
        .build()
        .unwrap();
    let seen = pool.submit(names_of_pools::later()).unwrap().wait().unwrap();
    assert_eq!(seen, usize::from(method == StartMethod::Thread));
    end(pool);
}

fn crowd_of_tasks_and_deaths_leaves_nothing(method: StartMethod) {
    let host = Host::new();
    let options = Options::new().grace(Duration::ZERO);
    let pool = Pool::builder()
        .workers(4)
        .start(method)
        .options(options)
        .build()
        .unwrap();
    let futures: Vec<_> = (0..100)
        .map(|x| {
            let call = match x % 10 {
                7 => meet::later(host.place()),
                _ => may_die::later(x),
            };
            pool.submit(call).unwrap()
        })
        .collect();
    for (future, x) in futures.iter().zip(0..) {
        if x % 10 == 7 {
            assert!(future.cancel());
        }
    }
    for (future, x) in futures.into_iter().zip(0..) {
        let wanted = match x % 10 {
            3 => Err(ErrorKind::Signaled),
            7 => Err(ErrorKind::Cancelled),
            _ => Ok(x),
        };
        assert_eq!(kind(future.wait()), wanted);
    }
    end(pool);
}

#[task]
fn may_die(x: u32) -> u32 {
    if x % 10 == 3 {
        os::raise(libc::SIGKILL);
    }
    x
}

fn fork_of_the_program_cannot_use_the_pool(method: StartMethod) {
    let named = Pool::builder()
        .name("n")
        .workers(1)
        .start(method)
        .build()
        .unwrap();
    let pool = pool(method, 1);
    pool.submit(nothing::later()).unwrap().wait().unwrap();
    // SAFETY: this thread is the program's only one; the library's own hold nothing that the copy needs.
    match unsafe { nix::unistd::fork() }.unwrap() {
        nix::unistd::ForkResult::Child => {
            let is_foreign = |kind| kind == ErrorKind::OtherProcess;
            let all = [
                is_foreign(pool.submit(double::later(1)).unwrap_err().kind()),
                is_foreign(pool.try_submit(double::later(1)).unwrap_err().error.kind()),
                pool.map(double::later, 0..3)
                    .all(|result| is_foreign(result.unwrap_err().kind())),
                pool.is_closed() && pool.resize(3).is_err() && pool.workers().is_empty(),
                !pool.shutdown(Shutdown::Kill, Duration::ZERO) && pool.wait_idle(Duration::ZERO).is_none(),
                Pool::by_name("n").is_none() && Pool::all().is_empty(),
            ];
            drop((pool, named));
            // It may have pools of its own, also by that name.
            let own = Pool::builder()
                .name("n")
                .workers(1)
                .start(method)
                .build()
                .unwrap();
            let works = matches!(own.submit(double::later(4)).unwrap().wait(), Ok(8)) && own.join(LONG);
            os::exit_now(if works && all == [true; 6] { 0 } else { 1 });
        }
        nix::unistd::ForkResult::Parent { child } => {
            let status = nix::sys::wait::waitpid(child, None).unwrap();
            assert_eq!(status, nix::sys::wait::WaitStatus::Exited(child, 0));
        }
    }
    assert_eq!(pool.submit(double::later(2)).unwrap().wait().unwrap(), 4);
    end(pool);
    end(named);
}

/// A task with a pool, in which runs a task with a pool. How deep it came, or what stopped it.
#[task]
fn nest(method: String, depth: u32) -> Result<u32, String> {
    if depth == 0 {
        return Ok(0);
    }
    let pool = Pool::builder().workers(1).start(method.parse().unwrap()).build();
    let pool = pool.map_err(|error| format!("{:?}", error.kind()))?;
    let inner = pool
        .submit(nest::later(method, depth - 1))
        .map_err(|error| error.to_string())?;
    let inner = inner.wait().map_err(|error| error.to_string())?;
    assert!(pool.join(LONG));
    inner.map(|below| below + 1)
}

fn pools_nest_up_to_a_depth(method: StartMethod) {
    let pool = pool(method, 1);
    let nested = |depth| {
        pool.submit(nest::later(method.to_string(), depth))
            .unwrap()
            .wait()
            .unwrap()
    };
    for depth in [2, 10] {
        assert_eq!(nested(depth), Ok(depth));
    }
    assert_eq!(nested(1000), Err("TooDeep".to_owned()));
    end(pool);
}

// --- programs ---

/// Has a pool with work, and ends in one way or another.
fn pool_owner(arguments: &[String]) {
    let [method, path, end] = arguments else {
        panic!("{arguments:?}")
    };
    let method: StartMethod = method.parse().unwrap();
    let place = Place::at(path);
    // A shell starts programs in the background with SIGINT ignored, and they pass that on.
    os::set_default(nix::sys::signal::Signal::SIGINT);
    let pool = Pool::builder()
        .name("p")
        .workers(2)
        .start(method)
        .build()
        .unwrap();
    for _ in 0..10 {
        pool.submit(meet::later(place.clone())).unwrap().detach();
    }
    match end.as_str() {
        "return" => {
            // Its tasks run, and more are queued.
            let _ =
                std::fs::File::open(place.file("end")).map(|mut end| std::io::Read::read(&mut end, &mut [0]));
        }
        "join" => assert!(Pool::join_all(LONG)),
        _ => assert!(inparallel::wait_idle(LONG)),
    }
}

struct Owner {
    program: std::process::Child,
    end: std::fs::File,
}

fn start(host: &Host, method: StartMethod, end: &str) -> Owner {
    let path = host.place().file("end");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let held = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut command = role("pool_owner", &[&method.to_string(), host.path(), end]);
    let program = command
        .process_group(0)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    Owner { program, end: held }
}

fn killed_program_takes_its_pool_along(method: StartMethod) {
    let mut host = Host::new();
    let mut owner = start(&host, method, "return");
    host.arrivals(2);
    owner.program.kill().unwrap();
    host.wait_until_left();
    owner.program.wait().unwrap();
    assert!(!host.has_news());
}

fn program_that_returns_ends_its_pool(method: StartMethod) {
    let mut host = Host::new();
    let mut owner = start(&host, method, "return");
    host.arrivals(2);
    std::io::Write::write_all(&mut owner.end, b"!").unwrap();
    let output = owner.program.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    host.wait_until_left();
    assert!(!host.has_news(), "what was queued began");
}

fn program_may_join_its_pools(method: StartMethod) {
    for end in ["join", "wait_idle"] {
        let mut host = Host::new();
        let owner = start(&host, method, end);
        host.release(10);
        host.arrivals(10);
        let output = owner.program.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        host.wait_until_left();
    }
}

/// As when the user types ctrl-C: the signal goes to the program's group, in which no worker is.
fn interrupt_starts_nothing_more(method: StartMethod) {
    let mut host = Host::new();
    let owner = start(&host, method, "join");
    host.arrivals(2);
    let group = nix::unistd::Pid::from_raw(owner.program.id().cast_signed());
    nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGINT).unwrap();
    let output = owner.program.wait_with_output().unwrap();
    assert_eq!(output.status.signal(), Some(libc::SIGINT));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    host.wait_until_left();
    assert!(!host.has_news(), "a task began after the interrupt");
}
