use std::time::Duration;

use derp_kv_core::{KvStore, Result};
use futures_util::TryStreamExt;
use tokio::time::Instant;

use super::calls::{Looker, WRITERS, Writer};
use super::timetable::{Fate, Look, Moment, Way, keep};
use crate::bench::{Bench, LawResult};
use crate::input::Blob;
use crate::model::{Known, Span};
use crate::resolution;
use crate::scene::Scene;
use crate::violation::{Violation, ensure, ensure_eq};

/// What is done to a key that holds `b"1"`, which leaves its value.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Again {
    // Writes of what is there already: each starts the TTL anew.
    Set,
    Mset,
    CompareAndSet,
    Expire,
    // Calls that leave the TTL.
    SetNx,
    IncrByZero,
    RefusedSwap,
    RefusedDelete,
    Get,
    GetWithTtl,
    Exists,
    Ttl,
    Mget,
    Scan,
}

const AGAIN: [Again; 14] = [
    Again::Set,
    Again::Mset,
    Again::CompareAndSet,
    Again::Expire,
    Again::SetNx,
    Again::IncrByZero,
    Again::RefusedSwap,
    Again::RefusedDelete,
    Again::Get,
    Again::GetWithTtl,
    Again::Exists,
    Again::Ttl,
    Again::Mget,
    Again::Scan,
];

impl Again {
    fn renews(self) -> bool {
        matches!(self, Self::Set | Self::Mset | Self::CompareAndSet | Self::Expire)
    }

    /// Whether the call came to what it must come to.
    async fn call(self, kv: &impl KvStore, key: &[u8], ttl: Duration) -> Result<bool> {
        Ok(match self {
            Self::Set => kv.set(key, b"1", Some(ttl)).await.map(|()| true)?,
            Self::Mset => kv.mset(&[(key, b"1")], Some(ttl)).await.map(|()| true)?,
            Self::CompareAndSet => kv.compare_and_set(key, b"1", b"1", Some(ttl)).await?,
            Self::Expire => kv.expire(key, ttl).await?,
            Self::SetNx => !kv.set_nx(key, b"1", Some(ttl)).await?,
            Self::IncrByZero => kv.incr(key, 0, Some(ttl)).await?.value == 1,
            Self::RefusedSwap => !kv.compare_and_set(key, b"2", b"1", Some(ttl)).await?,
            Self::RefusedDelete => !kv.compare_and_delete(key, b"2").await?,
            Self::Get => kv.get(key).await?.is_some(),
            Self::GetWithTtl => kv.get_with_ttl(key).await?.is_some(),
            Self::Exists => kv.exists(key).await?,
            Self::Ttl => kv.ttl(key).await?.is_some(),
            Self::Mget => kv.mget(&[key]).await? != [None],
            Self::Scan => !kv.scan(key).try_collect::<Vec<_>>().await?.is_empty(),
        })
    }
}

pub(crate) fn equal_writes_renew(bench: &Bench<'_>) -> LawResult {
    let ttl = Duration::from_secs(60).max(resolution::promised() * 20);
    bench.single_thread(async |scene| {
        // Longer than what is left of the TTL may be out by.
        let real = Duration::from_millis(50) + scene.slack() * 2;
        let pause = if scene.is_virtual() { ttl / 3 } else { real };
        let mut keys = Vec::new();
        for writer in WRITERS {
            for again in AGAIN {
                let key = format!("{writer:?}, and then twice {again:?}/");
                let span = writer.write(&scene.store, key.as_bytes(), ttl).await?;
                keys.push((key, again, Fate::of(Some(ttl), span)));
            }
        }
        for _ in 0..2 {
            scene.elapse(pause).await;
            for (key, again, fate) in &mut keys {
                let (right, span) = Span::of(again.call(&scene.store, key.as_bytes(), ttl)).await;
                let known = fate.seen_by(span, scene.slack());
                ensure!(right? || known != Known::Present, "`{key}`: a call is answered wrongly");
                if again.renews() {
                    *fate = Fate::of(Some(ttl), span);
                }
                let looks =
                    Look { at: span.ended, key: key.clone(), way: Way::Reports, fate: *fate };
                keep(scene, vec![looks]).await?;
            }
        }
        let ends = keys.into_iter().flat_map(|(key, _, fate)| ends(scene, &key, fate));
        let ends = ends.collect();
        if scene.is_virtual() { keep(scene, ends).await } else { Ok(()) }
    })
}

/// Just before a key ends, and when it has.
fn ends(scene: &Scene<'_>, key: &str, fate: Fate) -> Vec<Look> {
    let Fate::Until(deadline) = fate else { return Vec::new() };
    let moments = [Moment::Before, Moment::After].map(|moment| moment.of(&deadline, scene));
    let look = |at| Look { at, key: key.to_owned(), way: Way::Reports, fate };
    moments.map(look).into()
}

/// What becomes of a key between two writes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Between {
    Nothing,
    Delete,
    DeleteMany,
    CompareAndDelete,
    Expired,
}

/// The one that lets time pass comes first: what the others write is looked at from its beginning.
const BETWEEN: [Between; 5] = [
    Between::Expired,
    Between::Nothing,
    Between::Delete,
    Between::DeleteMany,
    Between::CompareAndDelete,
];

impl Between {
    /// Whether the call found the `b"1"` under `key`.
    async fn removes(self, kv: &impl KvStore, key: &[u8]) -> Result<bool> {
        match self {
            Self::Nothing | Self::Expired => Ok(true),
            Self::Delete => kv.delete(key).await,
            Self::DeleteMany => kv.delete_many(&[key]).await.map(|count| count == 1),
            Self::CompareAndDelete => kv.compare_and_delete(key, b"1").await,
        }
    }
}

/// TTLs in some unit.
const FIRST: [Option<u32>; 3] = [None, Some(1), Some(3)];
const SECOND: [Option<u32>; 2] = [None, Some(2)];

/// What a key comes to by a write after what it was, and whether the call says that it wrote.
fn outcome(before: Fate, writer: Writer, ttl: Option<Duration>, span: Span) -> (bool, Fate) {
    let written = Fate::of(ttl, span);
    let absent = matches!(before, Fate::Absent);
    match writer {
        Writer::Set | Writer::Mset => (true, written),
        Writer::SetNx if absent => (true, written),
        Writer::SetNx => (false, before),
        Writer::Incr => (true, if absent { written } else { before }),
        Writer::CompareAndSet | Writer::Expire if absent => (false, Fate::Absent),
        Writer::CompareAndSet | Writer::Expire => (true, written),
    }
}

/// The value that a key then has, where it is there.
fn value_after(before: Fate, writer: Writer) -> Option<&'static [u8]> {
    let absent = matches!(before, Fate::Absent);
    match writer {
        Writer::Set | Writer::Mset => Some(b"2"),
        Writer::SetNx | Writer::Incr if absent => {
            Some(if writer == Writer::Incr { b"1" } else { b"2" })
        }
        Writer::Incr => Some(b"2"),
        Writer::CompareAndSet | Writer::Expire if absent => None,
        Writer::CompareAndSet => Some(b"2"),
        Writer::SetNx | Writer::Expire => Some(b"1"),
    }
}

/// Writes each key twice, in each pair of ways, and tells what it comes to.
async fn twice(
    scene: &Scene<'_>,
    unit: Duration,
    between: Between,
) -> Result<Vec<(String, Fate)>, Violation> {
    let kv = &scene.store;
    let mut keys = Vec::new();
    for first in WRITERS {
        for ttl in FIRST {
            let pointless = first == Writer::Expire && ttl.is_none();
            if pointless || between == Between::Expired && ttl != Some(1) {
                continue;
            }
            // Where each call takes its time, the TTLs that tell most.
            if !scene.is_virtual() && between != Between::Expired && ttl == Some(1) {
                continue;
            }
            for second in WRITERS {
                for again in SECOND {
                    if second == Writer::Expire && again.is_none() {
                        continue;
                    }
                    let tells_little =
                        ttl.is_none() && (again.is_none() || between == Between::Delete);
                    if !scene.is_virtual() && tells_little {
                        continue;
                    }
                    let key =
                        format!("{first:?} with {ttl:?}, {between:?}, {second:?} with {again:?}/");
                    let ttl = ttl.map(|ttl| unit * ttl);
                    let span = first.write(kv, key.as_bytes(), ttl).await?;
                    keys.push((key, Fate::of(ttl, span), second, again.map(|again| unit * again)));
                }
            }
        }
    }
    if between == Between::Expired {
        scene.elapse(unit + scene.slack()).await;
    }
    let mut left = Vec::new();
    for (key, mut before, second, ttl) in keys {
        let (removed, span) = Span::of(between.removes(kv, key.as_bytes())).await;
        let sure = before.seen_by(span, scene.slack()) == Known::Present;
        ensure!(removed? || !sure, "`{key}`: a deletion does not find the key");
        if between != Between::Nothing {
            before = Fate::Absent;
        }
        let values: (&[u8], &[u8]) = (b"1", b"2");
        let (wrote, span) = Span::of(second.call(kv, key.as_bytes(), values, ttl)).await;
        let wrote = wrote?;
        match before.seen_by(span, scene.slack()) {
            Known::Present => {}
            Known::Absent => before = Fate::Absent,
            // Where time is real, it may have expired or not.
            Known::Unsure => continue,
        }
        let (writes, fate) = outcome(before, second, ttl, span);
        ensure!(wrote == writes, "`{key}`: the last call answers {wrote}, not {writes}");
        let (value, span) = Span::of(kv.get(key.as_bytes())).await;
        let value = value?.map(|value| Blob(value.into()));
        if fate.seen_by(span, scene.slack()) == Known::Present {
            let wanted = value_after(before, second).map(Blob::from);
            ensure_eq!(value, wanted, "the value of `{key}`");
        }
        left.push((key, fate));
    }
    Ok(left)
}

pub(crate) fn last_write_decides(bench: &Bench<'_>) -> LawResult {
    bench.single_thread(async |scene| {
        let (unit, between) = if scene.is_virtual() {
            (Duration::from_secs(10).max(resolution::promised() * 10), &BETWEEN[..])
        } else {
            (Duration::from_millis(150), &BETWEEN[..3])
        };
        let mut looks = Vec::new();
        for between in between {
            let keys = twice(scene, unit, *between).await?;
            // At once, and about each moment at which any of the TTLs has ever been to end.
            let now = Instant::now();
            // The last one after whatever runs each minute or each hour.
            let ends = [1, 2, 3, 5, 500].map(|units| now + unit * units);
            let moments: Vec<_> = if scene.is_virtual() {
                let before = ends.map(|end| end - Duration::from_nanos(1));
                let after = ends.map(|end| end + scene.slack());
                [now].into_iter().chain(before).chain(after).map(|at| (at, Way::Reports)).collect()
            } else {
                vec![(now, Way::Reports), (ends[3] + scene.slack(), Way::Finds(Looker::Ttl))]
            };
            for (key, fate) in keys {
                let look = |(at, way)| Look { at, key: key.clone(), way, fate };
                looks.extend(moments.iter().copied().map(look));
            }
        }
        keep(scene, looks).await
    })
}
