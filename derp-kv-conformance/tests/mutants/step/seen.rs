//! Stores that make a step of something else than what the key holds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use derp_kv_core::{ErrorKind, Expiry, KvStore, Result, Step, Stepped};
use derp_kv_memory::MemoryStore;
use tokio::time::Instant;

use super::{ask, made, record};
use crate::mutants::defect::{defect, defects};

/// [`made`], with something done to what was seen left of the TTL that the value tells.
async fn seeing(
    kv: &MemoryStore,
    key: &[u8],
    step: &Step,
    sees: impl Fn(Duration, Duration) -> Duration + Send + Sync,
) -> Result<Stepped> {
    let left = |value: &[u8], expiry: Expiry| match expiry {
        Expiry::In(left) if value.len() > 15 => {
            Expiry::In(sees(left, record::ttl(value)).max(Duration::from_nanos(1)))
        }
        expiry => expiry,
    };
    made(kv, key, step, left, |_, _| ()).await
}

/// When this process last wrote each key.
#[derive(Debug, Default)]
pub(crate) struct OwnClock(Mutex<HashMap<Vec<u8>, Instant>>);

/// The first step of each key, for each thing that is asked.
#[derive(Debug, Default)]
pub(crate) struct RemembersLimits(Mutex<HashMap<Vec<u8>, Vec<Step>>>);

/// Where another process counts.
#[derive(Debug, Default)]
pub(crate) struct StepsApart(&'static [u8]);

defect! { OwnClock []
    step(self, kv, key, step) {
        let written = self.0.lock().unwrap().get(key).copied();
        let stepped = seeing(kv, key, step, |left, ttl| {
            written.map_or(left, |written| ttl.saturating_sub(written.elapsed()))
        })
        .await?;
        if stepped.admitted() {
            self.0.lock().unwrap().insert(key.to_vec(), Instant::now());
        }
        Ok(stepped)
    }
    elsewhere(self) { Some(Arc::new(Self::default())) }
}

defect! { RemembersLimits []
    step(self, kv, key, step) {
        let first = {
            let mut all = self.0.lock().unwrap();
            let steps = all.entry(key.to_vec()).or_default();
            let known = steps.iter().find(|known| {
                ask(known) == ask(step) && std::mem::discriminant(*known) == std::mem::discriminant(step)
            });
            known.cloned().unwrap_or_else(|| {
                steps.push(step.clone());
                step.clone()
            })
        };
        kv.step(key, &first).await
    }
}

defect! { StepsApart []
    step(self, kv, key, step) { kv.step(&[key, self.0].concat(), step).await }
    elsewhere(self) { Some(Arc::new(Self(b"/elsewhere"))) }
}

defects! {
    ForeignIsAbsent {
        step(self, kv, key, step) {
            match kv.step(key, step).await {
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    kv.delete(key).await?;
                    kv.step(key, step).await
                }
                answer => answer,
            }
        }
    }
    ForeignIsDeleted {
        step(self, kv, key, step) {
            let answer = kv.step(key, step).await;
            if answer.is_err() {
                kv.delete(key).await?;
            }
            answer
        }
    }
    NeverIsFresh {
        step(self, kv, key, step) {
            let sees = |value: &[u8], expiry| match expiry {
                Expiry::Never if value.len() > 15 => Expiry::In(record::ttl(value)),
                expiry => expiry,
            };
            made(kv, key, step, sees, |_, _| ()).await
        }
    }
    RoundsLeftUp {
        step(self, kv, key, step) {
            let up = |left: Duration, _| Duration::from_secs(left.as_millis().div_ceil(1_000) as u64);
            seeing(kv, key, step, up).await
        }
    }
    RoundsLeftDown {
        step(self, kv, key, step) {
            seeing(kv, key, step, |left, _| Duration::from_millis(left.as_millis() as u64 / 10 * 10)).await
        }
    }
    AgesTwice {
        step(self, kv, key, step) {
            seeing(kv, key, step, |left, ttl| left.saturating_sub(ttl.saturating_sub(left))).await
        }
    }
    StartsOlder {
        step(self, kv, key, step) {
            seeing(kv, key, step, |left, ttl| left.saturating_sub(ttl / 60)).await
        }
    }
    LimitsInKey {
        step(self, kv, key, step) {
            let limits = match step {
                Step::Smooth(step) => step.limits()[0].tolerance().as_millis(),
                Step::Strict(step) => u128::from(step.limits()[0].limit()),
                _ => 0,
            };
            kv.step(&[key, limits.to_string().as_bytes()].concat(), step).await
        }
    }
}
