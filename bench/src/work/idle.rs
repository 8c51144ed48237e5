//! What does waiting cost? A hundred workers of a pool without work.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use nix::unistd::gettid;

use crate::Fallible;
use crate::leaks::{children_of, field, rest, threads_of};
use crate::report::{Line, Row, Target, Unit};
use crate::rounds::{Scale, check};
use crate::tasks::{close, warm_pool};

/// How often each second any thread of this process or of its descendants went to sleep by itself: was awake, that is.
pub(crate) fn idle(name: &'static str, scale: Scale) -> Fallible<Vec<Line>> {
    let pool = warm_pool(WORKERS)?;
    check(pool.workers().len(), WORKERS)?;
    // Until what the start has left to do is done.
    rest(Duration::from_secs(scale.pick(1, 2)))?;
    let watched = Duration::from_secs(scale.pick(2, 5));
    let mut seen = Vec::new();
    for _ in 0..scale.pick(1, 3) {
        let before = switches()?;
        rest(watched)?;
        let after = switches()?;
        let more = after
            .iter()
            .map(|(thread, count)| count - before.get(thread).unwrap_or(&0.0));
        seen.push(more.sum::<f64>() / watched.as_secs_f64());
        check(after.len() > WORKERS, true)?;
    }
    let threads = switches()?.len();
    close(pool)?;
    let row = Row::new(name, Unit::PerSecond, &seen)
        .target(Target::AtMost(0.0))
        .more("workers", WORKERS as f64)
        .more("threads_watched", threads as f64);
    Ok(vec![row.line()])
}

/// Voluntary context switches so far, by thread. The thread that counts is left out.
fn switches() -> Fallible<HashMap<PathBuf, f64>> {
    let own = gettid().to_string();
    let mut pids = vec![std::process::id() as i32];
    let mut seen = HashMap::new();
    while let Some(pid) = pids.pop() {
        pids.extend(children_of(pid)?);
        for thread in threads_of(pid)?.iter().filter(|thread| !thread.ends_with(&own)) {
            let status = thread.join("status");
            let count = field(&status.to_string_lossy(), "voluntary_ctxt_switches")?;
            seen.insert(thread.clone(), count);
        }
    }
    Ok(seen)
}

const WORKERS: usize = 100;
