//! What do large arguments and results cost, beside one copy of them in memory?

use inparallel::Pool;

use crate::Fallible;
use crate::raw::memory::{copy, pattern};
use crate::report::{Line, Row, Target, Unit};
use crate::rounds::{Scale, alternate, check, timed};
use crate::tasks::{close, digest, digest_here, echo, sample, sample_here, sample_vec, warm_pool};

/// A slice, which the caller keeps.
pub(crate) fn slice(name: &'static str, scale: Scale) -> Fallible<Vec<Line>> {
    beside_copy(name, scale, 0.5, |pool, bytes| {
        let (elapsed, seen) = timed(|| Ok(pool.submit(sample::later(bytes))?.wait()?))?;
        check(seen, sample_here(bytes))?;
        Ok(elapsed.as_secs_f64())
    })
}

/// A `Vec`, which the call takes.
pub(crate) fn vec(name: &'static str, scale: Scale) -> Fallible<Vec<Line>> {
    beside_copy(name, scale, 0.3, |pool, bytes| {
        let given = bytes.to_vec();
        let (elapsed, seen) = timed(|| Ok(pool.submit(sample_vec::later(given))?.wait()?))?;
        check(seen, sample_here(bytes))?;
        Ok(elapsed.as_secs_f64())
    })
}

/// There and back. The bytes count once.
pub(crate) fn echo_64m(name: &'static str, scale: Scale) -> Fallible<Vec<Line>> {
    beside_copy(name, scale, 0.2, |pool, bytes| {
        let given = bytes.to_vec();
        let (elapsed, seen) = timed(|| Ok(pool.submit(echo::later(given))?.wait()?))?;
        match seen == bytes {
            true => Ok(elapsed.as_secs_f64()),
            false => Err("a wrong answer: other bytes came back".into()),
        }
    })
}

fn beside_copy(
    name: &'static str,
    scale: Scale,
    least: f64,
    call: impl Fn(&Pool, &[u8]) -> Fallible<f64>,
) -> Fallible<Vec<Line>> {
    let mut bytes = pattern(LEN);
    let mut into = vec![1; LEN];
    let pool = warm_pool(1)?;
    // Every byte, once; each call after that is checked by some of its bytes, other ones each time.
    check(pool.submit(digest::later(&bytes))?.wait()?, digest_here(&bytes))?;
    let from = bytes.clone();
    let rate = |seconds: f64| LEN as f64 / seconds / f64::from(1 << 30);
    let mut turn: u8 = 0;
    let [ours, memory] = alternate(
        scale.rounds(),
        [
            &mut || {
                turn = turn.wrapping_add(1);
                bytes.iter_mut().step_by(1021).for_each(|byte| *byte ^= turn);
                Ok(rate(call(&pool, &bytes)?))
            },
            &mut || Ok(rate(copy(&from, &mut into)?)),
        ],
    )?;
    close(pool)?;
    let row = Row::new(name, Unit::GibibytesPerSecond, &ours)
        .beside("one copy in memory", &memory)
        .target(Target::SpeedAtLeast(least));
    Ok(vec![row.line()])
}

const LEN: usize = 64 << 20;
