//! Whether settings make sense, each by itself and with the others.

use std::time::Duration;

use derp_kv_core::Result;
use rustls::pki_types::ServerName;

use super::{Mode, TlsFiles, ValkeyConfig, field};
use crate::address::Address;

impl ValkeyConfig {
    /// Checks everything that can be checked without a network.
    pub(crate) fn check(&self) -> Result<()> {
        let is_cluster = self.mode == Mode::Cluster;
        let is_unix = self.addresses.iter().any(|address| address.unix_path().is_some());
        let addresses = if is_unix { "unix_socket" } else { "addresses" };
        if let Some(problem) = self.addresses.iter().find_map(Address::problem) {
            return Err(field(addresses, problem));
        }
        let mapped = self.address_map.iter().flat_map(|(announced, reached)| [announced, reached]);
        if let Some(problem) = mapped.into_iter().find_map(Address::problem) {
            return Err(field("address_map", problem));
        }
        let is_twice = |(number, (announced, _)): (usize, &(Address, _))| {
            self.address_map.iter().take(number).any(|(before, _)| before == announced)
        };
        let is_twice = self.address_map.iter().enumerate().any(is_twice);
        let is_visible =
            |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic());
        let timeouts = Duration::from_millis(1)..=Duration::from_secs(3600);
        let (counts, bytes) = (1..=64, 1..=512 * 1024 * 1024);
        let tls_name = self.tls_server_name.as_deref();

        refuse(self.addresses.is_empty(), addresses, "must name at least one [host, port]")?;
        refuse(
            !is_cluster && self.addresses.len() > 1,
            addresses,
            "must hold exactly one [host, port] in standalone mode; for the nodes of a cluster set mode = \"cluster\"",
        )?;
        let needs = "needs mode = \"standalone\" and use_tls = false";
        refuse(is_unix && (is_cluster || self.use_tls), addresses, needs)?;
        let is_mapped = !self.address_map.is_empty();
        refuse(is_mapped && !is_cluster, "address_map", "needs mode = \"cluster\"")?;
        refuse(is_twice, "address_map", "an announced address must not be given twice")?;
        refuse(is_cluster && self.database != 0, "database", "must be 0 in a cluster")?;
        let is_open = self.username.is_some() && self.password.is_none();
        refuse(is_open, "username", "needs a password as well")?;
        let empty = "must not be empty; leave it out for the default user";
        refuse(self.username.as_deref() == Some(""), "username", empty)?;
        let is_half = self.client_cert_file.is_some() != self.client_key_file.is_some();
        refuse(is_half, "client_cert_file", "and client_key_file go together")?;
        for (name, is_set) in [
            ("ca_file", self.ca_file.is_some()),
            ("client_cert_file", self.client_cert_file.is_some()),
            ("tls_server_name", tls_name.is_some()),
        ] {
            refuse(is_set && !self.use_tls, name, "needs use_tls = true")?;
        }
        let is_no_name = tls_name.is_some_and(|name| ServerName::try_from(name).is_err());
        refuse(is_no_name, "tls_server_name", "must be a host name or an IP address")?;
        let is_visible = self.client_name.as_deref().is_none_or(is_visible);
        refuse(!is_visible, "client_name", "must be visible ASCII without spaces")?;
        for (name, timeout) in
            [("op_timeout_ms", self.op_timeout), ("connect_timeout_ms", self.connect_timeout)]
        {
            refuse(!timeouts.contains(&timeout), name, "must be between 1 ms and one hour")?;
        }
        for (name, count) in [("connections", self.connections), ("io_threads", self.io_threads)] {
            refuse(!counts.contains(&count), name, "must be between 1 and 64")?;
        }
        let is_count = (1..=1_000_000).contains(&self.max_in_flight);
        refuse(!is_count, "max_in_flight", "must be between 1 and 1000000")?;
        let is_bytes = bytes.contains(&self.max_bulk_bytes);
        refuse(!is_bytes, "max_bulk_bytes", "must be between 1 and 536870912 (512 MiB)")?;
        if self.use_tls {
            let files = TlsFiles::read(self)?;
            files.roots()?;
            files.client()?;
        }
        Ok(())
    }
}

/// An error about `name` where something `is_wrong`.
fn refuse(is_wrong: bool, name: &str, problem: &str) -> Result<()> {
    if is_wrong { Err(field(name, problem)) } else { Ok(()) }
}
