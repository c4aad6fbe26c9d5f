//! A read whose connection breaks.

use std::collections::BTreeSet;
use std::fmt::Debug;

use bytes::Bytes;
use derp_kv_core::{Expiry, KvStore, Result};
use futures_util::TryStreamExt;

use super::{CUTS, Cuts, TRIES, healed, passing};
use crate::Cut;
use crate::bench::{Bench, LawResult};
use crate::laws::all_keys;
use crate::scene::Scene;
use crate::violation::{Violation, ensure, ensure_eq};

const READS: [&str; 6] = ["get", "get_with_ttl", "exists", "ttl", "mget", "scan"];

/// More keys than a page of a scan holds.
const KEYS: usize = 3_000;

/// Checks the answer of a read whose connection broke.
pub(super) fn right_or_passing<T: Debug + PartialEq>(
    read: &str,
    cut: Cut,
    answer: Result<T>,
    expected: &T,
) -> Result<(), Violation> {
    match answer {
        Ok(answer) => ensure_eq!(&answer, expected, "the answer of {read}, cut {cut:?},"),
        Err(error) => {
            passing(&error)?;
            ensure!(!error.may_have_applied(), "{read}, which writes nothing, may have applied");
        }
    }
    Ok(())
}

pub(crate) fn reads_are_right_or_fail(bench: &Bench<'_>) -> LawResult {
    // A client may repeat reads by itself, so that none of them fails.
    let cuts = Cuts::default();
    for read in READS {
        bench.severed(async |scene| {
            for number in 0..TRIES {
                for cut in CUTS {
                    let key = format!("{number}/{cut:?}/{read}/").into_bytes();
                    meets(scene, read, &key, cut).await?;
                }
            }
            Ok(())
        })?;
    }
    for cut in CUTS {
        bench.severed(async |scene| scan_in_pages(scene, cut).await)?;
    }
    cuts.probe(bench)?;
    cuts.proved(bench)
}

async fn meets(scene: &mut Scene<'_>, read: &str, key: &[u8], cut: Cut) -> Result<(), Violation> {
    healed(async || scene.store.set(key, b"v", None).await).await?;
    scene.sever(key, cut).await?;
    let (kv, value) = (&scene.store, Bytes::from_static(b"v"));
    match read {
        "get" => right_or_passing(read, cut, kv.get(key).await, &Some(value)),
        "get_with_ttl" => {
            let expected = Some((value, Expiry::Never));
            right_or_passing(read, cut, kv.get_with_ttl(key).await, &expected)
        }
        "exists" => right_or_passing(read, cut, kv.exists(key).await, &true),
        "ttl" => right_or_passing(read, cut, kv.ttl(key).await, &Some(Expiry::Never)),
        "mget" => {
            let asked = kv.mget(&[key, b"nobody"]).await;
            right_or_passing(read, cut, asked, &vec![Some(value), None])
        }
        _ => {
            // A scan may yield a key twice.
            let found = all_keys(kv, key).await.map(BTreeSet::from_iter);
            let expected = BTreeSet::from([Bytes::copy_from_slice(key)]);
            right_or_passing(read, cut, found, &expected)
        }
    }
}

/// The connection breaks between the pages of a scan: the rest of the keys comes, or an error does.
async fn scan_in_pages(scene: &mut Scene<'_>, cut: Cut) -> Result<(), Violation> {
    let prefix = format!("pages {cut:?}/").into_bytes();
    let key = |number: usize| [&prefix[..], format!("{number}/").as_bytes()].concat();
    let keys: BTreeSet<_> = (0..KEYS).map(key).collect();
    let items: Vec<_> = keys.iter().map(|key| (&key[..], &b"v"[..])).collect();
    scene.store.mset(&items, None).await?;
    let store = scene.store.clone();
    let mut scan = store.scan(&prefix);
    let mut found = BTreeSet::new();
    found.extend(scan.try_next().await?);
    // Each page names the prefix, or the key at which it goes on.
    scene.sever(&prefix, cut).await?;
    loop {
        match scan.try_next().await {
            Ok(Some(key)) => drop(found.insert(key)),
            Ok(None) => break,
            Err(error) => {
                passing(&error)?;
                let doubts = error.may_have_applied();
                ensure!(!doubts, "a scan, which writes nothing, may have applied");
                return Ok(());
            }
        }
    }
    let missing = keys.iter().filter(|key| !found.contains(&key[..])).count();
    ensure!(
        missing == 0,
        "a scan whose connection was cut {cut:?} between its pages ends without an error, and \
         {missing} of {KEYS} keys are missing"
    );
    Ok(())
}
