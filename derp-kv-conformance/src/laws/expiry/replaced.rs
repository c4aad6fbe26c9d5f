use std::collections::BTreeSet;
use std::time::Duration;

use derp_kv_core::{ErrorKind, Expiry, KvStore, MAX_TTL, Ttl};
use proptest::collection::vec;

use super::short_ttl;
use crate::bench::{Bench, LawResult, at_once};
use crate::input::{bytes, distinct_keys, invalid_ttl, key, lasting, long_ttl};
use crate::laws::{expect, fits, scanned};
use crate::model::{Deadline, Known, Span};
use crate::violation::{ensure, ensure_eq};

pub(crate) fn invalid_ttl_writes_nothing(bench: &Bench<'_>) -> LawResult {
    let inputs = (distinct_keys(2), bytes(), lasting(), invalid_ttl());
    bench.property(inputs, async |scene, (keys, value, ttl, invalid)| {
        let kv = &scene.store;
        let [present, absent] = &keys[..] else { return Ok(()) };
        kv.set(present, &value, ttl).await?;
        for key in [present, absent] {
            let refused = [
                ("set", kv.set(key, b"new", Some(invalid)).await),
                ("mset", kv.mset(&[(key, b"new"), (b"other", b"new")], Some(invalid)).await),
                ("expire", kv.expire(key, invalid).await.map(drop)),
                ("set_nx", kv.set_nx(key, b"new", Some(invalid)).await.map(drop)),
                ("incr", kv.incr(key, 1, Some(invalid)).await.map(drop)),
                (
                    "compare_and_set",
                    kv.compare_and_set(key, &value, b"new", Some(invalid)).await.map(drop),
                ),
            ];
            for (call, result) in refused {
                let kind = result.err().map(|error| error.kind());
                ensure_eq!(kind, Some(ErrorKind::InvalidArgument), "{call}'s error");
            }
        }
        expect(kv, present, &value, ttl).await?;
        // A scan may yield a key twice.
        let left = scanned(kv, b"").await?;
        ensure_eq!(left, BTreeSet::from([present.clone()]), "what is there afterwards");
        kv.set(absent, b"new", Some(MAX_TTL)).await?;
        Ok(())
    })
}

pub(crate) fn none_clears(bench: &Bench<'_>) -> LawResult {
    bench.timed_property((short_ttl(bench), bytes()), async |scene, (ttl, value)| {
        let kv = &scene.store;
        let keys = ["set", "mset", "compare_and_set"];
        for key in keys {
            let key = key.as_bytes();
            // The first one would have to outlive the next two calls.
            kv.set(key, b"old", Some(Duration::from_secs(60))).await?;
            match key {
                b"set" => kv.set(key, &value, None).await?,
                b"mset" => kv.mset(&[(key, &value)], None).await?,
                _ => {
                    let swapped = kv.compare_and_set(key, b"old", &value, None).await?;
                    ensure!(swapped, "compare_and_set did not swap");
                }
            }
            expect(kv, key, &value, None).await?;
        }
        kv.set(b"again", b"old", Some(ttl)).await?;
        kv.set(b"again", &value, None).await?;
        scene.elapse(Duration::from(Ttl::new(ttl)?) + scene.slack()).await;
        for key in keys.into_iter().chain(["again"]) {
            expect(kv, key.as_bytes(), &value, None).await?;
        }
        Ok(())
    })
}

pub(crate) fn value_and_expiry_agree(bench: &Bench<'_>) -> LawResult {
    bench.property((key(), vec((bytes(), lasting()), 1..6)), async |scene, (key, writes)| {
        let kv = &scene.store;
        for (value, ttl) in &writes {
            kv.set(&key, value, *ttl).await?;
            expect(kv, &key, value, *ttl).await?;
            let alone = kv.ttl(&key).await?;
            ensure!(alone.is_some_and(|expiry| fits(expiry, *ttl)), "ttl answers {alone:?}");
        }
        Ok(())
    })?;
    bench.race(async |scene, round| {
        let key = format!("{round}").into_bytes();
        scene.store.set(&key, b"never", None).await?;
        at_once(scene.handles(3).await?, |number, kv| {
            let key = key.clone();
            async move {
                for step in 0..8_u64 {
                    if number == 0 && step % 2 == 0 {
                        kv.set(&key, b"dated", Some(Duration::from_secs(100))).await?;
                    } else if number == 0 {
                        kv.set(&key, b"never", None).await?;
                    } else if let Some((value, expiry)) = kv.get_with_ttl(&key).await? {
                        let agrees = (&*value == b"never") == (expiry == Expiry::Never);
                        ensure!(agrees, "a value is read with the expiry of another write");
                    } else {
                        ensure!(false, "the key is absent between two writes");
                    }
                }
                Ok(())
            }
        })
        .await?;
        Ok(())
    })
}

pub(crate) fn expire_creates_nothing(bench: &Bench<'_>) -> LawResult {
    bench.property((key(), bytes(), long_ttl()), async |scene, (key, value, ttl)| {
        let kv = &scene.store;
        ensure_eq!(kv.expire(&key, ttl).await?, false, "expire of a missing key");
        ensure_eq!(kv.exists(&key).await?, false, "the presence of the key afterwards");
        kv.set(&key, &value, None).await?;
        kv.delete(&key).await?;
        ensure_eq!(kv.expire(&key, ttl).await?, false, "expire of a deleted key");
        ensure_eq!(kv.get(&key).await?, None, "the key afterwards");
        kv.set(&key, &value, None).await?;
        expect(kv, &key, &value, None).await
    })
}

/// Longer than any store takes to end a TTL.
const LONGER: Duration = Duration::from_secs(600);

pub(crate) fn expire_replaces(bench: &Bench<'_>) -> LawResult {
    bench.property(
        (key(), bytes(), vec(long_ttl(), 1..5)),
        async |scene, (key, value, ttls)| {
            let kv = &scene.store;
            kv.set(&key, &value, None).await?;
            for ttl in ttls {
                ensure_eq!(kv.expire(&key, ttl).await?, true, "expire of a present key");
                expect(kv, &key, &value, Some(ttl)).await?;
            }
            Ok(())
        },
    )?;
    bench.timed_property(short_ttl(bench), async |scene, ttl| {
        let kv = &scene.store;
        kv.set(b"shortened", b"v", Some(ttl + LONGER)).await?;
        ensure!(kv.expire(b"shortened", ttl).await?, "expire of a present key is false");
        let (written, span) = Span::of(kv.set(b"prolonged", b"v", Some(ttl))).await;
        written?;
        let (prolonged, again) = Span::of(kv.expire(b"prolonged", ttl + LONGER)).await;
        let in_time = Deadline::new(ttl, span).seen_by(again, scene.slack()) == Known::Present;
        let prolonged = prolonged?;
        ensure!(prolonged || !in_time, "expire of a present key is false");
        scene.elapse(Duration::from(Ttl::new(ttl)?) + scene.slack()).await;
        ensure!(!kv.exists(b"shortened").await?, "a key outlives the TTL that expire gave it");
        let there = kv.exists(b"prolonged").await?;
        ensure_eq!(there, prolonged, "the presence of a key that was given longer");
        Ok(())
    })
}
