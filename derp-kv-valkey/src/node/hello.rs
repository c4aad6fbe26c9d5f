//! What a server says about itself when a connection begins.

use derp_kv_core::ErrorKind;
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, RedisError, Value};

use crate::address::Address;
use crate::config::ValkeyConfig;
use crate::node::failure::Failure;
use crate::protocol::reply::{Verdict, classify};
use crate::protocol::request::Native;

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

/// The server's answer to the greeting.
#[derive(Debug)]
pub(crate) struct Hello {
    pub(crate) is_cluster: bool,
    /// The optional commands that this server has, one bit each.
    pub(crate) native: u8,
    /// Whether the server will tell of changed keys.
    pub(crate) tracking: bool,
}

impl Hello {
    /// Greets on a connection that is logged in, and asks for news of chosen keys.
    pub(crate) async fn ask(
        connection: &MultiplexedConnection,
        address: &Address,
        config: &ValkeyConfig,
    ) -> Result<Self, Failure> {
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.cmd("HELLO").arg(3);
        if let Some(name) = &config.client_name {
            pipeline.arg("SETNAME").arg(name);
        }
        pipeline.cmd("CLIENT").arg("TRACKING").arg("ON").arg("OPTIN");
        let replies = connection.clone().send_packed_commands(&pipeline, 0, 2).await;
        let replies = replies.map_err(|error| login_failure(address, config, &error))?;
        let [hello, tracking] = &replies[..] else {
            return Err(Failure::unavailable(address, "the server's greeting is incomplete"));
        };
        if let Value::ServerError(error) = hello {
            return Err(match classify(error, address) {
                Verdict::Later(error) | Verdict::Replica(error) | Verdict::Final(error) => {
                    Failure::config(address, &error)
                }
                _ => Failure::unavailable(address, "the server refused the greeting"),
            });
        }
        let text = |field| text(hello, field).unwrap_or_default();
        Ok(Self {
            is_cluster: text("mode") == "cluster",
            native: Native::of(&text("server"), &text("version")),
            tracking: matches!(tracking, Value::Okay),
        })
    }
}

fn text(hello: &Value, field: &str) -> Option<String> {
    let Value::Map(entries) = hello else { return None };
    let as_text = |value: &Value| match value {
        Value::SimpleString(text) => Some(text.clone()),
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        _ => None,
    };
    let (_, value) = entries.iter().find(|(name, _)| as_text(name).as_deref() == Some(field))?;
    as_text(value)
}

pub(crate) fn wrong_mode(address: &Address, message: &str) -> Failure {
    Failure::new(ErrorKind::InvalidArgument, address, message)
}

/// Why the first exchange on a new connection failed. The error's text is not passed on: the
/// server may quote what it was sent.
pub(crate) fn login_failure(
    address: &Address,
    config: &ValkeyConfig,
    error: &RedisError,
) -> Failure {
    use redis::ErrorKind as Kind;
    match (error.code(), error.kind()) {
        (Some("WRONGPASS"), _) | (_, Kind::AuthenticationFailed) => Failure::new(
            ErrorKind::AccessDenied,
            address,
            "the server refuses this username and password",
        ),
        (Some("NOAUTH"), _) => {
            Failure::new(ErrorKind::AccessDenied, address, "the server wants a password")
        }
        (Some("NOPERM"), _) => {
            Failure::new(ErrorKind::AccessDenied, address, "this user may not log in")
        }
        (Some(code @ ("LOADING" | "BUSY" | "MASTERDOWN")), _) => {
            Failure::unavailable(address, &format!("the server answered {code}"))
        }
        (_, Kind::RESP3NotSupported) => {
            Failure::new(ErrorKind::Unsupported, address, "the server does not know RESP3")
        }
        (_, Kind::Io) if !config.use_tls => Failure::unavailable(
            address,
            "the server closed the connection before the login (does it want TLS, or has it too many clients?)",
        ),
        (_, Kind::Io) => Failure::unavailable(
            address,
            "the server closed the connection before the login (does it want a client certificate, or has it too many clients?)",
        ),
        _ => Failure::unavailable(address, "the login failed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
