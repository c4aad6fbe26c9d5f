use super::families::families;
use super::siblings::tell_apart;
use super::sidecars::none_is_the_stores;
use crate::bench::{Bench, LawResult};

pub(crate) fn keys_are_told_apart(bench: &Bench<'_>) -> LawResult {
    // A few families at a time, so that none takes long on a store whose writes are slow.
    families().chunks(12).try_for_each(|families| {
        bench.scenario(async |scene| tell_apart(&scene.store, families).await)
    })?;
    bench.scenario(async |scene| none_is_the_stores(&scene.store).await)
}
