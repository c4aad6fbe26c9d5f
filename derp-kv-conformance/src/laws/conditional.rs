mod large;

use derp_kv_core::KvStore;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::bench::{Bench, LawResult};
use crate::input::{Blob, bytes, key, lasting, value};
use crate::laws::expect;
use crate::violation::{ensure, ensure_eq};

pub(crate) fn set_nx_only_when_absent(bench: &Bench<'_>) -> LawResult {
    let inputs = (key(), value(), lasting(), bytes(), lasting());
    bench.property(inputs, async |scene, (key, first, ttl, second, other_ttl)| {
        let kv = &scene.store;
        ensure_eq!(kv.set_nx(&key, &first, ttl).await?, true, "set_nx of an absent key");
        for attempt in [&second, &first] {
            let taken = kv.set_nx(&key, attempt, other_ttl).await?;
            ensure_eq!(taken, false, "set_nx of a present key");
        }
        expect(kv, &key, &first, ttl).await?;
        kv.delete(&key).await?;
        ensure_eq!(kv.set_nx(&key, &second, other_ttl).await?, true, "set_nx after delete");
        expect(kv, &key, &second, other_ttl).await
    })
}

/// What is nearly `value`: longer, shorter, or different in one bit.
fn near_misses() -> impl Strategy<Value = (Blob, Vec<Blob>)> {
    (value(), any::<u8>(), any::<Index>(), 0_u8..8).prop_map(|(value, byte, at, bit)| {
        let longer = Blob([&value[..], &[byte]].concat());
        let led = Blob([&[byte], &value[..]].concat());
        let mut misses = vec![longer, led];
        if !value.is_empty() {
            let at = at.index(value.len());
            let mut flipped = value.clone();
            flipped.0[at] ^= 1 << bit;
            misses.push(flipped);
            misses.push(Blob(value[..at].to_vec()));
            misses.push(Blob(value[value.len() - at..].to_vec()));
            let mut other_case = value.clone();
            other_case.0[at] ^= 0x20;
            misses.push(other_case);
        }
        (value, misses)
    })
}

pub(crate) fn compares_every_byte(bench: &Bench<'_>) -> LawResult {
    let inputs = (key(), near_misses(), lasting(), bytes());
    bench.property(inputs, async |scene, (key, (value, misses), ttl, new)| {
        let kv = &scene.store;
        kv.set(&key, &value, ttl).await?;
        for miss in &misses {
            let swapped = kv.compare_and_set(&key, miss, &new, None).await?;
            ensure!(!swapped, "{value:?} was swapped where {miss:?} was expected");
            let deleted = kv.compare_and_delete(&key, miss).await?;
            ensure!(!deleted, "{value:?} was deleted where {miss:?} was expected");
        }
        expect(kv, &key, &value, ttl).await?;
        ensure!(
            kv.compare_and_set(&key, &value, &new, ttl).await?,
            "{value:?} did not match itself"
        );
        expect(kv, &key, &new, ttl).await?;
        ensure!(kv.compare_and_delete(&key, &new).await?, "{new:?} did not match itself");
        ensure_eq!(kv.get(&key).await?, None, "the deleted key");
        Ok(())
    })?;
    bench.scenario(async |scene| large::compares_large_values(&scene.store).await)
}

pub(crate) fn absent_never_matches(bench: &Bench<'_>) -> LawResult {
    let inputs = (key(), prop_oneof![Just(Blob(Vec::new())), bytes()], bytes(), lasting());
    bench.property(inputs, async |scene, (key, expected, value, ttl)| {
        let kv = &scene.store;
        for had_been_there in [false, true] {
            if had_been_there {
                kv.set(&key, &expected, None).await?;
                kv.delete(&key).await?;
            }
            let swapped = kv.compare_and_set(&key, &expected, &value, ttl).await?;
            ensure!(!swapped, "an absent key matched {expected:?}");
            let deleted = kv.compare_and_delete(&key, &expected).await?;
            ensure!(!deleted, "an absent key matched {expected:?}");
            ensure_eq!(kv.get(&key).await?, None, "the absent key");
        }
        Ok(())
    })
}

pub(crate) fn swap_sets_expiry(bench: &Bench<'_>) -> LawResult {
    let inputs = (key(), bytes(), lasting(), bytes(), lasting());
    bench.property(inputs, async |scene, (key, old, ttl, new, new_ttl)| {
        let kv = &scene.store;
        kv.set(&key, &old, ttl).await?;
        let other = [&old[..], b"!"].concat();
        ensure!(!kv.compare_and_set(&key, &other, &new, new_ttl).await?, "{other:?} matched");
        expect(kv, &key, &old, ttl).await?;
        ensure!(kv.compare_and_set(&key, &old, &new, new_ttl).await?, "{old:?} did not match");
        expect(kv, &key, &new, new_ttl).await
    })
}
