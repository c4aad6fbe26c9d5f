//! Where the servers are and how to talk to them.

mod text;
mod url;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use derp_kv_core::{Error, ErrorKind, Result};

use crate::address::Address;
use crate::node::tls;

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
/// ([`from_toml_path`](Self::from_toml_path)), from a URL ([`from_url`](Self::from_url)), or start
/// from the defaults and chain setters. `Debug` never shows the password.
///
/// | field of `[kv.valkey]` | setter | default | meaning |
/// |---|---|---|---|
/// | `addresses` | [`addresses`](Self::addresses) | `[["localhost", 6379]]` | `[host, port]` pairs: exactly one in standalone mode; any nodes of the cluster otherwise |
/// | `mode` | [`mode`](Self::mode) | `"standalone"` | `"standalone"` or `"cluster"` |
/// | `username` | [`username`](Self::username) | none | ACL user; needs `password` |
/// | `password` | [`password`](Self::password) | none | |
/// | `use_tls` | [`use_tls`](Self::use_tls) | `false` | TLS, checked against the system's roots or `ca_file` |
/// | `ca_file` | [`ca_file`](Self::ca_file) | none | PEM file of the accepted authorities, instead of the system's |
/// | `client_cert_file`, `client_key_file` | [`client_cert`](Self::client_cert) | none | PEM files of the certificate chain and key to show |
/// | `client_name` | [`client_name`](Self::client_name) | none | what `CLIENT LIST` shows |
/// | `op_timeout_ms` | [`op_timeout`](Self::op_timeout) | 2000 | deadline of one operation, waiting and reconnecting included |
/// | `connect_timeout_ms` | [`connect_timeout`](Self::connect_timeout) | 2000 | bound of one attempt to connect: name, TCP, TLS and login |
/// | `max_in_flight` | [`max_in_flight`](Self::max_in_flight) | 1024 | requests under way on one node; more wait their turn |
/// | `max_bulk_bytes` | [`max_bulk_bytes`](Self::max_bulk_bytes) | 536870912 | longest key or value: the server's `proto-max-bulk-len` |
///
/// A string field of the form `"$NAME"` takes the environment variable `NAME`, byte for byte;
/// write `"$$..."` for a text that begins with a dollar sign.
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
#[derive(Clone, PartialEq, Eq)]
#[must_use]
pub struct ValkeyConfig {
    pub(crate) addresses: Vec<Address>,
    pub(crate) mode: Mode,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) use_tls: bool,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) client_cert_file: Option<PathBuf>,
    pub(crate) client_key_file: Option<PathBuf>,
    pub(crate) client_name: Option<String>,
    pub(crate) op_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) max_in_flight: usize,
    pub(crate) max_bulk_bytes: usize,
}

impl Default for ValkeyConfig {
    fn default() -> Self {
        Self {
            addresses: vec![Address::new("localhost", 6379)],
            mode: Mode::Standalone,
            username: None,
            password: None,
            use_tls: false,
            ca_file: None,
            client_cert_file: None,
            client_key_file: None,
            client_name: None,
            op_timeout: Duration::from_secs(2),
            connect_timeout: Duration::from_secs(2),
            max_in_flight: 1024,
            max_bulk_bytes: 512 * 1024 * 1024,
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
        let config = text::parse(text, |name| std::env::var(name).ok())?;
        config.check()?;
        Ok(config)
    }

    /// Reads a URL: `valkey://[user[:password]@]host[:port]`, or `valkeys://` for TLS; `redis://`
    /// and `rediss://` mean the same.
    ///
    /// User and password are percent-decoded. The URL has no place for the other settings: chain
    /// setters.
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
        let config = url::parse(url)?;
        config.check()?;
        Ok(config)
    }

    /// Sets the servers: exactly one in standalone mode, any nodes of the cluster otherwise.
    pub fn addresses<H: Into<String>>(
        mut self,
        addresses: impl IntoIterator<Item = (H, u16)>,
    ) -> Self {
        self.addresses =
            addresses.into_iter().map(|(host, port)| Address::new(host, port)).collect();
        self
    }

    /// Sets whether the addresses lead to one server or to a cluster.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Sets the ACL user.
    pub fn username(mut self, username: impl Into<String>) -> Self {
        self.username = Some(username.into());
        self
    }

    /// Sets the password.
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// Turns TLS on or off.
    pub fn use_tls(mut self, use_tls: bool) -> Self {
        self.use_tls = use_tls;
        self
    }

    /// Sets the PEM file of the certificate authorities to accept instead of the system's.
    ///
    /// It is read again for each new connection, so a renewed file needs no restart.
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(path.into());
        self
    }

    /// Sets the PEM files of the certificate chain and of the private key to show the server.
    ///
    /// They are read again for each new connection.
    pub fn client_cert(mut self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.client_cert_file = Some(cert.into());
        self.client_key_file = Some(key.into());
        self
    }

    /// Sets the name that the server's `CLIENT LIST` shows; no spaces.
    pub fn client_name(mut self, name: impl Into<String>) -> Self {
        self.client_name = Some(name.into());
        self
    }

    /// Sets the deadline of one operation, of a scan's page: waiting its turn, connecting, redirects
    /// and the answer together.
    pub fn op_timeout(mut self, op_timeout: Duration) -> Self {
        self.op_timeout = op_timeout;
        self
    }

    /// Sets the bound of one attempt to connect.
    pub fn connect_timeout(mut self, connect_timeout: Duration) -> Self {
        self.connect_timeout = connect_timeout;
        self
    }

    /// Sets how many requests may be under way on one node; more wait, under their deadline.
    pub fn max_in_flight(mut self, max_in_flight: usize) -> Self {
        self.max_in_flight = max_in_flight;
        self
    }

    /// Sets the longest key or value in bytes; it must not exceed the server's
    /// `proto-max-bulk-len`, because the server closes the connection on a longer one.
    pub fn max_bulk_bytes(mut self, max_bulk_bytes: usize) -> Self {
        self.max_bulk_bytes = max_bulk_bytes;
        self
    }

    /// Checks everything that can be checked without a network.
    pub(crate) fn check(&self) -> Result<()> {
        if self.addresses.is_empty() {
            return Err(field("addresses", "must name at least one [host, port]"));
        }
        for address in &self.addresses {
            if address.host.is_empty() {
                return Err(field("addresses", "a host must not be empty"));
            }
            if address.port == 0 {
                return Err(field("addresses", "a port must be between 1 and 65535"));
            }
        }
        if self.mode == Mode::Standalone && self.addresses.len() > 1 {
            return Err(field(
                "addresses",
                "must hold exactly one [host, port] in standalone mode; for the nodes of a cluster set mode = \"cluster\"",
            ));
        }
        if self.username.is_some() && self.password.is_none() {
            return Err(field("username", "needs a password as well"));
        }
        if self.username.as_deref() == Some("") {
            return Err(field("username", "must not be empty; leave it out for the default user"));
        }
        if self.client_cert_file.is_some() != self.client_key_file.is_some() {
            return Err(field("client_cert_file", "and client_key_file go together"));
        }
        if !self.use_tls {
            for (name, file) in
                [("ca_file", &self.ca_file), ("client_cert_file", &self.client_cert_file)]
            {
                if file.is_some() {
                    return Err(field(name, "needs use_tls = true"));
                }
            }
        }
        if let Some(name) = &self.client_name
            && (name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            return Err(field("client_name", "must be visible ASCII without spaces"));
        }
        for (name, timeout) in
            [("op_timeout_ms", self.op_timeout), ("connect_timeout_ms", self.connect_timeout)]
        {
            if timeout < Duration::from_millis(1) || timeout > Duration::from_secs(3600) {
                return Err(field(name, "must be between 1 ms and one hour"));
            }
        }
        if !(1..=1_000_000).contains(&self.max_in_flight) {
            return Err(field("max_in_flight", "must be between 1 and 1000000"));
        }
        if !(1..=512 * 1024 * 1024).contains(&self.max_bulk_bytes) {
            return Err(field("max_bulk_bytes", "must be between 1 and 536870912 (512 MiB)"));
        }
        if self.use_tls {
            tls::client_config(self)?;
        }
        Ok(())
    }
}

impl fmt::Debug for ValkeyConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ValkeyConfig")
            .field("addresses", &self.addresses)
            .field("mode", &self.mode)
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| "<redacted>"))
            .field("use_tls", &self.use_tls)
            .field("ca_file", &self.ca_file)
            .field("client_cert_file", &self.client_cert_file)
            .field("client_key_file", &self.client_key_file)
            .field("client_name", &self.client_name)
            .field("op_timeout", &self.op_timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("max_in_flight", &self.max_in_flight)
            .field("max_bulk_bytes", &self.max_bulk_bytes)
            .finish()
    }
}

pub(crate) fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}

/// An error about one field of the table.
pub(crate) fn field(name: &str, problem: impl fmt::Display) -> Error {
    invalid(format!("[kv.valkey] {name}: {problem}"))
}
