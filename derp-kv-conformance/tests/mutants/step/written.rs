//! Stores that write something else than what a step comes to.

use std::time::Duration;

use derp_kv_core::{Ask, Change, Expiry, KvStore, Result, Step, Stepped};
use derp_kv_memory::MemoryStore;

use super::{ask, made, record};
use crate::mutants::defect::{defects, gap};

/// [`made`], with something done to what is written.
async fn writing(
    kv: &MemoryStore,
    key: &[u8],
    step: &Step,
    writes: impl Fn(&mut Vec<u8>, &mut Duration),
) -> Result<Stepped> {
    made(kv, key, step, |_, expiry| expiry, writes).await
}

defects! {
    LosesLimits {
        step(self, kv, key, step) {
            writing(kv, key, step, |value, _| record::lose_limits(value)).await
        }
    }
    DropsNanos {
        step(self, kv, key, step) {
            writing(kv, key, step, |value, _| record::drop_nanos(value)).await
        }
    }
    ForgetsOldest {
        step(self, kv, key, step) {
            writing(kv, key, step, |value, _| record::forget_oldest(value)).await
        }
    }
    HalvesTtl {
        step(self, kv, key, step) {
            let halve = |ttl: Duration| (ttl / 2).max(Duration::from_millis(1));
            let sees = |left: Duration, ttl: Duration| ttl.saturating_sub(halve(ttl).saturating_sub(left));
            let sees = |value: &[u8], expiry| match expiry {
                Expiry::In(left) => Expiry::In(sees(left, record::ttl(value))),
                expiry => expiry,
            };
            made(kv, key, step, sees, |_, ttl| *ttl = halve(*ttl)).await
        }
    }
    KeepsOldTtl {
        step(self, kv, key, step) {
            let left = kv.ttl(key).await?.and_then(Expiry::remaining);
            writing(kv, key, step, |_, ttl| *ttl = left.unwrap_or(*ttl)).await
        }
    }
    TtlInSeconds {
        step(self, kv, key, step) {
            writing(kv, key, step, |_, ttl| {
                *ttl = Duration::from_secs(ttl.as_millis().div_ceil(1_000) as u64);
            })
            .await
        }
    }
    RefundsTwice {
        step(self, kv, key, step) {
            if ask(step) == Ask::Refund {
                kv.step(key, step).await?;
            }
            kv.step(key, step).await
        }
    }
    RefundDeletes {
        step(self, kv, key, step) {
            let stepped = kv.step(key, step).await?;
            if ask(step) == Ask::Refund {
                kv.delete(key).await?;
            }
            Ok(stepped)
        }
    }
    RefundIsLost {
        step(self, kv, key, step) {
            let seen = kv.get_with_ttl(key).await?;
            let stepped = kv.step(key, step).await?;
            if let Some((value, expiry)) = seen.filter(|_| ask(step) == Ask::Refund) {
                kv.set(key, &value, expiry.remaining()).await?;
            }
            Ok(stepped)
        }
    }
    StepHasGap {
        step(self, kv, key, step) {
            let seen = kv.get_with_ttl(key).await?;
            let held = seen.as_ref().map(|(value, expiry)| (&value[..], *expiry));
            let (change, stepped) = step.apply(held)?;
            gap().await;
            match change {
                Change::Set { value, ttl } => kv.set(key, &value, Some(ttl)).await?,
                Change::Delete => drop(kv.delete(key).await?),
                _ => {}
            }
            Ok(stepped)
        }
    }
    StepsTwice {
        step(self, kv, key, step) {
            kv.step(key, step).await?;
            kv.step(key, step).await
        }
    }
}
