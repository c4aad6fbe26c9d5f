//! A store after its connection broke.

use std::cell::Cell;
use std::time::Duration;

use bytes::Bytes;
use derp_kv_core::KvStore;
use futures_util::future::{join, join_all};
use tokio::time::{sleep, timeout};

use super::reads::right_or_passing;
use super::{CUTS, Cuts, healed};
use crate::Cut;
use crate::bench::{Bench, LawResult};
use crate::laws::wait::{FOREVER, heard, knows_of_changes};
use crate::scene::Scene;
use crate::violation::{Violation, ensure_eq};

const CALLERS: usize = 16;

/// After which a waiter sleeps inside of the store: no event tells.
const ASLEEP: Duration = Duration::from_millis(150);

pub(crate) fn heals(bench: &Bench<'_>) -> LawResult {
    let cuts = Cuts::default();
    for cut in CUTS {
        bench.severed(async |scene| serves_again(scene, cut).await)?;
    }
    let knows = Cell::new(false);
    bench.severed(async |scene| {
        knows.set(knows_of_changes(scene).await?);
        Ok(())
    })?;
    for cut in CUTS.into_iter().filter(|_| knows.get()) {
        bench.severed(async |scene| still_hears(scene, cut).await)?;
    }
    cuts.probe(bench)?;
    cuts.proved(bench)
}

async fn serves_again(scene: &mut Scene<'_>, cut: Cut) -> Result<(), Violation> {
    let keys: Vec<_> = (0..CALLERS).map(|n| format!("{cut:?}/{n}/").into_bytes()).collect();
    for key in &keys {
        // Each key holds itself: an answer to another call shows.
        healed(async || scene.store.set(key, key, None).await).await?;
    }
    scene.sever(&keys[CALLERS / 2], cut).await?;
    let kv = &scene.store;
    let answers = join_all(keys.iter().map(|key| kv.get(key))).await;
    for (key, answer) in keys.iter().zip(answers) {
        let expected = Some(Bytes::copy_from_slice(key));
        right_or_passing("a get beside others", cut, answer, &expected)?;
    }
    for key in &keys {
        let found = healed(async || kv.get(key).await).await?;
        ensure_eq!(found.as_deref(), Some(&key[..]), "what is found once it healed");
        healed(async || kv.set(key, b"again", None).await).await?;
        let found = healed(async || kv.get(key).await).await?;
        ensure_eq!(found.as_deref(), Some(&b"again"[..]), "what is written once it healed");
    }
    Ok(())
}

/// Waiters hear of what another process changes after the connection broke: under a call beside the
/// one that sleeps, and under the other's own wait.
async fn still_hears(scene: &mut Scene<'_>, cut: Cut) -> Result<(), Violation> {
    const ASLEEP_KEY: &[u8] = b"asleep/";
    const OWN_KEY: &[u8] = b"own/";
    const BESIDE: &[u8] = b"beside/";
    let (kv, other) = (scene.store.clone(), scene.handles(2).await?.remove(1));
    for key in [ASLEEP_KEY, OWN_KEY] {
        kv.set(key, b"1", None).await?;
    }
    scene.sever(OWN_KEY, cut).await?;
    let hears = async |key: &[u8]| {
        let seen = Some(&b"1"[..]);
        loop {
            kv.wait_for_change(key, seen, FOREVER).await;
            if healed(async || kv.get(key).await).await?.as_deref() != seen {
                return Ok::<_, Violation>(());
            }
        }
    };
    let change = async {
        sleep(ASLEEP).await;
        scene.sever(BESIDE, cut).await?;
        // It fails, or was repeated: what counts is that the connection broke.
        drop(kv.get(BESIDE).await);
        healed(async || kv.get(BESIDE).await).await?;
        sleep(ASLEEP).await;
        for key in [ASLEEP_KEY, OWN_KEY] {
            healed(async || other.set(key, b"2", None).await).await?;
        }
        Ok::<_, Violation>(())
    };
    let all = join(
        change,
        join(
            within(hears(ASLEEP_KEY), "under another call"),
            within(hears(OWN_KEY), "under its wait"),
        ),
    );
    let (changed, (asleep, own)) = all.await;
    changed?;
    asleep?;
    own.map_err(|violation| violation.within(format!("cut {cut:?}: ")))
}

async fn within(
    hears: impl Future<Output = Result<(), Violation>>,
    whose: &str,
) -> Result<(), Violation> {
    let bound = heard() + ASLEEP * 2;
    timeout(bound, hears).await.unwrap_or_else(|_| {
        Err(Violation::new(format!(
            "a waiter whose connection broke {whose} slept through a change that was made later: \
             {bound:?} went by"
        )))
    })
}
