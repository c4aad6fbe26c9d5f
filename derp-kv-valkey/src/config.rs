//! Where the servers are and how to talk to them.

mod check;
mod password;
mod setters;
mod table;
mod tls_files;
mod url;
mod watcher;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use derp_kv_core::{Error, ErrorKind, Result};

use crate::address::Address;
use password::Password;
pub(crate) use tls_files::{KeptTls, TlsFiles};
pub(crate) use watcher::Watcher;

/// Whether the addresses lead to one server or to the nodes of a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mode {
    /// One server.
    #[default]
    Standalone,
    /// A cluster; each address is a node to learn the others from.
    Cluster,
}

/// How to reach Valkey: addresses, credentials, TLS, time-outs and bounds.
///
/// Read it from the `[kv.valkey]` table of a TOML file
/// ([`from_toml_path`](Self::from_toml_path)), as a part of a service's own configuration
/// (`serde::Deserialize`), from a URL ([`from_url`](Self::from_url), `FromStr`), or start from the
/// defaults and chain setters. `Debug` never shows the password.
///
/// | field of `[kv.valkey]` | setter | default | meaning |
/// |---|---|---|---|
/// | `addresses` | [`addresses`](Self::addresses) | `[["localhost", 6379]]` | `[host, port]` pairs: exactly one in standalone mode; any nodes of the cluster otherwise |
/// | `unix_socket` | [`unix_socket`](Self::unix_socket) | none | path of the server's socket, instead of `addresses`; standalone and without TLS |
/// | `mode` | [`mode`](Self::mode) | `"standalone"` | `"standalone"` or `"cluster"` |
/// | `address_map` | [`address_map`](Self::address_map) | `[]` | `[host, port, host, port]`: what a cluster's node announces, and where it is reached |
/// | `username` | [`username`](Self::username) | none | ACL user; needs `password` |
/// | `password` | [`password`](Self::password), [`password_from`](Self::password_from) | none | as a text, or asked for at each connect |
/// | `database` | [`database`](Self::database) | 0 | number of the database; a cluster has 0 only |
/// | `use_tls` | [`use_tls`](Self::use_tls) | `false` | TLS, checked against the system's roots or `ca_file` |
/// | `tls_server_name` | [`tls_server_name`](Self::tls_server_name) | the host | name that every server's certificate must hold |
/// | `ca_file` | [`ca_file`](Self::ca_file) | none | PEM file of the accepted authorities, instead of the system's |
/// | `client_cert_file`, `client_key_file` | [`client_cert`](Self::client_cert) | none | PEM files of the certificate chain and key to show |
/// | `client_name` | [`client_name`](Self::client_name) | none | what `CLIENT LIST` shows |
/// | `op_timeout_ms` | [`op_timeout`](Self::op_timeout) | 2000 | deadline of one operation, waiting and reconnecting included |
/// | `connect_timeout_ms` | [`connect_timeout`](Self::connect_timeout) | 2000 | bound of one attempt to connect: name, TCP, TLS and login |
/// | `connections` | [`connections`](Self::connections) | 1 | connections to each node, 1 to 64 |
/// | `io_threads` | [`io_threads`](Self::io_threads) | 1 | threads that the connections are spread over, 1 to 64 |
/// | `max_in_flight` | [`max_in_flight`](Self::max_in_flight) | 1024 | requests under way on one connection; more wait their turn |
/// | `max_bulk_bytes` | [`max_bulk_bytes`](Self::max_bulk_bytes) | 536870912 | longest key or value: the server's `proto-max-bulk-len` |
///
/// Code alone sets an [`observer`](Self::observer).
///
/// A host is a name or an IP address without its port, IPv6 with or without brackets, with a zone
/// where it needs one (`fe80::1%eth0`). A string field of the form `"$NAME"` takes the environment
/// variable `NAME`, byte for byte; write `"$$..."` for a text that begins with a dollar sign.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use derp_kv_valkey::{Mode, ValkeyConfig};
///
/// let config = ValkeyConfig::from_toml_str(
///     r#"
///     [kv.valkey]
///     addresses = [["kv-1.example", 6379], ["kv-2.example", 6379]]
///     mode = "cluster"
///     "#,
/// )?;
/// let same = ValkeyConfig::default()
///     .addresses([("kv-1.example", 6379), ("kv-2.example", 6379)])
///     .mode(Mode::Cluster);
/// assert_eq!(config, same);
///
/// let error = ValkeyConfig::from_toml_str("[kv.valkey]\nadresses = []").unwrap_err();
/// assert!(error.to_string().contains("adresses"));
/// # Ok::<(), derp_kv_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct ValkeyConfig {
    pub(crate) addresses: Vec<Address>,
    pub(crate) mode: Mode,
    address_map: Vec<(Address, Address)>,
    username: Option<String>,
    password: Option<Password>,
    pub(crate) database: u32,
    pub(crate) use_tls: bool,
    pub(crate) tls_server_name: Option<String>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) client_cert_file: Option<PathBuf>,
    pub(crate) client_key_file: Option<PathBuf>,
    pub(crate) client_name: Option<String>,
    pub(crate) op_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) connections: usize,
    pub(crate) io_threads: usize,
    pub(crate) max_in_flight: usize,
    pub(crate) max_bulk_bytes: usize,
    /// What a store has built from the files; no setting.
    pub(crate) tls: KeptTls,
    pub(crate) watcher: Watcher,
}

impl Default for ValkeyConfig {
    fn default() -> Self {
        Self {
            addresses: vec![Address::new("localhost", 6379)],
            mode: Mode::Standalone,
            address_map: Vec::new(),
            username: None,
            password: None,
            database: 0,
            use_tls: false,
            tls_server_name: None,
            ca_file: None,
            client_cert_file: None,
            client_key_file: None,
            client_name: None,
            op_timeout: Duration::from_secs(2),
            connect_timeout: Duration::from_secs(2),
            connections: 1,
            io_threads: 1,
            max_in_flight: 1024,
            max_bulk_bytes: 512 * 1024 * 1024,
            tls: KeptTls::default(),
            watcher: Watcher::default(),
        }
    }
}

impl ValkeyConfig {
    /// Reads the `[kv.valkey]` table of the TOML file at `path`; other tables are ignored.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](ErrorKind::InvalidArgument): the file cannot be read, or as
    /// [`from_toml_str`](Self::from_toml_str).
    pub fn from_toml_path(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|error| {
            invalid(format!("cannot read the configuration file {}", path.display()))
                .with_source(error)
        })?;
        Self::from_toml_str(&text)
    }

    /// Reads the `[kv.valkey]` table of a TOML text; other tables are ignored.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](ErrorKind::InvalidArgument), naming the field and what would be right:
    /// no such table, an unknown field, a wrong type, an unset environment variable, a port
    /// outside 1 to 65535, an unknown mode, fields that contradict each other, a TLS file that
    /// cannot be read or holds no certificate.
    pub fn from_toml_str(text: &str) -> Result<Self> {
        table::parse(text)
    }

    /// Reads a URL: `valkey://[[user]:password@]host[:port][/database]`, or `valkeys://` for TLS;
    /// `redis://` and `rediss://` mean the same. `unix:///run/valkey.sock` is the path of a socket.
    ///
    /// User, password, host and path are percent-decoded. The URL has no place for the other
    /// settings: chain setters.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](ErrorKind::InvalidArgument), naming the part that is wrong and never
    /// showing the URL, which may hold a password.
    ///
    /// # Examples
    ///
    /// ```
    /// use derp_kv_valkey::ValkeyConfig;
    ///
    /// let config = ValkeyConfig::from_url("valkeys://app:p%40ss@kv.example:6380")?;
    /// assert_eq!(
    ///     config,
    ///     ValkeyConfig::default()
    ///         .addresses([("kv.example", 6380)])
    ///         .username("app")
    ///         .password("p@ss")
    ///         .use_tls(true),
    /// );
    /// # Ok::<(), derp_kv_core::Error>(())
    /// ```
    pub fn from_url(url: &str) -> Result<Self> {
        url::parse(url)
    }

    /// The user and the password for one connect.
    ///
    /// [`AccessDenied`](ErrorKind::AccessDenied) where a callback gives no password.
    pub(crate) async fn credentials(&self) -> Result<(Option<String>, Option<String>)> {
        let password = match &self.password {
            Some(password) => Some(password.ask().await?),
            None => None,
        };
        Ok((self.username.clone(), password))
    }

    /// Where the node is reached that a cluster calls `announced`.
    pub(crate) fn reached_at(&self, announced: Address) -> Address {
        let known = self.address_map.iter().find(|(from, _)| *from == announced);
        known.map_or(announced, |(_, reached)| reached.clone())
    }
}

/// As [`from_url`](ValkeyConfig::from_url).
impl FromStr for ValkeyConfig {
    type Err = Error;

    fn from_str(url: &str) -> Result<Self> {
        Self::from_url(url)
    }
}

pub(crate) fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}

/// An error about one field of the table.
pub(crate) fn field(name: &str, problem: impl fmt::Display) -> Error {
    invalid(format!("[kv.valkey] {name}: {problem}"))
}
