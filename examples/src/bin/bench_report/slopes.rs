//! How steeply the costs grow: the exponent `e` where a cost is proportional to `x^e`.

use crate::rows::Rows;
use crate::series::{self, Points};

/// A table of all series, where there are any.
pub(crate) fn table(rows: &Rows) -> String {
    let mut lines = String::new();
    for series in &series::ALL {
        for client in series::CLIENTS {
            let points = series.points(rows, client);
            let ends = points.first().zip(points.last());
            if let (Some((first, last)), Some(slope)) = (ends, slope(&points)) {
                lines += &format!(
                    "| {} | {} to {} {} | {client} | {} | {slope:+.2} | {} |\n",
                    series.bench,
                    first.0,
                    last.0,
                    series.field,
                    series.unit(),
                    steepest(&points),
                );
            }
        }
    }
    if lines.is_empty() {
        return lines;
    }
    format!(
        "### Slopes\n\nThe exponent of a line through the client's processor time, both axes \
         logarithmic (least squares): 0 is a cost that stays, 1 one that grows in proportion, \
         and below 0 more of it is cheaper. The steepest step is the highest exponent between \
         two neighbouring points.\n\n\
         | series | from, to | client | cost of one | exponent | steepest step |\n\
         |---|---|---|---|---|---|\n{lines}\n"
    )
}

/// The exponent of the best line; `None` where the points do not differ in `x`.
fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let logs: Points = points.iter().map(|(x, y)| (x.ln(), y.ln())).collect();
    let mean = |of: fn(&(f64, f64)) -> f64| logs.iter().map(of).sum::<f64>() / logs.len() as f64;
    let (middle_x, middle_y) = (mean(|point| point.0), mean(|point| point.1));
    let sum = |of: &dyn Fn(f64, f64) -> f64| -> f64 {
        logs.iter().map(|(x, y)| of(x - middle_x, y - middle_y)).sum()
    };
    let spread = sum(&|x, _| x * x);
    (spread > 0.0).then(|| sum(&|x, y| x * y) / spread)
}

fn steepest(points: &[(f64, f64)]) -> String {
    let steps = points.windows(2).filter_map(|pair| Some((slope(pair)?, pair[0].0, pair[1].0)));
    match steps.max_by(|one, other| one.0.total_cmp(&other.0)) {
        Some((slope, from, to)) => format!("{slope:+.2}, {from} to {to}"),
        None => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn powers(exponent: f64) -> Points {
        [1.0, 10.0, 100.0, 1000.0].map(|x: f64| (x, 7.0 * x.powf(exponent))).to_vec()
    }

    #[test]
    fn the_exponent_of_a_power_is_found() {
        for exponent in [-1.0, -0.3, 0.0, 0.5, 1.0, 2.0] {
            let slope = slope(&powers(exponent)).unwrap();
            assert!((slope - exponent).abs() < 1e-9, "{slope} instead of {exponent}");
        }
    }

    #[test]
    fn no_slope_without_two_places() {
        for points in [vec![], vec![(3.0, 5.0)], vec![(3.0, 5.0), (3.0, 6.0)]] {
            assert_eq!(slope(&points), None);
            assert_eq!(steepest(&points), "-");
        }
    }

    #[test]
    fn a_knee_shows_as_the_steepest_step() {
        let points = [(1.0, 8.0), (10.0, 4.0), (100.0, 4.0), (1000.0, 40.0)];
        assert_eq!(steepest(&points), "+1.00, 100 to 1000");
    }
}
