//! The workers of a pool: their first and last calls, how they are replaced, and how many there are.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use inparallel::{ErrorKind, Options, Pool, StartMethod, WorkerState, task};

use crate::harness::{POOLS, PROGRAM, REMOTE};
use crate::os;
use crate::place::{Host, Place};
use crate::pools::{LONG, end, kind, pool, say, stay};
use crate::tasks::{Death, die, double, nothing, own_pid};

trials! {
    warm on POOLS => {
        exit_call_runs_when_a_worker_ends,
        exit_call_that_fails_is_counted,
        backlog_is_done_though_workers_are_spent,
        idle_workers_end_and_others_take_their_place,
        idle_timeout_while_arguments_are_encoded,
        pool_is_made_larger_and_smaller,
        workers_are_there_before_they_are_needed,
        state_of_workers_is_seen,
    }
    warm on REMOTE => {
        init_call_prepares_every_worker,
        failing_init_call_breaks_the_pool_with_its_reason,
        dying_init_call_breaks_the_pool_with_its_reason,
        init_call_that_fails_now_and_then_costs_no_task,
        init_call_that_hangs_ends_with_the_time_limit,
        worker_ends_after_so_many_tasks,
        workers_that_cannot_be_made_break_the_pool_with_the_reason,
        state_stays_in_its_worker,
        killed_idle_worker_fails_no_task,
        worker_killed_as_a_task_comes_gives_it_back,
        stopped_worker_holds_up_its_own_task_only,
        daemon_lives_on_and_is_made_again,
        lost_fork_server_is_survived,
    }
    warm on PROGRAM => { worker_of_another_build_breaks_the_pool }
}

static READY: AtomicU32 = AtomicU32::new(0);

#[task]
fn prepare(place: Place, number: u32) {
    READY.store(number, Ordering::Relaxed);
    place.say("ready");
}

#[task]
fn prepared() -> (u32, u32) {
    (READY.load(Ordering::Relaxed), std::process::id())
}

#[task]
fn farewell(place: Place) {
    place.say("farewell");
}

fn init_call_prepares_every_worker(method: StartMethod) {
    let mut host = Host::new();
    let builder = Pool::builder().workers(2).start(method).prestart(true);
    let pool = builder
        .worker_init(prepare::later(host.place(), 7))
        .build()
        .unwrap();
    for _ in 0..2 {
        assert_eq!(host.hear(), "ready");
    }
    for _ in 0..10 {
        assert_eq!(pool.submit(prepared::later()).unwrap().wait().unwrap().0, 7);
    }
    // So are those that come later.
    let place = host.place();
    assert!(
        pool.submit(die::later(place.clone(), Death::Abort))
            .unwrap()
            .wait()
            .is_err()
    );
    host.arrival();
    let both: Vec<_> = (0..2)
        .map(|x| pool.submit(stay::later(place.clone(), x)).unwrap())
        .collect();
    let mut said: Vec<_> = (0..3).map(|_| host.hear()).collect();
    said.sort();
    assert_eq!(said, ["0", "1", "ready"]);
    host.release(2);
    both.into_iter().for_each(|future| _ = future.wait().unwrap());
    assert_eq!(pool.submit(prepared::later()).unwrap().wait().unwrap().0, 7);
    end(pool);
}

#[task]
fn refuse(place: Place, how: Option<Death>) {
    place.say("asked");
    eprintln!("no licence");
    how.unwrap_or(Death::Panic).happen();
}

fn broken_by(method: StartMethod, how: Option<Death>, wanted: ErrorKind) -> (Host, inparallel::Error) {
    let mut host = Host::new();
    let options = Options::new().stderr(inparallel::Stderr::Capture);
    let builder = Pool::builder().workers(1).start(method).options(options);
    let pool = builder
        .worker_init(refuse::later(host.place(), how))
        .build()
        .unwrap();
    let pending: Vec<_> = (0..3).map(|x| pool.submit(double::later(x)).unwrap()).collect();
    let mut errors: Vec<_> = pending
        .into_iter()
        .map(|future| future.wait().unwrap_err())
        .collect();
    // A bounded number of attempts.
    let mut attempts = 0;
    while host.has_news() {
        host.hear();
        attempts += 1;
    }
    assert_eq!(attempts, 5);
    errors.push(pool.submit(double::later(1)).unwrap_err());
    errors.push(pool.try_submit(double::later(1)).unwrap_err().error);
    for error in &errors {
        assert_eq!(error.kind(), wanted, "{error}");
        assert!(error.to_string().contains("worker_init"), "{error}");
        assert!(error.task().ends_with("::double"), "{error}");
    }
    assert_eq!(pool.stats().workers_died, 5);
    assert!(!pool.is_closed());
    end(pool);
    (host, errors.remove(0))
}

fn failing_init_call_breaks_the_pool_with_its_reason(method: StartMethod) {
    let (_, error) = broken_by(method, None, ErrorKind::Panicked);
    assert!(error.to_string().contains("a task that panics"), "{error}");
}

fn dying_init_call_breaks_the_pool_with_its_reason(method: StartMethod) {
    let (_, error) = broken_by(method, Some(Death::Exit(3)), ErrorKind::Exited);
    assert!(error.to_string().contains("status 3"), "{error}");
    broken_by(method, Some(Death::Signal(libc::SIGKILL)), ErrorKind::Signaled);
}

/// Fails two times of three.
#[task]
fn hesitate(place: Place) {
    let file = place.file("attempts");
    let attempts = std::fs::read_to_string(&file).unwrap_or_default().len();
    std::fs::write(file, "x".repeat(attempts + 1)).unwrap();
    assert_eq!(attempts % 3, 2, "not yet");
}

fn init_call_that_fails_now_and_then_costs_no_task(method: StartMethod) {
    let host = Host::new();
    let builder = Pool::builder().workers(1).start(method).max_tasks_per_worker(1);
    let pool = builder
        .worker_init(hesitate::later(host.place()))
        .build()
        .unwrap();
    let futures: Vec<_> = (0..4).map(|x| pool.submit(double::later(x)).unwrap()).collect();
    for (future, x) in futures.into_iter().zip(0..) {
        assert_eq!(future.wait().unwrap(), x * 2);
    }
    end(pool);
}

fn init_call_that_hangs_ends_with_the_time_limit(method: StartMethod) {
    let host = Host::new();
    let limit = Duration::from_millis(50);
    let options = Options::new().timeout(limit).grace(Duration::ZERO);
    let builder = Pool::builder().workers(1).start(method).options(options);
    let call = stay::later(host.place(), 1);
    let pool = builder.worker_init(hang::later(host.place())).build().unwrap();
    let error = pool.submit(call).unwrap().wait().unwrap_err();
    assert_eq!(
        (error.kind(), pool.stats().workers_made),
        (ErrorKind::TimedOut, 5)
    );
    assert!(error.to_string().contains("worker_init"), "{error}");
    end(pool);
}

#[task]
fn hang(place: Place) {
    place.wait_for_go();
}

fn exit_call_runs_when_a_worker_ends(method: StartMethod) {
    let mut host = Host::new();
    let new = || {
        Pool::builder()
            .workers(2)
            .start(method)
            .worker_exit(farewell::later(host.place()))
    };
    // Shut down, spent, idle for too long, one too many: and never when there was no worker.
    end(new().build().unwrap());
    let pools = [
        new().build().unwrap(),
        new().max_tasks_per_worker(1).build().unwrap(),
        new().idle_timeout(Duration::ZERO).build().unwrap(),
    ];
    for pool in pools {
        pool.submit(nothing::later()).unwrap().wait().unwrap();
        end(pool);
        assert_eq!(host.hear(), "farewell");
    }
    let pool = Pool::builder()
        .workers(2)
        .start(method)
        .worker_exit(farewell::later(host.place()));
    let pool = pool.prestart(true).build().unwrap();
    os::eventually(|| match pool.stats().idle {
        2 => Ok(()),
        idle => Err(format!("{idle} of 2 are idle")),
    });
    pool.resize(1).unwrap();
    assert_eq!(host.hear(), "farewell");
    end(pool);
    assert_eq!(host.hear(), "farewell");
    assert!(!host.has_news());
}

#[task]
fn fail_at_the_end(place: Place) {
    place.say("farewell");
    panic!("a bad end");
}

fn exit_call_that_fails_is_counted(method: StartMethod) {
    let mut host = Host::new();
    let pool = Pool::builder().workers(1).start(method);
    let pool = pool
        .worker_exit(fail_at_the_end::later(host.place()))
        .build()
        .unwrap();
    assert_eq!(pool.submit(double::later(1)).unwrap().wait().unwrap(), 2);
    assert!(pool.join(LONG));
    assert_eq!(host.hear(), "farewell");
    assert_eq!(pool.stats().exits_failed, 1);
}

fn worker_ends_after_so_many_tasks(method: StartMethod) {
    let pool = Pool::builder()
        .workers(1)
        .start(method)
        .max_tasks_per_worker(3)
        .build()
        .unwrap();
    let pids: Vec<_> = (0..7)
        .map(|_| pool.submit(own_pid::later()).unwrap().wait().unwrap())
        .collect();
    assert!(pids[..3].iter().all(|pid| *pid == pids[0]));
    assert!(pids[3..6].iter().all(|pid| *pid == pids[3]));
    assert!(pids[3] != pids[0] && pids[6] != pids[3]);
    assert_eq!((pool.stats().workers_made, pool.stats().workers_died), (3, 0));
    end(pool);
}

fn backlog_is_done_though_workers_are_spent(method: StartMethod) {
    for (workers, most, count) in [(1, 2, 6), (2, 2, 8), (2, 1, 9), (3, 1, 20)] {
        let builder = Pool::builder().workers(workers).start(method);
        let pool = builder.max_tasks_per_worker(most).build().unwrap();
        let futures: Vec<_> = (0..count)
            .map(|x| pool.submit(double::later(x)).unwrap())
            .collect();
        for (future, x) in futures.into_iter().zip(0..) {
            assert_eq!(future.wait().unwrap(), x * 2);
        }
        assert!(pool.stats().workers_made >= count.div_ceil(most));
        end(pool);
    }
}

fn workers_that_cannot_be_made_break_the_pool_with_the_reason(method: StartMethod) {
    let builder = Pool::builder().workers(1).start(method);
    // Only there can a pool have its own way to fail.
    if method != StartMethod::Spawn {
        return end(builder.build().unwrap());
    }
    let options = Options::new().program("/nowhere/at/all");
    let pool = builder.options(options).build().unwrap();
    let pending: Vec<_> = (0..3).map(|x| pool.submit(double::later(x)).unwrap()).collect();
    for future in pending {
        let error = future.wait().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Launch, "{error}");
        assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
    }
    let error = pool.submit(double::later(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Launch, "{error}");
    assert_eq!(pool.stats().workers_made, 5);
    end(pool);
}

fn worker_of_another_build_breaks_the_pool(_: StartMethod) {
    let options = Options::new().program("/bin/true");
    let builder = Pool::builder().workers(1).start(StartMethod::Spawn);
    let pool = builder.options(options).build().unwrap();
    let error = pool.submit(double::later(1)).unwrap().wait().unwrap_err();
    assert!(
        [ErrorKind::Launch, ErrorKind::WrongBinary].contains(&error.kind()),
        "{error}"
    );
    end(pool);
}

fn idle_workers_end_and_others_take_their_place(method: StartMethod) {
    let builder = Pool::builder().workers(2).start(method);
    let pool = builder.idle_timeout(Duration::from_millis(1)).build().unwrap();
    for burst in 0..5 {
        let futures: Vec<_> = (0..6).map(|x| pool.submit(double::later(x)).unwrap()).collect();
        for (future, x) in futures.into_iter().zip(0..) {
            assert_eq!(future.wait().unwrap(), x * 2, "burst {burst}");
        }
        os::eventually(|| match pool.stats().workers {
            0 => Ok(()),
            workers => Err(format!("{workers} workers are left")),
        });
    }
    assert!(pool.stats().workers_made >= 5);
    assert_eq!(pool.stats().workers_died, 0);
    end(pool);
    // One is kept.
    let builder = Pool::builder().workers(2).min_workers(1).start(method);
    let pool = builder.idle_timeout(Duration::ZERO).build().unwrap();
    let first = pool.submit(own_pid::later()).unwrap().wait().unwrap();
    for _ in 0..5 {
        assert_eq!(pool.submit(own_pid::later()).unwrap().wait().unwrap(), first);
    }
    assert_eq!(pool.stats().workers, 1);
    end(pool);
}

struct Slow;

impl serde::Serialize for Slow {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let begun = std::time::Instant::now();
        while begun.elapsed() < Duration::from_millis(5) {}
        serializer.serialize_unit()
    }
}

impl<'de> serde::Deserialize<'de> for Slow {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Slow, D::Error> {
        <()>::deserialize(deserializer).map(|()| Slow)
    }
}

#[task]
fn take_slow(slow: Slow) -> u32 {
    let Slow = slow;
    1
}

fn idle_timeout_while_arguments_are_encoded(method: StartMethod) {
    let builder = Pool::builder().workers(1).start(method);
    let pool = builder.idle_timeout(Duration::from_millis(2)).build().unwrap();
    let sum: u32 = (0..10)
        .map(|_| pool.submit(take_slow::later(Slow)).unwrap().wait().unwrap())
        .sum();
    assert_eq!(sum, 10);
    end(pool);
}

fn pool_is_made_larger_and_smaller(method: StartMethod) {
    let mut host = Host::new();
    let pool = pool(method, 1);
    let start = |x| pool.submit(stay::later(host.place(), x)).unwrap();
    let futures: Vec<_> = (0..12).map(start).collect();
    host.arrivals(1);
    pool.resize(3).unwrap();
    assert_eq!(pool.max_workers(), 3);
    host.arrivals(2);
    assert_eq!(pool.stats().running, 3);
    // Smaller: nobody is taken from his task, and then there is one.
    pool.resize(1).unwrap();
    host.release(3);
    host.arrivals(1);
    os::eventually(|| match pool.stats().workers {
        1 => Ok(()),
        workers => Err(format!("{workers} workers")),
    });
    assert!(!host.has_news());
    pool.resize(8).unwrap();
    host.arrivals(7);
    host.release(9);
    host.arrivals(1);
    for (future, x) in futures.into_iter().zip(0..) {
        assert_eq!(future.wait().unwrap(), x);
    }
    assert_eq!(pool.resize(0).unwrap_err().kind(), ErrorKind::Invalid);
    pool.close();
    assert_eq!(pool.resize(2).unwrap_err().kind(), ErrorKind::Closed);
    end(pool);
}

fn workers_are_there_before_they_are_needed(method: StartMethod) {
    let there = |pool: &Pool, count| {
        os::eventually(|| match pool.stats().idle {
            idle if idle == count => Ok(()),
            idle => Err(format!("{idle} of {count} are idle")),
        });
    };
    let pool = Pool::builder()
        .workers(3)
        .start(method)
        .prestart(true)
        .build()
        .unwrap();
    there(&pool, 3);
    assert_eq!(pool.stats().workers_made, 3);
    end(pool);
    let pool = Pool::builder()
        .workers(3)
        .start(method)
        .min_workers(2)
        .build()
        .unwrap();
    there(&pool, 2);
    end(pool);
    let pool = self::pool(method, 3);
    pool.submit(nothing::later()).unwrap().wait().unwrap();
    there(&pool, 1);
    end(pool);
}

fn state_of_workers_is_seen(method: StartMethod) {
    let mut host = Host::new();
    let pool = pool(method, 2);
    assert!(pool.workers().is_empty());
    assert!(format!("{pool:?}").contains("queued: 0"));
    let future = pool.submit(stay::later(host.place(), 1)).unwrap();
    host.hear();
    let [worker] = pool.workers()[..] else {
        panic!("{:?}", pool.workers())
    };
    assert_eq!((worker.state, worker.tasks_done), (WorkerState::Busy, 0));
    assert_eq!((worker.task, worker.pid), (Some(future.id()), future.pid()));
    host.release(1);
    future.wait().unwrap();
    os::eventually(|| match pool.workers()[..] {
        [worker] if worker.state == WorkerState::Idle => Ok(()),
        ref workers => Err(format!("{workers:?}")),
    });
    let [worker] = pool.workers()[..] else {
        panic!("{:?}", pool.workers())
    };
    assert_eq!((worker.task, worker.tasks_done), (None, 1));
    end(pool);
}

#[task]
fn count_up() -> (u32, u32) {
    (READY.fetch_add(1, Ordering::Relaxed) + 1, std::process::id())
}

fn state_stays_in_its_worker(method: StartMethod) {
    let pool = pool(method, 2);
    let mut counts = std::collections::HashMap::new();
    let futures: Vec<_> = (0..30).map(|_| pool.submit(count_up::later()).unwrap()).collect();
    for future in futures {
        let (count, pid) = future.wait().unwrap();
        let most = counts.entry(pid).or_insert(0);
        *most = count.max(*most);
    }
    // Each counts its own tasks.
    assert_eq!(counts.values().sum::<u32>(), 30);
    assert_eq!(READY.load(Ordering::Relaxed), 0);
    end(pool);
}

fn killed_idle_worker_fails_no_task(method: StartMethod) {
    let pool = pool(method, 1);
    for _ in 0..5 {
        let pid = pool.submit(own_pid::later()).unwrap().wait().unwrap();
        os::send(pid, libc::SIGKILL);
        os::eventually(|| match pool.stats().workers {
            0 => Ok(()),
            _ => Err("the worker is not missed".into()),
        });
        assert_ne!(pool.submit(own_pid::later()).unwrap().wait().unwrap(), pid);
    }
    // One that is kept is made again, though nobody needs it.
    let kept = Pool::builder()
        .workers(1)
        .min_workers(1)
        .start(method)
        .build()
        .unwrap();
    let pid = kept.submit(own_pid::later()).unwrap().wait().unwrap();
    os::send(pid, libc::SIGKILL);
    os::eventually(|| match kept.workers()[..] {
        [worker] if worker.pid.is_some_and(|other| other != pid) => Ok(()),
        ref workers => Err(format!("{workers:?}")),
    });
    assert_eq!(kept.submit(double::later(1)).unwrap().wait().unwrap(), 2);
    end(kept);
    end(pool);
}

/// Stopped, it takes a task that it does not begin; then it is killed. And again at moments that nobody chose.
fn worker_killed_as_a_task_comes_gives_it_back(method: StartMethod) {
    let pool = pool(method, 1);
    for length in [10, 1 << 20] {
        let pid = pool.submit(own_pid::later()).unwrap().wait().unwrap();
        os::stop(pid);
        let future = pool.submit(length_of::later("x".repeat(length))).unwrap();
        os::eventually(|| match pool.stats().running {
            1 => Ok(()),
            _ => Err("it is not given to the worker".into()),
        });
        os::send(pid, libc::SIGKILL);
        assert_eq!(future.wait().unwrap(), length);
        assert_ne!(pool.submit(own_pid::later()).unwrap().wait().unwrap(), pid);
    }
    // Cancelled in between, it does not come back.
    let pid = pool.submit(own_pid::later()).unwrap().wait().unwrap();
    os::stop(pid);
    let mut host = Host::new();
    let future = pool.submit(say::later(host.place(), "begun".into())).unwrap();
    os::eventually(|| match pool.stats().running {
        1 => Ok(()),
        _ => Err("it is not given to the worker".into()),
    });
    assert!(future.cancel());
    os::send(pid, libc::SIGKILL);
    assert_eq!(kind(future.wait()), Err(ErrorKind::Cancelled));
    end(pool);
    assert!(!host.has_news());
}

#[task]
fn length_of(text: String) -> usize {
    text.len()
}

fn stopped_worker_holds_up_its_own_task_only(method: StartMethod) {
    let mut host = Host::new();
    let pool = pool(method, 2);
    let held = pool.submit(crate::tasks::meet::later(host.place())).unwrap();
    let pid = host.arrival();
    os::stop(pid);
    for x in 0..10 {
        assert_eq!(pool.submit(double::later(x)).unwrap().wait().unwrap(), x * 2);
    }
    host.release(1);
    os::send(pid, libc::SIGCONT);
    assert_eq!(held.wait().unwrap(), pid);
    end(pool);
}

#[task(daemon)]
fn of_the_daemon(place: Place, dies: bool) -> u32 {
    if dies {
        place.say("dies");
        os::raise(libc::SIGKILL);
    }
    std::process::id()
}

fn daemon_lives_on_and_is_made_again(method: StartMethod) {
    let mut host = Host::new();
    let call = |dies| {
        of_the_daemon::with()
            .start(method)
            .call(host.place(), dies)
            .wait()
    };
    let first = call(false).unwrap();
    for _ in 0..3 {
        assert_eq!(call(false).unwrap(), first);
    }
    assert_eq!(kind(call(true)), Err(ErrorKind::Signaled));
    let second = call(false).unwrap();
    assert_ne!(second, first);
    assert_eq!(call(false).unwrap(), second);
    assert_eq!(host.hear(), "dies");
    let pools = Pool::all();
    assert_eq!(pools.len(), 1);
    assert_eq!((pools[0].max_workers(), pools[0].stats().workers_made), (1, 2));
    assert!(Pool::join_all(LONG));
    assert!(Pool::all().is_empty());
}

/// Its workers go down with it. Their tasks hear of that, and those that wait do not.
fn lost_fork_server_is_survived(method: StartMethod) {
    let mut host = Host::new();
    let pool = pool(method, 1);
    let running = pool.submit(crate::tasks::meet::later(host.place())).unwrap();
    let queued = pool.submit(double::later(4)).unwrap();
    let worker = host.arrival();
    if let Some(server) = os::fork_server() {
        os::send(server, libc::SIGKILL);
        assert_eq!(kind(running.wait()), Err(ErrorKind::Lost));
    } else {
        os::send(worker, libc::SIGKILL);
        assert_eq!(kind(running.wait()), Err(ErrorKind::Signaled));
    }
    assert_eq!(queued.wait().unwrap(), 8);
    end(pool);
}
