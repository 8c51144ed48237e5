//! What does one call at a time on a warm worker cost?

use std::time::{Duration, Instant};

use crate::Fallible;
use crate::peers::python::{self, Python};
use crate::raw::cores::{self, Places};
use crate::raw::helper::Helper;
use crate::raw::spin::SpinPeer;
use crate::report::{Line, Row, Target, Unit};
use crate::rounds::{Scale, alternate, check, median_call};
use crate::tasks::{builder, close, pin, same, warm, warm_pool, without_spin};
use inparallel::{Pool, PoolBuilder};

pub(crate) fn round_trip(name: &'static str, scale: Scale) -> Fallible<Vec<Line>> {
    let calls = calls(scale);
    let [ours, pipe] = in_turns_with_pipes(warm_pool(1)?, Helper::start()?, scale)?;
    // By itself: its peer keeps a core busy for as long as it is there.
    let mut peer = SpinPeer::start()?;
    let mut count = 0;
    let [spun] = alternate(
        scale.short_rounds(),
        [&mut || {
            median_call(calls, |_| {
                count += 1;
                peer.round_trip(count)
            })
        }],
    )?;
    drop(peer);
    let vs = |what: &str| Row::new(format!("{name} vs {what}"), Unit::Microseconds, &ours);
    let mut lines = vec![
        Row::new(name, Unit::Microseconds, &ours)
            .beside("blocking ping-pong over two pipes", &pipe)
            .target(Target::RatioAtMost(0.3))
            .line(),
        vs("shared memory")
            .beside("two processes that spin on shared memory", &spun)
            .line(),
    ];
    lines.push(match Python::start(1, "round_trip")? {
        None => Line::skipped(format!("{name} vs ProcessPoolExecutor"), python::MISSING),
        Some(mut python) => {
            let figures = python.figures(scale, scale.pick(300, 2_000))?;
            vs("ProcessPoolExecutor")
                .beside("submit and result, one call at a time", &figures)
                .line()
        }
    });
    Ok(lines)
}

/// Caller and worker on a core each.
pub(crate) fn blocking(name: &'static str, scale: Scale) -> Fallible<Vec<Line>> {
    match cores::apart()? {
        None => Ok(vec![Line::skipped(name, "wants two cores")]),
        Some(places) => beside_pipes(name, scale, without_spin(builder(1)), places, 1.2),
    }
}

/// Everything on one core, so that whoever waits has to make room for whoever works.
pub(crate) fn pinned(name: &'static str, scale: Scale) -> Fallible<Vec<Line>> {
    beside_pipes(name, scale, builder(1), cores::together()?, 2.5)
}

/// The same calls, and the worker or what the pipes lead to, at these places.
fn beside_pipes(
    name: &'static str,
    scale: Scale,
    builder: PoolBuilder,
    places: Places,
    most: f64,
) -> Fallible<Vec<Line>> {
    let pool = warm(builder.worker_init(pin::later(places.there)))?;
    let helper = Helper::start()?;
    cores::pin(helper.pid(), places.there)?;
    cores::pin(std::process::id(), places.here)?;
    let [ours, pipe] = in_turns_with_pipes(pool, helper, scale)?;
    let row = Row::new(name, Unit::Microseconds, &ours)
        .beside("blocking ping-pong over two pipes, placed alike", &pipe)
        .target(Target::RatioAtMost(most));
    Ok(vec![row.line()])
}

/// Calls of a warm pool, and round trips over two pipes.
fn in_turns_with_pipes(pool: Pool, mut helper: Helper, scale: Scale) -> Fallible<[Vec<f64>; 2]> {
    let calls = calls(scale);
    let figures = alternate(
        scale.short_rounds(),
        [&mut || median_call(calls, |x| call(&pool, x)), &mut || {
            median_call(calls, |x| helper.round_trip(x))
        }],
    )?;
    close(pool)?;
    Ok(figures)
}

/// Awaited instead of waited for.
pub(crate) fn awaited(name: &'static str, scale: Scale) -> Fallible<Vec<Line>> {
    let calls = calls(scale);
    let pool = warm_pool(1)?;
    let one_thread = tokio::runtime::Builder::new_current_thread().build()?;
    let threads = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()?;
    let call_of = |x| pool.submit(same::later(x));
    let [ours, waited, on_threads] = alternate(
        scale.short_rounds(),
        [
            &mut || {
                one_thread.block_on(async {
                    let mut times = Vec::new();
                    for x in 0..calls {
                        let began = Instant::now();
                        let seen = call_of(x)?.await?;
                        times.push(began.elapsed());
                        check(seen, x)?;
                    }
                    median_call(calls, |x| Ok(times[x as usize]))
                })
            },
            &mut || median_call(calls, |x| call(&pool, x)),
            &mut || {
                // On a thread of the runtime, where programs await.
                let pool = pool.clone();
                let times = threads.block_on(threads.spawn(async move {
                    let mut times = Vec::new();
                    for x in 0..calls {
                        let began = Instant::now();
                        let seen = match pool.submit(same::later(x)) {
                            Ok(future) => future.await,
                            Err(error) => Err(error),
                        };
                        times.push((began.elapsed(), seen));
                    }
                    times
                }))?;
                let mut times = times.into_iter();
                median_call(calls, |x| {
                    let (elapsed, seen) = times.next().ok_or("no call")?;
                    check(seen?, x)?;
                    Ok(elapsed)
                })
            },
        ],
    )?;
    close(pool)?;
    let beside = "the same call, waited for by a thread";
    Ok(vec![
        Row::new(name, Unit::Microseconds, &ours)
            .beside(beside, &waited)
            .target(Target::RatioAtMost(1.5))
            .line(),
        Row::new(format!("{name} multi_thread"), Unit::Microseconds, &on_threads)
            .beside(beside, &waited)
            .line(),
    ])
}

pub(crate) fn call(pool: &Pool, x: u64) -> Fallible<Duration> {
    let began = Instant::now();
    let seen = pool.submit(same::later(x))?.wait()?;
    let elapsed = began.elapsed();
    check(seen, x)?;
    Ok(elapsed)
}

fn calls(scale: Scale) -> u64 {
    scale.pick(2_000, 3_000)
}
