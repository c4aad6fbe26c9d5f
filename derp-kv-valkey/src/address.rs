//! Host and port of one server.

use std::fmt;

/// Where one server listens.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Address {
    pub(crate) fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port }
    }

    /// Reads what a server calls a node: `host:port`, where an IPv6 host has no brackets and an
    /// empty or unknown host (`?`) means the one that answered.
    pub(crate) fn parse(text: &str, answered_by: &Self) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok().filter(|port| *port != 0)?;
        Some(Self::new(known_host(host, answered_by), port))
    }
}

pub(crate) fn known_host<'a>(host: &'a str, answered_by: &'a Address) -> &'a str {
    if matches!(host, "" | "?") { &answered_by.host } else { host }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
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
        assert_eq!(Address::parse("?:7001", &here), Some(Address::new("kv.example", 7001)));
        assert_eq!(Address::parse("a:0", &here), None);
        assert_eq!(Address::parse("a", &here), None);
    }
}
