//! Stores that keep whole seconds: right ones, which say so, and wrong ones, which say less or more
//! than they do.

mod common;

use std::time::Duration;

use async_trait::async_trait;
use common::Naive;
use derp_kv_conformance::{
    BoxError, Harness, LAWS, Law, LawReport, Profile, Time, Verdict, run_law,
};

const SECOND: Duration = Duration::from_secs(1);

fn up(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs() + u64::from(time.subsec_nanos() > 0))
}

fn down(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs())
}

/// A store that computes its deadlines in some way, and the resolution that it declares.
#[derive(Clone, Copy)]
struct Coarse {
    dates: fn(Duration, Duration) -> Duration,
    declares: Option<Duration>,
}

#[async_trait]
impl Harness for Coarse {
    type Store = Naive;
    type Guard = ();

    async fn open(&self) -> Result<(Naive, ()), BoxError> {
        Ok((Naive::dating(self.dates), ()))
    }

    fn time(&self) -> Time {
        Time::Virtual
    }

    fn profile(&self) -> Profile {
        let profile = Profile::default().without_seeds().embedded();
        match self.declares {
            Some(resolution) => profile.ttl_resolution(resolution),
            None => profile,
        }
    }
}

/// The deadline is rounded up to the next whole second of the store's clock, which was between two
/// when the store was opened.
const DEADLINES: Coarse =
    Coarse { dates: |now, ttl| up(now + ttl + PHASE) - PHASE, declares: Some(SECOND) };

const PHASE: Duration = Duration::from_millis(370);

/// The TTL is rounded up to whole seconds.
const TTLS: Coarse = Coarse { dates: |now, ttl| now + up(ttl), declares: Some(SECOND) };

mod whole_seconds_of_the_clock {
    use super::DEADLINES;

    derp_kv_conformance::conformance_tests!(DEADLINES);
}

mod whole_seconds_of_the_ttl {
    use super::TTLS;

    derp_kv_conformance::conformance_tests!(TTLS);
}

/// The laws of expiry and of the calls that set one.
fn timed() -> impl Iterator<Item = &'static Law> {
    LAWS.iter().filter(|law| ["expiry", "counter"].contains(&law.area))
}

fn violated(harness: Coarse) -> Vec<&'static str> {
    let reports: Vec<LawReport> = timed().map(|law| run_law(harness, law)).collect();
    let violated = reports.iter().filter(|report| !report.is_success());
    violated.map(|report| report.law.id).collect()
}

#[test]
fn who_declares_nothing_is_held_to_the_millisecond() {
    for harness in [DEADLINES, TTLS] {
        let violated = violated(Coarse { declares: None, ..harness });
        for law in [
            "expiry::expired_is_absent",
            "expiry::any_history_keeps_its_deadlines",
            "expiry::millisecond_resolution",
            "expiry::fractions_round_up",
            "expiry::ends_on_time",
            "expiry::any_length",
        ] {
            assert!(violated.contains(&law), "{law} is not among {violated:?}");
        }
    }
}

/// The declared resolution is what the laws find, no less and no more.
fn is_caught(dates: fn(Duration, Duration) -> Duration, by: &[&str]) {
    let violated = violated(Coarse { dates, declares: Some(SECOND) });
    for law in by {
        assert!(violated.contains(law), "{law} is not among {violated:?}");
    }
}

const ALL: [&str; 4] = [
    "expiry::millisecond_resolution",
    "expiry::fractions_round_up",
    "expiry::ends_on_time",
    "expiry::any_length",
];

#[test]
fn a_deadline_that_is_rounded_down_is_caught() {
    is_caught(|now, ttl| down(now + ttl), &ALL);
}

#[test]
fn a_ttl_that_is_rounded_down_is_caught() {
    is_caught(|now, ttl| now + down(ttl).max(SECOND), &ALL);
}

#[test]
fn a_deadline_that_is_rounded_to_the_nearest_second_is_caught() {
    is_caught(|now, ttl| down(now + ttl + SECOND / 2).max(now + SECOND), &ALL);
}

#[test]
fn a_time_that_is_cut_to_seconds_first_is_caught() {
    is_caught(|now, ttl| down(now) + up(ttl), &ALL[..3]);
}

#[test]
fn a_store_that_is_a_second_later_than_it_declares_is_caught() {
    is_caught(|now, ttl| up(now + ttl) + SECOND, &ALL);
    is_caught(|now, ttl| now + up(ttl) + SECOND, &ALL);
}

#[test]
fn a_store_of_two_seconds_that_declares_one_is_caught() {
    fn to_even(time: Duration) -> Duration {
        time + SECOND * u32::from(time.as_secs() % 2 == 1)
    }
    is_caught(|now, ttl| to_even(up(now + ttl)), &ALL[..3]);
}

#[test]
fn a_resolution_out_of_bounds_is_a_mistake() {
    let law = Law::named("expiry::none_clears").expect("the law is listed");
    for wrong in
        [Duration::ZERO, Duration::from_micros(999), Duration::from_secs(61), Duration::MAX]
    {
        let report = run_law(Coarse { declares: Some(wrong), ..TTLS }, law);
        let Verdict::NotTried { why } = &report.verdict else {
            panic!("{wrong:?} is taken for a resolution");
        };
        assert!(why.contains("TTL resolution"), "{why}");
    }
}
