//! The commands behind the primitives.

use redis::Cmd;

use derp_kv_core::Ttl;

/// `NAME key`.
pub(crate) fn one_key(name: &str, key: &[u8]) -> Cmd {
    let mut cmd = Cmd::with_capacity(2, name.len() + key.len());
    cmd.arg(name).arg(key);
    cmd
}

/// `SET key value [PX ttl]`.
pub(crate) fn set(key: &[u8], value: &[u8], ttl: Option<Ttl>) -> Cmd {
    let mut cmd = Cmd::with_capacity(6, 40 + key.len() + value.len());
    cmd.arg("SET").arg(key).arg(value);
    if let Some(ttl) = ttl {
        cmd.arg("PX").arg(ttl.as_millis());
    }
    cmd
}

/// `SET key value [PX ttl] NX`.
pub(crate) fn set_nx(key: &[u8], value: &[u8], ttl: Option<Ttl>) -> Cmd {
    let mut cmd = set(key, value, ttl);
    cmd.arg("NX");
    cmd
}

/// `SET key value [PX ttl] IFEQ expected`.
pub(crate) fn set_if_eq(key: &[u8], expected: &[u8], value: &[u8], ttl: Option<Ttl>) -> Cmd {
    let mut cmd = set(key, value, ttl);
    cmd.arg("IFEQ").arg(expected);
    cmd
}

/// `DELIFEQ key expected`.
pub(crate) fn del_if_eq(key: &[u8], expected: &[u8]) -> Cmd {
    let mut cmd = one_key("DELIFEQ", key);
    cmd.arg(expected);
    cmd
}

/// `PEXPIRE key ttl`.
pub(crate) fn pexpire(key: &[u8], ttl: Ttl) -> Cmd {
    let mut cmd = one_key("PEXPIRE", key);
    cmd.arg(ttl.as_millis());
    cmd
}
