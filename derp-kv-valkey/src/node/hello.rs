//! The first words on a connection: what is asked, and what a server says about itself.

use std::io;

use derp_kv_core::ErrorKind;

use crate::address::Address;
use crate::config::Mode;
use crate::node::failure::Failure;
use crate::node::identity::{self, NodeId, text};
use crate::protocol::reply::{ErrorReply, Reply};
use crate::protocol::request::Native;
use crate::protocol::verdict::{Verdict, classify, said};

impl Native {
    pub(crate) fn bit(self) -> u8 {
        match self {
            Self::SetIfEq => 1,
            Self::DelIfEq => 2,
        }
    }

    /// The commands that this version has, one bit each.
    fn of(server: &str, version: &str) -> u8 {
        let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0_u32));
        let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        let has = |native: Self, since| if version >= since { native.bit() } else { 0 };
        if server == "valkey" { has(Self::SetIfEq, (8, 1)) | has(Self::DelIfEq, (9, 0)) } else { 0 }
    }
}

/// What is said first on a connection.
pub(crate) struct Greeting<'a> {
    /// Username, if it is not the default user, and password.
    pub(crate) login: Option<(Option<&'a str>, &'a str)>,
    pub(crate) database: u32,
    pub(crate) client_name: Option<&'a str>,
    pub(crate) is_cluster: bool,
}

/// What the server has answered to the greeting.
#[derive(Debug)]
pub(crate) struct Hello {
    pub(crate) is_cluster: bool,
    /// It follows a primary, and may lag behind it.
    pub(crate) is_replica: bool,
    is_sentinel: bool,
    /// The optional commands that this server has, one bit each.
    pub(crate) native: u8,
    /// Whether the server will tell of changed keys.
    pub(crate) tracking: bool,
    /// Which node it is, in a cluster: an address may pass to another one.
    pub(crate) node_id: Option<NodeId>,
}

impl Greeting<'_> {
    /// The commands, word by word, to be sent without waiting in between.
    pub(crate) fn commands(&self) -> Vec<Vec<Vec<u8>>> {
        let database = self.database.to_string();
        let mut hello = vec!["HELLO", "3"];
        if let Some((username, password)) = self.login {
            hello.extend(["AUTH", username.unwrap_or("default"), password]);
        }
        if let Some(name) = self.client_name {
            hello.extend(["SETNAME", name]);
        }
        let mut commands = vec![hello, vec!["CLIENT", "TRACKING", "ON", "OPTIN"]];
        if self.database != 0 {
            commands.push(vec!["SELECT", &database]);
        }
        if self.is_cluster {
            commands.push(vec!["CLUSTER", "MYID"]);
        }
        let words = |command: Vec<&str>| command.into_iter().map(|word| word.into()).collect();
        commands.into_iter().map(words).collect()
    }

    /// Reads the replies to the commands. After an error reply to the first they may end.
    pub(crate) fn read(&self, address: &Address, replies: Vec<Reply>) -> Result<Hello, Failure> {
        let mut replies = replies.into_iter();
        let hello = match replies.next() {
            Some(Reply::ServerError(error)) => return Err(self.refusal(address, &error)),
            Some(hello @ Reply::Map(_)) => hello,
            _ => return Err(stranger(address, b"")),
        };
        let tracking = replies.next();
        if self.database != 0 {
            match replies.next() {
                Some(Reply::Okay) => {}
                Some(Reply::ServerError(error)) => return Err(self.no_database(address, &error)),
                _ => return Err(stranger(address, b"")),
            }
        }
        let field = |name| field(&hello, name).unwrap_or_default();
        Ok(Hello {
            is_cluster: field("mode") == "cluster",
            is_sentinel: field("mode") == "sentinel",
            is_replica: is_replica(&hello),
            native: Native::of(field("server"), field("version")),
            tracking: matches!(tracking, Some(Reply::Okay)),
            node_id: if self.is_cluster {
                replies.next().as_ref().and_then(identity::id)
            } else {
                None
            },
        })
    }

    /// Why the server refuses to be greeted: its own reason, without what it was sent.
    fn refusal(&self, address: &Address, error: &ErrorReply) -> Failure {
        use ErrorKind::{AccessDenied, Unavailable, Unsupported};
        let details = error.details().unwrap_or_default();
        let (kind, message) = match error.code() {
            "WRONGPASS" => (AccessDenied, "the server refuses this username and password"),
            "NOAUTH" => (AccessDenied, "the server wants a password"),
            "DENIED" => (
                AccessDenied,
                "the server is in protected mode, which admits its own host only: give it a password or a user for this client",
            ),
            "NOPROTO" => (Unsupported, NO_RESP3),
            "ERR" if details.starts_with("unknown command") => (Unsupported, NO_RESP3),
            "ERR" if details.starts_with("max number of clients") => {
                (Unavailable, "the server has as many clients as it admits: see its maxclients")
            }
            code => {
                let kind = match classify(error, address) {
                    Verdict::Later(error) | Verdict::Replica(error) | Verdict::Final(error) => {
                        error.kind()
                    }
                    _ => ErrorKind::Backend,
                };
                let quotes = |(_, password): (_, &str)| details.contains(password);
                let message = match self.login.is_some_and(quotes) {
                    true => format!("the server answered {code} to the greeting"),
                    false => said(error),
                };
                return Failure::new(kind, address, message);
            }
        };
        Failure::new(kind, address, message)
    }

    fn no_database(&self, address: &Address, error: &ErrorReply) -> Failure {
        let kind = match error.code() {
            "NOPERM" => ErrorKind::AccessDenied,
            "ERR" => ErrorKind::InvalidArgument,
            _ => ErrorKind::Unavailable,
        };
        let message = format!("database {} cannot be used: {}", self.database, said(error));
        Failure::new(kind, address, message)
    }
}

const NO_RESP3: &str = "the server does not know RESP3 (HELLO): Valkey or Redis 6 or newer is needed, and HELLO must not be renamed";

impl Hello {
    /// Whether it is a server that `mode` can be used with.
    pub(crate) fn check(&self, address: &Address, mode: Mode) -> Result<(), Failure> {
        let (kind, message) = match mode {
            _ if self.is_sentinel => (
                ErrorKind::InvalidArgument,
                "a Sentinel answers there, which stores nothing: give the address of the primary, which `SENTINEL GET-MASTER-ADDR-BY-NAME` tells",
            ),
            Mode::Standalone if self.is_cluster => (
                ErrorKind::InvalidArgument,
                "the server is a node of a cluster: set mode = \"cluster\"",
            ),
            Mode::Cluster if !self.is_cluster => (
                ErrorKind::InvalidArgument,
                "the server is not a node of a cluster: set mode = \"standalone\"",
            ),
            Mode::Standalone if self.is_replica => return Err(replica(address)),
            _ => return Ok(()),
        };
        Err(Failure::new(kind, address, message))
    }
}

/// Whether the answer to `HELLO` is that of a replica.
pub(crate) fn is_replica(hello: &Reply) -> bool {
    matches!(field(hello, "role"), Some("replica" | "slave"))
}

/// The refusal of a replica.
pub(crate) fn replica(address: &Address) -> Failure {
    let message = "the server is a replica, and what is read there may be old: give the address of its primary";
    Failure::new(ErrorKind::ReadOnly, address, message)
}

fn field<'a>(hello: &'a Reply, name: &str) -> Option<&'a str> {
    let Reply::Map(entries) = hello else { return None };
    entries.iter().find(|(key, _)| text(key) == Some(name)).and_then(|(_, value)| text(value))
}

/// What answers at the address is no server of this kind. Its words are not passed on: it may
/// only repeat what it was sent.
pub(crate) fn stranger(address: &Address, received: &[u8]) -> Failure {
    let message = if received.starts_with(b"HTTP/") {
        "an HTTP server answers there: give the address of a Valkey server"
    } else if received.starts_with(&[0x15, 3]) {
        "the server wants TLS: set use_tls = true"
    } else {
        "what answers there is not a Valkey server (its answer is no RESP3 greeting)"
    };
    Failure::new(ErrorKind::InvalidArgument, address, message)
}

/// The server has closed the connection without a word.
pub(crate) fn closed(address: &Address, use_tls: bool, error: Option<io::Error>) -> Failure {
    let message = if use_tls {
        "the server closed the connection before the login (does it want a client certificate, or has it too many clients?)"
    } else {
        "the server closed the connection before the login (does it want TLS, or has it too many clients?)"
    };
    match error {
        Some(error) => Failure::io(address, message, error),
        None => Failure::unavailable(address, message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::decode::Decoder;

    const MOST: Greeting<'_> = Greeting {
        login: Some((None, "hunter2")),
        database: 7,
        client_name: Some("me"),
        is_cluster: true,
    };

    #[test]
    fn the_greeting_asks_for_what_is_configured_and_no_more() {
        let words = |greeting: Greeting<'_>| -> Vec<String> {
            let line = |command: &Vec<Vec<u8>>| String::from_utf8(command.join(&b' ')).unwrap();
            greeting.commands().iter().map(line).collect()
        };
        let hello = "HELLO 3 AUTH default hunter2 SETNAME me";
        assert_eq!(words(MOST), [hello, "CLIENT TRACKING ON OPTIN", "SELECT 7", "CLUSTER MYID"]);
        let least = Greeting { login: None, database: 0, client_name: None, is_cluster: false };
        assert_eq!(words(least), ["HELLO 3", "CLIENT TRACKING ON OPTIN"]);
    }

    #[test]
    fn each_answer_is_read_in_its_place() {
        let read = |tracking: &str, select: &str| {
            let hello = "%2\r\n$6\r\nserver\r\n+valkey\r\n+version\r\n+9.1.2\r\n";
            let replies = [hello, tracking, select, "$3\r\nabc\r\n"];
            let mut decoder = Decoder::new(1024);
            decoder.buffer().extend_from_slice(replies.concat().as_bytes());
            let replies = std::iter::from_fn(|| decoder.next().unwrap()).collect();
            MOST.read(&Address::new("kv.example", 1), replies)
        };
        for (tracking, told) in [("+OK\r\n", true), ("-NOPERM no\r\n", false)] {
            let hello = read(tracking, "+OK\r\n").unwrap();
            assert_eq!((hello.tracking, hello.node_id.as_deref()), (told, Some("abc")));
            assert_eq!(hello.native, Native::SetIfEq.bit() | Native::DelIfEq.bit());
            // Who tells less than all is taken for a primary.
            assert!(!hello.is_replica);
        }
        let failure = read("+OK\r\n", "-ERR DB index is out of range\r\n").unwrap_err();
        assert_eq!(failure.kind, ErrorKind::InvalidArgument);
        let shown = failure.into_error().to_string();
        assert!(shown.contains("database 7") && shown.contains("out of range"), "{shown}");
    }

    #[test]
    fn commands_by_version() {
        let (set, del) = (Native::SetIfEq.bit(), Native::DelIfEq.bit());
        for (server, version, native) in [
            ("valkey", "7.2.4", 0),
            ("valkey", "8.0.1", 0),
            ("valkey", "8.1.0", set),
            ("valkey", "8.10.2", set),
            ("valkey", "9.0.0", set | del),
            ("valkey", "9.1.2", set | del),
            ("valkey", "10.0.0-rc1", set | del),
            ("redis", "9.1.2", 0),
            ("valkey", "", 0),
            ("", "", 0),
        ] {
            assert_eq!(Native::of(server, version), native, "{server} {version}");
        }
    }
}
