//! The laws of `derp-kv-core`'s `KvStore` as tests for every store.
//!
//! | I want | use |
//! |---|---|
//! | a test for each law on my store | a [`Harness`] and [`conformance_tests!`] |
//! | to know the laws | [the list of them](the_laws), [`LAWS`] |
//! | to run one law, or all laws, in a program | [`run_law`], [`run_all`] |
//! | to publish the result | [`Report`], which `serde` writes as JSON, and [`Report::badge`] |
//! | to declare a law that my store cannot keep | [`Profile::deviates`] |
//! | a store behind a server | [`ChildServer`], [`Shared`], [`Proxy`], [`fresh_prefix`] |
//! | a backend on SQL | [the guide to it](a_backend_on_sql) |
//! | to test a service while a call of the store fails | [`FaultStore`] |
//! | to count the calls of the store in a test | [`CountingStore`] |
//!
#![doc = include_str!("../README.md")]
#![allow(clippy::future_not_send, reason = "a case is driven where its guard is, by `block_on`")]

mod bench;
mod counting;
mod erased;
mod fault;
mod fresh;
mod harness;
mod history;
mod input;
mod laws;
mod linearizability;
mod list;
mod model;
mod nested;
mod newtype;
mod profile;
mod progress;
mod report;
mod resolution;
mod runner;
mod scene;
mod seeds;
mod server;
mod side_by_side;
mod violation;

pub use counting::{CountingStore, Counts};
pub use derp_kv_core::Operation;
pub use fault::{Fault, FaultStore};
pub use fresh::fresh_prefix;
pub use harness::{BoxError, Cut, Harness, NotProvided, Time};
pub use list::{LAWS, Law, law_tables};
pub use profile::Profile;
pub use report::{HarnessReport, LawReport, Report, Verdict};
#[doc(hidden)]
pub use runner::assert_law;
pub use runner::{run_all, run_law};
pub use server::{ChildServer, Proxy, Shared, shared_runtime};

#[doc = include_str!("../LAWS.md")]
pub mod the_laws {}

#[doc = include_str!("../SQL.md")]
pub mod a_backend_on_sql {}

/// Makes one `#[test]` of each law, named `area::law`, on the store that a [`Harness`] opens.
///
/// It stands in a test file or, for several stores in one file, in a module each. The expression
/// is evaluated for each law; what it names must be visible where the macro stands.
///
/// Seeds of failures are kept in a folder beside the file, one file for each area, and are tried
/// first the next time.
#[macro_export]
macro_rules! conformance_tests {
    ($harness:expr) => {
        $crate::for_each_law! { $crate::__law_tests, $harness }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __law_tests {
    (($harness:expr) $($area:ident { $($law:ident: $sentence:literal, since $since:literal;)* })*) => {
        $(mod $area {
            #[allow(unused_imports)]
            use super::*;

            $(#[test]
            fn $law() {
                let id = concat!(stringify!($area), "::", stringify!($law));
                $crate::assert_law($harness, id, env!("CARGO_MANIFEST_DIR"), file!());
            })*
        })*
    };
}
