//! All workloads, in the order of the table.

use crate::Fallible;
use crate::report::Line;
use crate::rounds::Scale;
use crate::work::{bytes, fresh, idle, many, map, shared, startup, submit, warm};

/// What is measured in one process.
pub(crate) struct Workload {
    /// Of its first row, too.
    pub(crate) name: &'static str,
    pub(crate) measure: fn(&'static str, Scale) -> Fallible<Vec<Line>>,
}

macro_rules! workloads {
    ($($name:literal => $measure:path,)*) => { &[$(Workload { name: $name, measure: $measure }),*] };
}

pub(crate) const WORKLOADS: &[Workload] = workloads! {
    "fresh_small" => fresh::small,
    "fresh_1g" => fresh::with_1g,
    "fresh_4g" => fresh::with_4g,
    "fresh_spare" => fresh::spare,
    "spawn" => fresh::spawn,
    "warm_rt" => warm::round_trip,
    "warm_rt_blocking" => warm::blocking,
    "warm_rt_pinned" => warm::pinned,
    "submit" => submit::submit,
    "outstanding" => submit::outstanding,
    "map_tiny" => map::tiny,
    "map_cpu" => map::cpu,
    "map_chunks_tiny" => map::chunks_tiny,
    "map_chunks_50ms" => map::chunks_50ms,
    "arg_64m" => bytes::slice,
    "arg_64m_vec" => bytes::vec,
    "echo_64m" => bytes::echo_64m,
    "shared" => shared::shared,
    "many" => many::many,
    "idle" => idle::idle,
    "startup" => startup::startup,
    "async_rt" => warm::awaited,
};
