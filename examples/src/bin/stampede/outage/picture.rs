//! The picture: over time, how long callers wait and how many connections are in use.

use std::path::Path;

use anyhow::{Result, anyhow};
use derp_kv_examples::schemes;
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::connections::CONNECTIONS;
use crate::outage::plan::Plan;
use crate::outage::run::Course;

const COLOURS: [RGBColor; 3] =
    [RGBColor(200, 60, 50), RGBColor(225, 150, 30), RGBColor(40, 110, 180)];
const FONT: (&str, i32) = ("sans-serif", 18);
/// The shortest wait that is told from none, in milliseconds.
const LEAST_MS: f64 = 0.1;
/// How many points of each line fall into the outage.
const POINTS: u32 = 50;

type Drawn = Result<(), Box<dyn std::error::Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Writes an SVG file.
pub(crate) fn write(path: &Path, plan: &Plan, courses: &[(&str, Course)]) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    draw(path, plan, courses)
        .map_err(|error| anyhow!("cannot write {}: {error}", path.display()))?;
    Ok(schemes::add_dark(path)?)
}

fn draw(path: &Path, plan: &Plan, courses: &[(&str, Course)]) -> Drawn {
    let root = SVGBackend::new(path, (900, 600)).into_drawing_area();
    root.fill(&WHITE)?;
    let (upper, lower) = root.split_vertically(310);
    waits(&upper, plan, courses)?;
    connections(&lower, plan, courses)?;
    root.present()?;
    Ok(())
}

fn waits(area: &Area<'_>, plan: &Plan, courses: &[(&str, Course)]) -> Drawn {
    let (total, most) = (plan.total().as_secs_f64(), plan.patience().as_secs_f64() * 2_000.0);
    let mut chart = ChartBuilder::on(area)
        .caption("The longest wait of a caller, by when it came", FONT)
        .margin(12)
        .x_label_area_size(20)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..total, (LEAST_MS..most).log_scale())?;
    chart.draw_series([outage(plan, LEAST_MS, most)])?;
    let ms = |ms: &f64| format!("{ms}");
    chart.configure_mesh().max_light_lines(0).y_desc("ms").y_label_formatter(&ms).draw()?;
    for ((name, course), colour) in courses.iter().zip(COLOURS) {
        chart
            .draw_series(LineSeries::new(longest(plan, course), colour.stroke_width(2)))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    let legend = SeriesLabelPosition::UpperLeft;
    chart
        .configure_series_labels()
        .position(legend)
        .background_style(WHITE)
        .border_style(BLACK)
        .draw()?;
    Ok(())
}

fn connections(area: &Area<'_>, plan: &Plan, courses: &[(&str, Course)]) -> Drawn {
    let (total, most) = (plan.total().as_secs_f64(), f64::from(CONNECTIONS) * 1.1);
    let mut chart = ChartBuilder::on(area)
        .caption(format!("Connections in use, of {CONNECTIONS}"), FONT)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..total, 0.0..most)?;
    chart.draw_series([outage(plan, 0.0, most)])?;
    let grey = "seconds; the database is down where it is grey";
    chart.configure_mesh().max_light_lines(0).x_desc(grey).draw()?;
    let sample = plan.sample().as_secs_f64();
    for ((_, course), colour) in courses.iter().zip(COLOURS) {
        let points = course.in_use.iter().enumerate();
        let points = points.map(|(nth, in_use)| (nth as f64 * sample, *in_use as f64));
        chart.draw_series(LineSeries::new(points, colour.stroke_width(2)))?;
    }
    Ok(())
}

fn outage(plan: &Plan, from: f64, to: f64) -> Rectangle<(f64, f64)> {
    let begins = plan.before().as_secs_f64();
    let ends = begins + plan.outage.as_secs_f64();
    Rectangle::new([(begins, from), (ends, to)], RGBColor(232, 232, 232).filled())
}

/// The longest wait, in milliseconds, of those who came in each stretch of time.
fn longest(plan: &Plan, course: &Course) -> Vec<(f64, f64)> {
    let stretch = plan.outage.as_secs_f64() / f64::from(POINTS);
    let count = (plan.total().as_secs_f64() / stretch).ceil() as usize;
    let mut points: Vec<_> =
        (0..count).map(|nth| ((nth as f64 + 0.5) * stretch, LEAST_MS)).collect();
    for caller in &course.callers {
        if let Some((_, longest)) = points.get_mut((caller.came / stretch) as usize) {
            *longest = longest.max(caller.waited * 1_000.0);
        }
    }
    points
}
