//! What does a call on a warm worker cost, and does `map` find the right size for its chunks?

use std::error::Error;
use std::time::{Duration, Instant};

use inparallel::{Options, Pool, StartMethod, Stderr, task};

use crate::Plan;
use crate::raw::SmallProcess;
use crate::report::{Figure, Row, Rows, Target, Unit};

/// The rows of this file.
pub(crate) fn names() -> Vec<String> {
    ROWS.iter().map(|row| row.name.to_owned()).collect()
}

pub(crate) fn run(plan: &Plan) -> Rows {
    let mut rows = Vec::new();
    for row in ROWS.iter().filter(|row| plan.wants(row.name)) {
        rows.push(match (row.measure)(plan.quick) {
            Ok((ours, reference)) => Row::new(row.name, ours, Some(reference), row.target),
            Err(error) => Row::failed(row.name, error),
        });
    }
    Ok(rows)
}

struct PoolRow {
    name: &'static str,
    /// Ours, and the reference.
    measure: fn(bool) -> Measured,
    target: Target,
}

type Measured = Result<(Figure, Figure), Box<dyn Error>>;

const ROWS: [PoolRow; 4] = [
    PoolRow {
        name: "pool/round_trip",
        measure: round_trip,
        target: Target::None,
    },
    PoolRow {
        name: "pool/submit",
        measure: submit,
        target: Target::None,
    },
    PoolRow {
        name: "pool/map_tiny",
        measure: map_tiny,
        target: Target::RatioAtMost(1.3),
    },
    PoolRow {
        name: "pool/map_50ms",
        measure: map_50ms,
        target: Target::RatioAtMost(1.3),
    },
];

#[task]
fn same(x: u64) -> u64 {
    x
}

/// Busy for 50 ms.
#[task]
fn fifty(x: u64) -> u64 {
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(50) {
        std::hint::spin_loop();
    }
    x
}

fn pool() -> inparallel::Result<Pool> {
    let pool = Pool::builder()
        .workers(WORKERS)
        .start(StartMethod::ForkServer)
        .options(Options::new().stderr(Stderr::Inherit))
        .build()?;
    pool.submit(same::later(0))?.wait()?;
    Ok(pool)
}

/// One call at a time, beside eight bytes there and back over the pipes of a process.
fn round_trip(quick: bool) -> Measured {
    let pool = pool()?;
    let mut small = SmallProcess::start()?;
    let calls = if quick { 200 } else { 2_000 };
    let (mut ours, mut reference) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let mut round = Vec::new();
        for x in 0..calls {
            let began = Instant::now();
            check(pool.submit(same::later(x))?.wait()?, x)?;
            round.push(began.elapsed());
        }
        ours.push(round);
        let round: Result<Vec<_>, _> = (0..calls).map(|_| small.round_trip()).collect();
        reference.push(round?);
    }
    both(Figure::of_rounds(&ours), Figure::of_rounds(&reference))
}

/// Microseconds for each of many calls that are submitted one by one and waited for, beside tasks of a thread pool.
fn submit(quick: bool) -> Measured {
    let pool = pool()?;
    let calls: u64 = if quick { 20_000 } else { 200_000 };
    let threads = rayon::ThreadPoolBuilder::new().num_threads(WORKERS).build()?;
    let (mut ours, mut reference) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let began = Instant::now();
        let futures: Result<Vec<_>, _> = (0..calls).map(|x| pool.submit(same::later(x))).collect();
        for (future, x) in futures?.into_iter().zip(0..) {
            check(future.wait()?, x)?;
        }
        ours.push(each(began, calls));
        let began = Instant::now();
        let (sender, results) = std::sync::mpsc::channel();
        for x in 0..calls {
            let sender = sender.clone();
            threads.spawn(move || _ = sender.send(x));
        }
        drop(sender);
        check(results.iter().count() as u64, calls)?;
        reference.push(each(began, calls));
    }
    both(
        Figure::of(Unit::Microseconds, ours),
        Figure::of(Unit::Microseconds, reference),
    )
}

/// Microseconds for each of ten million items, beside the best of some fixed chunk sizes.
fn map_tiny(quick: bool) -> Measured {
    let pool = pool()?;
    let items: u64 = if quick { 1_000_000 } else { 10_000_000 };
    let run = |chunk: Option<usize>| -> Result<f64, Box<dyn Error>> {
        let began = Instant::now();
        let map = pool.map(same::later, 0..items);
        let map = match chunk {
            Some(size) => map.chunk_size(size)?,
            None => map,
        };
        check(map.sum::<Result<u64, _>>()?, items * (items - 1) / 2)?;
        Ok(each(began, items))
    };
    against_fixed(run, &[100, 1_000, 10_000, 100_000], if quick { 1 } else { 3 })
}

/// Microseconds for each of a hundred items of 50 ms, beside the best of some fixed chunk sizes.
fn map_50ms(quick: bool) -> Measured {
    let pool = pool()?;
    let items: u64 = if quick { 20 } else { 100 };
    let run = |chunk: Option<usize>| -> Result<f64, Box<dyn Error>> {
        let began = Instant::now();
        let map = pool.map(fifty::later, 0..items);
        let map = match chunk {
            Some(size) => map.chunk_size(size)?,
            None => map,
        };
        check(map.sum::<Result<u64, _>>()?, items * (items - 1) / 2)?;
        Ok(each(began, items))
    };
    against_fixed(run, &[1, 5, 25], 1)
}

fn against_fixed(
    run: impl Fn(Option<usize>) -> Result<f64, Box<dyn Error>>,
    sizes: &[usize],
    rounds: usize,
) -> Measured {
    let (mut ours, mut best) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        ours.push(run(None)?);
        let fixed: Result<Vec<_>, _> = sizes.iter().map(|size| run(Some(*size))).collect();
        best.extend(fixed?.into_iter().reduce(f64::min));
    }
    both(
        Figure::of(Unit::Microseconds, ours),
        Figure::of(Unit::Microseconds, best),
    )
}

fn both(ours: Option<Figure>, reference: Option<Figure>) -> Measured {
    Ok((ours.ok_or("no rounds")?, reference.ok_or("no rounds")?))
}

fn each(began: Instant, count: u64) -> f64 {
    began.elapsed().as_secs_f64() * 1e6 / count as f64
}

fn check(seen: u64, wanted: u64) -> Result<(), Box<dyn Error>> {
    match seen == wanted {
        true => Ok(()),
        false => Err(format!("a wrong answer: {seen} for {wanted}").into()),
    }
}

const WORKERS: usize = 2;
