//! Random programs, and smaller ones that are as bad.

use crate::program::{Phase, Program};
use crate::subject::{LIMIT, MILLI, WINDOW};

/// Xorshift: the same numbers in every run.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// Some time up to two windows, often beside an edge.
    fn time(&mut self) -> u64 {
        let edges = [WINDOW, WINDOW / 2, WINDOW / 20, 17 * MILLI, WINDOW / LIMIT, MILLI, 0];
        let beside = [0, 0, 1, MILLI / 2, MILLI, 17 * MILLI];
        match self.below(4) {
            0 => self.below(2 * WINDOW),
            1 => self.one_of(&edges),
            2 => self.one_of(&edges) + self.one_of(&beside),
            _ => self.one_of(&edges).saturating_sub(self.one_of(&beside)),
        }
    }

    fn count(&mut self) -> u64 {
        let usual = [1, 2, LIMIT / 10, LIMIT - 1, LIMIT, LIMIT + 1];
        if self.below(2) == 0 { self.one_of(&usual) } else { 1 + self.below(LIMIT) }
    }

    pub(crate) fn program(&mut self) -> Program {
        let phase = |numbers: &mut Self| match numbers.below(6) {
            0 | 1 => Phase::Wait(numbers.time()),
            2 | 3 => Phase::Burst(numbers.count()),
            4 => Phase::Trickle(numbers.count(), numbers.time() / 20),
            _ => Phase::Greedy(numbers.time()),
        };
        let phases = 2 + self.below(9);
        Program((0..phases).map(|_| phase(self)).collect())
    }
}

/// Programs with a phase less, or with a smaller one.
pub(crate) fn smaller(program: &Program) -> Vec<Program> {
    let mut smaller = Vec::new();
    for nth in 0..program.0.len() {
        let mut less = program.clone();
        less.0.remove(nth);
        smaller.push(less);
    }
    for (nth, phase) in program.0.iter().enumerate() {
        let halves = match *phase {
            Phase::Wait(time) => vec![Phase::Wait(time / 2), Phase::Wait(time / MILLI * MILLI)],
            Phase::Burst(count) => vec![Phase::Burst(count / 2), Phase::Burst(count - 1)],
            Phase::Trickle(count, every) => vec![
                Phase::Trickle(count / 2, every),
                Phase::Trickle(count - 1, every),
                Phase::Trickle(count, every / MILLI * MILLI),
            ],
            Phase::Greedy(time) => vec![Phase::Greedy(time / 2)],
        };
        for half in halves.into_iter().filter(|half| half != phase && !is_empty(half)) {
            let mut less = program.clone();
            less.0[nth] = half;
            smaller.push(less);
        }
    }
    smaller
}

/// To leave the phase out is tried anyway.
fn is_empty(phase: &Phase) -> bool {
    matches!(phase, Phase::Wait(0) | Phase::Burst(0) | Phase::Trickle(0, _) | Phase::Greedy(0))
}
