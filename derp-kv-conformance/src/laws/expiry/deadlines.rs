use std::ops::RangeInclusive;
use std::time::Duration;

use derp_kv_core::{KvStore, MAX_TTL, Ttl};
use futures_util::future::try_join_all;
use proptest::collection::vec;
use proptest::prelude::*;

use super::calls::{LOOKERS, WRITERS};
use super::large;
use super::{in_units, millis, short_ttl};
use crate::bench::{Bench, LawResult};
use crate::history::histories;
use crate::input::long_ttl;
use crate::model::{Deadline, Known, Span, play};
use crate::resolution;
use crate::scene::Scene;
use crate::violation::{Violation, ensure};

pub(crate) fn any_history_keeps_its_deadlines(bench: &Bench<'_>) -> LawResult {
    let (ttls, pauses, side_by_side, most) = if bench.is_virtual() {
        let units = |count: RangeInclusive<u64>| millis(count).prop_map(in_units);
        let fraction = (1_u64..9_000_000).prop_map(Duration::from_nanos).prop_map(in_units);
        let ttls = prop_oneof![2 => units(1..=9), 1 => fraction, 1 => long_ttl()];
        (ttls.boxed(), units(1..=5).boxed(), 1..=1, 200)
    } else {
        // What expires does so within a pause, and hardly between two calls.
        let ttls = prop_oneof![1 => millis(20..=40), 1 => long_ttl()];
        let pauses = millis(55..=70).prop_map(|pause| pause + resolution::lateness());
        (ttls.boxed(), pauses.boxed(), 8..=16, 40)
    };
    let strategy = vec(histories(most, ttls, Some(pauses)), side_by_side);
    bench.timed_property(strategy, async |scene, histories| {
        let plays = histories.iter().enumerate().map(async |(number, history)| {
            let prefix = format!("{number}/");
            let prefix = if histories.len() == 1 { "" } else { &prefix };
            play(scene, &scene.store, prefix.as_bytes(), history).await
        });
        try_join_all(plays).await?;
        Ok(())
    })
}

pub(crate) fn expired_is_absent(bench: &Bench<'_>) -> LawResult {
    bench.timed_property(short_ttl(bench), async |scene, ttl| {
        let kv = &scene.store;
        let mut all = Vec::new();
        for writer in WRITERS {
            for looker in LOOKERS {
                // No key begins with another.
                let key = format!("{writer:?}/{looker:?}/").into_bytes();
                writer.write(kv, &key, ttl).await?;
                all.push((writer, looker, key));
            }
        }
        scene.elapse(Duration::from(Ttl::new(ttl)?) + scene.slack()).await;
        for (writer, looker, key) in all {
            let found = looker.finds(kv, &key).await?;
            ensure!(!found, "{looker:?} still finds what {writer:?} left with a TTL of {ttl:?}");
        }
        Ok(())
    })?;
    bench.scenario(async |scene| large::ends(scene).await)
}

/// A beginning between two units of the store's clock; where time is real, it is one anyway.
fn between_units(bench: &Bench<'_>) -> impl Strategy<Value = Duration> + Clone {
    let nanos = if bench.is_virtual() { 1_000_000 } else { 1 };
    (0_u64..nanos).prop_map(Duration::from_nanos).prop_map(in_units)
}

/// Writes a key with each TTL and looks at all of them until the last must be gone.
async fn watch(scene: &Scene<'_>, ttls: &[Duration], step: Duration) -> Result<(), Violation> {
    let kv = &scene.store;
    let mut keys = Vec::new();
    for (number, ttl) in ttls.iter().enumerate() {
        let (key, writer) = (format!("{number}/"), WRITERS[number % WRITERS.len()]);
        let span = writer.write(kv, key.as_bytes(), *ttl).await?;
        keys.push((key, writer, *ttl, Deadline::new(*ttl, span)));
    }
    while !keys.is_empty() {
        let mut left = Vec::new();
        for (key, writer, ttl, deadline) in keys {
            let (expiry, span) = Span::of(kv.ttl(key.as_bytes())).await;
            let known = deadline.seen_by(span, scene.slack());
            match (expiry?, known) {
                (Some(expiry), Known::Present | Known::Unsure) => {
                    deadline.check(expiry, span, scene.slack())?;
                }
                (None, Known::Present) => {
                    let age = "before its time";
                    ensure!(false, "what {writer:?} left with a TTL of {ttl:?} is gone {age}");
                }
                (Some(_), Known::Absent) => {
                    ensure!(false, "what {writer:?} left with a TTL of {ttl:?} outlives it");
                }
                (None, Known::Absent | Known::Unsure) => {}
            }
            if known != Known::Absent {
                left.push((key, writer, ttl, deadline));
            }
        }
        keys = left;
        scene.elapse(step).await;
    }
    Ok(())
}

pub(crate) fn millisecond_resolution(bench: &Bench<'_>) -> LawResult {
    let promised = resolution::promised();
    let finest = promised <= resolution::FINEST;
    let step = match bench.is_virtual() {
        true if finest => promised,
        true => promised / 4,
        false => Duration::from_millis(3),
    };
    let most = if bench.is_virtual() { 40 * promised.as_millis() } else { 150 };
    let most = u64::try_from(most).unwrap_or(u64::MAX);
    let inputs = (between_units(bench), vec(millis(1..=most), 1..30));
    bench.timed_property(inputs, async |scene, (began, ttls)| {
        scene.elapse(began).await;
        watch(scene, &ttls, step).await
    })
}

pub(crate) fn fractions_round_up(bench: &Bench<'_>) -> LawResult {
    let fraction = prop_oneof![
        1 => Just(Duration::from_nanos(1)),
        2 => (1_u64..1_000_000).prop_map(Duration::from_nanos),
        4 => (1_000_001_u64..9_000_000).prop_map(Duration::from_nanos),
    ]
    .prop_map(if bench.is_virtual() { in_units } else { std::convert::identity });
    // The moments that tell rounding up from rounding off lie close before whole milliseconds.
    let step = match bench.is_virtual() {
        true => in_units(Duration::from_nanos(249_999)),
        false => Duration::from_micros(700),
    };
    let inputs = (between_units(bench), vec(fraction, 1..12));
    bench.timed_property(inputs, async |scene, (began, ttls)| {
        scene.elapse(began).await;
        watch(scene, &ttls, step).await
    })
}

pub(crate) fn ttl_within_bounds(bench: &Bench<'_>) -> LawResult {
    let ttls = prop_oneof![
        long_ttl(),
        millis(1..=2_000),
        (1_u64..5_000_000_000).prop_map(Duration::from_nanos),
        Just(MAX_TTL - Duration::from_nanos(1)),
    ];
    let (pause, writers) = (millis(0..=30), 0..WRITERS.len());
    bench.timed_property((vec((ttls, writers), 1..20), pause), async |scene, (writes, pause)| {
        let kv = &scene.store;
        let mut keys = Vec::new();
        for (number, (ttl, writer)) in writes.iter().enumerate() {
            let key = format!("{number}/").into_bytes();
            let span = WRITERS[*writer].write(kv, &key, *ttl).await?;
            keys.push((key, Deadline::new(*ttl, span)));
        }
        for _ in 0..3 {
            for (key, deadline) in &keys {
                let (expiry, span) = Span::of(kv.ttl(key)).await;
                if let Some(expiry) = expiry? {
                    deadline.check(expiry, span, scene.slack())?;
                }
                let (dated, span) = Span::of(kv.get_with_ttl(key)).await;
                if let Some((_, expiry)) = dated? {
                    deadline.check(expiry, span, scene.slack())?;
                }
            }
            scene.elapse(pause).await;
        }
        Ok(())
    })
}
