//! Real servers for tests: standalone, cluster, TLS, and a proxy that makes faults.
//!
//! Needs the feature `test-server`, Unix, and a `valkey-server` on `PATH` (or its path in
//! `VALKEY_SERVER`). Everything runs on free loopback ports in directories of its own, keeps nothing
//! on disk, and ends with the value that holds it: when it is dropped, when the test panics, and
//! also when the test process is killed.
//!
//! - [`Server`]: one server, to be killed, restarted, frozen and thawed.
//! - [`Cluster`]: primaries and replicas, over TLS too; moves slots, promotes replicas.
//! - [`Certificates`]: a certificate authority with good and bad certificates.
//! - [`Name`]: a host name with the addresses that a test chooses.
//! - [`Proxy`]: between a client and a server; delays, holes, cuts.

mod admin;
mod builder;
mod certificates;
mod cluster;
mod error;
mod faults;
mod migration;
mod name;
mod ports;
mod process;
mod proxy;
mod relay;
mod reply;
mod requests;
mod server;
mod temp_dir;

pub use builder::ServerBuilder;
pub use certificates::{Certificates, ServerCertificate};
pub use cluster::{Cluster, ClusterBuilder, slot_of};
pub use error::{Error, Result};
pub use faults::{Fault, Traffic};
pub use name::Name;
pub use proxy::{Armed, Proxy};
pub use reply::Reply;
pub use server::Server;
