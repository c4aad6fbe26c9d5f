//! The picture: over time, what each limit has admitted in the last window.

use std::path::Path;

use anyhow::{Result, anyhow};
use derp_kv_examples::schemes;
use plotters::prelude::*;

use crate::run::Course;
use crate::subject::{LIMIT, MILLI, WINDOW};

/// Which limits are drawn, how, and how wide: of two that run together both are seen.
const LINES: [(&str, RGBColor, u32); 5] = [
    ("`new`, a fixed window", RGBColor(200, 60, 50), 2),
    ("others: sliding counter", RGBColor(245, 190, 110), 5),
    ("`smooth`", RGBColor(130, 80, 170), 2),
    ("others: sliding log", RGBColor(150, 200, 150), 5),
    ("`strict`", RGBColor(40, 110, 180), 2),
];
const FONT: (&str, i32) = ("sans-serif", 18);

/// Writes an SVG file.
pub(crate) fn write(path: &Path, courses: &[(&str, Course)]) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    draw(path, courses).map_err(|error| anyhow!("cannot write {}: {error}", path.display()))?;
    Ok(schemes::add_dark(path)?)
}

fn draw(path: &Path, courses: &[(&str, Course)]) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::new(path, (900, 400)).into_drawing_area();
    root.fill(&WHITE)?;
    // Until the last burst has left the window.
    let end = courses.iter().filter_map(|(_, course)| course.admitted.last()).max();
    let end = end.copied().unwrap_or(0) + WINDOW * 11 / 10;
    let seconds = |time: u64| time as f64 / WINDOW as f64;
    let mut chart = ChartBuilder::on(&root)
        .caption(format!("Admitted in the last second, of a limit of {LIMIT} a second"), FONT)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..seconds(end), 0.0..LIMIT as f64 * 2.3)?;
    chart
        .configure_mesh()
        .max_light_lines(0)
        .x_desc("seconds")
        .y_desc("calls")
        .y_label_formatter(&|calls| format!("{calls}"))
        .draw()?;
    let line = [(0.0, LIMIT as f64), (seconds(end), LIMIT as f64)];
    chart.draw_series(DashedLineSeries::new(line, 6, 4, BLACK.stroke_width(1)))?;
    for (name, colour, width) in LINES {
        let Some((_, course)) = courses.iter().find(|(other, _)| *other == name) else { continue };
        let points = steps(course, end).into_iter().map(|(at, calls)| (seconds(at), calls));
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(width)))?
            .label(name.replace('`', ""))
            .legend(move |(x, y)| {
                PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(width))
            });
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE)
        .border_style(BLACK)
        .draw()?;
    root.present()?;
    Ok(())
}

/// How many were admitted in the window that ends at `now`, which it holds.
fn last(course: &Course, now: u64) -> f64 {
    let upto = |time: u64| course.admitted.partition_point(|admitted| *admitted <= time);
    let before = now.checked_sub(WINDOW).map_or(0, upto);
    (upto(now) - before) as f64
}

/// The line, sampled each millisecond: of a level part both its ends.
fn steps(course: &Course, end: u64) -> Vec<(u64, f64)> {
    let mut points: Vec<(u64, f64)> = Vec::new();
    for at in (0..=end / MILLI).map(|ms| ms * MILLI) {
        let calls = last(course, at);
        match &mut points[..] {
            [.., before, level] if before.1 == calls && level.1 == calls => level.0 = at,
            _ => points.push((at, calls)),
        }
    }
    points
}
