//! One async key-value trait, [`KvStore`], and the helpers that web back ends need on top of it.

mod counter;
mod error;
mod expiry;
mod flights;
mod forward;
mod prefix;
mod store;
mod ttl;

pub use counter::Counter;
pub use error::{Error, ErrorKind, Result};
pub use expiry::Expiry;
pub use flights::Flights;
pub use prefix::Prefixed;
pub use store::KvStore;
pub use ttl::{MAX_TTL, Ttl};
