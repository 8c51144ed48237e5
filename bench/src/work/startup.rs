//! What does the first call of a program cost?

use std::time::Instant;

use crate::Fallible;
use crate::copies::number_from_copy;
use crate::raw::fork;
use crate::report::{Line, Row, Target, Unit};
use crate::rounds::{Scale, alternate, check, median_call};
use crate::tasks::same;

/// From just before the call to its value, with the default start method, in copies that do nothing else.
pub(crate) fn startup(name: &'static str, scale: Scale) -> Fallible<Vec<Line>> {
    let [ours, raw] = alternate(
        scale.pick(10, 40),
        [&mut || number_from_copy(ARGUMENT), &mut || {
            median_call(5, |_| Ok(fork::spawn_and_answer(fork::RUST_PROGRAM)?))
        }],
    )?;
    let row = Row::new(name, Unit::Microseconds, &ours)
        .beside("posix_spawn of a minimal Rust program", &raw)
        .target(Target::AtMost(3_000.0));
    Ok(vec![row.line()])
}

/// The copy's side.
pub(crate) fn serve() -> Fallible<()> {
    let began = Instant::now();
    let seen = same(7).wait()?;
    let elapsed = began.elapsed();
    check(seen, 7)?;
    println!("{}", elapsed.as_nanos());
    Ok(())
}

/// Makes a copy do it.
pub(crate) const ARGUMENT: &str = "--first-call";
