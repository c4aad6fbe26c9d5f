//! Stores that make a step in a loop of their own, which is not the core's.

use std::time::Duration;

use derp_kv_core::{Change, Error, ErrorKind, KvStore, Result, Step, Stepped};
use derp_kv_memory::MemoryStore;

use super::record;
use crate::mutants::defect::{defects, gap};

/// What is wrong with the loop.
#[derive(Clone, Copy, PartialEq)]
enum Wrong {
    Sets,
    IgnoresLoss,
    LooksOnce,
    ForgetsNonce,
}

/// Writes what a step makes of what it saw, where that is still there.
async fn swap(
    kv: &MemoryStore,
    key: &[u8],
    seen: Option<&[u8]>,
    value: &[u8],
    ttl: Duration,
) -> Result<bool> {
    match seen {
        None => kv.set_nx(key, value, Some(ttl)).await,
        Some(seen) => kv.compare_and_set(key, seen, value, Some(ttl)).await,
    }
}

async fn by_loop(kv: &MemoryStore, key: &[u8], step: &Step, wrong: Wrong) -> Result<Stepped> {
    let mut first = None;
    for _ in 0..10 {
        let seen = kv.get_with_ttl(key).await?;
        let held = seen.as_ref().map(|(value, expiry)| (&value[..], *expiry));
        let (change, stepped) = match first.take() {
            Some(first) => first,
            None => step.apply(held)?,
        };
        gap().await;
        let seen = held.map(|(value, _)| value);
        let done = match (seen, &change) {
            (Some(_), Change::Set { value, ttl }) if wrong == Wrong::Sets => {
                kv.set(key, value, Some(*ttl)).await?;
                true
            }
            (seen, Change::Set { value, ttl }) => {
                let mut value = value.to_vec();
                if wrong == Wrong::ForgetsNonce {
                    record::forget_nonce(&mut value);
                }
                swap(kv, key, seen, &value, *ttl).await?
            }
            (Some(seen), Change::Delete) => kv.compare_and_delete(key, seen).await?,
            _ => true,
        };
        if done || wrong == Wrong::IgnoresLoss {
            return Ok(stepped);
        }
        if wrong == Wrong::LooksOnce {
            first = Some((change, stepped));
        }
    }
    Err(Error::new(ErrorKind::Unavailable, "others were faster"))
}

defects! {
    LoopSets {
        step(self, kv, key, step) { by_loop(kv, key, step, Wrong::Sets).await }
    }
    LoopIgnoresLoss {
        step(self, kv, key, step) { by_loop(kv, key, step, Wrong::IgnoresLoss).await }
    }
    LoopLooksOnce {
        step(self, kv, key, step) { by_loop(kv, key, step, Wrong::LooksOnce).await }
    }
    LoopForgetsNonce {
        step(self, kv, key, step) { by_loop(kv, key, step, Wrong::ForgetsNonce).await }
    }
}
