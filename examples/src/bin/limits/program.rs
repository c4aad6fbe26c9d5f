//! Arrivals, as a program: phase after phase.

use std::fmt;

use crate::subject::{LIMIT, MILLI, WINDOW};

/// Times are in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Wait(u64),
    /// So many calls at one moment.
    Burst(u64),
    /// So many calls, one each so often.
    Trickle(u64, u64),
    /// For so long, a client that calls again at once where it was admitted, and otherwise as soon
    /// as it was told.
    Greedy(u64),
}

use Phase::{Burst, Greedy, Trickle, Wait};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Program(pub(crate) Vec<Phase>);

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: &u64| *time as f64 / MILLI as f64;
        for (nth, phase) in self.0.iter().enumerate() {
            let and = if nth == 0 { "" } else { ", " };
            match phase {
                Wait(time) => write!(f, "{and}wait {} ms", ms(time)),
                Burst(count) => write!(f, "{and}{count} at once"),
                Trickle(count, every) => write!(f, "{and}{count}, one each {} ms", ms(every)),
                Greedy(time) => write!(f, "{and}greedily for {} ms", ms(time)),
            }?;
        }
        Ok(())
    }
}

/// Times just beside an edge, in whatever unit a store may count.
const BESIDE: [u64; 5] = [1, 1_000, MILLI - 1, MILLI, 5 * MILLI];

/// The programs that everybody would try: around the edges of windows and of sub-windows.
pub(crate) fn known() -> Vec<Program> {
    let every = WINDOW / LIMIT;
    let mut known = vec![
        vec![Greedy(3 * WINDOW)],
        vec![Burst(2 * LIMIT), Greedy(2 * WINDOW)],
        vec![Burst(LIMIT), Trickle(4 * LIMIT, every / 2)],
        vec![Trickle(LIMIT / 2, every), Burst(LIMIT), Greedy(2 * WINDOW)],
    ];
    for beside in BESIDE {
        // The window begins with the first call, and is filled at its end, and again after it.
        let edge = |begin: Vec<Phase>| {
            [begin, vec![Burst(LIMIT), Wait(beside), Burst(LIMIT), Greedy(2 * WINDOW)]].concat()
        };
        known.push(edge(vec![Burst(1), Wait(WINDOW - beside)]));
        // The same, where windows are aligned to the clock.
        known.push(edge(vec![Wait(WINDOW - beside)]));
        known.push(edge(vec![Trickle(LIMIT / 4, every), Wait(WINDOW * 3 / 4 - beside)]));
        // A whole burst late within a tick, and the next one as early as can be.
        let gap = WINDOW - beside;
        known.push(vec![Wait(beside), Burst(LIMIT), Wait(gap), Burst(LIMIT), Greedy(WINDOW)]);
        known.push(vec![Wait(WINDOW - beside), Burst(LIMIT), Trickle(LIMIT, every - beside / 64)]);
    }
    // Some calls at each edge of a sub-window, and beside it.
    let sub_window = (WINDOW / MILLI).div_ceil(60) * MILLI;
    for length in [sub_window - 1, sub_window, sub_window + 1, WINDOW / 60] {
        for count in [LIMIT / 60 + 1, LIMIT / 10] {
            let steps = WINDOW * 5 / 2 / length;
            known.push((0..steps).flat_map(|_| [Burst(count), Wait(length)]).collect());
        }
        known.push(vec![Wait(length), Burst(LIMIT), Wait(WINDOW - length), Greedy(WINDOW)]);
        known.push(vec![Burst(LIMIT), Wait(WINDOW), Burst(LIMIT), Wait(length), Burst(LIMIT)]);
    }
    for part in 0..10 {
        let begin = Wait(part * WINDOW / 10);
        known.push(vec![begin, Burst(LIMIT), Wait(WINDOW / 2), Burst(LIMIT), Greedy(WINDOW)]);
    }
    known.into_iter().map(Program).collect()
}
