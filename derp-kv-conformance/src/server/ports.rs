use std::net::{Ipv4Addr, TcpListener};

use crate::{BoxError, fresh};

/// Below the ports that systems hand to outgoing connections: a client that dials a stopped server
/// on such a port could otherwise be given that very port, and connect to itself.
const RANGE: std::ops::Range<u16> = 11_000..32_000;

/// A loopback port that nobody listens on now. Somebody may take it before its user does.
pub(super) fn free_port() -> Result<u16, BoxError> {
    for salt in 0..1000 {
        let offset = fresh::random(salt) % u64::from(RANGE.end - RANGE.start);
        let port = RANGE.start + u16::try_from(offset)?;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err("there is no free port on 127.0.0.1".into())
}
