//! The picture: the latency of every caller, and the connections in use over time, with and without
//! protection.

use std::path::Path;

use anyhow::{Result, anyhow};
use derp_kv_examples::schemes;
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::connections::CONNECTIONS;
use crate::herd::run::Done;

const COLOURS: [RGBColor; 2] = [RGBColor(200, 60, 50), RGBColor(40, 110, 180)];
const FONT: (&str, i32) = ("sans-serif", 18);
/// How many points each line over time has.
const POINTS: u32 = 400;

type Drawn = Result<(), Box<dyn std::error::Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Writes an SVG file; callers are sorted by their latency.
pub(crate) fn write(path: &Path, herds: &[(&str, Done)]) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    draw(path, herds).map_err(|error| anyhow!("cannot write {}: {error}", path.display()))?;
    Ok(schemes::add_dark(path)?)
}

fn draw(path: &Path, herds: &[(&str, Done)]) -> Drawn {
    let root = SVGBackend::new(path, (900, 360)).into_drawing_area();
    root.fill(&WHITE)?;
    let (left, right) = root.split_horizontally(450);
    let slowest = herds.iter().map(|(_, herd)| herd.percentile(1.0)).fold(1.0, f64::max);
    latencies(&left, herds, slowest)?;
    connections(&right, herds, slowest)?;
    root.present()?;
    Ok(())
}

fn latencies(area: &Area<'_>, herds: &[(&str, Done)], slowest: f64) -> Drawn {
    let callers = herds.iter().map(|(_, herd)| herd.latencies.len()).max().unwrap_or(1).max(1);
    let mut chart = ChartBuilder::on(area)
        .caption("How long each caller waits", FONT)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(0..callers, 0.0..slowest * 1.15 / 1_000.0)?;
    chart.configure_mesh().x_desc("callers, fastest first").y_desc("seconds").draw()?;
    for ((name, herd), colour) in herds.iter().zip(COLOURS) {
        let mut sorted: Vec<_> = herd.latencies.iter().map(|latency| latency / 1_000.0).collect();
        sorted.sort_by(f64::total_cmp);
        let queries = if herd.queries.len() == 1 { "query" } else { "queries" };
        chart
            .draw_series(LineSeries::new(sorted.into_iter().enumerate(), colour.stroke_width(2)))?
            .label(format!("{name}: {} {queries}", herd.queries.len()))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    let legend = SeriesLabelPosition::UpperLeft;
    let mut labels = chart.configure_series_labels();
    labels.position(legend).background_style(WHITE).border_style(BLACK).draw()?;
    Ok(())
}

fn connections(area: &Area<'_>, herds: &[(&str, Done)], slowest: f64) -> Drawn {
    let (end, most) = (slowest * 1.05 / 1_000.0, f64::from(CONNECTIONS) * 1.15);
    let mut chart = ChartBuilder::on(area)
        .caption(format!("Connections of the database in use, of {CONNECTIONS}"), FONT)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..end, 0.0..most)?;
    chart.configure_mesh().x_desc("seconds").draw()?;
    for ((_, herd), colour) in herds.iter().zip(COLOURS) {
        let step = end / f64::from(POINTS);
        let in_use = |time: f64| herd.in_use_at(time * 1_000.0);
        // The most since the last point: a connection goes from one query to the next within a moment.
        let most = |time: f64| in_use(time).max(in_use(time - step)) as f64;
        let points = (0..=POINTS).map(|nth| f64::from(nth) * step).map(|time| (time, most(time)));
        chart.draw_series(LineSeries::new(points, colour.stroke_width(2)))?;
    }
    Ok(())
}
