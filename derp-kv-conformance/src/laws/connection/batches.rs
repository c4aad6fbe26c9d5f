//! Large batches whose connection breaks: a client may send them in parts.

use derp_kv_core::{KvStore, Result};

use super::{CUTS, Cuts, healed, passing};
use crate::Cut;
use crate::bench::{Bench, LawResult};
use crate::violation::{Violation, ensure, with_sources};

/// More keys than a client sends in one part.
const KEYS: usize = 3_000;

#[derive(Clone, Copy, Debug)]
enum Batch {
    Mset,
    DeleteMany,
}

impl Batch {
    async fn call(self, kv: &impl KvStore, keys: &[&[u8]]) -> Result<u64> {
        match self {
            Self::Mset => {
                let items: Vec<_> = keys.iter().map(|key| (*key, &b"2"[..])).collect();
                kv.mset(&items, None).await.map(|()| KEYS as u64)
            }
            Self::DeleteMany => kv.delete_many(keys).await,
        }
    }

    /// How many of the keys the call has changed, by what is found under each.
    fn changed<T>(self, found: &[Option<T>]) -> usize {
        found.iter().filter(|found| found.is_some() == matches!(self, Self::Mset)).count()
    }
}

/// Each batch meets each cut at its last key: what was sent before may have been applied.
pub(super) fn tell_what_was_applied(bench: &Bench<'_>, cuts: &Cuts) -> LawResult {
    for batch in [Batch::Mset, Batch::DeleteMany] {
        for cut in CUTS {
            bench.severed(async |scene| {
                let names: Vec<_> =
                    (0..KEYS).map(|n| format!("{batch:?}/{n}/").into_bytes()).collect();
                let keys: Vec<_> = names.iter().map(Vec::as_slice).collect();
                let kv = scene.store.clone();
                if matches!(batch, Batch::DeleteMany) {
                    Batch::Mset.call(&kv, &keys).await?;
                }
                scene.sever(keys[KEYS - 1], cut).await?;
                let said = batch.call(&kv, &keys).await;
                cuts.note(&said);
                let found = healed(async || kv.mget(&keys).await).await?;
                check(batch, cut, &said, batch.changed(&found))
            })?;
        }
    }
    Ok(())
}

fn check(batch: Batch, cut: Cut, said: &Result<u64>, changed: usize) -> Result<(), Violation> {
    let (is_true, said) = match said {
        Ok(count) => (*count == KEYS as u64 && changed == KEYS, format!("Ok({count})")),
        Err(error) => {
            passing(error)?;
            (error.may_have_applied() || changed == 0, with_sources(error))
        }
    };
    ensure!(
        is_true,
        "{batch:?} of {KEYS} keys, cut {cut:?} at the last of them, said `{said}`, and {changed} \
         of the keys are changed"
    );
    Ok(())
}
