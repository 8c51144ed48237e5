//! What does one fresh process per call cost?
//!
//! A call is timed from its start to its value, as its caller sees it. Reaping the worker is left to the supervisor, and
//! falls into the calls that follow; `mean` among the JSON has all of it.

use std::time::{Duration, Instant};

use inparallel::StartMethod;

use crate::Fallible;
use crate::leaks::rest;
use crate::peers::rust;
use crate::raw::cores::{self, Places};
use crate::raw::fork;
use crate::raw::helper::Helper;
use crate::raw::memory::Resident;
use crate::report::{Line, Row, Target, Unit};
use crate::rounds::{Scale, alternate, check, median, median_call, timed};
use crate::tasks::{builder, close, fork_server, pin, same, warm};

pub(crate) fn small(name: &'static str, scale: Scale) -> Fallible<Vec<Line>> {
    let calls = scale.pick(120, 80);
    let mut helper = Helper::start()?;
    let mut means = Vec::new();
    let [ours, raw, bare, peer] = alternate(
        scale.short_rounds(),
        [
            &mut || {
                let (elapsed, figure) = timed(|| median_call(calls, |x| call(StartMethod::ForkServer, x)))?;
                means.push(elapsed.as_secs_f64() * 1e6 / calls as f64);
                Ok(figure)
            },
            &mut || median_call(calls, |_| Ok(fork::fork_and_answer()?)),
            &mut || median_call(calls, |_| Ok(helper.fork_and_answer()?)),
            &mut || median_call(calls / 10, rust::procspawn_call),
        ],
    )?;
    let row = Row::new(name, Unit::Microseconds, &ours)
        .beside("raw fork, pipe, wait of this process", &raw)
        .target(Target::RatioAtMost(1.5))
        .more("mean_us_until_the_next_call", median(means).unwrap_or_default());
    let vs = |what: &str, beside: &str, figures: &[f64]| {
        Row::new(format!("{name} vs {what}"), Unit::Microseconds, &ours)
            .beside(beside, figures)
            .line()
    };
    Ok(vec![
        row.line(),
        vs(
            "bare helper",
            "raw fork of a process with one thread that does nothing else",
            &bare,
        ),
        vs("procspawn", "procspawn::spawn and join", &peer),
    ])
}

pub(crate) fn with_1g(name: &'static str, scale: Scale) -> Fallible<Vec<Line>> {
    large(name, scale, 1024, 80.0)
}

pub(crate) fn with_4g(name: &'static str, scale: Scale) -> Fallible<Vec<Line>> {
    large(name, scale, 4096, 300.0)
}

/// The same while the caller holds so many MiB.
fn large(name: &'static str, scale: Scale, mebibytes: usize, times: f64) -> Fallible<Vec<Line>> {
    if let Some(why) = Resident::refusal(mebibytes)? {
        return Ok(vec![Line::skipped(name, why)]);
    }
    let _resident = Resident::new(mebibytes)?;
    let [ours, raw] = alternate(
        scale.short_rounds(),
        [
            &mut || median_call(scale.pick(30, 40), |x| call(StartMethod::ForkServer, x)),
            &mut || median_call(scale.pick(1, 2), |_| Ok(fork::fork_and_answer()?)),
        ],
    )?;
    let row = Row::new(name, Unit::Microseconds, &ours)
        .beside("raw fork, pipe, wait of this process", &raw)
        .target(Target::SpeedAtLeast(times));
    Ok(vec![row.line()])
}

/// Calls with time between them, in which a worker can be made ready: one that has a core of its own when its call comes, and
/// one that has not.
pub(crate) fn spare(name: &'static str, scale: Scale) -> Fallible<Vec<Line>> {
    let (Some(apart), together) = (cores::apart()?, cores::together()?) else {
        return Ok(vec![Line::skipped(name, "wants two cores")]);
    };
    let apart = spare_at(name.to_owned(), scale, apart)?;
    let together = spare_at(format!("{name} on one core"), scale, together)?;
    Ok(vec![apart, together])
}

fn spare_at(name: String, scale: Scale, places: Places) -> Fallible<Line> {
    let calls = scale.pick(40, 60);
    let pool = warm(builder(1).worker_init(pin::later(places.there)))?;
    let server = fork_server::with().start(StartMethod::ForkServer).call().wait()?;
    cores::pin(server, places.there)?;
    // The supervisor among them, as the calls of a program that thinks between them leave it time.
    cores::pin(std::process::id(), places.here)?;
    let pooled = |x| -> Fallible<Duration> {
        let (elapsed, seen) = timed(|| Ok(pool.submit(same::later(x))?.wait()?))?;
        check(seen, x)?;
        Ok(elapsed)
    };
    let [ours, warm, warm_at_once] = alternate(
        scale.short_rounds(),
        [
            &mut || median_call(calls, |x| think().and_then(|()| call(StartMethod::ForkServer, x))),
            &mut || median_call(calls, |x| think().and_then(|()| pooled(x))),
            &mut || median_call(calls, pooled),
        ],
    )?;
    close(pool)?;
    let row = Row::new(name, Unit::Microseconds, &ours)
        .beside(
            "a warm pool's call after the same time to think, placed alike",
            &warm,
        )
        .target(Target::RatioAtMost(2.0))
        .more(
            "warm_us_without_thinking",
            median(warm_at_once).unwrap_or_default(),
        );
    Ok(row.line())
}

/// The program, executed again.
pub(crate) fn spawn(name: &'static str, scale: Scale) -> Fallible<Vec<Line>> {
    let calls = scale.pick(30, 40);
    let [ours, raw] = alternate(
        scale.short_rounds(),
        [
            &mut || median_call(calls, |x| call(StartMethod::Spawn, x)),
            &mut || median_call(calls, |_| Ok(fork::spawn_and_answer(fork::RUST_PROGRAM)?)),
        ],
    )?;
    let row = Row::new(name, Unit::Microseconds, &ours)
        .beside("posix_spawn of a minimal Rust program", &raw)
        .target(Target::RatioAtMost(1.3));
    Ok(vec![row.line()])
}

pub(crate) fn call(method: StartMethod, x: u64) -> Fallible<Duration> {
    let began = Instant::now();
    let seen = same::with().start(method).call(x).wait()?;
    let elapsed = began.elapsed();
    check(seen, x)?;
    Ok(elapsed)
}

fn think() -> Fallible<()> {
    Ok(rest(Duration::from_millis(3))?)
}
