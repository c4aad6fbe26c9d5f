//! The table: what became of the callers who came during the outage.

use std::fmt::Write as _;

use crate::outage::plan::Plan;
use crate::outage::run::{Caller, Course, Got};

pub(crate) fn table(plan: &Plan, courses: &[(&str, Course)]) -> String {
    let mut text = format!(
        "{:<12} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9} {:>8} {:>12}\n",
        "way",
        "callers",
        "answered",
        "of stale",
        "p50 ms",
        "p99 ms",
        "max ms",
        "queries",
        "connections"
    );
    for (name, course) in courses {
        let came = |caller: &&Caller| plan.is_down_at(caller.came);
        let callers: Vec<_> = course.callers.iter().filter(came).collect();
        let got = |wanted: Got| callers.iter().filter(|caller| caller.got == wanted).count();
        let (fresh, stale) = (got(Got::Fresh), got(Got::Stale));
        let mut waits: Vec<_> = callers.iter().map(|caller| caller.waited * 1_000.0).collect();
        waits.sort_by(f64::total_cmp);
        let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| percentile(&waits, share));
        let most = course.in_use.iter().max().copied().unwrap_or_default();
        let _ = writeln!(
            text,
            "{name:<12} {:>8} {:>9} {stale:>9} {p50:>9.2} {p99:>9.2} {max:>9.2} {:>8} {most:>12}",
            callers.len(),
            fresh + stale,
            course.queries,
        );
    }
    text
}

fn percentile(sorted: &[f64], share: f64) -> f64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or_default()
}
