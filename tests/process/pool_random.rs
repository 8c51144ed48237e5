//! A pool under random histories of what its users and its workers may do, beside a model that says which endings each
//! task may have. `POOL_CASES` is how many histories each start method sees; with it they are others every time.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use inparallel::{ErrorKind, Options, Pool, Shutdown, StartMethod, TaskFuture, task};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

use crate::harness::POOLS;
use crate::os;
use crate::place::{Host, Place};
use crate::pools::wait_for_threads;

trials! {
    warm on POOLS => { random_histories_end_as_the_model_says }
}

/// What a task does once it has begun.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
enum Manner {
    Quick,
    /// Waits until it is released.
    Slow,
    Panic,
    Crash,
    /// Crashes at its first attempt, and may be tried again.
    CrashOnce,
}

/// What happens to the pool.
#[derive(Debug, Clone)]
enum Happening {
    Submit {
        manner: Manner,
        priority: i32,
        has_guest: bool,
    },
    Cancel(Index),
    /// One slow task may go on.
    Release,
    Resize(usize),
    /// A worker is killed, whatever it does.
    Kill(Index),
    /// Nobody may submit for a moment, if it is idle.
    Guard,
    /// Somebody looks.
    Look,
    Close,
}

fn happening() -> impl Strategy<Value = Happening> {
    let manner = prop_oneof![
        5 => Just(Manner::Quick),
        3 => Just(Manner::Slow),
        1 => Just(Manner::Panic),
        2 => Just(Manner::Crash),
        1 => Just(Manner::CrashOnce),
    ];
    let submit =
        (manner, -1..=1, any::<bool>()).prop_map(|(manner, priority, has_guest)| Happening::Submit {
            manner,
            priority,
            has_guest,
        });
    prop_oneof![
        12 => submit,
        4 => any::<Index>().prop_map(Happening::Cancel),
        3 => Just(Happening::Release),
        1 => (1usize..4).prop_map(Happening::Resize),
        2 => any::<Index>().prop_map(Happening::Kill),
        1 => Just(Happening::Guard),
        1 => Just(Happening::Look),
        1 => Just(Happening::Close),
    ]
}

#[derive(Debug, Clone)]
struct Settings {
    workers: usize,
    prestart: bool,
    max_tasks_per_worker: Option<u64>,
    idle_timeout: Duration,
    queue: Option<usize>,
}

fn settings() -> impl Strategy<Value = Settings> {
    let idle_timeouts = prop_oneof![Just(Duration::ZERO), Just(Duration::from_secs(100))];
    let queue = prop_oneof![3 => Just(None), 1 => (1usize..4).prop_map(Some)];
    let most = prop_oneof![3 => Just(None), 1 => (1u64..3).prop_map(Some)];
    (1usize..4, any::<bool>(), most, idle_timeouts, queue).prop_map(
        |(workers, prestart, max_tasks_per_worker, idle_timeout, queue)| Settings {
            workers,
            prestart,
            max_tasks_per_worker,
            idle_timeout,
            queue,
        },
    )
}

fn how() -> impl Strategy<Value = Shutdown> {
    prop_oneof![
        2 => Just(Shutdown::Finish),
        1 => Just(Shutdown::Cancel),
        1 => Just(Shutdown::Kill),
    ]
}

/// Says when it begins, then is as it is to be.
#[task]
fn behave(context: &inparallel::TaskContext, place: Place, number: u32, manner: Manner) -> u32 {
    place.say(&number.to_string());
    match manner {
        Manner::Slow => place.wait_for_go(),
        Manner::Panic => panic!("as it was told"),
        Manner::Crash => os::fault(),
        Manner::CrashOnce if context.attempt() == 1 => os::fault(),
        Manner::Quick | Manner::CrashOnce => {}
    }
    number
}

/// A task that was submitted.
struct Submitted {
    future: TaskFuture<u32>,
    manner: Manner,
    /// What `cancel` said, if it was called.
    is_cancelled: Option<bool>,
    /// How often its callback was called.
    calls: Arc<AtomicU32>,
}

fn random_histories_end_as_the_model_says(method: StartMethod) {
    let asked = std::env::var("POOL_CASES")
        .ok()
        .and_then(|text| text.parse().ok());
    let config = ProptestConfig {
        cases: asked.unwrap_or(60),
        failure_persistence: None,
        max_shrink_time: 30_000,
        ..ProptestConfig::default()
    };
    // The same ones every time, unless more were asked for.
    let mut runner = match asked {
        Some(_) => TestRunner::new(config),
        None => TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha)),
    };
    let histories = (settings(), vec(happening(), 0..25), how());
    let outcome = runner.run(&histories, |(settings, history, how)| {
        live(method, &settings, &history, how);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

fn live(method: StartMethod, settings: &Settings, history: &[Happening], how: Shutdown) {
    let is_thread = method == StartMethod::Thread;
    let mut host = Host::new();
    let options = Options::new()
        .stderr(inparallel::Stderr::Null)
        .grace(Duration::ZERO);
    let mut builder = Pool::builder()
        .workers(settings.workers)
        .prestart(settings.prestart)
        .idle_timeout(settings.idle_timeout)
        .start(method)
        .options(options);
    if let Some(most) = settings.max_tasks_per_worker {
        builder = builder.max_tasks_per_worker(most);
    }
    if let Some(queue) = settings.queue {
        builder = builder.queue(queue);
    }
    let pool = builder.build().unwrap();
    let mut tasks: Vec<Submitted> = Vec::new();
    let (mut kills, mut is_closed) = (0, false);
    for happening in history {
        match happening {
            Happening::Submit {
                manner,
                priority,
                has_guest,
            } => {
                let manner = match manner {
                    // Threads have nothing that could die but the program.
                    Manner::Crash | Manner::CrashOnce if is_thread => Manner::Panic,
                    manner => *manner,
                };
                let number = u32::try_from(tasks.len()).unwrap();
                let mut options = Options::new().priority(*priority);
                if manner == Manner::CrashOnce {
                    options = options.retries(1);
                }
                let call = behave::later(host.place(), number, manner).with(options);
                // Room may never come while slow tasks are not released.
                let future = match pool.try_submit(call) {
                    Ok(future) => future,
                    Err(rejected) => {
                        let wanted = if is_closed {
                            ErrorKind::Closed
                        } else {
                            ErrorKind::Full
                        };
                        assert_eq!(rejected.error.kind(), wanted);
                        assert!(is_closed || settings.queue.is_some());
                        continue;
                    }
                };
                let calls = Arc::new(AtomicU32::new(0));
                if *has_guest {
                    let calls = Arc::clone(&calls);
                    future.on_done(move |_| _ = calls.fetch_add(1, Ordering::SeqCst));
                } else {
                    calls.store(1, Ordering::SeqCst);
                }
                tasks.push(Submitted {
                    future,
                    manner,
                    is_cancelled: None,
                    calls,
                });
            }
            Happening::Cancel(index) if !tasks.is_empty() => {
                let task = index.get_mut(&mut tasks);
                let is_cancelled = task.future.cancel();
                // Once said, it stays so.
                assert!(task.is_cancelled.is_none_or(|before| before == is_cancelled));
                task.is_cancelled = Some(is_cancelled);
            }
            Happening::Release => {
                host.release(1);
            }
            Happening::Resize(workers) => match pool.resize(*workers) {
                Ok(()) => assert!(!is_closed),
                Err(error) => assert_eq!((error.kind(), is_closed), (ErrorKind::Closed, true)),
            },
            Happening::Kill(index) => {
                let pids: Vec<_> = pool.workers().iter().filter_map(|worker| worker.pid).collect();
                if !pids.is_empty() {
                    kills += 1;
                    os::send(*index.get(&pids), libc::SIGKILL);
                }
            }
            Happening::Guard => {
                if let Some(guard) = pool.wait_idle(Duration::ZERO) {
                    assert!(tasks.iter().all(|task| task.future.is_done()));
                    drop(guard);
                }
            }
            Happening::Look => {
                let stats = pool.stats();
                assert!(stats.unfinished >= stats.queued && stats.workers >= stats.idle);
                assert_eq!(stats.submitted, tasks.len() as u64);
            }
            Happening::Close => {
                pool.close();
                is_closed = true;
            }
            Happening::Cancel(_) => {}
        }
    }
    // Everybody may go on who waits. Some that waited were killed.
    let slow = tasks.iter().filter(|task| task.manner == Manner::Slow).count();
    if how != Shutdown::Kill {
        host.release(slow);
    }
    assert!(pool.shutdown(how, LONGEST), "it does not end: {pool:?}");
    if how == Shutdown::Kill && is_thread {
        host.release(slow);
    }
    if is_thread {
        // Those that nobody waits for any more.
        wait_for_threads();
    }
    assert!(inparallel::wait_idle(LONGEST));
    let stats = pool.stats();
    assert_eq!(
        (stats.unfinished, stats.queued, stats.running, stats.workers),
        (0, 0, 0, 0)
    );
    let mut begun: HashMap<u32, u32> = HashMap::new();
    while host.has_news() {
        *begun.entry(host.hear().parse().unwrap()).or_default() += 1;
    }
    let mut murdered = 0;
    for (task, number) in tasks.into_iter().zip(0..) {
        assert!(task.future.is_done(), "task {number} has no end");
        assert_eq!(task.calls.load(Ordering::SeqCst), 1, "callbacks of task {number}");
        let attempt = task.future.attempt();
        let ended = task.future.wait().map_err(|error| (error.kind(), error.signal()));
        let begun = begun.remove(&number).unwrap_or(0);
        let ending = || format!("task {number}, {:?}, begun {begun} times: {ended:?}", task.manner);
        let signal = |ended: &Result<u32, (ErrorKind, Option<inparallel::Signal>)>, number| matches!(ended, Err((ErrorKind::Signaled, Some(signal))) if signal.number() == number);
        let is_cancelled = matches!(ended, Err((ErrorKind::Cancelled, _)));
        let is_murdered = signal(&ended, libc::SIGKILL);
        murdered += u32::from(is_murdered);
        let is_as_told = match task.manner {
            Manner::Quick | Manner::Slow | Manner::CrashOnce => ended == Ok(number),
            Manner::Panic => matches!(ended, Err((ErrorKind::Panicked, _))),
            Manner::Crash => signal(&ended, libc::SIGSEGV),
        };
        match task.is_cancelled {
            Some(true) => assert!(is_cancelled, "cancelled, {}", ending()),
            Some(false) => assert!(!is_cancelled, "not cancelled, {}", ending()),
            None => assert!(!is_cancelled || how > Shutdown::Finish, "{}", ending()),
        }
        assert!(is_cancelled || is_murdered || is_as_told, "{}", ending());
        // Nothing runs twice.
        assert!(
            begun <= attempt && attempt <= 2,
            "attempt {attempt}, {}",
            ending()
        );
        assert!(attempt == 1 || task.manner == Manner::CrashOnce, "{}", ending());
        assert!(begun > 0 || is_cancelled || is_murdered, "{}", ending());
    }
    assert!(murdered <= kills, "{murdered} by {kills} kills");
    drop(pool);
}

/// A generous bound for everything that one history leads to.
const LONGEST: Duration = Duration::from_secs(30);
