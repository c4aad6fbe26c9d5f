//! What an error says whose write carried a value that is nobody's business.

use derp_kv_core::{Error, KvStore, Result};

use super::{CUTS, healed};
use crate::bench::{Bench, LawResult};
use crate::laws::errors::{prints, traces::Traces};
use crate::violation::{Violation, ensure};

const SECRET: &[u8] = b"q7mzx4wkpv2hnt9ryj6sgu3lbfd5c8ae";
const NEXT: &[u8] = b"zq81xw73vu65tp49sr27mn36kj58hg94";

const WRITES: [&str; 5] = ["set", "mset", "set_nx", "compare_and_set", "compare_and_delete"];

/// Writes secrets over connections that break, and reads the errors.
pub(super) fn are_not_shown(bench: &Bench<'_>) -> LawResult {
    bench.severed(async |scene| {
        for cut in CUTS {
            for write in WRITES {
                let key = format!("secret {cut:?}/{write}/").into_bytes();
                if write.starts_with("compare") {
                    healed(async || scene.store.set(&key, SECRET, None).await).await?;
                }
                scene.sever(&key, cut).await?;
                let error = call(&scene.store, write, &key).await.err();
                error.map_or(Ok(()), |error| conceals(write, &error))?;
            }
        }
        Ok(())
    })
}

async fn call(kv: &impl KvStore, write: &str, key: &[u8]) -> Result<()> {
    match write {
        "set" => kv.set(key, SECRET, None).await,
        "mset" => kv.mset(&[(key, SECRET), (b"another", NEXT)], None).await,
        "set_nx" => kv.set_nx(key, SECRET, None).await.map(drop),
        "compare_and_set" => kv.compare_and_set(key, SECRET, NEXT, None).await.map(drop),
        _ => kv.compare_and_delete(key, SECRET).await.map(drop),
    }
}

fn conceals(write: &str, error: &Error) -> Result<(), Violation> {
    let traces = [SECRET, NEXT].map(Traces::of);
    for printed in prints(error) {
        let shown = traces.iter().any(|traces| traces.show_in(&printed));
        ensure!(!shown, "the error of a {write} whose connection broke shows a value: {printed}");
    }
    Ok(())
}
