//! Rows: a figure of ours beside a reference from the same rounds, as a table and as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::rounds::{Scale, median};

/// One line of the table.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(crate) enum Line {
    Seen(Box<Row>),
    /// This machine lacks what the row needs.
    Skipped {
        name: String,
        why: String,
    },
    /// A wrong answer, a crash, a leak.
    Failed {
        name: String,
        error: String,
    },
}

/// What was measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    ours: Figure,
    reference: Option<Figure>,
    /// What the reference is.
    beside: Option<String>,
    /// Round by round, then the median. Ours over the reference where the target is a most; else how many times faster
    /// ours is.
    ratio: Option<Figure>,
    target: Target,
    verdict: Verdict,
    /// What else a reader may want to know, by name.
    more: BTreeMap<String, f64>,
}

/// What a row should reach.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Target {
    /// The row is there to be read.
    None,
    /// Ours over the reference.
    RatioAtMost(f64),
    /// How many times faster than the reference.
    SpeedAtLeast(f64),
    /// Our figure itself.
    AtMost(f64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Ok,
    Short,
    None,
}

/// One figure for each round: the middle, and how far they lie apart.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Figure {
    unit: Unit,
    median: f64,
    low: f64,
    high: f64,
    rounds: Vec<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    Microseconds,
    /// More is better, as for no other unit here.
    GibibytesPerSecond,
    Bytes,
    Kibibytes,
    Count,
    PerSecond,
    Times,
}

impl Row {
    pub(crate) fn new(name: impl Into<String>, unit: Unit, ours: &[f64]) -> Self {
        Row {
            name: name.into(),
            ours: Figure::of(unit, ours),
            reference: None,
            beside: None,
            ratio: None,
            target: Target::None,
            verdict: Verdict::None,
            more: BTreeMap::new(),
        }
    }

    /// The reference, as taken in the same rounds.
    pub(crate) fn beside(mut self, what: &str, reference: &[f64]) -> Self {
        self.beside = Some(what.to_owned());
        self.reference = Some(Figure::of(self.ours.unit, reference));
        self
    }

    pub(crate) fn target(mut self, target: Target) -> Self {
        self.target = target;
        self
    }

    pub(crate) fn more(mut self, name: &str, value: f64) -> Self {
        self.more.insert(name.to_owned(), value);
        self
    }

    /// The row as a line: compared and judged.
    pub(crate) fn line(mut self) -> Line {
        let is_speed = self.ours.unit == Unit::GibibytesPerSecond;
        let is_ours_on_top = is_speed || matches!(self.target, Target::RatioAtMost(_));
        self.ratio = self.reference.as_ref().map(|reference| {
            let pairs = self.ours.rounds.iter().zip(&reference.rounds);
            let ratios: Vec<f64> = pairs
                .map(|(ours, reference)| {
                    if is_ours_on_top {
                        ours / reference
                    } else {
                        reference / ours
                    }
                })
                .collect();
            Figure::of(Unit::Times, &ratios)
        });
        let ratio = self.ratio.as_ref().map(|ratio| ratio.median);
        let reached = match self.target {
            Target::None => None,
            Target::RatioAtMost(most) => Some(ratio.is_some_and(|ratio| ratio <= most)),
            Target::SpeedAtLeast(least) => Some(ratio.is_some_and(|ratio| ratio >= least)),
            Target::AtMost(most) => Some(self.ours.median <= most),
        };
        self.verdict = match reached {
            None => Verdict::None,
            Some(true) => Verdict::Ok,
            Some(false) => Verdict::Short,
        };
        Line::Seen(Box::new(self))
    }
}

impl Line {
    pub(crate) fn skipped(name: impl Into<String>, why: impl Into<String>) -> Self {
        let (name, why) = (name.into(), why.into());
        Line::Skipped { name, why }
    }

    pub(crate) fn failed(name: impl Into<String>, error: impl fmt::Display) -> Self {
        let (name, error) = (name.into(), error.to_string());
        Line::Failed { name, error }
    }

    pub(crate) fn is_failed(&self) -> bool {
        matches!(self, Line::Failed { .. })
    }
}

impl Figure {
    fn of(unit: Unit, rounds: &[f64]) -> Self {
        let nothing = f64::NAN;
        Figure {
            unit,
            median: median(rounds.to_vec()).unwrap_or(nothing),
            low: rounds.iter().copied().reduce(f64::min).unwrap_or(nothing),
            high: rounds.iter().copied().reduce(f64::max).unwrap_or(nothing),
            rounds: rounds.to_vec(),
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Line::Seen(row) => row.fmt(f),
            Line::Skipped { name, why } => write!(f, "{name:NAME$} skipped: {why}"),
            Line::Failed { name, error } => write!(f, "{name:NAME$} FAILED: {error}"),
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_dash = |figure: &Option<Figure>| figure.as_ref().map_or("-".to_owned(), Figure::to_string);
        let verdict = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Short => "short",
            Verdict::None => "-",
        };
        write!(
            f,
            "{:NAME$} {:>FIGURE$} {:>FIGURE$} {:>RATIO$} {:>TARGET$} {verdict}",
            self.name,
            self.ours.to_string(),
            or_dash(&self.reference),
            or_dash(&self.ratio),
            self.target.to_string(),
        )
    }
}

impl fmt::Display for Figure {
    /// The median, and from the second round on the lowest and the highest.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, scale) = match self.unit {
            Unit::Microseconds if self.median >= 1e6 => (" s", 1e-6),
            Unit::Microseconds if self.median >= 1e4 => (" ms", 1e-3),
            Unit::Microseconds if self.median < 0.1 => (" ns", 1e3),
            Unit::Microseconds => (" us", 1.0),
            Unit::GibibytesPerSecond => (" GiB/s", 1.0),
            Unit::Bytes => (" B", 1.0),
            Unit::Kibibytes => (" KiB", 1.0),
            Unit::PerSecond => (" /s", 1.0),
            Unit::Count | Unit::Times => ("", 1.0),
        };
        let [median, low, high] = [self.median, self.low, self.high].map(|value| value * scale);
        let digits = match median {
            0.0 => 0,
            _ if median < 0.1 => 4,
            _ if median < 10.0 => 2,
            _ if median < 1000.0 => 1,
            _ => 0,
        };
        write!(f, "{median:.digits$}{unit}")?;
        match self.rounds.len() {
            0 | 1 => Ok(()),
            _ => write!(f, " ({low:.digits$}-{high:.digits$})"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::None => f.write_str("-"),
            Target::RatioAtMost(most) => write!(f, "<={most}"),
            Target::SpeedAtLeast(least) => write!(f, ">={least}"),
            Target::AtMost(most) => write!(f, "ours <={most}"),
        }
    }
}

/// The line above the rows.
pub(crate) fn header() -> String {
    let [name, ours, reference, ratio, target] = ["NAME", "ours", "reference", "ratio", "target"];
    format!("{name:NAME$} {ours:>FIGURE$} {reference:>FIGURE$} {ratio:>RATIO$} {target:>TARGET$}")
}

/// The line below them.
pub(crate) fn summary(lines: &[Line]) -> String {
    let count = |wanted: Verdict| {
        let has = |line: &&Line| matches!(line, Line::Seen(row) if row.verdict == wanted);
        lines.iter().filter(has).count()
    };
    let names = |wanted: fn(&Line) -> Option<&str>| match lines.iter().filter_map(wanted).collect::<Vec<_>>()
    {
        none if none.is_empty() => "0".to_owned(),
        some => format!("{} ({})", some.len(), some.join(", ")),
    };
    let skipped = names(|line| match line {
        Line::Skipped { name, .. } => Some(name),
        _ => None,
    });
    let failed = names(|line| match line {
        Line::Failed { name, .. } => Some(name),
        _ => None,
    });
    let (ok, short) = (count(Verdict::Ok), count(Verdict::Short));
    format!("targets: {ok} ok, {short} short; skipped: {skipped}; failed: {failed}")
}

/// What the figures are taken on, and whether others are at work there, which makes the spreads wide.
pub(crate) fn machine() -> io::Result<String> {
    let kernel = nix::sys::utsname::uname()?;
    let cores = std::thread::available_parallelism()?;
    let processors = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, model)| model);
    let loads = std::fs::read_to_string("/proc/loadavg")?;
    let load = loads.split_whitespace().next().unwrap_or("unknown");
    let release = kernel.release().display();
    Ok(format!("kernel {release}, {cores} cores of {model}, load {load}"))
}

/// Writes all rows, what they were taken on, and how long each workload took.
pub(crate) fn write_json(
    path: &Path,
    scale: Scale,
    lines: &[Line],
    seconds: &BTreeMap<&str, f64>,
) -> io::Result<()> {
    let whole = serde_json::json!({
        "machine": machine()?,
        "quick": scale == Scale::Quick,
        "rows": lines,
        "seconds": seconds,
    });
    std::fs::write(path, format!("{whole:#}\n"))
}

/// Widths of the columns.
const NAME: usize = 32;
const FIGURE: usize = 30;
const RATIO: usize = 22;
const TARGET: usize = 12;
