//! The README examples of the five Python systems that this library comes after, line by line: the original in comments,
//! beside it what does the same here. `docs/from-python.md` maps every call.
//!
//! `cargo run --release --example seeds` runs them all, against a server on this machine;
//! `cargo run --example seeds -- hydra http://example.com/` runs one, with the hosts or pages that are named.

mod inparallel_py;
mod pymultitasking;
mod decorators;
mod hydra;
mod asynctools;
mod multithread;
mod http;

use std::error::Error;

/// What a system is given: hosts or pages; none: what it has by itself.
type Ported = fn(Vec<String>) -> Result<(), Box<dyn Error>>;

const SYSTEMS: [(&str, Ported); 5] = [
    ("inparallel", inparallel_py::run),
    ("pymultitasking", pymultitasking::run),
    ("hydra", hydra::run),
    ("asynctools", asynctools::run),
    ("multithread", multithread::run),
];

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let chosen = arguments.next();
    let targets: Vec<_> = arguments.collect();
    let names = SYSTEMS.map(|(name, _)| name);
    if let Some(chosen) = &chosen
        && !names.contains(&chosen.as_str())
    {
        return Err(format!("{chosen}: no such system; there are {}", names.join(", ")).into());
    }
    for (name, run) in SYSTEMS {
        if chosen.as_deref().is_none_or(|chosen| chosen == name) {
            println!("--- {name}");
            run(targets.clone())?;
        }
    }
    Ok(())
}
