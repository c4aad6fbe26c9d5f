//! The commands whose arguments depend on what is asked.

use derp_kv_core::Ttl;

/// A TTL in milliseconds, or nothing.
pub(crate) fn ttl(ttl: Option<Ttl>) -> String {
    ttl.map(|ttl| ttl.as_millis().to_string()).unwrap_or_default()
}

/// `SET key value [PX ttl] [condition..]`; the TTL in milliseconds, or empty for none.
pub(crate) fn set<'a>(
    key: &'a [u8],
    value: &'a [u8],
    ttl: &'a str,
    condition: &[&'a [u8]],
) -> Vec<&'a [u8]> {
    let ttl: &[&[u8]] = if ttl.is_empty() { &[] } else { &[b"PX", ttl.as_bytes()] };
    [&[b"SET", key, value], ttl, condition].concat()
}
