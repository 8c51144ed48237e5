//! What does `map` cost for each item, do two workers keep two cores busy, and are the chunks the right size?

use inparallel::{Pool, task};

use crate::Fallible;
use crate::peers::python::{self, Python};
use crate::peers::rust;
use crate::report::{Line, Row, Target, Unit};
use crate::rounds::{Scale, alternate, check, each, median, microseconds, timed};
use crate::tasks::{burn, burn_here, close, same, warm_pool};

/// Ten million numbers, beside Python's `Pool.map` with what Python chooses by itself.
pub(crate) fn tiny(name: &'static str, scale: Scale) -> Fallible<Vec<Line>> {
    let (items, fewer) = scale.pick((1_000_000, 300_000), (10_000_000, 2_000_000));
    let pool = warm_pool(WORKERS)?;
    let Some(mut python) = Python::start(WORKERS, "map")? else {
        let ours = each(items, || sum(&pool, items, None))?;
        close(pool)?;
        let why = format!("{}; ours took {ours:.3} us for each", python::MISSING);
        return Ok(vec![Line::skipped(name, why)]);
    };
    let [ours, theirs] = alternate(
        scale.busy_rounds(),
        [&mut || each(items, || sum(&pool, items, None)), &mut || {
            python.measure(fewer)
        }],
    )?;
    close(pool)?;
    let row = Row::new(name, Unit::Microseconds, &ours)
        .beside("multiprocessing.Pool.map, its own chunks", &theirs)
        .target(Target::SpeedAtLeast(6.0))
        .more("items", items as f64)
        .more("reference_items", fewer as f64);
    Ok(vec![row.line()])
}

/// Calls of 20 ms on two workers, beside the same work in this thread.
pub(crate) fn cpu(name: &'static str, scale: Scale) -> Fallible<Vec<Line>> {
    if std::thread::available_parallelism()?.get() < WORKERS {
        return Ok(vec![Line::skipped(name, "wants two cores")]);
    }
    let calls = scale.pick(20, 200);
    let turns = turns_of(20_000.0)?;
    let wanted = burn_here(turns);
    let pool = warm_pool(WORKERS)?;
    let threads = rust::threads(WORKERS)?;
    let [ours, serial, threaded] = alternate(
        scale.busy_rounds(),
        [
            &mut || {
                each(calls, || {
                    let mut results = pool.map(burn::later, (0..calls).map(|_| turns));
                    results.try_for_each(|seen| check(seen?, wanted))
                })
            },
            &mut || {
                each(calls, || {
                    (0..calls).try_for_each(|_| check(burn_here(turns), wanted))
                })
            },
            &mut || {
                each(calls, || {
                    rust::rayon_map(&threads, calls, |_| burn_here(turns))
                        .into_iter()
                        .try_for_each(|seen| check(seen, wanted))
                })
            },
        ],
    )?;
    close(pool)?;
    let row = |name: &str, beside: &str, figures: &[f64]| {
        Row::new(name, Unit::Microseconds, &ours).beside(beside, figures)
    };
    Ok(vec![
        row(name, "the same in one thread", &serial)
            .target(Target::SpeedAtLeast(1.95))
            .line(),
        // What two cores of this machine give just now: others may be at work on them.
        row("map_cpu vs rayon", "two threads of rayon", &threaded).line(),
    ])
}

/// Tiny items, beside the best of some fixed sizes.
pub(crate) fn chunks_tiny(name: &'static str, scale: Scale) -> Fallible<Vec<Line>> {
    let items = scale.pick(200_000, 5_000_000);
    let pool = warm_pool(WORKERS)?;
    let mut run = |chunk| each(items, || sum(&pool, items, chunk));
    let row = against_fixed(name, scale.busy_rounds(), &mut run, [100, 1_000, 10_000, 100_000])?;
    close(pool)?;
    Ok(vec![row.line()])
}

/// Items of 50 ms, beside the best of some fixed sizes.
pub(crate) fn chunks_50ms(name: &'static str, scale: Scale) -> Fallible<Vec<Line>> {
    let items = scale.pick(8, 100);
    let pool = warm_pool(WORKERS)?;
    let mut run = |chunk: Option<usize>| {
        each(items, || {
            let map = pool.map(fifty::later, 0..items);
            let map = match chunk {
                Some(size) => map.chunk_size(size)?,
                None => map,
            };
            check(map.sum::<Result<u64, _>>()?, items * (items - 1) / 2)
        })
    };
    let sizes = scale.pick([1, 2, 4, 8], [1, 5, 10, 25]);
    let row = against_fixed(name, scale.pick(2, 3), &mut run, sizes)?;
    close(pool)?;
    Ok(vec![row.line()])
}

/// Busy for 50 ms by the clock, so that another program beside it changes nothing.
#[task]
fn fifty(x: u64) -> u64 {
    let began = std::time::Instant::now();
    while began.elapsed() < std::time::Duration::from_millis(50) {
        std::hint::spin_loop();
    }
    x
}

/// The best of the fixed sizes is the one with the lowest median of all rounds.
fn against_fixed(
    name: &'static str,
    rounds: usize,
    run: &mut dyn FnMut(Option<usize>) -> Fallible<f64>,
    sizes: [usize; 4],
) -> Fallible<Row> {
    let mut figures: [Vec<f64>; 5] = Default::default();
    for round in 0..=rounds {
        for (nth, figures) in figures.iter_mut().enumerate() {
            let figure = run(nth.checked_sub(1).map(|nth| sizes[nth]))?;
            if round > 0 {
                figures.push(figure);
            }
        }
    }
    let [ours, fixed @ ..] = figures;
    let middle = |figures: &Vec<f64>| median(figures.clone()).unwrap_or(f64::INFINITY);
    let (size, best) = sizes
        .iter()
        .zip(&fixed)
        .min_by(|(_, a), (_, b)| middle(a).total_cmp(&middle(b)))
        .ok_or("no sizes")?;
    Ok(Row::new(name, Unit::Microseconds, &ours)
        .beside("the best fixed size of chunks", best)
        .target(Target::RatioAtMost(1.3))
        .more("best_fixed_size", *size as f64))
}

/// Maps so many numbers to themselves.
fn sum(pool: &Pool, items: u64, chunk: Option<usize>) -> Fallible<()> {
    let map = pool.map(same::later, 0..items);
    let map = match chunk {
        Some(size) => map.chunk_size(size)?,
        None => map,
    };
    check(map.sum::<Result<u64, _>>()?, items * (items - 1) / 2)
}

/// How many turns of `burn` take so many microseconds here, as the fastest of some tries tells.
pub(crate) fn turns_of(wanted: f64) -> Fallible<u64> {
    let mut fastest = f64::INFINITY;
    for _ in 0..5 {
        let (elapsed, _) = timed(|| Ok(burn_here(TRIED)))?;
        fastest = fastest.min(microseconds(elapsed));
    }
    Ok((TRIED as f64 * wanted / fastest) as u64)
}

const TRIED: u64 = 2_000_000;
const WORKERS: usize = 2;
