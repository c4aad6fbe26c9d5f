mod near;

use std::time::Duration;

use derp_kv_core::{Counter, ErrorKind, Expiry, KvStore};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::bench::{Bench, LawResult};
use crate::input::{Blob, bytes, key, lasting, long_ttl};
use crate::laws::expect;
use crate::violation::{ensure, ensure_eq};

/// Increments, often those at the ends of the range and about 2^53, where a double loses digits.
fn by() -> impl Strategy<Value = i64> + Clone {
    prop_oneof![
        4 => -1_000_i64..1_000,
        2 => any::<i64>(),
        2 => prop_oneof![Just(0), Just(i64::MAX), Just(i64::MIN), Just(i64::MAX - 1)],
        2 => (prop_oneof![Just(1_i64 << 53), Just(-1 << 53)], -2_i64..3).prop_map(|(n, off)| n + off),
    ]
}

pub(crate) fn creates_at_by(bench: &Bench<'_>) -> LawResult {
    bench.property((key(), by(), lasting()), async |scene, (key, by, ttl)| {
        let kv = &scene.store;
        ensure_eq!(kv.incr(&key, by, ttl).await?.value, by, "the first value");
        expect(kv, &key, &decimal(by), ttl).await?;
        kv.delete(&key).await?;
        ensure_eq!(kv.incr(&key, by, None).await?.value, by, "the value after delete");
        expect(kv, &key, &decimal(by), None).await
    })
}

pub(crate) fn keeps_expiry(bench: &Bench<'_>) -> LawResult {
    let inputs = (key(), lasting(), vec((-9_i64..10, lasting()), 1..6), any::<bool>());
    bench.property(inputs, async |scene, (key, ttl, steps, by_set)| {
        let kv = &scene.store;
        if by_set {
            kv.set(&key, b"0", ttl).await?;
        } else {
            kv.incr(&key, 0, ttl).await?;
        }
        let mut sum = 0;
        for (by, other_ttl) in steps {
            sum += by;
            ensure_eq!(kv.incr(&key, by, other_ttl).await?.value, sum, "the sum");
            expect(kv, &key, &decimal(sum), ttl).await?;
        }
        Ok(())
    })
}

pub(crate) fn get_shows_decimal(bench: &Bench<'_>) -> LawResult {
    bench.scenario(async |scene| near::is_exact(&scene.store).await)?;
    bench.property((key(), vec(by(), 1..8)), async |scene, (key, steps)| {
        let kv = &scene.store;
        let mut sum = 0_i64;
        for by in steps {
            let Some(next) = sum.checked_add(by) else { continue };
            sum = next;
            ensure_eq!(kv.incr(&key, by, None).await?.value, sum, "the sum");
            expect(kv, &key, &decimal(sum), None).await?;
            // What `set` writes so is a counter, too.
            kv.set(&key, &decimal(sum), None).await?;
        }
        Ok(())
    })
}

pub(crate) fn reports_expiry(bench: &Bench<'_>) -> LawResult {
    bench.property((key(), lasting(), long_ttl()), async |scene, (key, ttl, expire)| {
        let kv = &scene.store;
        for ignored in [ttl, None, Some(expire)] {
            let Counter { expiry, .. } = kv.incr(&key, 1, ignored).await?;
            check(expiry, ttl)?;
        }
        kv.expire(&key, expire).await?;
        check(kv.incr(&key, 1, ttl).await?.expiry, Some(expire))?;
        kv.set(&key, b"5", None).await?;
        check(kv.incr(&key, 1, Some(expire)).await?.expiry, None)
    })
}

fn check(expiry: Expiry, ttl: Option<Duration>) -> Result<(), crate::violation::Violation> {
    let fits = crate::laws::fits(expiry, ttl);
    ensure!(fits, "incr reports {expiry:?} on a counter with a TTL of {ttl:?}");
    Ok(())
}

/// Values that are no counter, and sums that leave the range.
fn refused() -> impl Strategy<Value = (Blob, i64)> {
    let no_integer = bytes().prop_filter("a decimal i64", |bytes| Counter::parse(bytes).is_err());
    prop_oneof![
        3 => (no_integer, by()),
        1 => (1..i64::MAX).prop_map(|by| (decimal(i64::MAX - by + 1), by)),
        1 => (1..i64::MAX).prop_map(|by| (decimal(i64::MIN + by - 1), -by)),
        1 => Just((decimal(-1), i64::MIN)),
        1 => any::<i64>().prop_map(|n| (Blob(format!("{n}.0").into()), 1)),
        1 => any::<i64>().prop_map(|n| (Blob(format!(" {n}").into()), 1)),
        1 => (0..i64::MAX).prop_map(|n| (Blob(format!("+{n}").into()), 1)),
        1 => (0..i64::MAX).prop_map(|n| (Blob(format!("0{n}").into()), 1)),
    ]
}

pub(crate) fn failure_changes_nothing(bench: &Bench<'_>) -> LawResult {
    bench.scenario(async |scene| near::refuses(&scene.store).await)?;
    let inputs = (key(), refused(), lasting(), lasting());
    bench.property(inputs, async |scene, (key, (value, by), ttl, other_ttl)| {
        let kv = &scene.store;
        kv.set(&key, &value, ttl).await?;
        match kv.incr(&key, by, other_ttl).await {
            Ok(counter) => ensure!(false, "{value:?} plus {by} came to {}", counter.value),
            Err(error) => ensure_eq!(error.kind(), ErrorKind::NotAnInteger, "the error's kind"),
        }
        expect(kv, &key, &value, ttl).await
    })
}

fn decimal(value: i64) -> Blob {
    Blob(value.to_string().into_bytes())
}
