//! A program, run on a limit in virtual time.

use std::time::Duration;

use anyhow::Result;
use derp_kv_core::{RateLimit, RateLimiter};
use derp_kv_memory::{ManualClock, MemoryStore};

use crate::peers::{SlidingCounter, SlidingLog, TokenBucket};
use crate::program::{Phase, Program};
use crate::subject::{Kind, MILLI, Subject, WINDOW};

pub(crate) struct Answer {
    pub(crate) admitted: bool,
    pub(crate) retry_after: Option<u64>,
}

/// The ticks of the store's clock that are tried, in nanoseconds: servers have whole milliseconds.
pub(crate) const TICKS: [u64; 2] = [1, MILLI];

/// A limit at work, on nothing counted yet.
pub(crate) struct Working {
    limit: u64,
    decider: Decider,
}

enum Decider {
    Ours(Box<Ours>),
    SlidingCounter(SlidingCounter),
    SlidingLog(SlidingLog),
    TokenBucket(TokenBucket),
}

/// A limit of the library, and the clock of its store.
struct Ours {
    limiter: RateLimiter<MemoryStore>,
    clock: ManualClock,
    /// What the clock was told last.
    told: u64,
    tick: u64,
}

impl Working {
    pub(crate) fn new(subject: &Subject, tick: u64) -> Result<Self> {
        let decider = match &subject.kind {
            Kind::Ours(limit) => {
                let clock = ManualClock::new();
                let store = MemoryStore::builder().clock(clock.clone()).build()?;
                let limiter = RateLimiter::new(store, RateLimit::clone(limit));
                Decider::Ours(Box::new(Ours { limiter, clock, told: 0, tick }))
            }
            Kind::SlidingCounter => Decider::SlidingCounter(SlidingCounter::default()),
            Kind::SlidingLog => Decider::SlidingLog(SlidingLog::default()),
            Kind::TokenBucket => Decider::TokenBucket(TokenBucket::default()),
        };
        Ok(Self { limit: subject.limit, decider })
    }

    pub(crate) async fn ask(&mut self, now: u64) -> Result<Answer> {
        let limit = self.limit;
        Ok(match &mut self.decider {
            Decider::Ours(ours) => {
                let shown = now / ours.tick * ours.tick;
                ours.clock.advance(Duration::from_nanos(shown - ours.told));
                ours.told = shown;
                let status = ours.limiter.check("ada").await?;
                let retry_after = status.retry_after.map(|after| after.as_nanos() as u64);
                Answer { admitted: status.allowed, retry_after }
            }
            Decider::SlidingCounter(counter) => counter.ask(now, limit, WINDOW),
            Decider::SlidingLog(log) => log.ask(now, limit, WINDOW),
            Decider::TokenBucket(bucket) => bucket.ask(now, limit, WINDOW),
        })
    }
}

/// What came of a program.
#[derive(Default)]
pub(crate) struct Course {
    /// When calls were admitted.
    pub(crate) admitted: Vec<u64>,
    pub(crate) arrivals: u64,
    pub(crate) end: u64,
}

impl Program {
    pub(crate) async fn run(&self, subject: &Subject, tick: u64) -> Result<Course> {
        let mut limit = Working::new(subject, tick)?;
        let mut course = Course::default();
        let mut now = 0;
        for phase in &self.0 {
            match *phase {
                Phase::Wait(time) => now += time,
                Phase::Burst(count) => {
                    for _ in 0..count {
                        course.ask(&mut limit, now).await?;
                    }
                }
                Phase::Trickle(count, every) => {
                    for _ in 0..count {
                        course.ask(&mut limit, now).await?;
                        now += every;
                    }
                }
                Phase::Greedy(time) => {
                    let end = now + time;
                    while now < end {
                        let answer = course.ask(&mut limit, now).await?;
                        if !answer.admitted {
                            now += answer.retry_after.unwrap_or(MILLI).max(1);
                        }
                    }
                    now = end;
                }
            }
        }
        course.end = now;
        Ok(course)
    }
}

impl Course {
    async fn ask(&mut self, limit: &mut Working, now: u64) -> Result<Answer> {
        let answer = limit.ask(now).await?;
        self.arrivals += 1;
        if answer.admitted {
            self.admitted.push(now);
        }
        Ok(answer)
    }
}

/// Of each limit that is drawn, its name and how one program went.
pub(crate) async fn curves(
    subjects: &[Subject],
    program: &Program,
) -> Result<Vec<(&'static str, Course)>> {
    let mut curves = Vec::new();
    for subject in subjects.iter().filter(|subject| subject.drawn) {
        curves.push((subject.name, program.run(subject, 1).await?));
    }
    Ok(curves)
}
