//! What the plots show. Each point is the median of some rounds, in which the lines take turns.

use inparallel::StartMethod;

use crate::Fallible;
use crate::peers::rust;
use crate::plots::Series;
use crate::raw::fork;
use crate::raw::memory::{Resident, copy, pattern};
use crate::rounds::{Scale, alternate, check, each, median_call, timed};
use crate::tasks::{burn, burn_here, close, sample, sample_here, warm_pool};
use crate::work::{fresh as fresh_rows, map::turns_of};

/// Microseconds for one call with so many bytes.
pub(crate) fn latency(scale: Scale) -> Fallible<Vec<Series>> {
    let most = scale.pick(1 << 20, 64 << 20);
    let bytes = pattern(most);
    let mut into = vec![1; most];
    let pool = warm_pool(1)?;
    let mut lines = ["warm worker", "fresh process (fork server)", "one copy in memory"].map(Series::new);
    let mut len = 64;
    while len <= most {
        let bytes = &bytes[..len];
        let wanted = sample_here(bytes);
        let calls = ((4 << 20) / len as u64).clamp(3, 200);
        let figures = alternate(
            scale.pick(1, 5),
            [
                &mut || {
                    median_call(calls, |_| {
                        let (elapsed, seen) = timed(|| Ok(pool.submit(sample::later(bytes))?.wait()?))?;
                        check(seen, wanted)?;
                        Ok(elapsed)
                    })
                },
                &mut || {
                    median_call(calls.min(20), |_| {
                        let call = sample::with().start(StartMethod::ForkServer);
                        let (elapsed, seen) = timed(|| Ok(call.call(bytes).wait()?))?;
                        check(seen, wanted)?;
                        Ok(elapsed)
                    })
                },
                &mut || {
                    each(calls, || {
                        (0..calls).try_for_each(|_| copy(bytes, &mut into[..len]).map(drop))
                    })
                },
            ],
        )?;
        note(&mut lines, len as f64, figures);
        len *= 4;
    }
    close(pool)?;
    Ok(lines.into())
}

/// Microseconds for one fresh process while so many MiB are held.
pub(crate) fn fresh(scale: Scale) -> Fallible<Vec<Series>> {
    let mut lines = ["fork server", "spawn", "raw fork, pipe, wait"].map(Series::new);
    for mebibytes in [4, 16, 64, 256, 1024, 4096] {
        if mebibytes > scale.pick(256, 4096) || Resident::refusal(mebibytes)?.is_some() {
            break;
        }
        let _resident = Resident::new(mebibytes)?;
        let calls = scale.pick(10, 50);
        let raw_calls = (8192 / mebibytes as u64).clamp(2, calls);
        let figures = alternate(
            scale.pick(1, 5),
            [
                &mut || median_call(calls, |x| fresh_rows::call(StartMethod::ForkServer, x)),
                &mut || median_call(calls / 5, |x| fresh_rows::call(StartMethod::Spawn, x)),
                &mut || median_call(raw_calls, |_| Ok(fork::fork_and_answer()?)),
            ],
        )?;
        note(&mut lines, mebibytes as f64, figures);
    }
    Ok(lines.into())
}

/// Tasks each second on two workers, by the microseconds that a task takes.
pub(crate) fn throughput(scale: Scale) -> Fallible<Vec<Series>> {
    let pool = warm_pool(WORKERS)?;
    let threads = rust::threads(WORKERS)?;
    let mut lines = [
        "Pool::map",
        "Pool::submit",
        "a fresh process for each, two at a time",
        "rayon, without isolation",
        "one thread",
    ]
    .map(Series::new);
    for length in [1.0, 10.0, 100.0, 1_000.0, 10_000.0] {
        let turns = turns_of(length)?;
        let wanted = burn_here(turns);
        let same = |seen: u64| check(seen, wanted);
        // As many as take a fair share of a second, as far as they are not bound by the calls.
        let share = scale.pick(0.03, 0.3) * 1e6;
        let tasks = ((share / length) as u64).clamp(4, 300_000);
        let (some, few) = (tasks.clamp(4, 20_000), tasks.clamp(4, 200));
        let rate = |figure: Fallible<f64>| Ok(1e6 / figure?);
        let figures = alternate(
            scale.pick(1, 3),
            [
                &mut || {
                    rate(each(tasks, || {
                        let mut results = pool.map(burn::later, (0..tasks).map(|_| turns));
                        results.try_for_each(|seen| same(seen?))
                    }))
                },
                &mut || {
                    rate(each(some, || {
                        let futures: Result<Vec<_>, _> =
                            (0..some).map(|_| pool.submit(burn::later(turns))).collect();
                        futures?.into_iter().try_for_each(|future| same(future.wait()?))
                    }))
                },
                &mut || {
                    rate(each(few, || {
                        use inparallel::InParallel;
                        let fresh = |_| burn::with().start(StartMethod::ForkServer).call(turns);
                        let mut results = (0..few).in_parallel(WORKERS, fresh)?;
                        results.try_for_each(|seen| same(seen?))
                    }))
                },
                &mut || {
                    rate(each(tasks, || {
                        let seen = rust::rayon_map(&threads, tasks, |_| burn_here(turns));
                        seen.into_iter().try_for_each(same)
                    }))
                },
                &mut || {
                    rate(each(tasks, || {
                        (0..tasks).try_for_each(|_| same(burn_here(turns)))
                    }))
                },
            ],
        )?;
        note(&mut lines, length, figures);
    }
    close(pool)?;
    Ok(lines.into())
}

fn note<const N: usize>(lines: &mut [Series; N], x: f64, figures: [Vec<f64>; N]) {
    for (line, rounds) in lines.iter_mut().zip(figures) {
        line.push(x, rounds);
    }
}

const WORKERS: usize = 2;
