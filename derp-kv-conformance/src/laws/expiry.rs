use std::ops::RangeInclusive;
use std::time::Duration;

use derp_kv_core::{ErrorKind, Expiry, KvStore, MAX_TTL, Result, Ttl};
use futures_util::TryStreamExt;
use futures_util::future::try_join_all;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::Harness;
use crate::bench::{Bench, LawResult, at_once};
use crate::history::histories;
use crate::input::{bytes, distinct_keys, invalid_ttl, key, lasting, long_ttl};
use crate::laws::{expect, fits};
use crate::model::{Deadline, Known, Span, play};
use crate::scene::Scene;
use crate::violation::{Violation, ensure, ensure_eq};

fn millis(range: RangeInclusive<u64>) -> impl Strategy<Value = Duration> + Clone {
    range.prop_map(Duration::from_millis)
}

/// TTLs that a case outlasts.
fn short_ttl<H: Harness>(bench: &Bench<'_, H>) -> BoxedStrategy<Duration> {
    if bench.is_virtual() {
        prop_oneof![millis(1..=9), millis(1..=5_000), Just(Duration::from_secs(24 * 60 * 60))]
            .boxed()
    } else {
        millis(20..=60).boxed()
    }
}

pub(crate) fn any_history_keeps_its_deadlines<H: Harness>(bench: &Bench<'_, H>) -> LawResult {
    let (ttls, pauses, side_by_side, most) = if bench.is_virtual() {
        let fraction = (1_u64..9_000_000).prop_map(Duration::from_nanos);
        let ttls = prop_oneof![2 => millis(1..=9), 1 => fraction, 1 => long_ttl()];
        (ttls.boxed(), millis(1..=5).boxed(), 1..=1, 200)
    } else {
        // What expires does so within a pause, and hardly between two calls.
        let ttls = prop_oneof![1 => millis(20..=40), 1 => long_ttl()];
        (ttls.boxed(), millis(55..=70).boxed(), 8..=16, 40)
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

/// The ways to give a key a TTL.
#[derive(Clone, Copy, Debug)]
enum Writer {
    Set,
    Mset,
    SetNx,
    Incr,
    CompareAndSet,
    Expire,
}

const WRITERS: [Writer; 6] =
    [Writer::Set, Writer::Mset, Writer::SetNx, Writer::Incr, Writer::CompareAndSet, Writer::Expire];

impl Writer {
    /// Leaves `b"1"` under `key`, with `ttl`. Only the last call has it.
    async fn write(self, kv: &impl KvStore, key: &[u8], ttl: Duration) -> Result<Span, Violation> {
        let before: &[u8] = match self {
            Self::CompareAndSet => b"0",
            Self::Expire => b"1",
            _ => b"",
        };
        if !before.is_empty() {
            kv.set(key, before, None).await?;
        }
        let (done, span) = Span::of(self.call(kv, key, ttl)).await;
        ensure!(done?, "{self:?} did not write");
        Ok(span)
    }

    async fn call(self, kv: &impl KvStore, key: &[u8], ttl: Duration) -> Result<bool> {
        match self {
            Self::Set => kv.set(key, b"1", Some(ttl)).await.map(|()| true),
            Self::Mset => kv.mset(&[(key, b"1")], Some(ttl)).await.map(|()| true),
            Self::SetNx => kv.set_nx(key, b"1", Some(ttl)).await,
            Self::Incr => kv.incr(key, 1, Some(ttl)).await.map(|_| true),
            Self::CompareAndSet => kv.compare_and_set(key, b"0", b"1", Some(ttl)).await,
            Self::Expire => kv.expire(key, ttl).await,
        }
    }
}

/// The ways to find out whether a key is there.
#[derive(Clone, Copy, Debug)]
enum Looker {
    Get,
    GetWithTtl,
    Exists,
    Ttl,
    Mget,
    Scan,
    Delete,
    DeleteMany,
    Expire,
    SetNx,
    Incr,
    CompareAndSet,
    CompareAndDelete,
}

const LOOKERS: [Looker; 13] = [
    Looker::Get,
    Looker::GetWithTtl,
    Looker::Exists,
    Looker::Ttl,
    Looker::Mget,
    Looker::Scan,
    Looker::Delete,
    Looker::DeleteMany,
    Looker::Expire,
    Looker::SetNx,
    Looker::Incr,
    Looker::CompareAndSet,
    Looker::CompareAndDelete,
];

impl Looker {
    /// Whether the call finds the `b"1"` that was under `key`.
    async fn finds(self, kv: &impl KvStore, key: &[u8]) -> Result<bool> {
        Ok(match self {
            Self::Get => kv.get(key).await?.is_some(),
            Self::GetWithTtl => kv.get_with_ttl(key).await?.is_some(),
            Self::Exists => kv.exists(key).await?,
            Self::Ttl => kv.ttl(key).await?.is_some(),
            Self::Mget => kv.mget(&[key]).await? != [None],
            Self::Scan => !kv.scan(key).try_collect::<Vec<_>>().await?.is_empty(),
            Self::Delete => kv.delete(key).await?,
            Self::DeleteMany => kv.delete_many(&[key]).await? > 0,
            Self::Expire => kv.expire(key, Duration::from_secs(60)).await?,
            Self::SetNx => !kv.set_nx(key, b"1", None).await?,
            Self::Incr => kv.incr(key, 5, None).await?.value != 5,
            Self::CompareAndSet => kv.compare_and_set(key, b"1", b"1", None).await?,
            Self::CompareAndDelete => kv.compare_and_delete(key, b"1").await?,
        })
    }
}

pub(crate) fn expired_is_absent<H: Harness>(bench: &Bench<'_, H>) -> LawResult {
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
    })
}

pub(crate) fn invalid_ttl_writes_nothing<H: Harness>(bench: &Bench<'_, H>) -> LawResult {
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
        let left: Vec<_> = kv.scan(b"").try_collect().await?;
        ensure_eq!(left, vec![bytes::Bytes::copy_from_slice(present)], "what is there afterwards");
        kv.set(absent, b"new", Some(MAX_TTL)).await?;
        Ok(())
    })
}

/// Writes a key with each TTL and looks at all of them until the last must be gone.
async fn watch<H: Harness>(
    scene: &Scene<'_, H>,
    ttls: &[Duration],
    step: Duration,
) -> Result<(), Violation> {
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

pub(crate) fn millisecond_resolution<H: Harness>(bench: &Bench<'_, H>) -> LawResult {
    let (step, most) = if bench.is_virtual() { (1, 40) } else { (3, 150) };
    bench.timed_property(vec(millis(1..=most), 1..30), async |scene, ttls| {
        watch(scene, &ttls, Duration::from_millis(step)).await
    })
}

pub(crate) fn fractions_round_up<H: Harness>(bench: &Bench<'_, H>) -> LawResult {
    let fraction = prop_oneof![
        1 => Just(Duration::from_nanos(1)),
        2 => (1_u64..1_000_000).prop_map(Duration::from_nanos),
        4 => (1_000_001_u64..9_000_000).prop_map(Duration::from_nanos),
    ];
    // The moments that tell rounding up from rounding off lie close before whole milliseconds.
    let step = Duration::from_nanos(if bench.is_virtual() { 249_999 } else { 700_000 });
    bench.timed_property(vec(fraction, 1..12), async |scene, ttls| watch(scene, &ttls, step).await)
}

pub(crate) fn none_clears<H: Harness>(bench: &Bench<'_, H>) -> LawResult {
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

pub(crate) fn value_and_expiry_agree<H: Harness>(bench: &Bench<'_, H>) -> LawResult {
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

pub(crate) fn ttl_within_bounds<H: Harness>(bench: &Bench<'_, H>) -> LawResult {
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

pub(crate) fn expire_creates_nothing<H: Harness>(bench: &Bench<'_, H>) -> LawResult {
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

pub(crate) fn expire_replaces<H: Harness>(bench: &Bench<'_, H>) -> LawResult {
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
        kv.set(b"shortened", b"v", Some(ttl + Duration::from_secs(60))).await?;
        ensure!(kv.expire(b"shortened", ttl).await?, "expire of a present key is false");
        let (written, span) = Span::of(kv.set(b"prolonged", b"v", Some(ttl))).await;
        written?;
        let (prolonged, again) =
            Span::of(kv.expire(b"prolonged", ttl + Duration::from_secs(60))).await;
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
