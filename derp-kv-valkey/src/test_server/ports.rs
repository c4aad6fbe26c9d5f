use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};

use super::{Error, Result};

/// Below the ports that systems hand to outgoing connections: a client that dials a stopped
/// server on such a port could otherwise be given that very port, and connect to itself.
const RANGE: std::ops::Range<u16> = 11_000..32_000;

/// A random number that needs no crate: every `RandomState` has random keys.
pub(super) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// A loopback port that nobody listens on now. Somebody may take it before its user does.
pub(super) fn free_port() -> Result<u16> {
    for _ in 0..1000 {
        let offset = random() % u64::from(RANGE.end - RANGE.start);
        let port = RANGE.start + u16::try_from(offset).unwrap_or_default();
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(Error::new("no free loopback port found"))
}
