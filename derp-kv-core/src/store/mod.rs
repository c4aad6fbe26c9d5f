//! The trait, the words that it speaks in, and the stores that are made of stores.

pub(crate) mod counter;
pub(crate) mod expiry;
pub(crate) mod inline;
pub(crate) mod kv_store;
pub(crate) mod layered;
#[cfg(feature = "mutants")]
pub(crate) mod mutant;
pub(crate) mod observe;
pub(crate) mod pointers;
pub(crate) mod prefixed;
pub(crate) mod step;
pub(crate) mod ttl;
