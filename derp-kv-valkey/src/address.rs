//! Where one server listens.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};

/// Where one server listens.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum Address {
    Tcp {
        /// A name or an IP address; IPv6 without brackets, maybe with a zone (`fe80::1%eth0`).
        host: String,
        port: u16,
    },
    Unix(PathBuf),
}

impl Address {
    /// The brackets of an IPv6 host, which belong to URLs, are taken away.
    pub(crate) fn new(host: impl Into<String>, port: u16) -> Self {
        let host = host.into();
        let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let host = inner.filter(|inner| is_ipv6(inner)).map(str::to_owned).unwrap_or(host);
        Self::Tcp { host, port }
    }

    /// Reads what a server calls a node: `host:port`, where an IPv6 host has no brackets, no host
    /// means the one that answered, and `?` is a host that the server does not know.
    pub(crate) fn parse(text: &str, answered_by: &Self) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = match host {
            "?" => return None,
            "" => answered_by.host(),
            host => host,
        };
        Some(Self::new(host, parse_port(port)?))
    }

    /// The host; that of a Unix socket is this machine.
    pub(crate) fn host(&self) -> &str {
        match self {
            Self::Tcp { host, .. } => host,
            Self::Unix(_) => "localhost",
        }
    }

    /// The port; a Unix socket has none, which is 0.
    pub(crate) fn port(&self) -> u16 {
        match self {
            Self::Tcp { port, .. } => *port,
            Self::Unix(_) => 0,
        }
    }

    pub(crate) fn unix_path(&self) -> Option<&Path> {
        match self {
            Self::Tcp { .. } => None,
            Self::Unix(path) => Some(path),
        }
    }

    /// What is wrong with an address that a user gave, and what would be right.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        let is_name_char = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        match self {
            Self::Unix(_) if !cfg!(unix) => Some("this system has no Unix sockets"),
            Self::Unix(path) if path.as_os_str().is_empty() => Some("the path must not be empty"),
            Self::Unix(_) => None,
            Self::Tcp { port: 0, .. } => Some("a port must be between 1 and 65535"),
            Self::Tcp { host, .. } if host.is_empty() => Some("a host must not be empty"),
            Self::Tcp { host, .. } if is_ipv6(host) => None,
            Self::Tcp { host, .. } if host.contains(',') => Some(
                "a host must be one name or IP address, without commas; each further host is an address of its own, [\"h2\", 6379]",
            ),
            Self::Tcp { host, .. } if host.contains(':') => Some(
                "a host must be a name or an IP address alone; its port is apart from it, [\"h\", 6379]",
            ),
            Self::Tcp { host, .. } if !host.bytes().all(is_name_char) => Some(
                "a host must be a name or an IP address: ASCII letters, digits, `-`, `_` and `.`, without spaces",
            ),
            Self::Tcp { .. } => None,
        }
    }
}

/// A port from 1 to 65535 in digits, without a sign.
pub(crate) fn parse_port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port != 0)
}

/// Whether this is an IPv6 address, with or without a zone.
fn is_ipv6(host: &str) -> bool {
    let (ip, zone) = host.split_once('%').map_or((host, None), |(ip, zone)| (ip, Some(zone)));
    let is_zone = |zone: &str| {
        let is_zone_char = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        !zone.is_empty() && zone.bytes().all(is_zone_char)
    };
    ip.parse::<Ipv6Addr>().is_ok() && zone.is_none_or(is_zone)
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_without_a_host_is_where_the_answer_came_from() {
        let here = Address::new("kv.example", 7000);
        assert_eq!(Address::parse("10.0.0.1:7001", &here), Some(Address::new("10.0.0.1", 7001)));
        assert_eq!(Address::parse("fe80::1:7001", &here), Some(Address::new("fe80::1", 7001)));
        assert_eq!(Address::parse(":7001", &here), Some(Address::new("kv.example", 7001)));
        assert_eq!(Address::parse("?:7001", &here), None);
        assert_eq!(Address::parse("a:0", &here), None);
        assert_eq!(Address::parse("a:+7001", &here), None);
        assert_eq!(Address::parse("a", &here), None);
    }
}
