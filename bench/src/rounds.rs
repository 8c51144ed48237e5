//! Taking turns: ours, the reference, ours, the reference, so that what the machine does besides falls on all of them.

use std::time::{Duration, Instant};

use crate::Fallible;

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    Quick,
    Full,
}

impl Scale {
    pub(crate) fn pick<T>(self, quick: T, full: T) -> T {
        match self {
            Scale::Quick => quick,
            Scale::Full => full,
        }
    }

    pub(crate) fn rounds(self) -> usize {
        self.pick(3, 7)
    }

    /// For what keeps both cores busy for a second or so, which takes longer whenever anybody else wants one.
    pub(crate) fn busy_rounds(self) -> usize {
        self.pick(3, 11)
    }

    /// For what takes less than a millisecond. A machine that others use changes its pace within seconds, and its scheduler
    /// where it puts things: many short rounds see all of that on both sides.
    pub(crate) fn short_rounds(self) -> usize {
        self.pick(3, 25)
    }
}

/// One round of one side: its figure.
pub(crate) type Side<'a> = &'a mut dyn FnMut() -> Fallible<f64>;

/// The figures of each side, one for each round. A first round warms up and is thrown away.
pub(crate) fn alternate<const N: usize>(rounds: usize, sides: [Side<'_>; N]) -> Fallible<[Vec<f64>; N]> {
    let mut figures = [const { Vec::new() }; N];
    for round in 0..=rounds {
        for nth in 0..N {
            // Nobody always comes first.
            let nth = if round % 2 == 0 { nth } else { N - 1 - nth };
            let figure = sides[nth]()?;
            if round > 0 {
                figures[nth].push(figure);
            }
        }
    }
    Ok(figures)
}

/// The median of `calls` calls in microseconds. Each call says how long it took.
pub(crate) fn median_call(calls: u64, mut call: impl FnMut(u64) -> Fallible<Duration>) -> Fallible<f64> {
    let times: Fallible<Vec<f64>> = (0..calls).map(|x| Ok(microseconds(call(x)?))).collect();
    median(times?).ok_or_else(|| "no calls".into())
}

/// How long `work` takes.
pub(crate) fn timed<T>(work: impl FnOnce() -> Fallible<T>) -> Fallible<(Duration, T)> {
    let began = Instant::now();
    let value = work()?;
    Ok((began.elapsed(), value))
}

/// Microseconds for each of `count`, all of them by `work`.
pub(crate) fn each(count: u64, work: impl FnOnce() -> Fallible<()>) -> Fallible<f64> {
    let (elapsed, ()) = timed(work)?;
    Ok(microseconds(elapsed) / count as f64)
}

pub(crate) fn microseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Every answer goes through here.
pub(crate) fn check<T: PartialEq + std::fmt::Debug>(seen: T, wanted: T) -> Fallible<()> {
    match seen == wanted {
        true => Ok(()),
        false => Err(format!("a wrong answer: {seen:?} for {wanted:?}").into()),
    }
}

pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (below, above) = (
        values.get(values.len().checked_sub(1)? / 2)?,
        values.get(values.len() / 2)?,
    );
    Some((below + above) / 2.0)
}
