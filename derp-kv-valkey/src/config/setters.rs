//! The setters, one for each field of the table.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use derp_kv_core::{Observer, Result};

use super::password::Password;
use super::watcher::Watcher;
use super::{Mode, ValkeyConfig};
use crate::address::Address;

impl ValkeyConfig {
    /// Sets the servers: exactly one in standalone mode, any nodes of the cluster otherwise.
    pub fn addresses<H: Into<String>>(
        mut self,
        addresses: impl IntoIterator<Item = (H, u16)>,
    ) -> Self {
        self.addresses =
            addresses.into_iter().map(|(host, port)| Address::new(host, port)).collect();
        self
    }

    /// Sets the path of a standalone server's Unix socket, in place of the addresses.
    pub fn unix_socket(mut self, path: impl Into<PathBuf>) -> Self {
        self.addresses = vec![Address::Unix(path.into())];
        self
    }

    /// Sets whether the addresses lead to one server or to a cluster.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Sets where the nodes of a cluster are reached whose own addresses lead nowhere from here,
    /// as behind NAT: pairs of what a node announces and where it is reached.
    ///
    /// # Examples
    ///
    /// ```
    /// use derp_kv_valkey::{Mode, ValkeyConfig};
    ///
    /// let config = ValkeyConfig::default()
    ///     .addresses([("kv.example", 17000)])
    ///     .mode(Mode::Cluster)
    ///     .address_map([
    ///         (("10.0.0.1", 7000), ("kv.example", 17000)),
    ///         (("10.0.0.2", 7000), ("kv.example", 17001)),
    ///     ]);
    /// # let _ = config;
    /// ```
    pub fn address_map<A: Into<String>, R: Into<String>>(
        mut self,
        pairs: impl IntoIterator<Item = ((A, u16), (R, u16))>,
    ) -> Self {
        let pairs = pairs.into_iter();
        self.address_map = pairs
            .map(|(announced, reached)| {
                (Address::new(announced.0, announced.1), Address::new(reached.0, reached.1))
            })
            .collect();
        self
    }

    /// Sets the ACL user.
    pub fn username(mut self, username: impl Into<String>) -> Self {
        self.username = Some(username.into());
        self
    }

    /// Sets the password.
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(Password::Fixed(password.into()));
        self
    }

    /// Sets a callback that is asked for the password at each connect, for tokens that expire.
    ///
    /// It runs on a thread where it may block, and should end within the
    /// [`connect_timeout`](Self::connect_timeout). When it fails, so does the connect, with
    /// [`AccessDenied`](derp_kv_core::ErrorKind::AccessDenied); the callback's error is not passed on, for it may
    /// hold a secret: log it there. Two configurations are equal that share one callback.
    ///
    /// # Examples
    ///
    /// ```
    /// use derp_kv_valkey::ValkeyConfig;
    ///
    /// let config = ValkeyConfig::default().username("app").password_from(|| {
    ///     let token = std::fs::read_to_string("/run/secrets/kv-token")?;
    ///     Ok::<_, std::io::Error>(token.trim_end().to_owned())
    /// });
    /// # let _ = config;
    /// ```
    pub fn password_from<E>(
        mut self,
        ask: impl Fn() -> Result<String, E> + Send + Sync + 'static,
    ) -> Self {
        self.password = Some(Password::asked(move || ask().ok()));
        self
    }

    /// Sets the number of the database; only a standalone server has others than 0.
    pub fn database(mut self, database: u32) -> Self {
        self.database = database;
        self
    }

    /// Turns TLS on or off.
    pub fn use_tls(mut self, use_tls: bool) -> Self {
        self.use_tls = use_tls;
        self
    }

    /// Sets the name that every server's certificate must hold, instead of the host.
    ///
    /// The nodes of a cluster often announce IP addresses, and their certificates hold a name.
    pub fn tls_server_name(mut self, name: impl Into<String>) -> Self {
        self.tls_server_name = Some(name.into());
        self
    }

    /// Sets the PEM file of the certificate authorities to accept instead of the system's.
    ///
    /// It is read again for each new connection, so a renewed file needs no restart. The system's
    /// authorities are read once for each store.
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

    /// Sets how many connections lead to each node. More than one keep small requests from waiting
    /// behind large values.
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// Sets how many threads the store's connections are spread over; the stores of a process share
    /// them.
    pub fn io_threads(mut self, io_threads: usize) -> Self {
        self.io_threads = io_threads;
        self
    }

    /// Sets how many requests may be under way on one connection; more wait, under their deadline.
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

    /// Tells `observer` what the helpers do on the store, and what happens behind it:
    ///
    /// * [`Event::Link`](derp_kv_core::Event::Link) for each node. It is *connected* once, *lost* when a
    ///   connection ends or owes an answer and is silent, *failing fast* from when it has been lost for
    ///   the [`op_timeout`](Self::op_timeout), and *back* when it answers again, in this order. With
    ///   several [`connections`](Self::connections) a node is connected and back when all of them are,
    ///   and lost with the first of them. Of a node that has left the cluster nothing more is told.
    /// * [`Event::TopologyChanged`](derp_kv_core::Event::TopologyChanged) when a cluster's map has
    ///   changed: the nodes, or who serves which slot.
    ///
    /// These are told on the store's I/O threads, which must not be held up. A dropped store tells
    /// nothing. Clones of these settings have the same observer and are equal; otherwise settings with
    /// observers differ.
    ///
    /// # Examples
    ///
    /// ```
    /// use derp_kv_core::{Event, Observer};
    /// use derp_kv_valkey::ValkeyConfig;
    ///
    /// #[derive(Debug)]
    /// struct Print;
    ///
    /// impl Observer for Print {
    ///     fn event(&self, event: Event<'_>) {
    ///         if let Event::Link { node, state, .. } = event {
    ///             eprintln!("{node}: {}", state.name());
    ///         }
    ///     }
    /// }
    ///
    /// let config = ValkeyConfig::default().observer(Print);
    /// # let _ = config;
    /// ```
    pub fn observer(mut self, observer: impl Observer + 'static) -> Self {
        self.watcher = Watcher::new(Arc::new(observer));
        self
    }
}
