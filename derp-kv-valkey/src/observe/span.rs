//! Spans of `tracing`, by OpenTelemetry's conventions for Redis. No field holds a key, a value, an argument,
//! a user or a password.

use derp_kv_core::{ErrorKind, Result};
use tracing::field::{Empty, display};
use tracing::{Span, debug, debug_span};

use crate::address::Address;
use crate::config::ValkeyConfig;
use crate::node::connection::Connection;
use crate::protocol::Args;
use crate::protocol::reply::{ErrorReply, Reply};
use crate::protocol::request::{Body, Form, Native, Request};
use crate::protocol::verdict::{Verdict, classify};
use crate::protocol::word::word;

/// What a filter of a subscriber names, wherever in the crate a span or an event is made.
const TARGET: &str = "derp_kv_valkey";

/// What the conventions say where there is no name, or none that may be shown.
const OTHER: &str = "OTHER";

/// The port that the conventions leave out.
const DEFAULT_PORT: u16 = 6379;

/// What the spans of a store say of its server: the configured addresses, which stay the same whatever
/// a cluster looks like.
#[derive(Debug)]
pub(crate) struct Server {
    address: String,
    /// The one port of all addresses.
    port: Option<u16>,
    database: String,
}

impl Server {
    pub(crate) fn of(config: &ValkeyConfig) -> Self {
        let addresses = &config.addresses;
        let first = addresses.first().map_or(DEFAULT_PORT, Address::port);
        let one_port = addresses.iter().all(|address| address.port() == first);
        let endpoint = |address: &Address| match address {
            Address::Tcp { host, .. } if one_port => host.clone(),
            address => address.to_string(),
        };
        let mut endpoints: Vec<_> = addresses.iter().map(endpoint).collect();
        endpoints.sort_unstable();
        endpoints.dedup();
        let is_tcp = addresses.iter().all(|address| address.unix_path().is_none());
        Self {
            address: endpoints.join(","),
            port: Some(first).filter(|port| one_port && is_tcp && *port != DEFAULT_PORT),
            database: config.database.to_string(),
        }
    }
}

/// What a span is of.
struct What<'a> {
    name: &'a str,
    script: Option<&'static str>,
    /// Signed, as all numbers here are: an unsigned one is exported as text.
    batch: Option<i64>,
}

impl<'a> What<'a> {
    fn named(name: &'a str) -> Self {
        Self { name, script: None, batch: None }
    }
}

/// The span of a call to the servers: of one command, however often it has to be sent, or of commands
/// that are sent together.
///
/// Nothing else is made inside of it, so that it is never entered. Dropped, as its call is, it ends
/// without an outcome.
pub(crate) struct CommandSpan(Span);

impl CommandSpan {
    /// A command for one key. Which form of a script is sent depends on the connection, where there is
    /// one by now.
    pub(crate) fn of(
        server: &Server,
        request: &Request<'_>,
        connection: Option<&Connection>,
    ) -> Self {
        Self::new(server, || match &request.body {
            Body::Command(args) => What::named(name_of(args)),
            Body::Script { script, .. } => match connection.map(|to| to.form_of(request)) {
                Some(Form::Native(Native::SetIfEq)) => What::named("SET"),
                Some(Form::Native(Native::DelIfEq)) => What::named("DELIFEQ"),
                _ => What { name: "EVALSHA", script: Some(script.name), batch: None },
            },
        })
    }

    pub(crate) fn of_command(server: &Server, args: Args<'_>) -> Self {
        Self::new(server, || What::named(name_of(args)))
    }

    /// So many commands that are sent together; `name` says which.
    pub(crate) fn of_pipeline(server: &Server, name: &'static str, commands: usize) -> Self {
        Self::new(server, || What { name, script: None, batch: i64::try_from(commands).ok() })
    }

    fn new<'a>(server: &Server, what: impl Fn() -> What<'a>) -> Self {
        Self(debug_span!(
            target: TARGET,
            "derpkv.command",
            otel.kind = "client",
            otel.name = what().name,
            otel.status_code = Empty,
            db.system.name = "redis",
            db.operation.name = what().name,
            db.operation.batch.size = what().batch,
            db.stored_procedure.name = what().script,
            db.namespace = server.database.as_str(),
            db.response.status_code = Empty,
            server.address = server.address.as_str(),
            server.port = server.port.map(i64::from),
            network.peer.address = Empty,
            network.peer.port = Empty,
            "error.type" = Empty,
        ))
    }

    /// Notes which node the answer is from.
    pub(crate) fn reached(&self, connection: &Connection) {
        if self.0.is_disabled() {
            return;
        }
        if let Some(peer) = connection.peer() {
            self.0.record("network.peer.address", display(peer.ip()));
            self.0.record("network.peer.port", i64::from(peer.port()));
        } else if let Some(path) = connection.node.address.unix_path() {
            self.0.record("network.peer.address", display(path.display()));
        }
    }

    /// Tells that the command has to be sent again: what the server of `connection` answered, if it
    /// did, is no answer to the call.
    pub(crate) fn again(&self, connection: &Connection, error: Option<&ErrorReply>) {
        debug!(
            target: TARGET,
            parent: &self.0,
            {
                network.peer.address = connection.peer().map(|peer| display(peer.ip())),
                network.peer.port = connection.peer().map(|peer| i64::from(peer.port())),
                db.response.status_code = error.map(code_of),
            },
            "a command is sent again"
        );
    }

    /// Notes what the server refused the call with.
    pub(crate) fn refused(&self, error: &ErrorReply) {
        self.0.record("db.response.status_code", code_of(error));
    }

    pub(crate) fn failed(&self, kind: ErrorKind) {
        self.0.record("error.type", kind.name());
        self.0.record("otel.status_code", "ERROR");
    }

    pub(crate) fn ended<T>(&self, result: &Result<T>) {
        if let Err(error) = result {
            self.failed(error.kind());
        }
    }

    /// Notes what came of commands that were sent together: the first that was refused, and that keys
    /// are elsewhere, which another message asks for.
    pub(crate) fn ended_pipeline(
        &self,
        connection: &Connection,
        replies: &[Reply],
        from: &Address,
    ) {
        if self.0.is_disabled() {
            return;
        }
        let errors = replies.iter().filter_map(|reply| match reply {
            Reply::ServerError(error) => Some(error),
            _ => None,
        });
        let mut elsewhere = None;
        for error in errors {
            match classify(error, from) {
                Verdict::Moved(_) | Verdict::Ask(_) => elsewhere = elsewhere.or(Some(error)),
                Verdict::Later(kind) | Verdict::Replica(kind) | Verdict::Final(kind) => {
                    self.refused(error);
                    return self.failed(kind.kind());
                }
                Verdict::NoScript => {
                    self.refused(error);
                    return self.failed(ErrorKind::Backend);
                }
            }
        }
        if elsewhere.is_some() {
            self.again(connection, elsewhere);
        }
    }
}

/// The first word of a command, and nothing that a caller may have put there instead.
fn name_of<'a>(args: Args<'a>) -> &'a str {
    word(args.first().copied().unwrap_or_default()).unwrap_or(OTHER)
}

/// The code that an error begins with, and nothing that a script may have put there instead.
fn code_of(error: &ErrorReply) -> &str {
    let code = word(error.code().as_bytes());
    code.filter(|code| code.bytes().all(|byte| byte.is_ascii_uppercase())).unwrap_or(OTHER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Mode;

    fn server(addresses: &[(&str, u16)]) -> (String, Option<u16>) {
        let config = ValkeyConfig::default().addresses(addresses.to_vec()).mode(Mode::Cluster);
        let server = Server::of(&config);
        (server.address, server.port)
    }

    #[test]
    fn the_server_is_what_is_configured() {
        assert_eq!(server(&[("kv.example", 6379)]), ("kv.example".to_owned(), None));
        assert_eq!(server(&[("kv.example", 7000)]), ("kv.example".to_owned(), Some(7000)));
        assert_eq!(server(&[("::1", 7000)]), ("::1".to_owned(), Some(7000)));
        assert_eq!(server(&[("b", 7000), ("a", 7000)]), ("a,b".to_owned(), Some(7000)));
        assert_eq!(server(&[("b", 6379), ("a", 6379), ("a", 6379)]), ("a,b".to_owned(), None));
        assert_eq!(server(&[("b", 7000), ("::1", 7001)]), ("[::1]:7001,b:7000".to_owned(), None));
        let socket = Server::of(&ValkeyConfig::default().unix_socket("/run/kv.sock").database(3));
        assert_eq!((socket.address.as_str(), socket.port), ("/run/kv.sock", None));
        assert_eq!(socket.database, "3");
    }

    #[test]
    fn only_what_looks_like_a_word_is_shown() {
        assert_eq!(name_of(&[b"HGET", b"k"]), "HGET");
        assert_eq!(name_of(&[b"hGet"]), "hGet");
        for odd in [&b""[..], b"user:7", b"hunter2", b"two words", &[b'A'; 33], b"\xff"] {
            assert_eq!(name_of(&[odd]), OTHER, "{odd:?}");
        }
        assert_eq!(name_of(&[]), OTHER);
        let code = |line: &str| code_of(&ErrorReply::new(line.to_owned())).to_owned();
        assert_eq!(code("WRONGTYPE Operation against a key"), "WRONGTYPE");
        assert_eq!(code("secret of a script"), OTHER);
        assert_eq!(code("user:7"), OTHER);
    }
}
