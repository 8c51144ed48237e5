//! Rows: a figure of ours beside a reference from the same run, as a table and as JSON.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

/// One line of the table.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    #[serde(flatten)]
    pub(crate) measured: Measured,
    pub(crate) target: Target,
}

/// What a group gives. An error is one of the machine that leaves nothing to compare; a row's own is [`Row::failed`].
pub(crate) type Rows = Result<Vec<Row>, Box<dyn Error>>;

/// What was seen, or why nothing was.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Measured {
    Seen {
        ours: Figure,
        reference: Option<Figure>,
        ratio: Option<f64>,
    },
    Failed {
        error: String,
    },
}

/// What a row should reach.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Target {
    /// The row is there to be read.
    None,
    /// Ours over the reference.
    RatioAtMost(f64),
    /// Our figure itself.
    OursBelow(f64),
}

/// The middle of some rounds, and how far they lie apart.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Figure {
    pub(crate) unit: Unit,
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) rounds: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    Microseconds,
    Percent,
    Count,
}

impl Figure {
    /// Of the calls of each round the median, and of those the median, lowest and highest.
    pub(crate) fn of_rounds(rounds: &[Vec<Duration>]) -> Option<Figure> {
        let microseconds = |time: &Duration| time.as_secs_f64() * 1e6;
        let medians = rounds
            .iter()
            .filter_map(|calls| median(calls.iter().map(microseconds).collect()));
        Figure::of(Unit::Microseconds, medians.collect())
    }

    /// The median of `values`, their lowest and highest.
    pub(crate) fn of(unit: Unit, values: Vec<f64>) -> Option<Figure> {
        let low = values.iter().copied().reduce(f64::min)?;
        let high = values.iter().copied().reduce(f64::max)?;
        Some(Figure {
            unit,
            rounds: values.len(),
            median: median(values)?,
            low,
            high,
        })
    }
}

impl Row {
    pub(crate) fn new(
        name: impl Into<String>,
        ours: Figure,
        reference: Option<Figure>,
        target: Target,
    ) -> Row {
        let ratio = reference.map(|reference| ours.median / reference.median);
        Row {
            name: name.into(),
            measured: Measured::Seen {
                ours,
                reference,
                ratio,
            },
            target,
        }
    }

    pub(crate) fn failed(name: impl Into<String>, error: impl fmt::Display) -> Row {
        Row {
            name: name.into(),
            measured: Measured::Failed {
                error: error.to_string(),
            },
            target: Target::None,
        }
    }

    pub(crate) fn is_failed(&self) -> bool {
        matches!(self.measured, Measured::Failed { .. })
    }

    /// `ok`, `short`, or `-` where there is no target.
    fn verdict(&self) -> &'static str {
        let Measured::Seen { ours, ratio, .. } = &self.measured else {
            return "failed";
        };
        let reached = match self.target {
            Target::None => return "-",
            Target::RatioAtMost(most) => ratio.is_some_and(|ratio| ratio <= most),
            Target::OursBelow(bound) => ours.median < bound,
        };
        if reached { "ok" } else { "short" }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.measured {
            Measured::Seen {
                ours,
                reference,
                ratio,
            } => {
                let or_dash = |text: Option<String>| text.unwrap_or("-".to_owned());
                write!(
                    f,
                    "{:24} {:>28} {:>28} {:>8} {:>8} {:>5}",
                    self.name,
                    ours.to_string(),
                    or_dash(reference.map(|figure| figure.to_string())),
                    or_dash(ratio.map(|ratio| format!("{ratio:.2}"))),
                    self.target.to_string(),
                    self.verdict()
                )
            }
            Measured::Failed { error } => write!(f, "{:24} failed: {error}", self.name),
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figure {
            median, low, high, ..
        } = self;
        let (unit, digits) = match self.unit {
            Unit::Microseconds => (" us", 1),
            Unit::Percent => (" %", 3),
            Unit::Count => ("", 0),
        };
        write!(f, "{median:.digits$}{unit}")?;
        if self.rounds > 1 {
            write!(f, " ({low:.digits$}-{high:.digits$})")
        } else {
            Ok(())
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::None => f.write_str("-"),
            Target::RatioAtMost(most) => write!(f, "x <={most}"),
            Target::OursBelow(bound) => write!(f, "<{bound}"),
        }
    }
}

/// What the figures are taken on, and whether others are at work there, which makes the spreads wide.
pub(crate) fn machine() -> io::Result<String> {
    let (kernel, cores) = (nix::sys::utsname::uname()?, std::thread::available_parallelism()?);
    Ok(format!(
        "kernel {}, {cores} cores, load {}",
        kernel.release().display(),
        load()?
    ))
}

/// Of the last minute, as the kernel writes it.
fn load() -> io::Result<String> {
    let loads = std::fs::read_to_string("/proc/loadavg")?;
    Ok(loads.split_whitespace().next().unwrap_or("unknown").to_owned())
}

/// The line above the rows.
pub(crate) fn header() -> String {
    format!(
        "{:24} {:>28} {:>28} {:>8} {:>8}",
        "NAME", "ours", "reference", "ratio", "target"
    )
}

/// Writes all rows, and what they were taken on.
pub(crate) fn write_json(path: &Path, quick: bool, rows: &[Row]) -> io::Result<()> {
    let whole = serde_json::json!({
        "machine": machine()?,
        "quick": quick,
        "rows": rows.iter().map(|row| Line { row, verdict: row.verdict() }).collect::<Vec<_>>(),
    });
    std::fs::write(path, format!("{whole:#}\n"))
}

/// A row with what it comes to, for a reader who does not know the rules.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    row: &'a Row,
    verdict: &'static str,
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (below, above) = (
        values.get(values.len().checked_sub(1)? / 2)?,
        values.get(values.len() / 2)?,
    );
    Some((below + above) / 2.0)
}
