use crate::singleflight::mutant::Mutant;
use crate::store::kv_store::KvStore;

/// Whether the flights of `store` are those of this mutant.
pub(crate) fn is<S: KvStore + ?Sized>(store: &S, mutant: Mutant) -> bool {
    store.flights().is_some_and(|flights| flights.is(mutant))
}
