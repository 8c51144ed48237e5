//! Rust: rayon, without isolation; procspawn, with it.

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crate::Fallible;
use crate::rounds::check;

pub(crate) fn threads(count: usize) -> Fallible<rayon::ThreadPool> {
    Ok(rayon::ThreadPoolBuilder::new().num_threads(count).build()?)
}

/// So many tasks, each answering by itself.
pub(crate) fn rayon_calls(threads: &rayon::ThreadPool, calls: u64) -> Fallible<()> {
    let (sender, results) = channel();
    for x in 0..calls {
        let sender = sender.clone();
        // The receiver is there until all have answered.
        threads.spawn(move || _ = sender.send(x));
    }
    drop(sender);
    check(results.iter().sum::<u64>(), calls * (calls - 1) / 2)
}

/// What `work` gives for each number.
pub(crate) fn rayon_map(
    threads: &rayon::ThreadPool,
    count: u64,
    work: impl Fn(u64) -> u64 + Sync,
) -> Vec<u64> {
    use rayon::prelude::*;
    threads.install(|| {
        (0..count as usize)
            .into_par_iter()
            .with_max_len(1)
            .map(|x| work(x as u64))
            .collect()
    })
}

/// A process for one call.
pub(crate) fn procspawn_call(x: u64) -> Fallible<Duration> {
    let began = Instant::now();
    let seen = procspawn::spawn(x, |x| x).join()?;
    let elapsed = began.elapsed();
    check(seen, x)?;
    Ok(elapsed)
}

/// Processes that stay.
pub(crate) struct Processes(procspawn::Pool);

impl Processes {
    pub(crate) fn start(count: usize) -> Fallible<Self> {
        Ok(Processes(procspawn::Pool::new(count)?))
    }

    /// Some at a time: each that waits takes descriptors, and it panics when there are no more.
    pub(crate) fn calls(&self, calls: u64) -> Fallible<()> {
        for first in (0..calls).step_by(AT_A_TIME) {
            let batch = first..calls.min(first + AT_A_TIME as u64);
            let handles: Vec<_> = batch.map(|x| (x, self.0.spawn(x, |x| x))).collect();
            for (x, handle) in handles {
                check(handle.join()?, x)?;
            }
        }
        Ok(())
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.0.kill();
    }
}

const AT_A_TIME: usize = 50;
