//! What does waiting cost? Fifty tasks that sleep, and the CPU that goes by meanwhile.

use std::error::Error;
use std::fs;
use std::time::Duration;

use inparallel::{StartMethod, TaskFuture, task};

use crate::Plan;
use crate::raw;
use crate::report::{Figure, Row, Rows, Target, Unit};

/// The rows of this file.
pub(crate) fn names() -> Vec<String> {
    METHODS
        .iter()
        .flat_map(|method| WHAT.map(|what| format!("idle/{method}/{what}")))
        .collect()
}

pub(crate) fn run(plan: &Plan) -> Rows {
    let mut rows = Vec::new();
    for method in METHODS {
        let names = WHAT.map(|what| format!("idle/{method}/{what}"));
        if names.iter().any(|name| plan.wants(name)) {
            let measured = measure(method, if plan.quick { 1 } else { 3 });
            for (nth, name) in names.into_iter().enumerate().filter(|(_, name)| plan.wants(name)) {
                rows.push(match &measured {
                    Ok(figures) => Row::new(name, figures[nth], None, TARGETS[nth]),
                    Err(error) => Row::failed(name, error),
                });
            }
        }
    }
    Ok(rows)
}

#[task]
fn sleep() {
    loop {
        nix::unistd::pause();
    }
}

/// CPU of this process, CPU of all processes together, and how often this process went to sleep, once per round.
fn measure(method: StartMethod, rounds: usize) -> Result<[Figure; 3], Box<dyn Error>> {
    let tasks: Vec<TaskFuture<()>> = (0..TASKS)
        .map(|_| sleep::with().start(method).kill_on_drop().call())
        .collect();
    // Until every worker has begun to sleep.
    raw::rest(Duration::from_secs(1))?;
    let mut seen = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..rounds {
        let before = (
            raw::cpu_time()?,
            others_cpu_time(&tasks)?,
            raw::voluntary_switches()?,
        );
        raw::rest(WATCHED)?;
        let after = (
            raw::cpu_time()?,
            others_cpu_time(&tasks)?,
            raw::voluntary_switches()?,
        );
        let percent = |time: Duration| 100.0 * time.as_secs_f64() / WATCHED.as_secs_f64();
        let (ours, others) = (after.0 - before.0, after.1.saturating_sub(before.1));
        seen[0].push(percent(ours));
        seen[1].push(percent(ours + others));
        seen[2].push((after.2 - before.2) as f64);
    }
    for task in tasks {
        if !task.cancel() {
            return Err(format!("a task that should sleep for ever has ended: {:?}", task.wait()).into());
        }
    }
    let [ours, all, switches] = seen;
    let figure = |unit, values| Figure::of(unit, values).ok_or("no rounds");
    Ok([
        figure(Unit::Percent, ours)?,
        figure(Unit::Percent, all)?,
        figure(Unit::Count, switches)?,
    ])
}

/// CPU time of the workers and of this process's own children, the fork server among them, to the nanosecond.
fn others_cpu_time(tasks: &[TaskFuture<()>]) -> Result<Duration, Box<dyn Error>> {
    let mut pids: Vec<u32> = tasks.iter().filter_map(TaskFuture::pid).collect();
    for thread in fs::read_dir("/proc/self/task")? {
        let children = fs::read_to_string(thread?.path().join("children"))?;
        pids.extend(
            children
                .split_whitespace()
                .filter_map(|pid| pid.parse::<u32>().ok()),
        );
    }
    pids.sort_unstable();
    pids.dedup();
    let mut nanoseconds = 0;
    for pid in pids {
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            let statistics = fs::read_to_string(thread?.path().join("schedstat"))?;
            let spent = statistics.split_whitespace().next().ok_or("schedstat: empty")?;
            nanoseconds += spent.parse::<u64>()?;
        }
    }
    Ok(Duration::from_nanos(nanoseconds))
}

const TASKS: usize = 50;
const WATCHED: Duration = Duration::from_secs(3);
const METHODS: [StartMethod; 2] = [StartMethod::ForkServer, StartMethod::Spawn];
const WHAT: [&str; 3] = ["parent", "everything", "switches"];
const TARGETS: [Target; 3] = [Target::OursBelow(0.1), Target::None, Target::None];
