//! The search for the worst arrivals.

use anyhow::Result;

use crate::program::{Program, known};
use crate::random::{Numbers, smaller};
use crate::run::TICKS;
use crate::subject::{Kind, Subject, WINDOW};
use crate::windows::most_within;

/// Of which windows the most is looked for, in nanoseconds.
pub(crate) const WINDOWS: [u64; 2] = [WINDOW, WINDOW / 20];

/// What was found.
pub(crate) struct Found {
    /// Of each subject.
    pub(crate) each: Vec<Worst>,
    /// The program under which the limits that are drawn admit the most in a window, together.
    pub(crate) worst_of_all: Program,
    /// How many arrivals there were at limits on the store.
    pub(crate) arrivals: u64,
}

/// The worst for one subject.
#[derive(Clone, Default)]
pub(crate) struct Worst {
    /// The most that was admitted in any of each of [`WINDOWS`].
    pub(crate) most: [u64; 2],
    /// The program that did it in the longest.
    pub(crate) program: Program,
}

/// Tries the known programs, and then random ones up to so many arrivals; shrinks the worst where
/// there were to be any.
pub(crate) async fn search(subjects: &[Subject], arrivals: u64) -> Result<Found> {
    let mut found = Found {
        each: vec![Worst::default(); subjects.len()],
        worst_of_all: Program::default(),
        arrivals: 0,
    };
    let mut worst_sum = 0;
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let mut known = known().into_iter();
    loop {
        let program = match known.next() {
            Some(program) => program,
            None if found.arrivals < arrivals => numbers.program(),
            None => break,
        };
        let mut sum = 0;
        for (at, subject) in subjects.iter().enumerate().filter(|(_, subject)| subject.searched) {
            let [finest, most] = try_out(subject, &program, &mut found.arrivals).await?;
            sum += if subject.drawn { finest[0] } else { 0 };
            let worst = &mut found.each[at];
            if most[0] > worst.most[0] {
                worst.program = program.clone();
            }
            for (worst, most) in worst.most.iter_mut().zip(most) {
                *worst = (*worst).max(most);
            }
        }
        if sum > worst_sum {
            (worst_sum, found.worst_of_all) = (sum, program);
        }
    }
    for (worst, subject) in found.each.iter_mut().zip(subjects).filter(|_| arrivals > 0) {
        worst.program = shrunk(subject, worst, &mut found.arrivals).await?;
    }
    Ok(found)
}

/// The most that the program gets admitted: with the finest tick of the store's clock, and with any.
async fn try_out(
    subject: &Subject,
    program: &Program,
    arrivals: &mut u64,
) -> Result<[[u64; 2]; 2]> {
    let ours = matches!(subject.kind, Kind::Ours(_));
    let mut mosts = Vec::new();
    for tick in if ours { &TICKS[..] } else { &TICKS[..1] } {
        let course = program.run(subject, *tick).await?;
        *arrivals += if ours { course.arrivals } else { 0 };
        mosts.push(WINDOWS.map(|window| most_within(&course.admitted, window)));
    }
    let finest = mosts[0];
    let most = |at: usize| mosts.iter().map(|most| most[at]).max().unwrap_or(0);
    Ok([finest, [most(0), most(1)]])
}

/// A program that is as bad as the worst, and of which nothing can be left out.
async fn shrunk(subject: &Subject, worst: &Worst, arrivals: &mut u64) -> Result<Program> {
    let mut program = worst.program.clone();
    'smaller: loop {
        for less in smaller(&program) {
            if try_out(subject, &less, arrivals).await?[1][0] >= worst.most[0] {
                program = less;
                continue 'smaller;
            }
        }
        return Ok(program);
    }
}
