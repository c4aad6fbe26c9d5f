use std::sync::Arc;
use std::time::Duration;

use derp_kv_core::{Expiry, KvStore};

use crate::bench::{Bench, LawResult};
use crate::erased::Store;
use crate::laws::concurrency::DAY;
use crate::laws::fits;
use crate::nested::{Call, nested};
use crate::side_by_side::{Caller, side_by_side};
use crate::violation::{Violation, ensure};

/// The lengths of the values that race with each other.
const LENGTHS: [[usize; 3]; 4] = [
    [100_000, 70_000, 100_000],
    [65_535, 65_536, 65_537],
    [200_000, 9, 130_000],
    [1 << 20, 1 << 20, 900_000],
];

/// How often each writer writes.
const WRITES: usize = 12;

/// A value that is written, and the TTL that is written with it.
#[derive(Clone, Debug)]
struct Written {
    value: Vec<u8>,
    ttl: Option<Duration>,
}

/// What each of the writers writes: bytes, lengths and TTLs that tell them apart.
fn written(lengths: [usize; 3]) -> Arc<[Written]> {
    let ttls = [None, Some(DAY), Some(DAY * 2)];
    lengths
        .iter()
        .zip(b"abc")
        .zip(ttls)
        .map(|((length, byte), ttl)| Written { value: vec![*byte; *length], ttl })
        .collect()
}

/// Whose value it is, which must be whole.
fn whole<'a>(all: &'a [Written], value: &[u8], call: &str) -> Result<&'a Written, Violation> {
    all.iter().find(|written| written.value == value).ok_or_else(|| {
        let start =
            value.first().map_or(0, |first| value.iter().take_while(|b| *b == first).count());
        Violation::new(format!(
            "{call} reads {} bytes, of which the first {start} are of one write",
            value.len()
        ))
    })
}

fn dated(written: &Written, expiry: Expiry, call: &str) -> Result<(), Violation> {
    let (byte, ttl) = (char::from(written.value[0]), written.ttl);
    ensure!(fits(expiry, ttl), "{call} reads `{byte}`s of a TTL of {ttl:?} with {expiry:?}");
    Ok(())
}

async fn read(kv: &Store, turn: usize, all: &[Written]) -> Result<(), Violation> {
    let absent = |call: &str| Violation::new(format!("{call} finds nothing between two writes"));
    match turn % 3 {
        0 => {
            let value = kv.get(b"k").await?.ok_or_else(|| absent("get"))?;
            whole(all, &value, "get")?;
        }
        1 => {
            let found = kv.get_with_ttl(b"k").await?;
            let (value, expiry) = found.ok_or_else(|| absent("get_with_ttl"))?;
            dated(whole(all, &value, "get_with_ttl")?, expiry, "get_with_ttl")?;
        }
        _ => {
            for value in kv.mget(&[b"k", b"k"]).await? {
                whole(all, &value.ok_or_else(|| absent("mget"))?, "mget")?;
            }
        }
    }
    Ok(())
}

async fn write(kv: &Store, number: usize, turn: usize, all: &[Written]) -> Result<(), Violation> {
    let Written { value, ttl } = &all[number];
    match turn % 3 {
        0 => kv.mset(&[(b"k", value), (b"l", b"")], *ttl).await?,
        1 => {
            let other = &all[(number + 1) % all.len()].value;
            kv.compare_and_set(b"k", other, value, *ttl).await.map(drop)?;
        }
        _ => kv.set(b"k", value, *ttl).await?,
    }
    Ok(())
}

/// Writers and readers on threads.
async fn on_threads(
    handles: &[Store],
    all: &Arc<[Written]>,
    turns: usize,
) -> Result<(), Violation> {
    let stores = (0..5).map(|caller| handles[caller % 2].clone()).collect();
    let (theirs, writers) = (all.clone(), all.len());
    side_by_side(stores, turns, 1, move |caller: Caller, turn| {
        let all = theirs.clone();
        async move {
            let turn = turn.start + caller.number;
            if caller.number < writers {
                return write(&caller.kv, caller.number, turn, &all).await;
            }
            read(&caller.kv, turn, &all).await?;
            read(&caller.kv, turn + 1, &all).await
        }
    })
    .await
    .map(drop)
}

/// A read in the middle of each kind of write, and a write in the middle of each kind of read.
async fn one_inside_the_other(
    handles: &[Store],
    all: &Arc<[Written]>,
    first: usize,
) -> Result<(), Violation> {
    let turns = (0..3).flat_map(|units| (0..3).map(move |way| (units, way)));
    for (turn, (units, way)) in turns.enumerate() {
        for (reading, read_is_stopped) in (0..3).flat_map(|way| [(way, true), (way, false)]) {
            let number = (first + turn + reading) % all.len();
            let before = &all[(number + 1) % all.len()];
            handles[0].set(b"k", &before.value, before.ttl).await?;
            let (reader, writer) = (handles[0].clone(), handles[1].clone());
            let (theirs, its) = (all.clone(), all.clone());
            let mut calls: Vec<Call<()>> = vec![
                Box::pin(async move { read(&reader, reading, &theirs).await }),
                Box::pin(async move { write(&writer, number, way, &its).await }),
            ];
            if !read_is_stopped {
                calls.reverse();
            }
            nested(calls, units).await?;
        }
    }
    Ok(())
}

pub(crate) fn values_are_never_torn(bench: &Bench<'_>) -> LawResult {
    bench.sweep(async |scene, _| {
        let handles = scene.handles(2).await?;
        for (number, lengths) in LENGTHS.into_iter().enumerate() {
            let all = written(lengths);
            scene.store.set(b"k", &all[0].value, all[0].ttl).await?;
            let largest = number == LENGTHS.len() - 1;
            on_threads(&handles, &all, if largest { WRITES / 3 } else { WRITES }).await?;
            let found = scene.store.get_with_ttl(b"k").await?;
            let (value, expiry) = found.ok_or_else(|| Violation::new("the key is absent"))?;
            dated(whole(&all, &value, "at last, get_with_ttl")?, expiry, "get_with_ttl")?;
            if !largest {
                one_inside_the_other(&handles, &all, number).await?;
            }
        }
        Ok(())
    })
}
