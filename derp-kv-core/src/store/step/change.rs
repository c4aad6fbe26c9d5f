use std::time::Duration;

use crate::store::step::record::Value;

/// What a [`Step`](crate::Step) does to its key.
// A box would be an allocation a write.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Change {
    /// Nothing: neither the value nor the expiry is touched.
    Keep,
    /// The key is written, whatever it was.
    Set {
        /// What it holds then.
        value: Value,
        /// How long it lasts then: whole milliseconds, never zero.
        ttl: Duration,
    },
    /// The key is deleted.
    Delete,
}
