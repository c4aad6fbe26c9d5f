//! What each rate limit promises, held against the pure steps: on a clock of nanoseconds as a store
//! in memory has it, and on one of milliseconds as a server has it.

use std::time::Duration;

use derp_kv_core::{Ask, Change, ErrorKind, Expiry, RateLimit, Standing, Step, Stepped};
use proptest::collection::vec;
use proptest::prelude::*;

const MILLI: u64 = 1_000_000;
const SECOND: Duration = Duration::from_secs(1);

/// One key of a store, and its clock.
#[derive(Clone, Debug)]
struct Key {
    /// In nanoseconds.
    now: u64,
    /// What the store's clock is cut to, in nanoseconds.
    tick: u64,
    held: Option<(Vec<u8>, u64)>,
}

impl Key {
    fn new(tick: u64, now: u64) -> Self {
        Self { now, tick, held: None }
    }

    fn seen(&self) -> Option<(&[u8], Expiry)> {
        let (value, deadline) = self.held.as_ref()?;
        let left = deadline.checked_sub(self.now / self.tick * self.tick)?;
        Some((value, Expiry::In(Duration::from_nanos(left))))
    }

    fn step(&mut self, step: &Step) -> Stepped {
        let (change, stepped) = step.apply(self.seen()).expect("it is a step's own record");
        match change {
            Change::Set { value, ttl } => {
                let ttl = u64::try_from(ttl.as_nanos()).unwrap();
                self.held = Some((value.to_vec(), self.now / self.tick * self.tick + ttl));
            }
            Change::Delete => self.held = None,
            _ => {}
        }
        stepped
    }

    fn ask(&mut self, limit: &RateLimit) -> Stepped {
        self.step(&limit.step(Ask::Admit).expect("a good limit"))
    }

    fn peek(&self, limit: &RateLimit) -> Stepped {
        self.clone().step(&limit.step(Ask::Peek).expect("a good limit"))
    }

    fn after(&self, wait: Duration) -> Self {
        let now = self.now + u64::try_from(wait.as_nanos()).unwrap();
        Self { now, ..self.clone() }
    }
}

/// Waits that come close to the edges of windows of `window` milliseconds: often none, or parts of a
/// sub-window, and sometimes nearly the whole.
fn waits(window: u64) -> impl Strategy<Value = u64> {
    let sub_window = window.div_ceil(60);
    let around = |middle: u64| {
        (0..3_u64, 0..MILLI)
            .prop_map(move |(millis, nanos)| (middle.saturating_sub(1) + millis) * MILLI + nanos)
    };
    prop_oneof![
        4 => Just(0),
        2 => 0..sub_window * MILLI,
        2 => (0..70_u64).prop_flat_map(move |parts| around(parts * sub_window)),
        2 => around(window),
        1 => 0..2 * window * MILLI,
    ]
}

/// A window in milliseconds, and what calls cost and how long they come after one another.
fn arrivals() -> impl Strategy<Value = (u64, Vec<(u64, u64)>)> {
    let window = prop_oneof![1..20_u64, 50..130_u64, 1_000..5_000_u64];
    window.prop_flat_map(|window| {
        let cost = prop_oneof![5 => Just(1_u64), 1 => 1..6_u64];
        (Just(window), vec((waits(window), cost), 1..120))
    })
}

fn ticks() -> impl Strategy<Value = u64> {
    prop_oneof![Just(1), Just(MILLI)]
}

/// The units that were admitted and when, in nanoseconds.
type Admitted = Vec<(u64, u64)>;

/// The most in any window of so many nanoseconds, its end excluded.
fn most_within(admitted: &Admitted, window: u64) -> u64 {
    let within = |first: usize| {
        let began = admitted[first].0;
        let window = admitted[first..].iter().take_while(|(at, _)| at - began < window);
        window.map(|(_, units)| units).sum()
    };
    (0..admitted.len()).map(within).max().unwrap_or(0)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_strict_limit_is_never_exceeded_in_any_window(
        (window, calls) in arrivals(), most in 1..30_u64, tick in ticks(), began in 0..MILLI,
    ) {
        let mut key = Key::new(tick, began);
        let limit = RateLimit::strict(most, Duration::from_millis(window));
        let mut admitted = Admitted::new();
        for (wait, cost) in calls {
            key.now += wait;
            let cost = cost.min(most);
            if key.ask(&limit.clone().cost(cost)).admitted() {
                admitted.push((key.now, cost));
            }
        }
        prop_assert!(most_within(&admitted, window * MILLI) <= most);
    }

    #[test]
    fn nor_is_it_where_calls_are_given_back_and_the_limit_changes(
        (window, calls) in arrivals(),
        most in 1..30_u64,
        tick in ticks(),
        turns in vec((0..8_u8, 1..5_u64, 0..9_usize), 120),
    ) {
        let mut key = Key::new(tick, 0);
        let mut admitted: Vec<(u64, u64)> = Vec::new();
        for ((wait, cost), (turn, factor, back)) in calls.into_iter().zip(turns) {
            key.now += wait;
            // Other windows and other limits come and go. The bound of the smallest limit of the
            // shortest window is asked for, which every one of them keeps.
            let longer = if turn == 0 { factor } else { 1 };
            let limit = RateLimit::strict(most, Duration::from_millis(window * longer));
            let limit = limit.cost(cost.min(most));
            let given_back = admitted.len().checked_sub(1 + back);
            // What no longer counts cannot be given back: it would be taken from another call.
            let counts = |place: &usize| key.now - admitted[*place].0 < window * MILLI;
            if let Some(place) = given_back.filter(|place| turn == 1 && counts(place)) {
                let (_, units) = admitted.remove(place);
                let refund = limit.cost(units).step(Ask::Refund).unwrap();
                prop_assert!(key.step(&refund).admitted());
            } else if key.ask(&limit).admitted() {
                admitted.push((key.now, cost.min(most)));
            }
            prop_assert!(most_within(&admitted, window * MILLI) <= most);
        }
    }

    #[test]
    fn a_smooth_limit_keeps_its_bound_in_any_time(
        (period, calls) in arrivals(),
        most in prop_oneof![1..30_u64, 500..20_000_u64],
        burst in 1..30_u64,
        tick in ticks(),
        began in 0..MILLI,
    ) {
        let mut key = Key::new(tick, began);
        let limit = RateLimit::smooth(most, Duration::from_millis(period)).burst(burst);
        let mut admitted = Admitted::new();
        for (wait, cost) in calls {
            key.now += wait;
            let cost = cost.min(burst);
            if key.ask(&limit.clone().cost(cost)).admitted() {
                admitted.push((key.now, cost));
            }
        }
        let period = u128::from(period * MILLI);
        let below_a_tick = period / u128::from(most) < u128::from(MILLI);
        for first in 0..admitted.len() {
            let mut units = 0;
            for (at, cost) in &admitted[first..] {
                units += u128::from(*cost);
                let time = u128::from(at - admitted[first].0 + MILLI);
                let time = if below_a_tick { time + u128::from(MILLI) } else { time };
                // `units <= burst + time / T`, in whole numbers.
                prop_assert!(
                    (units * period) <= u128::from(burst) * period + time * u128::from(most),
                    "{units} in {time} ns"
                );
            }
        }
    }

    #[test]
    fn the_times_of_an_answer_are_true_to_the_millisecond(
        (window, calls) in arrivals(),
        most in 1..30_u64,
        strict in any::<bool>(),
        tick in ticks(),
        began in 0..MILLI,
    ) {
        let mut key = Key::new(tick, began);
        let window = Duration::from_millis(window);
        let limit = if strict {
            RateLimit::strict(most, window)
        } else {
            RateLimit::smooth(most, window)
        };
        let milli = Duration::from_millis(1);
        for (wait, cost) in calls {
            key.now += wait;
            let limit = limit.clone().cost(cost.min(most));
            let peeked = key.peek(&limit);
            let stepped = key.ask(&limit);
            prop_assert_eq!(peeked.admitted(), stepped.admitted());
            let stands = stepped.standings()[0];
            prop_assert_eq!(stands.retry_after.is_none(), stepped.admitted());
            if let Some(after) = stands.retry_after {
                prop_assert!(!key.after(after - milli).ask(&limit).admitted(), "{after:?} early");
                prop_assert!(key.after(after).ask(&limit).admitted(), "{after:?} is a lie");
            }
            let stands_after = |wait: Duration| key.after(wait).peek(&limit).standings()[0];
            prop_assert_eq!(stands.next_after.is_none(), stands.remaining == most);
            if let Some(after) = stands.next_after {
                prop_assert!(stands_after(after).remaining > stands.remaining, "{after:?}");
                prop_assert!(stands_after(after - milli).remaining == stands.remaining);
            }
            let reset = stands.reset_after;
            prop_assert_eq!(stands_after(reset).count, 0);
            if let Some(before) = reset.checked_sub(milli) {
                prop_assert!(strict && stands_after(before).count > 0
                    || !strict && stands_after(before).reset_after > Duration::ZERO);
            }
        }
    }

    #[test]
    fn of_several_limits_all_count_a_call_or_none(
        (window, calls) in arrivals(),
        limits in vec((1..20_u64, 1..5_u64), 1..9),
        strict in any::<bool>(),
    ) {
        let one = |(most, factor): &(u64, u64)| {
            let window = Duration::from_millis(window * factor);
            let of = if strict { RateLimit::strict } else { RateLimit::smooth };
            of(*most, window)
        };
        let mut together = Key::new(1, 0);
        let all = RateLimit::all(limits.iter().map(one));
        let mut alone = vec![Key::new(1, 0); limits.len()];
        for (wait, _) in calls {
            together.now += wait;
            alone.iter_mut().for_each(|key| key.now += wait);
            let fits: Vec<_> =
                alone.iter().zip(&limits).map(|(key, limit)| key.peek(&one(limit))).collect();
            let fits: Vec<_> = fits.iter().map(Stepped::admitted).collect();
            let stepped = together.ask(&all);
            prop_assert_eq!(stepped.admitted(), fits.iter().all(|fits| *fits));
            if stepped.admitted() {
                for (key, limit) in alone.iter_mut().zip(&limits) {
                    key.ask(&one(limit));
                }
            } else {
                let failed: Vec<_> = stepped.standings().iter().map(|stands| stands.fits).collect();
                prop_assert_eq!(failed, fits);
            }
            let each = alone.iter().zip(&limits).map(|(key, limit)| key.peek(&one(limit)));
            for (own, shared) in each.zip(together.peek(&all).standings()) {
                prop_assert_eq!(own.standings()[0], *shared);
            }
        }
    }

    #[test]
    fn whatever_a_key_holds_no_step_panics_or_takes_it_for_its_own_by_chance(
        bytes in vec(any::<u8>(), 0..400),
        kind in prop_oneof![Just(None), Just(Some(b'G')), Just(Some(b'W'))],
        left in prop_oneof![Just(None), (0..u64::MAX).prop_map(Some)],
        most in 1..u64::from(u32::MAX),
        window in 1..3_000_000_000_000_u64,
        ask in prop_oneof![Just(Ask::Admit), Just(Ask::Peek), Just(Ask::Refund)],
        cost in 1..u64::MAX,
        together in 1..8_usize,
    ) {
        let mut bytes = bytes;
        if let (Some(first), Some(kind)) = (bytes.first_mut(), kind) {
            *first = kind;
        }
        let expiry = left.map_or(Expiry::Never, |left| Expiry::In(Duration::from_nanos(left)));
        let cost = if ask == Ask::Refund { cost } else { cost.min(most) };
        for of in [RateLimit::strict, RateLimit::smooth] {
            let one = || of(most, Duration::from_millis(window)).cost(cost);
            let limit = RateLimit::all((0..together).map(|_| one()));
            let Ok(step) = limit.step(ask) else { continue };
            match step.apply(Some((&bytes, expiry))) {
                Ok((Change::Set { value, ttl }, _)) => {
                    prop_assert!(ttl >= Duration::from_millis(1));
                    prop_assert!(step.apply(Some((&value, Expiry::In(ttl)))).is_ok());
                }
                Ok(_) => {}
                Err(error) => prop_assert_eq!(error.kind(), ErrorKind::Corrupt),
            }
        }
    }
}

/// What a limit stands at after these calls, made at once.
fn after(limit: &RateLimit, costs: &[u64]) -> (Key, Vec<bool>) {
    let mut key = Key::new(1, 0);
    let ask = |cost: &u64| key.ask(&limit.clone().cost(*cost)).admitted();
    let admitted = costs.iter().map(ask).collect();
    (key, admitted)
}

#[test]
fn a_denied_call_takes_nothing_away() {
    for of in [RateLimit::smooth, RateLimit::strict] {
        let limit = of(10, SECOND);
        let (_, admitted) = after(&limit, &[5, 9, 5, 1]);
        assert_eq!(admitted, [true, false, true, false]);
    }
}

#[test]
fn a_window_that_is_cut_or_grows_binds_at_once() {
    let hour = Duration::from_secs(3_600);
    for of in [RateLimit::smooth, RateLimit::strict] {
        for seconds in [60, 2] {
            let short = of(10, Duration::from_secs(seconds));
            let (mut key, _) = after(&of(10, hour), &[1; 11]);
            let denied = key.ask(&short);
            let retry_after = denied.standings()[0].retry_after.expect("it is denied");
            assert!(retry_after <= Duration::from_secs(seconds) * 61 / 60, "{retry_after:?}");
            assert!(!key.after(retry_after - Duration::from_millis(1)).ask(&short).admitted());
            assert!(key.after(retry_after).ask(&short).admitted());
            // Nobody asks for a while: nothing of the hour is left.
            let mut later = key.after(hour);
            let admitted = (0..11).filter(|_| later.ask(&short).admitted()).count();
            assert_eq!(admitted, 10);
        }
    }
    // And the other way: what passed in the last second counts in the hour.
    let (mut key, _) = after(&RateLimit::strict(10, SECOND), &[1; 7]);
    let admitted = (0..11).filter(|_| key.ask(&RateLimit::strict(10, hour)).admitted()).count();
    assert_eq!(admitted, 3);
    // A higher limit lets more pass at once, a lower one fewer.
    let (mut key, _) = after(&RateLimit::strict(10, hour), &[1; 10]);
    assert!(key.ask(&RateLimit::strict(11, hour)).admitted());
    assert!(!key.ask(&RateLimit::strict(5, hour)).admitted());
}

#[test]
fn processes_with_several_settings_of_a_limit_keep_the_highest_together() {
    let bursts = [100, 10, 1].map(|burst| RateLimit::smooth(10, SECOND).burst(burst));
    // Who asks first, and for how long, decides what the others find.
    for first in 0..3 {
        let mut key = Key::new(1, 0);
        let mut admitted = Admitted::new();
        let mut ask = |key: &mut Key, limit| {
            while key.ask(limit).admitted() {
                admitted.push((key.now, 1));
            }
        };
        ask(&mut key, &bursts[0]);
        for turn in 0..300 {
            key.now += 100 * MILLI;
            for place in 0..3 {
                let limit = &bursts[(first + place) % 3];
                if turn % 20 < 10 || place < 2 {
                    ask(&mut key, limit);
                }
            }
        }
        // At most the highest burst, and what a second pays for.
        assert!(most_within(&admitted, 1_000 * MILLI) <= 111, "{first} first");
        assert!(admitted.len() <= 100 + 301, "{} with {first} first", admitted.len());
    }
}

#[test]
fn a_lowered_limit_lets_calls_pass_at_its_rate_at_once_and_bursts_once_all_is_paid() {
    let (mut key, _) = after(&RateLimit::smooth(100, Duration::from_secs(10)), &[100]);
    let low = RateLimit::smooth(100, SECOND).burst(5);
    let mut now = |wait| {
        key.now += wait;
        (0..9).filter(|_| key.ask(&low).admitted()).count()
    };
    assert_eq!([now(0), now(10 * MILLI), now(9 * MILLI), now(MILLI)], [0, 1, 0, 1]);
    assert_eq!(now(10_000 * MILLI), 5);
}

#[test]
fn a_store_that_keeps_a_key_for_longer_is_waited_for() {
    for of in [RateLimit::smooth, RateLimit::strict] {
        let limit = of(1, SECOND);
        let (key, _) = after(&limit, &[1]);
        let (value, _) = key.held.expect("it was written");
        let step = limit.step(Ask::Admit).unwrap();
        let told = |millis| {
            let left = Expiry::In(Duration::from_millis(millis));
            step.apply(Some((&value, left))).unwrap().1.standings()[0].retry_after.unwrap()
        };
        let whole = told(1_001);
        assert_eq!(told(1_901), whole + Duration::from_millis(900));
        assert_eq!(told(901), whole - Duration::from_millis(100));
    }
}

#[test]
fn a_record_without_an_expiry_counts_nothing_and_gets_one() {
    for of in [RateLimit::smooth, RateLimit::strict] {
        let limit = of(2, SECOND);
        let (key, _) = after(&limit, &[1; 2]);
        let (value, _) = key.held.expect("it was written");
        let step = limit.step(Ask::Admit).unwrap();
        let (change, stepped) = step.apply(Some((&value, Expiry::Never))).unwrap();
        assert!(stepped.admitted() && matches!(change, Change::Set { .. }));
    }
}

#[test]
fn two_writes_of_the_same_numbers_differ() {
    for of in [RateLimit::smooth, RateLimit::strict] {
        let limit = of(2, SECOND);
        let value = || after(&limit, &[1]).0.held.unwrap().0;
        assert_ne!(value(), value());
    }
}

#[test]
fn a_refund_gives_back_what_was_counted_and_no_more() {
    for of in [RateLimit::smooth, RateLimit::strict] {
        let limit = of(10, SECOND);
        let (mut key, _) = after(&limit, &[4, 4]);
        let refund = |key: &mut Key, cost| {
            let step = limit.clone().cost(cost).step(Ask::Refund).unwrap();
            let Standing { count, remaining, .. } = key.step(&step).standings()[0];
            (count, remaining)
        };
        assert_eq!(refund(&mut key, 3), (5, 5));
        assert_eq!(refund(&mut key, u64::MAX), (0, 10));
        assert!(key.held.is_none(), "nothing is left to be kept");
        assert_eq!(refund(&mut key, 1), (0, 10));
        assert!(key.held.is_none());
    }
}

/// The share of the limit that callers get who ask evenly, so many times as fast as the limit.
fn throughput(limit: &RateLimit, per_second: u64, times: u64, tick: u64) -> f64 {
    let mut key = Key::new(tick, 0);
    let gap = 1_000_000_000 / (per_second * times);
    let (calls, warm) = (per_second * times * 20, per_second * times * 2);
    let mut admitted = 0;
    for call in 0..calls {
        key.now = call * gap;
        admitted += u64::from(key.ask(limit).admitted() && call >= warm);
    }
    admitted as f64 / (per_second as f64 * 18.0)
}

#[test]
fn steady_callers_get_what_the_limit_says() {
    let limits = [
        (RateLimit::smooth(100, SECOND), 100),
        (RateLimit::smooth(100, SECOND).burst(10), 100),
        (RateLimit::smooth(1_000, SECOND).burst(1), 1_000),
        (RateLimit::smooth(5_000, SECOND).burst(10), 5_000),
        (RateLimit::strict(100, SECOND), 100),
        (RateLimit::strict(1_000, SECOND), 1_000),
    ];
    for (limit, per_second) in limits {
        for (times, tick) in [(1, 1), (1, MILLI), (2, 1), (2, MILLI)] {
            let share = throughput(&limit, per_second, times, tick);
            assert!((0.97..1.03).contains(&share), "{share} of {limit:?}, asked {times} times");
        }
    }
}
