//! The plots of `docs/performance.md`: what a price depends on, as SVG.
//!
//! Each is measured in a copy of this program, its lines in turns, and drawn by the program itself.

use std::error::Error;
use std::path::{Path, PathBuf};

use plotters::prelude::*;
use serde::{Deserialize, Serialize};

use crate::Fallible;
use crate::rounds::Scale;
use crate::work::curves;

/// One picture: a file `name.svg`. Both axes are logarithmic.
pub(crate) struct Plot {
    pub(crate) name: &'static str,
    title: &'static str,
    /// What the axes say, and how their numbers are written.
    x: Axis,
    y: Axis,
    /// The corner in which no line is.
    legend: SeriesLabelPosition,
    pub(crate) measure: fn(Scale) -> Fallible<Vec<Series>>,
}

struct Axis {
    says: &'static str,
    /// Each mark is so many times the one before.
    step: f64,
    number: fn(f64) -> String,
}

impl Axis {
    /// From the least to the most, with so many times that as room below and above.
    fn range(&self, values: impl Iterator<Item = f64> + Clone, room: (f64, f64)) -> LogCoord<f64> {
        let least = values.clone().fold(f64::INFINITY, f64::min);
        let most = values.fold(0.0, f64::max);
        (least / room.0..most * room.1).log_scale().base(self.step).into()
    }
}

/// One line.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Series {
    name: String,
    points: Vec<(f64, f64)>,
}

impl Series {
    pub(crate) fn new(name: &str) -> Self {
        Series {
            name: name.to_owned(),
            points: Vec::new(),
        }
    }

    /// The point at `x`, which is the median of its rounds.
    pub(crate) fn push(&mut self, x: f64, rounds: Vec<f64>) {
        self.points.extend(crate::rounds::median(rounds).map(|y| (x, y)));
    }
}

pub(crate) const PLOTS: [Plot; 3] = [
    Plot {
        name: "latency",
        title: "One call, by the size of its argument",
        x: Axis {
            says: "bytes of a &[u8] argument",
            step: 4.0,
            number: bytes,
        },
        y: Axis {
            says: "time of one call",
            step: 10.0,
            number: time,
        },
        legend: SeriesLabelPosition::UpperLeft,
        measure: curves::latency,
    },
    Plot {
        name: "fresh",
        title: "One fresh process, by the memory that its caller holds",
        x: Axis {
            says: "resident memory of the caller",
            step: 4.0,
            number: |mebibytes| bytes(mebibytes * f64::from(1 << 20)),
        },
        y: Axis {
            says: "time of one call",
            step: 10.0,
            number: time,
        },
        legend: SeriesLabelPosition::UpperLeft,
        measure: curves::fresh,
    },
    Plot {
        name: "throughput",
        title: "Tasks per second, by the length of a task",
        x: Axis {
            says: "CPU time of one task",
            step: 10.0,
            number: time,
        },
        y: Axis {
            says: "tasks per second",
            step: 10.0,
            number: |count| scaled(count, &[(1e6, " M"), (1e3, " k"), (1.0, "")]),
        },
        legend: SeriesLabelPosition::LowerLeft,
        measure: curves::throughput,
    },
];

/// Draws it and says where.
pub(crate) fn draw(folder: &Path, plot: &Plot, series: &[Series]) -> Fallible<PathBuf> {
    let path = folder.join(plot.name).with_extension("svg");
    let root = SVGBackend::new(&path, (860, 460)).into_drawing_area();
    draw_on(&root, plot, series).map_err(|error| format!("{}: {error}", path.display()))?;
    root.present()
        .map_err(|error| format!("{}: {error}", path.display()))?;
    drop(root);
    Ok(path)
}

fn draw_on<'a>(
    root: &DrawingArea<SVGBackend<'a>, plotters::coord::Shift>,
    plot: &Plot,
    series: &[Series],
) -> Result<(), Box<dyn Error + 'a>> {
    root.fill(&WHITE)?;
    let room = match plot.legend {
        SeriesLabelPosition::UpperLeft => (1.6, 8.0),
        _ => (8.0, 1.6),
    };
    let points = || series.iter().flat_map(|series| &series.points);
    let mut chart = ChartBuilder::on(root)
        .caption(plot.title, ("sans-serif", 18))
        .margin(12)
        .margin_right(36)
        .x_label_area_size(44)
        .y_label_area_size(72)
        .build_cartesian_2d(
            plot.x.range(points().map(|point| point.0), (1.0, 1.0)),
            plot.y.range(points().map(|point| point.1), room),
        )?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc(plot.x.says)
        .y_desc(plot.y.says)
        .x_label_formatter(&|x| (plot.x.number)(*x))
        .y_label_formatter(&|y| (plot.y.number)(*y))
        .label_style(("sans-serif", 13))
        .draw()?;
    for (nth, line) in series.iter().enumerate() {
        let color = COLORS[nth % COLORS.len()];
        chart
            .draw_series(LineSeries::new(line.points.iter().copied(), color.stroke_width(2)).point_size(3))?
            .label(line.name.as_str())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(plot.legend.clone())
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .label_font(("sans-serif", 13))
        .draw()?;
    Ok(())
}

fn bytes(count: f64) -> String {
    let gibi = f64::from(1 << 30);
    scaled(
        count,
        &[
            (gibi, " GiB"),
            (gibi / 1024.0, " MiB"),
            (1024.0, " KiB"),
            (1.0, " B"),
        ],
    )
}

fn time(microseconds: f64) -> String {
    scaled(
        microseconds,
        &[(1e6, " s"), (1e3, " ms"), (1.0, " us"), (1e-3, " ns")],
    )
}

/// The number in the largest unit that it reaches, else in the last.
fn scaled(number: f64, units: &[(f64, &str)]) -> String {
    let reached = units
        .iter()
        .find(|(size, _)| number >= size * 0.999)
        .or(units.last());
    let (size, unit) = reached.copied().unwrap_or((1.0, ""));
    let value = number / size;
    let text = if value < 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    };
    format!("{}{unit}", text.trim_end_matches(".0"))
}

/// Those of Okabe and Ito, which everybody can tell apart.
const COLORS: [RGBColor; 5] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 86, 86),
];
