//! The picture: the latency of every caller, and the computations, with and without protection.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use crate::herd::run::Done;

/// Writes an SVG file; callers are sorted by their latency.
pub(crate) fn write(path: &Path, herds: &[(&str, Done)]) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    draw(path, herds).map_err(|error| anyhow!("cannot write {}: {error}", path.display()))
}

fn draw(path: &Path, herds: &[(&str, Done)]) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::new(path, (900, 360)).into_drawing_area();
    root.fill(&WHITE)?;
    let (left, right) = root.split_horizontally(560);
    let colours = [RGBColor(200, 60, 50), RGBColor(40, 110, 180)];
    let callers = herds.iter().map(|(_, herd)| herd.latencies.len()).max().unwrap_or(1).max(1);
    let slowest = herds.iter().map(|(_, herd)| herd.percentile(1.0)).fold(1.0, f64::max);

    let mut chart = ChartBuilder::on(&left)
        .caption("Latency of each caller", ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(0..callers, 0.0..slowest * 1.15)?;
    chart.configure_mesh().x_desc("callers, fastest first").y_desc("ms").draw()?;
    for ((name, herd), colour) in herds.iter().zip(colours) {
        let mut sorted = herd.latencies.clone();
        sorted.sort_by(f64::total_cmp);
        chart
            .draw_series(LineSeries::new(sorted.into_iter().enumerate(), colour.stroke_width(2)))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    let legend = SeriesLabelPosition::LowerRight;
    chart.configure_series_labels().position(legend).border_style(BLACK).draw()?;

    let most = herds.iter().map(|(_, herd)| herd.computes).max().unwrap_or(1).max(1);
    let mut chart = ChartBuilder::on(&right)
        .caption("Computations", ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..herds.len() as f64, 0..most + most / 6 + 1)?;
    chart.configure_mesh().disable_x_mesh().x_labels(0).draw()?;
    for (index, ((name, herd), colour)) in herds.iter().zip(colours).enumerate() {
        let x = index as f64;
        let bar = [(x + 0.2, 0), (x + 0.8, herd.computes)];
        chart.draw_series([Rectangle::new(bar, colour.filled())])?;
        let text = format!("{name}: {}", herd.computes);
        let place = (x + 0.2, herd.computes + most / 12 + 1);
        chart.draw_series([Text::new(text, place, ("sans-serif", 13))])?;
    }
    root.present()?;
    Ok(())
}
