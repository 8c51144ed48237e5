//! What `inparallel` costs, beside what the kernel or a peer charges for the same, measured in one run.
//!
//! `cargo run --release -p bench -- [--quick] [--json FILE] [--plots DIR] [WORKLOAD..]`. Ours and the reference take turns,
//! round by round. Times move with the machine; the ratios are what to compare. `docs/performance.md` explains the rows.
//!
//! Each workload runs in a copy of this program: none sees the memory, the threads or the cores of another, and one that
//! crashes or hangs is a failed row. The exit status tells of wrong answers, crashes and leaks, never of a time.

mod catalogue;
mod options;
mod report;
mod rounds;
mod copies;
mod leaks;
mod tasks;
mod raw;
mod peers;
mod work;
mod plots;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use catalogue::WORKLOADS;
use options::Plan;
use report::Line;

/// What goes wrong in a measurement, as a row shows it.
pub(crate) type Fault = Box<dyn Error>;
pub(crate) type Fallible<T> = Result<T, Fault>;

fn main() -> ExitCode {
    // Where a worker of procspawn begins. Workers of ours never reach `main`.
    procspawn::init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(ended) = copies::serve(&arguments) {
        return match ended {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => refuse(&*error),
        };
    }
    match options::parse(arguments).and_then(|plan| plan.map_or(Ok(true), |plan| run(&plan))) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => refuse(&*error),
    }
}

fn refuse(error: &dyn Error) -> ExitCode {
    eprintln!("bench: {error}");
    ExitCode::from(2)
}

/// Whether everything could be measured. A row that falls short of its target was measured.
fn run(plan: &Plan) -> Fallible<bool> {
    copies::inherit_orphans()?;
    println!("{}", report::machine()?);
    println!("{}", report::header());
    let mut lines = Vec::new();
    let mut seconds = BTreeMap::new();
    for workload in WORKLOADS.iter().filter(|workload| plan.wants(workload.name)) {
        let began = Instant::now();
        for line in copies::measure(workload, plan.scale) {
            println!("{line}");
            lines.push(line);
        }
        seconds.insert(workload.name, began.elapsed().as_secs_f64());
    }
    println!("{}", report::summary(&lines));
    if let Some(file) = &plan.json {
        report::write_json(file, plan.scale, &lines, &seconds).map_err(|error| {
            format!(
                "--json: {}: {error}; give a file that can be written",
                file.display()
            )
        })?;
    }
    let is_drawn = match &plan.plots {
        Some(folder) => draw(folder, plan)?,
        None => true,
    };
    Ok(is_drawn && !lines.iter().any(Line::is_failed))
}

/// Whether every plot could be drawn.
fn draw(folder: &Path, plan: &Plan) -> Fallible<bool> {
    std::fs::create_dir_all(folder).map_err(|error| {
        format!(
            "--plots: {}: {error}; give a folder that can be made",
            folder.display()
        )
    })?;
    let mut is_drawn = true;
    for plot in &plots::PLOTS {
        match copies::take_series(plot, plan.scale) {
            Ok(series) => println!("wrote {}", plots::draw(folder, plot, &series)?.display()),
            Err(error) => {
                println!("plot {}: failed: {error}", plot.name);
                is_drawn = false;
            }
        }
    }
    Ok(is_drawn)
}
