use std::time::Duration;

use derp_kv_core::{Dedup, KvStore, KvStoreExt, RateLimit};

use super::each_fault;
use crate::bench::{Bench, LawResult};
use crate::violation::{ensure, ensure_eq};
use crate::{Fault, Operation};

/// Whether the call at which the store fails is applied all the same.
fn is_applied(fault: Fault) -> bool {
    !matches!(fault, Fault::FailBefore | Fault::Lose)
}

pub(crate) fn already_processed_is_false_once(bench: &Bench<'_>) -> LawResult {
    bench.scenario(async |scene| {
        let options = Dedup::default();
        each_fault(scene, async |case| {
            let call = case.kv.already_processed(&case.id, &options);
            let told = match case.call(call).await {
                Some(Ok(before)) => {
                    ensure!(!before, "a new event is told as processed");
                    true
                }
                Some(Err(error)) => {
                    case.check(&error)?;
                    false
                }
                None => false,
            };
            // Marked where it was told, and where the failed call was applied: in no other case.
            let marked = told || is_applied(case.fault);
            let again = case.other.already_processed(&case.id, &options).await?;
            ensure_eq!(again, marked, "what the next delivery hears");
            let later = case.other.already_processed(&case.id, &options).await?;
            ensure!(later, "one event is told as new twice");
            case.leaves_nothing(&format!("derp:webhook:{}", case.id)).await
        })
        .await
    })
}

pub(crate) fn rate_limit_counts_what_was_applied(bench: &Bench<'_>) -> LawResult {
    const CALLS: u64 = 5;
    const MOST: u64 = 3;
    bench.scenario(async |scene| {
        let limit = RateLimit::new(MOST, Duration::from_secs(60));
        each_fault(scene, async |case| {
            // A counter that something left without an expiry is repaired on the way.
            let key = format!("derp:ratelimit:{}", case.id);
            case.other.set(key.as_bytes(), b"0", None).await?;
            let (mut allowed, mut counted) = (0, 0);
            for _ in 0..CALLS {
                match case.call(case.kv.rate_limit(&case.id, &limit)).await {
                    Some(Ok(status)) => {
                        counted += 1;
                        allowed += u64::from(status.allowed);
                        ensure_eq!(status.count, counted, "the count");
                        ensure_eq!(status.allowed, counted <= MOST, "whether a call is allowed");
                    }
                    failed => {
                        // What failed after it was counted is the expiry alone.
                        let counting = case.kv.last_injected() == Some(Operation::Incr);
                        if let Some(Err(error)) = failed {
                            case.check_after(!counting, &error)?;
                        }
                        counted += u64::from(!counting || is_applied(case.fault));
                    }
                }
            }
            ensure!(allowed <= MOST, "{allowed} calls are allowed, of {MOST}");
            let peeked = case.other.rate_limit_peek(&case.id, &limit).await?;
            ensure_eq!(peeked.count, counted, "the count in the end");
            case.leaves_nothing(&key).await
        })
        .await
    })
}
