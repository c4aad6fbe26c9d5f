//! Singleflight: concurrent callers of one key share one computation within a process.
//!
//! # Vocabulary
//!
//! A *flight* is what the callers of one key share, from the first that misses to the last that
//! leaves. A caller *boards* it and is *aboard* until it returns or is dropped. Most of those
//! aboard *wait*; at most one at a time has each of three duties, and the **newest waiter** gets a
//! duty that falls free, because it is the one with the most time left:
//!
//! * the *watch*: it looks at the store for all who wait: is the value there, is the lock free?
//! * the *lead*: it computes under the lock's lease, and its value is stored;
//! * the *place beside*: it computes although somebody else holds the lock for very long.
//!
//! ```text
//!             board                 newest waiter
//!   caller ----------> waiting ---------------------> watch --- the lock was free ---.
//!                        |  ^                           |                            |
//!                        |  '---- lead or place --------'                            v
//!                        |        left by a drop or a panic <----------- lead, or place beside
//!                        |                                                           |
//!                        '--- landed / failed / broken: everybody aboard returns <---'
//! ```
//!
//! A flight *lands* a value for all aboard, *fails* for all aboard where a computation failed, or
//! *breaks up* where the store failed. A leader that is dropped or panics ends nothing: its lead,
//! with the lease, goes to the newest waiter.
//!
//! A *refresh*, of a value that is still served, has a flight of its own. Nobody waits for that one:
//! whoever finds it in the map knows that a refresh is under way, or was tried a moment ago.

pub(crate) mod aboard;
pub(crate) mod flight;
pub(crate) mod flights;
#[cfg(feature = "mutants")]
pub(crate) mod mutant;
pub(crate) mod state;
