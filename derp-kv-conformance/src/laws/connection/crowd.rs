//! Callers that share a connection when it breaks under one of them.

use derp_kv_core::KvStore;
use futures_util::future::join_all;

use super::{CUTS, Cuts, TRIES, healed, passing};
use crate::bench::{Bench, LawResult};
use crate::violation::{ensure, with_sources};

const CALLERS: usize = 16;

/// Each caller counts on a key of its own. What a client had sent for the others when the connection
/// broke may have been applied as well, and must not be sent again.
pub(super) fn counts_once(bench: &Bench<'_>, cuts: &Cuts) -> LawResult {
    for cut in CUTS {
        bench.severed(async |scene| {
            for number in 0..TRIES {
                let keys: Vec<_> = (0..CALLERS)
                    .map(|caller| format!("crowd {number}/{cut:?}/{caller}/").into_bytes())
                    .collect();
                // All of them have a connection when one breaks.
                healed(async || scene.store.mget(&[&keys[0], b"nobody"]).await).await?;
                scene.sever(&keys[CALLERS / 2], cut).await?;
                let kv = &scene.store;
                let answers = join_all(keys.iter().map(|key| kv.incr(key, 1, None))).await;
                cuts.note(&answers[CALLERS / 2]);
                for (key, said) in keys.iter().zip(answers) {
                    let found = healed(async || kv.get(key).await).await?;
                    let found = found.as_deref();
                    let right = match &said {
                        Ok(counter) => counter.value == 1 && found == Some(b"1"),
                        Err(error) => {
                            passing(error)?;
                            found.is_none() || (found == Some(b"1") && error.may_have_applied())
                        }
                    };
                    let said = match &said {
                        Ok(counter) => counter.value.to_string(),
                        Err(error) => with_sources(error),
                    };
                    let found = found.map(|found| found.escape_ascii().to_string());
                    ensure!(
                        right,
                        "an incr by 1 of an absent key, while another call of the {CALLERS} under \
                         way was cut {cut:?}, said `{said}`, and afterwards {found:?} is found"
                    );
                }
            }
            Ok(())
        })?;
    }
    Ok(())
}
