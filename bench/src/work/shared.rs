//! What does a shared buffer cost, by its size?

use inparallel::{Pool, SharedBytes, task};

use crate::Fallible;
use crate::raw::memory::Resident;
use crate::report::{Line, Row, Target, Unit};
use crate::rounds::{Scale, alternate, check, median_call, timed};
use crate::tasks::{close, warm_pool};

/// One buffer for four workers, which look at some of its bytes: a large one beside a small one.
pub(crate) fn shared(name: &'static str, scale: Scale) -> Fallible<Vec<Line>> {
    if let Some(why) = Resident::refusal(2 * (LARGE >> 20))? {
        return Ok(vec![Line::skipped(name, why)]);
    }
    let pool = warm_pool(WORKERS)?;
    let [large, small] = [LARGE, SMALL].map(|len| SharedBytes::with_len(len, write_bytes));
    let calls = scale.pick(20, 100);
    let [ours, reference] = alternate(
        scale.rounds(),
        [
            &mut || median_call(calls, |_| hand_round(&pool, &large)),
            &mut || median_call(calls, |_| hand_round(&pool, &small)),
        ],
    )?;
    close(pool)?;
    let row = Row::new(name, Unit::Microseconds, &ours)
        .beside("the same with 1 MiB", &reference)
        .target(Target::RatioAtMost(2.0));
    Ok(vec![row.line()])
}

/// From the first call to the last answer.
fn hand_round(pool: &Pool, buffer: &SharedBytes) -> Fallible<std::time::Duration> {
    let (elapsed, seen) = timed(|| {
        let calls: Result<Vec<_>, _> = (0..WORKERS)
            .map(|_| pool.submit(look::later(buffer.clone())))
            .collect();
        let seen: Result<Vec<u64>, _> = calls?.into_iter().map(|call| call.wait()).collect();
        Ok(seen?)
    })?;
    check(seen, vec![look_here(buffer); WORKERS])?;
    Ok(elapsed)
}

#[task]
fn look(buffer: SharedBytes) -> u64 {
    look_here(&buffer)
}

/// A few bytes from the first to the last: each is a page that the kernel has to find.
fn look_here(bytes: &[u8]) -> u64 {
    let last = bytes.len() - 1;
    let sum = |sum: u64, nth: usize| sum.rotate_left(8) ^ u64::from(bytes[nth * last / 7]);
    (0..8).fold(bytes.len() as u64, sum)
}

/// No two pages alike, and made quickly.
fn write_bytes(bytes: &mut [u8]) {
    for (page, byte) in bytes.iter_mut().step_by(4096).enumerate() {
        *byte = (page % 251) as u8;
    }
}

const WORKERS: usize = 4;
const LARGE: usize = 1 << 30;
const SMALL: usize = 1 << 20;
