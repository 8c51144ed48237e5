//! How many workers may live at once, and what does each hold?

use std::time::{Duration, Instant};

use inparallel::{Error, ErrorKind, TaskFuture, wait_idle};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::Fallible;
use crate::leaks::{descriptors, field, rest};
use crate::report::{Line, Row, Target, Unit};
use crate::rounds::{Scale, check, microseconds, timed};
use crate::tasks::{same, sleep};
use crate::work::submit::resident;

/// Sleeping workers, a process for each call, until the limit of descriptors is reached; then what that does, and the end.
pub(crate) fn many(name: &'static str, scale: Scale) -> Fallible<Vec<Line>> {
    let (least, limit) = scale.pick((200, 1_000), (5_000, 20_000));
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if hard < limit {
        return Ok(vec![Line::skipped(
            name,
            format!("wants {limit} descriptors, and may have {hard}"),
        )]);
    }
    setrlimit(Resource::RLIMIT_NOFILE, limit, hard)?;
    let (open, memory) = (descriptors()?, resident()?);
    let mut sleepers: Vec<TaskFuture<()>> = Vec::new();
    let mut at_least = None;
    let began = Instant::now();
    let refused = loop {
        let mut batch: Vec<_> = (0..BATCH).map(|_| sleep::with().kill_on_drop().call()).collect();
        let refused = await_launch(&mut batch)?;
        sleepers.append(&mut batch);
        if at_least.is_none() && sleepers.len() >= least {
            let held = Held::now(&sleepers, open, memory, began)?;
            at_least = Some(held);
        }
        if let Some(error) = refused {
            break error;
        }
        if sleepers.len() > limit as usize {
            return Err(format!("{} workers, and no end at {limit} descriptors", sleepers.len()).into());
        }
    };
    let lived = sleepers.len();
    let Some(held) = at_least else {
        return Err(format!("{lived} workers only: then {refused}").into());
    };
    is_clear(&refused)?;
    // Those before it are untouched, and where one ends, there is room for another.
    check(sleepers.iter().filter(|sleeper| sleeper.is_done()).count(), 0)?;
    for sleeper in sleepers.drain(..BATCH) {
        check(sleeper.cancel(), true)?;
        check(
            sleeper.wait().map_err(|error| error.kind()),
            Err(ErrorKind::Cancelled),
        )?;
    }
    check(same(5).wait()?, 5)?;
    let (ended, ()) = timed(|| {
        drop(sleepers);
        check(wait_idle(Duration::from_secs(60)), true)
    })?;
    let row = |what: &str, unit, value: f64, most| {
        Row::new(what, unit, &[value])
            .target(Target::AtMost(most))
            .more("workers", held.workers)
    };
    Ok(vec![
        row(name, Unit::Count, held.descriptors, 3.0)
            .more("workers_at_the_limit", lived as f64)
            .more("us_to_start_one", held.microseconds)
            .more("us_to_end_one", microseconds(ended) / lived as f64)
            .line(),
        row("many memory", Unit::Kibibytes, held.memory, 4.0).line(),
        row("many pss", Unit::Kibibytes, held.pss, 1024.0).line(),
    ])
}

/// For each worker.
struct Held {
    workers: f64,
    descriptors: f64,
    memory: f64,
    pss: f64,
    microseconds: f64,
}

impl Held {
    fn now(sleepers: &[TaskFuture<()>], open: usize, memory: f64, began: Instant) -> Fallible<Self> {
        let workers = sleepers.len() as f64;
        let microseconds = microseconds(began.elapsed()) / workers;
        let mut sum = 0.0;
        let mut seen = 0.0;
        for sleeper in sleepers.iter().step_by((sleepers.len() / SAMPLED).max(1)) {
            let pid = sleeper.pid().ok_or("a live worker without a pid")?;
            sum += field(&format!("/proc/{pid}/smaps_rollup"), "Pss")?;
            seen += 1.0;
        }
        Ok(Held {
            workers,
            descriptors: (descriptors()? as f64 - open as f64) / workers,
            memory: (resident()? - memory) / 1024.0 / workers,
            pss: sum / seen,
            microseconds,
        })
    }
}

/// Until each has a process or has failed. Those that failed are taken out, and the error of the first is returned.
fn await_launch(batch: &mut Vec<TaskFuture<()>>) -> Fallible<Option<Error>> {
    let began = Instant::now();
    while batch
        .iter()
        .any(|sleeper| sleeper.pid().is_none() && !sleeper.is_done())
    {
        if began.elapsed() > Duration::from_secs(30) {
            return Err("a worker neither starts nor fails".into());
        }
        rest(Duration::from_millis(1))?;
    }
    let mut refused = None;
    for sleeper in std::mem::take(batch) {
        match sleeper.is_done() {
            false => batch.push(sleeper),
            true => match sleeper.wait() {
                Err(error) => refused = refused.or(Some(error)),
                Ok(()) => return Err("a wrong answer: a task that sleeps for ever has ended".into()),
            },
        }
    }
    Ok(refused)
}

/// An error that says what was out of, and where.
fn is_clear(error: &Error) -> Fallible<()> {
    let says_so = error.to_string().contains("too many open files")
        || error.to_string().contains("Too many open files");
    match error.kind() == ErrorKind::Launch && says_so {
        true => Ok(()),
        false => Err(format!("a wrong answer at the limit of descriptors: {error}").into()),
    }
}

const BATCH: usize = 50;
const SAMPLED: usize = 50;
