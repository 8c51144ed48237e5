//! What do many calls cost, submitted one by one, and what do they hold while they wait?

use std::fs::OpenOptions;
use std::time::Duration;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::Fallible;
use crate::copies::scratch_file;
use crate::leaks::{descriptors, field};
use crate::peers::python::{self, Python};
use crate::peers::rust;
use crate::report::{Line, Row, Target, Unit};
use crate::rounds::{Scale, alternate, check, each, microseconds, timed};
use crate::tasks::{close, hold, same, warm_pool};

/// Microseconds for each of many calls to two workers, beside tasks of two threads.
pub(crate) fn submit(name: &'static str, scale: Scale) -> Fallible<Vec<Line>> {
    let calls = scale.pick(30_000, 1_000_000);
    let pool = warm_pool(WORKERS)?;
    let threads = rust::threads(WORKERS)?;
    let [ours, rayon] = alternate(
        scale.busy_rounds(),
        [
            &mut || {
                each(calls, || {
                    let futures: Result<Vec<_>, _> =
                        (0..calls).map(|x| pool.submit(same::later(x))).collect();
                    futures?
                        .into_iter()
                        .zip(0..)
                        .try_for_each(|(future, x)| check(future.wait()?, x))
                })
            },
            &mut || each(calls, || rust::rayon_calls(&threads, calls)),
        ],
    )?;
    close(pool)?;
    let few = scale.pick(1_000, 20_000);
    let processes = rust::Processes::start(WORKERS)?;
    let [procspawn] = alternate(scale.pick(3, 5), [&mut || each(few, || processes.calls(few))])?;
    let vs = |what: &str| Row::new(format!("{name} vs {what}"), Unit::Microseconds, &ours);
    let mut lines = vec![
        Row::new(name, Unit::Microseconds, &ours)
            .beside("rayon::spawn and a channel", &rayon)
            .target(Target::SpeedAtLeast(0.5))
            .more("calls", calls as f64)
            .line(),
        vs("procspawn")
            .beside("procspawn::Pool, 50 at a time", &procspawn)
            .more("reference_calls", few as f64)
            .line(),
    ];
    lines.push(match Python::start(WORKERS, "submit")? {
        None => Line::skipped(format!("{name} vs ProcessPoolExecutor"), python::MISSING),
        Some(mut python) => {
            let few = scale.pick(1_000, 20_000);
            let figures = python.figures(scale, few)?;
            vs("ProcessPoolExecutor")
                .beside("submit, submit, .. result", &figures)
                .more("reference_calls", few as f64)
                .line()
        }
    });
    Ok(lines)
}

/// Bytes that this process grows by for each call which waits, beyond those of its argument.
pub(crate) fn outstanding(name: &'static str, scale: Scale) -> Fallible<Vec<Line>> {
    let calls = scale.pick(100_000, 1_000_000_u64);
    let fifo = scratch_file("hold");
    mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR)?;
    let pool = warm_pool(1)?;
    let held = pool.submit(hold::later(fifo.to_string_lossy().into_owned()))?;
    // Opening it waits for the worker, which is busy from then on.
    let holder = OpenOptions::new().write(true).open(&fifo)?;
    let mut futures = Vec::with_capacity(calls as usize);
    let (memory, open) = (resident()?, descriptors()?);
    let (elapsed, ()) = timed(|| {
        for x in 0..calls {
            futures.push(pool.submit(same::later(x))?);
        }
        Ok(())
    })?;
    let (grown, open_now) = (resident()? - memory, descriptors()?);
    if open_now > open {
        return Err(format!("{calls} queued calls opened {} descriptors", open_now - open).into());
    }
    drop(holder);
    check(held.wait()?, Ok(0))?;
    for (mut future, x) in futures.into_iter().zip(0..) {
        let seen = future.wait_timeout(Duration::from_secs(60))?;
        check(seen, Some(x))?;
    }
    close(pool)?;
    let row = Row::new(name, Unit::Bytes, &[grown / calls as f64 - ARGUMENT])
        .target(Target::AtMost(250.0))
        .more("calls", calls as f64)
        .more("us_to_queue_one", microseconds(elapsed) / calls as f64);
    Ok(vec![row.line()])
}

/// Bytes of this process that are in memory.
pub(crate) fn resident() -> Fallible<f64> {
    Ok(field("/proc/self/smaps_rollup", "Rss")? * 1024.0)
}

const WORKERS: usize = 2;
/// Bytes of a `u64` as an argument.
const ARGUMENT: f64 = 8.0;
