//! What `inparallel` costs, beside what the kernel charges for the same, measured in one run.
//!
//! `cargo run --release -p bench -- [--quick] [--json FILE] [ROW..]`. A ROW is the name of a row or of a group of rows:
//! `fresh`, `fresh/forkserver`, `fresh/forkserver/1024`. Times move with the machine; the ratios are what to compare.
//!
//! The main thread stays the only one here, since `Fork` is refused beside others.

mod fresh;
mod idle;
mod pools;
mod raw;
mod report;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use report::{Row, Rows};

/// Rows that are measured together, in a file of their own.
struct Group {
    name: &'static str,
    /// Of its rows: the group's own name, a slash, the rest.
    names: fn() -> Vec<String>,
    run: fn(&Plan) -> Rows,
}

const GROUPS: [Group; 3] = [
    Group {
        name: "fresh",
        names: fresh::names,
        run: fresh::run,
    },
    Group {
        name: "idle",
        names: idle::names,
        run: idle::run,
    },
    Group {
        name: "pool",
        names: pools::names,
        run: pools::run,
    },
];

/// What was asked for.
pub(crate) struct Plan {
    pub(crate) quick: bool,
    json: Option<PathBuf>,
    /// Empty: all.
    rows: Vec<String>,
}

impl Plan {
    /// Whether the row of this name is to be measured.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.rows.is_empty() || self.rows.iter().any(|row| belongs(name, row))
    }
}

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(raw::SmallProcess::ARGUMENT) {
        return match raw::SmallProcess::serve() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => refuse(&error),
        };
    }
    match parse(std::env::args().skip(1)).and_then(|plan| plan.map_or(Ok(true), |plan| run(&plan))) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => refuse(&*error),
    }
}

fn refuse(error: &dyn Error) -> ExitCode {
    eprintln!("bench: {error}");
    ExitCode::from(2)
}

/// Whether every row could be measured. A row that falls short of its target was measured.
fn run(plan: &Plan) -> Result<bool, Box<dyn Error>> {
    let mut rows = Vec::new();
    println!("{}", report::machine()?);
    println!("{}", report::header());
    for group in GROUPS {
        if (group.names)().iter().any(|name| plan.wants(name)) {
            for row in (group.run)(plan)? {
                println!("{row}");
                rows.push(row);
            }
        }
    }
    if let Some(file) = &plan.json {
        report::write_json(file, plan.quick, &rows).map_err(|error| {
            format!(
                "--json: {}: {error}; give a file that can be written",
                file.display()
            )
        })?;
    }
    Ok(!rows.iter().any(Row::is_failed))
}

/// `None`: help was asked for, and given.
fn parse(mut given: impl Iterator<Item = String>) -> Result<Option<Plan>, Box<dyn Error>> {
    let mut plan = Plan {
        quick: false,
        json: None,
        rows: Vec::new(),
    };
    let known: Vec<String> = GROUPS.iter().flat_map(|group| (group.names)()).collect();
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "--help" | "-h" => {
                println!(
                    "bench [--quick] [--json FILE] [ROW..]\n\nrows, each alone or by a front part of its name:"
                );
                known.iter().for_each(|name| println!("  {name}"));
                return Ok(None);
            }
            "--quick" => plan.quick = true,
            "--json" => {
                plan.json = Some(
                    given
                        .next()
                        .ok_or("--json needs a value: the file to write")?
                        .into(),
                )
            }
            _ if argument.starts_with('-') => {
                return Err(format!(
                    "{argument}: no such option; use --quick, --json FILE or the names of rows"
                )
                .into());
            }
            _ if known.iter().any(|name| belongs(name, &argument)) => plan.rows.push(argument),
            _ => {
                let groups = GROUPS.map(|group| group.name).join(", ");
                let known = known.join(", ");
                return Err(
                    format!("{argument}: no such row; use a group ({groups}) or one of {known}").into(),
                );
            }
        }
    }
    Ok(Some(plan))
}

/// Whether `row` is `name`, or the front part of it up to a slash.
fn belongs(name: &str, row: &str) -> bool {
    name.strip_prefix(row)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
