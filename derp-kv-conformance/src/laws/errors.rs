use std::fmt::Write;
use std::time::Duration;

use derp_kv_core::{Error, KvStore};
use proptest::prelude::*;

use crate::Harness;
use crate::bench::{Bench, LawResult};
use crate::input::{Blob, key};
use crate::scene::Scene;
use crate::violation::{Violation, ensure, with_sources};

/// Calls that every store refuses, with a value that must not leak.
async fn refusals<H: Harness>(
    scene: &Scene<'_, H>,
    key: &[u8],
    secret: &[u8],
) -> Result<Vec<(&'static str, Error)>, Violation> {
    let kv = &scene.store;
    let zero = Some(Duration::ZERO);
    kv.set(key, secret, None).await?;
    let calls = [
        ("set", kv.set(key, secret, zero).await.err()),
        ("mset", kv.mset(&[(key, secret)], zero).await.err()),
        ("set_nx", kv.set_nx(b"absent", secret, zero).await.err()),
        ("expire", kv.expire(key, Duration::ZERO).await.err()),
        ("compare_and_set", kv.compare_and_set(key, secret, secret, zero).await.err()),
        ("incr", kv.incr(key, 1, None).await.err()),
    ];
    let mut refusals = Vec::new();
    for (call, error) in calls {
        let accepted = || Violation::new(format!("{call} was accepted"));
        refusals.push((call, error.ok_or_else(accepted)?));
    }
    Ok(refusals)
}

pub(crate) fn never_show_values<H: Harness>(bench: &Bench<'_, H>) -> LawResult {
    // Long enough to be in a message by leakage only.
    let secret = "[g-z]{12,24}".prop_map(|text| Blob(text.into_bytes()));
    bench.property((key(), secret), async |scene, (key, secret)| {
        let hex = secret.iter().fold(String::new(), |mut hex, byte| {
            // Writing to a string cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        let numbers = format!("{:?}", &secret[..]);
        let shapes = [secret.escape_ascii().to_string(), hex, numbers];
        for (call, error) in refusals(scene, &key, &secret).await? {
            for printed in [with_sources(&error), format!("{error:?}"), format!("{error:#?}")] {
                let printed = printed.to_lowercase();
                let shown = shapes.iter().any(|shape| printed.contains(shape));
                ensure!(!shown, "{call}'s error shows the value: {printed}");
            }
        }
        Ok(())
    })
}

pub(crate) fn refusals_are_certain<H: Harness>(bench: &Bench<'_, H>) -> LawResult {
    bench.property((key(), "[a-z]{1,8}"), async |scene, (key, value)| {
        for (call, error) in refusals(scene, &key, value.as_bytes()).await? {
            ensure!(!error.may_have_applied(), "{call} was refused and may have been applied");
            ensure!(!error.is_transient(), "{call} was refused and may be accepted later");
        }
        Ok(())
    })
}
