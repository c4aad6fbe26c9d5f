//! Stores that do something where a step is denied, or only looks.

use derp_kv_core::{Ask, KvStore, RateLimit, Result, Step, Stepped};
use derp_kv_memory::MemoryStore;

use super::{ask, record};
use crate::mutants::defect::defects;

/// Makes the step, and then does something to the value where it was denied.
async fn denying(
    kv: &MemoryStore,
    key: &[u8],
    step: &Step,
    then: impl Fn(&mut Vec<u8>, &Stepped),
) -> Result<Stepped> {
    let stepped = kv.step(key, step).await?;
    if stepped.admitted() || ask(step) != Ask::Admit {
        return Ok(stepped);
    }
    if let Some((value, expiry)) = kv.get_with_ttl(key).await? {
        let mut value = value.to_vec();
        then(&mut value, &stepped);
        kv.set(key, &value, expiry.remaining()).await?;
    }
    Ok(stepped)
}

/// A step that admits under the same limits.
fn admits(step: &Step) -> Result<Step> {
    let limit = match step {
        Step::Strict(step) => RateLimit::all(step.limits().iter().map(|limit| {
            RateLimit::strict(limit.limit().into(), limit.window()).cost(limit.cost().into())
        })),
        // What is owed of a smooth limit, as one that is paid for in one unit.
        Step::Smooth(step) => RateLimit::all(
            step.limits().iter().map(|limit| RateLimit::smooth(1, limit.increment()).burst(1)),
        ),
        _ => return Ok(step.clone()),
    };
    limit.step(Ask::Admit)
}

defects! {
    DenialRenews {
        step(self, kv, key, step) {
            let stepped = kv.step(key, step).await?;
            if let Some((value, _)) = kv.get_with_ttl(key).await?.filter(|_| !stepped.admitted()) {
                kv.expire(key, record::ttl(&value)).await?;
            }
            Ok(stepped)
        }
    }
    DenialWrites {
        step(self, kv, key, step) {
            denying(kv, key, step, |value, _| record::change_nonce(value)).await
        }
    }
    DenialClears {
        step(self, kv, key, step) {
            let stepped = kv.step(key, step).await?;
            if let Some(value) = kv.get(key).await?.filter(|_| !stepped.admitted()) {
                kv.set(key, &value, None).await?;
            }
            Ok(stepped)
        }
    }
    DenialCharges {
        step(self, kv, key, step) {
            denying(kv, key, step, |value, _| record::charge(value, step, |_| true)).await
        }
    }
    DenialChargesOthers {
        step(self, kv, key, step) {
            denying(kv, key, step, |value, stepped| {
                record::charge(value, step, |at| {
                    stepped.standings().get(at).is_some_and(|standing| standing.fits)
                });
            })
            .await
        }
    }
    DenialFills {
        step(self, kv, key, step) {
            denying(kv, key, step, |value, _| {
                for _ in 0..50 {
                    record::charge(value, step, |_| true);
                }
            })
            .await
        }
    }
    DenialDeletes {
        step(self, kv, key, step) {
            let stepped = kv.step(key, step).await?;
            if !stepped.admitted() && ask(step) == Ask::Admit {
                kv.delete(key).await?;
            }
            Ok(stepped)
        }
    }
    PeekCounts {
        step(self, kv, key, step) {
            let stepped = kv.step(key, step).await?;
            if ask(step) == Ask::Peek && !kv.exists(key).await? {
                kv.step(key, &admits(step)?).await?;
            }
            Ok(stepped)
        }
    }
}
