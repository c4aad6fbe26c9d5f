//! Stores whose step is not the core's.

mod denied;
mod looped;
mod record;
mod seen;
mod written;

use std::time::Duration;

use derp_kv_core::{Ask, Change, Expiry, KvStore, Result, Step, Stepped};
use derp_kv_memory::MemoryStore;

use super::broken::{Mutant, mutant};
use denied::*;
use looped::*;
use seen::*;
use written::*;

pub(super) fn mutants() -> Vec<Mutant> {
    const ATOMIC: &str = "step::is_atomic";
    const AGREES: &str = "step::agrees_with_the_core";
    const DENIAL: &str = "step::denial_writes_nothing";
    const BOUND: &str = "helpers::rate_limit_keeps_its_bound";
    const WHEN: &str = "helpers::rate_limit_tells_when";
    const ALL: &str = "helpers::rate_limit_takes_all_or_nothing";
    const DENIED: &str = "helpers::rate_limit_denied_takes_nothing";
    const REFUND: &str = "helpers::rate_limit_refund_gives_back";
    const CHANGED: &str = "helpers::rate_limit_binds_at_once";
    let renews = "a step that is denied starts the TTL anew";
    let twice = "a refund is taken twice";
    let loses = "of several limits only the first is kept";
    let charges = "a step that is denied is counted";
    let seconds = "a step's TTL is rounded up to whole seconds";
    let up = "what is left of the key is rounded up to whole seconds";
    let own = "the age of a value is measured by each process's own clock";
    let remembers = "the limits are those of the first step";
    vec![
        mutant::<StepHasGap>(ATOMIC, "a step is a look and a later write"),
        mutant::<StepsTwice>(ATOMIC, "a step is made again, as if its answer had been lost"),
        mutant::<StepsApart>(ATOMIC, "each process counts for itself"),
        mutant::<LoopSets>(ATOMIC, "a step's loop writes with `set`, whatever is there by then"),
        mutant::<LoopIgnoresLoss>(ATOMIC, "a step's loop takes a swap that was lost for done"),
        mutant::<LoopLooksOnce>(ATOMIC, "a step's loop tries again with what it computed before"),
        mutant::<LoopForgetsNonce>(ATOMIC, "a step's loop writes no number of its own"),
        mutant::<ForeignIsAbsent>(AGREES, "a value that no step has written is taken for absent"),
        mutant::<ForeignIsDeleted>(AGREES, "a value that no step has written is deleted"),
        mutant::<NeverIsFresh>(AGREES, "a value without expiry counts as just written"),
        mutant::<RoundsLeftUp>(AGREES, up),
        mutant::<RoundsLeftDown>(
            AGREES,
            "what is left of the key is cut to hundredths of a second",
        ),
        mutant::<OwnClock>(AGREES, own),
        mutant::<LosesLimits>(AGREES, loses),
        mutant::<DropsNanos>(AGREES, "times are kept in whole milliseconds"),
        mutant::<RefundsTwice>(AGREES, twice),
        mutant::<KeepsOldTtl>(AGREES, "a step keeps the TTL that the key has"),
        mutant::<TtlInSeconds>(AGREES, seconds),
        mutant::<RemembersLimits>(AGREES, remembers),
        mutant::<DenialRenews>(DENIAL, renews),
        mutant::<DenialWrites>(DENIAL, "a step that is denied writes another number"),
        mutant::<DenialClears>(DENIAL, "a step that is denied leaves the key without expiry"),
        mutant::<PeekCounts>(DENIAL, "a look is counted where it finds nothing"),
        mutant::<HalvesTtl>(BOUND, "the key of a step is gone after half of its TTL"),
        mutant::<AgesTwice>(BOUND, "time counts twice"),
        mutant::<ForgetsOldest>(BOUND, "a strict limit forgets its oldest counter"),
        mutant::<StartsOlder>(BOUND, "a value counts as a sub-window older than it is"),
        mutant::<RoundsLeftUp>(WHEN, up),
        mutant::<DenialRenews>(WHEN, renews),
        mutant::<LosesLimits>(ALL, loses),
        mutant::<DenialCharges>(ALL, charges),
        mutant::<DenialChargesOthers>(ALL, "a step that one limit denies is counted by the others"),
        mutant::<DenialCharges>(DENIED, charges),
        mutant::<DenialDeletes>(DENIED, "a step that is denied deletes the key"),
        mutant::<DenialFills>(DENIED, "a step that is denied fills the limit"),
        mutant::<RefundsTwice>(REFUND, twice),
        mutant::<RefundDeletes>(REFUND, "a refund deletes the key"),
        mutant::<RefundIsLost>(REFUND, "a refund is answered, and not written"),
        mutant::<RemembersLimits>(CHANGED, remembers),
        mutant::<LimitsInKey>(CHANGED, "what other limits have counted is forgotten"),
    ]
}

/// Looks and writes, with something done to what was seen left, and to what is written.
async fn made(
    kv: &MemoryStore,
    key: &[u8],
    step: &Step,
    sees: impl Fn(&[u8], Expiry) -> Expiry,
    writes: impl Fn(&mut Vec<u8>, &mut Duration),
) -> Result<Stepped> {
    let seen = kv.get_with_ttl(key).await?;
    let held = seen.as_ref().map(|(value, expiry)| (&value[..], sees(value, *expiry)));
    let (change, stepped) = step.apply(held)?;
    match change {
        Change::Set { value, mut ttl } => {
            let mut value = value.to_vec();
            writes(&mut value, &mut ttl);
            kv.set(key, &value, Some(ttl)).await?;
        }
        Change::Delete => drop(kv.delete(key).await?),
        _ => {}
    }
    Ok(stepped)
}

fn ask(step: &Step) -> Ask {
    match step {
        Step::Smooth(step) => step.ask(),
        Step::Strict(step) => step.ask(),
        _ => Ask::Peek,
    }
}
