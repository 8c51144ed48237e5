//! The tasks that are measured, and the pools that they run in.

use std::fs::File;
use std::time::Duration;

use inparallel::{Pool, PoolBuilder, Shutdown, StartMethod, task};

use crate::Fallible;
use crate::raw::cores;
use crate::rounds::check;

#[task]
pub(crate) fn same(x: u64) -> u64 {
    x
}

/// Turns of work that no compiler can shorten.
#[task]
pub(crate) fn burn(turns: u64) -> u64 {
    burn_here(turns)
}

/// The same without a worker.
pub(crate) fn burn_here(turns: u64) -> u64 {
    let mut state = turns;
    for _ in 0..turns {
        state = std::hint::black_box(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    }
    state
}

#[task]
pub(crate) fn sleep() {
    loop {
        nix::unistd::pause();
    }
}

/// Ends when the named pipe is closed.
#[task]
pub(crate) fn hold(fifo: String) -> Result<u64, String> {
    File::open(&fifo)
        .and_then(std::io::read_to_string)
        .map(|text| text.len() as u64)
        .map_err(|error| format!("{fifo}: {error}"))
}

/// Bytes from all over, and the length.
#[task]
pub(crate) fn sample(bytes: &[u8]) -> u64 {
    sample_here(bytes)
}

#[task]
pub(crate) fn sample_vec(bytes: Vec<u8>) -> u64 {
    sample_here(&bytes)
}

/// Every byte.
#[task]
pub(crate) fn digest(bytes: &[u8]) -> u64 {
    digest_here(bytes)
}

#[task]
pub(crate) fn echo(bytes: Vec<u8>) -> Vec<u8> {
    bytes
}

pub(crate) fn sample_here(bytes: &[u8]) -> u64 {
    let step = (bytes.len() / 61).max(1);
    let sum = bytes
        .iter()
        .step_by(step)
        .fold(0, |sum: u64, byte| sum.rotate_left(9) ^ u64::from(*byte));
    sum ^ bytes.len() as u64
}

pub(crate) fn digest_here(bytes: &[u8]) -> u64 {
    bytes.iter().fold(bytes.len() as u64, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// As users get it, with workers that are there and stay.
/// A worker's own way to a core: that of the fork server would be its workers'.
#[task]
pub(crate) fn pin(core: usize) {
    if let Err(error) = cores::pin(std::process::id(), core) {
        panic!("sched_setaffinity: {error}");
    }
}

/// The process that forks the workers.
#[task]
pub(crate) fn fork_server() -> u32 {
    std::os::unix::process::parent_id()
}

pub(crate) fn builder(workers: usize) -> PoolBuilder {
    Pool::builder()
        .workers(workers)
        .min_workers(workers)
        .prestart(true)
        .start(StartMethod::ForkServer)
}

/// Without turns of waiting for an answer before the caller, or a worker, sleeps.
pub(crate) fn without_spin(builder: PoolBuilder) -> PoolBuilder {
    builder.spin(Duration::ZERO)
}

/// A pool whose workers have worked.
pub(crate) fn warm_pool(workers: usize) -> Fallible<Pool> {
    warm(builder(workers))
}

pub(crate) fn warm(builder: PoolBuilder) -> Fallible<Pool> {
    let pool = builder.build()?;
    let calls: Result<Vec<_>, _> = (0..8 * pool.max_workers() as u64)
        .map(|x| pool.submit(same::later(x)))
        .collect();
    for (future, x) in calls?.into_iter().zip(0..) {
        check(future.wait()?, x)?;
    }
    Ok(pool)
}

/// Every worker leaves, or that is a fault.
pub(crate) fn close(pool: Pool) -> Fallible<()> {
    match pool.shutdown(Shutdown::Finish, Duration::from_secs(20)) {
        true => Ok(()),
        false => Err("the pool did not end within 20 s".into()),
    }
}
