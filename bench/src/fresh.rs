//! What does one fresh process per call cost, by start method and by the memory that the caller holds?
//!
//! The reference of every row is a raw fork of this process while it holds no extra memory, taken in the same rounds. The
//! row `fresh/bare-helper` has the least that a fork can cost: that of a process with one thread which does nothing else,
//! about half of the reference. A call is timed from its start to its value; reaping the worker is left to the supervisor
//! and falls into the next call of the same block.

use std::collections::HashMap;
use std::error::Error;
use std::time::{Duration, Instant};

use inparallel::{StartMethod, task};

use crate::Plan;
use crate::raw::{self, Resident, SmallProcess};
use crate::report::{Figure, Row, Rows, Target};

/// The rows of this file.
pub(crate) fn names() -> Vec<String> {
    let mut names: Vec<String> = contenders()
        .iter()
        .flat_map(|who| SIZES.map(|size| format!("fresh/{who}/{size}")))
        .collect();
    names.extend([FLAT, BARE_HELPER].map(str::to_owned));
    names
}

pub(crate) fn run(plan: &Plan) -> Rows {
    let samples = Samples::take(plan)?;
    let mut rows = Vec::new();
    for who in contenders() {
        for size in SIZES {
            let name = format!("fresh/{who}/{size}");
            if plan.wants(&name) {
                let reference = samples.figure(Contender::RawFork, 0).ok();
                rows.push(match samples.figure(who, size) {
                    Ok(ours) => Row::new(name, ours, reference, who.target()),
                    Err(error) => Row::failed(name, error),
                });
            }
        }
    }
    if plan.wants(FLAT) {
        rows.push(
            match FLAT_SIZES.map(|size| samples.figure(Contender::Ours(StartMethod::ForkServer), size)) {
                [Ok(least), Ok(most)] => Row::new(FLAT, most, Some(least), Target::RatioAtMost(1.25)),
                [Err(error), _] | [_, Err(error)] => Row::failed(FLAT, error),
            },
        );
    }
    if plan.wants(BARE_HELPER) {
        let reference = samples.figure(Contender::RawFork, 0).ok();
        rows.push(match Figure::of_rounds(&samples.small[&0]) {
            Some(figure) => Row::new(BARE_HELPER, figure, reference, Target::None),
            None => Row::failed(BARE_HELPER, "no round was taken".to_owned()),
        });
    }
    Ok(rows)
}

/// A block of calls per round.
type Blocks = Vec<Vec<Duration>>;

/// What was timed: per contender and MiB resident, and the raw fork of a small process beside each.
struct Samples {
    blocks: HashMap<(Contender, usize), Result<Blocks, String>>,
    small: HashMap<usize, Blocks>,
}

impl Samples {
    fn take(plan: &Plan) -> Result<Samples, Box<dyn Error>> {
        let (rounds, calls) = if plan.quick { (3, 10) } else { (7, 40) };
        let mut small_process = SmallProcess::start()?;
        let mut samples = Samples {
            blocks: HashMap::new(),
            small: HashMap::new(),
        };
        // Round 0 warms up: the fork server starts, the programs come into the page cache. It is thrown away.
        for round in 0..=rounds {
            for size in SIZES {
                let wanted: Vec<_> = contenders()
                    .into_iter()
                    .filter(|who| who.is_wanted(plan, size))
                    .collect();
                if wanted.is_empty() {
                    continue;
                }
                let _resident = Resident::new(size)?;
                for who in wanted {
                    let block = (0..calls).map(|_| who.call()).collect();
                    samples.note(who, size, round, block);
                }
                let block: Result<Vec<_>, _> = (0..calls).map(|_| small_process.fork_and_answer()).collect();
                if round > 0 {
                    samples.small.entry(size).or_default().push(block?);
                }
            }
        }
        Ok(samples)
    }

    fn note(
        &mut self,
        who: Contender,
        size: usize,
        round: u32,
        block: Result<Vec<Duration>, Box<dyn Error>>,
    ) {
        let blocks = self.blocks.entry((who, size)).or_insert(Ok(Vec::new()));
        match (blocks, block) {
            (blocks, Err(error)) => *blocks = Err(error.to_string()),
            (Ok(blocks), Ok(block)) if round > 0 => blocks.push(block),
            _ => {}
        }
    }

    fn figure(&self, who: Contender, size: usize) -> Result<Figure, String> {
        let blocks = self.blocks[&(who, size)].as_ref().map_err(String::clone)?;
        Figure::of_rounds(blocks).ok_or("no round was taken".to_owned())
    }
}

#[task]
fn answer(question: u64) -> u64 {
    question + 1
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Contender {
    Ours(StartMethod),
    RawFork,
    RawSpawn,
    RawSpawnRust,
}

/// `Fork` comes first and `Thread` late, since the first is refused while a thread of the second is alive.
fn contenders() -> Vec<Contender> {
    let ours = StartMethod::all().into_iter().map(Contender::Ours);
    ours.chain([Contender::RawFork, Contender::RawSpawn, Contender::RawSpawnRust])
        .collect()
}

impl Contender {
    fn is_wanted(self, plan: &Plan, size: usize) -> bool {
        let for_flat = self == Contender::Ours(StartMethod::ForkServer) && FLAT_SIZES.contains(&size);
        let is_reference = self == Contender::RawFork && size == 0;
        plan.wants(&format!("fresh/{self}/{size}")) || (for_flat && plan.wants(FLAT)) || is_reference
    }

    fn call(self) -> Result<Duration, Box<dyn Error>> {
        Ok(match self {
            Contender::Ours(method) => {
                let started = Instant::now();
                let value = answer::with().start(method).call(41).wait()?;
                let elapsed = started.elapsed();
                if value != 42 {
                    return Err(format!("41 + 1 gave {value}").into());
                }
                elapsed
            }
            Contender::RawFork => raw::fork_and_answer()?,
            Contender::RawSpawn => raw::spawn_and_answer(raw::BARE_PROGRAM)?,
            Contender::RawSpawnRust => raw::spawn_and_answer(raw::RUST_PROGRAM)?,
        })
    }

    fn target(self) -> Target {
        match self {
            Contender::Ours(StartMethod::ForkServer) => Target::RatioAtMost(2.0),
            _ => Target::None,
        }
    }
}

impl std::fmt::Display for Contender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Contender::Ours(method) => method.fmt(f),
            Contender::RawFork => f.write_str("raw-fork"),
            Contender::RawSpawn => f.write_str("raw-spawn"),
            Contender::RawSpawnRust => f.write_str("raw-spawn-rust"),
        }
    }
}

/// MiB resident in the caller.
const SIZES: [usize; 3] = [0, 256, 1024];
/// Ours with the second in memory, over ours with the first.
const FLAT: &str = "fresh/forkserver/flat";
const BARE_HELPER: &str = "fresh/bare-helper";
const FLAT_SIZES: [usize; 2] = [0, 1024];
