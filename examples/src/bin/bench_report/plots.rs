use std::path::Path;

use anyhow::Result;
use derp_kv_examples::schemes;
use plotters::prelude::*;

use crate::rows::Rows;
use crate::series::{self, Points};

/// Draws the series; returns the files and their titles.
pub(crate) fn draw(rows: &Rows, folder: &Path) -> Result<Vec<(String, String)>> {
    let mut drawn = Vec::new();
    for series in &series::ALL {
        let [ours, bare] = series::CLIENTS;
        let lines = [(ours, BLUE), (bare, RED)];
        let lines = lines.map(|(client, color)| (client, series.points(rows, client), color));
        if lines.iter().any(|(_, points, _)| points.len() < 2) {
            continue;
        }
        let title = format!("{}: client CPU per {}", series.bench, series.unit());
        let file = folder.join(series.file);
        chart(&file, &title, series.field, &lines)?;
        schemes::add_dark(&file)?;
        drawn.push((series.file.to_owned(), title));
    }
    Ok(drawn)
}

fn chart(file: &Path, title: &str, field: &str, lines: &[(&str, Points, RGBColor)]) -> Result<()> {
    let all = || lines.iter().flat_map(|(_, points, _)| points);
    let left = all().map(|point| point.0).fold(f64::INFINITY, f64::min);
    let right = all().map(|point| point.0).fold(0.0, f64::max);
    let top = all().map(|point| point.1).fold(0.0, f64::max) * 1.1;
    let root = SVGBackend::new(file, (720, 360)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d((left..right).log_scale(), 0.0..top)?;
    chart.configure_mesh().x_desc(field).y_desc("nanoseconds").draw()?;
    for (name, points, color) in lines {
        let color = *color;
        chart
            .draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color.stroke_width(2)));
        chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, color.filled())))?;
    }
    chart.configure_series_labels().background_style(WHITE).border_style(BLACK).draw()?;
    root.present()?;
    Ok(())
}
