//! Large values and long keys end as small ones do, wherever they are kept.

use std::time::Duration;

use derp_kv_core::{KvStore, Result};

use super::calls::{LOOKERS, Looker};
use crate::scene::Scene;
use crate::violation::{Violation, ensure};

/// Longer than the column, page or buffer that a store begins with.
const LARGE: usize = 100_000;
const LONG: usize = 1_200;

const TTL: Duration = Duration::from_millis(20);

const WRITERS: [&str; 4] = ["set", "mset", "set_nx", "compare_and_set"];

async fn write(kv: &impl KvStore, writer: &str, key: &[u8], value: &[u8]) -> Result<bool> {
    match writer {
        "set" => kv.set(key, value, Some(TTL)).await.map(|()| true),
        "mset" => kv.mset(&[(key, value)], Some(TTL)).await.map(|()| true),
        "set_nx" => kv.set_nx(key, value, Some(TTL)).await,
        _ => {
            kv.set(key, b"before", None).await?;
            kv.compare_and_set(key, b"before", value, Some(TTL)).await
        }
    }
}

async fn finds(kv: &impl KvStore, looker: Looker, key: &[u8], value: &[u8]) -> Result<bool> {
    match looker {
        Looker::CompareAndSet => kv.compare_and_set(key, value, b"1", None).await,
        Looker::CompareAndDelete => kv.compare_and_delete(key, value).await,
        looker => looker.finds(kv, key).await,
    }
}

/// Writes large values and values under long keys with a TTL, and looks for each in each way.
pub(super) async fn ends(scene: &Scene<'_>) -> Result<(), Violation> {
    let kv = &scene.store;
    let (large, small) = (vec![b'v'; LARGE], b"1".to_vec());
    let mut keys = Vec::new();
    for writer in WRITERS {
        for looker in LOOKERS {
            // No key begins with another.
            let short = format!("{writer}, {looker:?}/").into_bytes();
            let mut long = format!("long: {writer}, {looker:?}/").into_bytes();
            long.resize(LONG, b'k');
            for (key, value) in [(short, &large), (long, &small)] {
                ensure!(write(kv, writer, &key, value).await?, "{writer} did not write");
                keys.push((writer, looker, key, value));
            }
        }
    }
    scene.elapse(TTL + scene.slack()).await;
    for (writer, looker, key, value) in keys {
        let (length, bytes) = (key.len(), value.len());
        let found = finds(kv, looker, &key, value).await?;
        ensure!(
            !found,
            "{looker:?} still finds {bytes} bytes under a key of {length} that {writer} left with \
             a TTL of {TTL:?}"
        );
    }
    Ok(())
}
