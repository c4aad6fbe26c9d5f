//! The keys that helpers make of what callers give them, and what they refuse.

use std::time::Duration;

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::store::inline::Inline;
use crate::store::ttl::Ttl;

/// What the key of a lock ends in. Reserved, so that no caller's key is another key's lock.
pub(crate) const LOCK_SUFFIX: &[u8] = b":lock";

/// The key of a helper's record. One of usual length needs no allocation.
pub(crate) type HelperKey = Inline<128>;

/// The longest id of a helper, in bytes.
pub(crate) const MAX_ID: usize = 1024;

/// How long to sleep between two looks, where the options do not say.
pub(crate) const RETRY_DELAY: Duration = Duration::from_millis(50);

/// How long a lock outlives its holder, where the options do not say.
pub(crate) const LOCK_TTL: Duration = Duration::from_secs(2);

/// What the key of an attempt's marker ends in. Reserved like [`LOCK_SUFFIX`].
pub(crate) const ATTEMPT_SUFFIX: &[u8] = b":attempt";

/// Where the records of each helper are, where the options do not say.
pub(crate) const IDEMPOTENCY_PREFIX: &str = "derp:idempotency";
pub(crate) const WEBHOOK_PREFIX: &str = "derp:webhook";
pub(crate) const RATE_LIMIT_PREFIX: &str = "derp:ratelimit";
pub(crate) const SMOOTH_PREFIX: &str = "derp:smooth";
pub(crate) const STRICT_PREFIX: &str = "derp:strict";

const PREFIXES: [&str; 5] =
    [IDEMPOTENCY_PREFIX, WEBHOOK_PREFIX, RATE_LIMIT_PREFIX, SMOOTH_PREFIX, STRICT_PREFIX];

pub(crate) fn check_key(key: &[u8]) -> Result<()> {
    if key.ends_with(LOCK_SUFFIX) || key.ends_with(ATTEMPT_SUFFIX) {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            "a key must not end in `:lock` or `:attempt`, which are reserved for what helpers keep \
             beside other keys",
        ));
    }
    Ok(())
}

/// Checks the key of a cached value, which is the caller's own choice: it must not reach another
/// helper's records.
pub(crate) fn check_cache_key(key: &[u8]) -> Result<()> {
    check_key(key)?;
    let of = |prefix: &&str| {
        key.strip_prefix(prefix.as_bytes()).is_some_and(|rest| rest.starts_with(b":"))
    };
    match PREFIXES.iter().find(|prefix| of(prefix)) {
        Some(prefix) => Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("the key of a cached value must not begin with `{prefix}:`, which is reserved"),
        )),
        None => Ok(()),
    }
}

/// The key of a helper's record: `{prefix}:{id}`. `own` is the helper's default prefix.
pub(crate) fn helper_key(own: &str, prefix: &str, id: &[u8]) -> Result<HelperKey> {
    let another = |other: &&str| {
        let rest = prefix.strip_prefix(other);
        *other != own && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
    };
    if let Some(other) = PREFIXES.iter().find(|other| another(other)) {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!(
                "`key_prefix` must not be `{other}` or under it: another helper has records there"
            ),
        ));
    }
    if id.is_empty() {
        // All who forget to send one would share a record.
        return Err(Error::new(ErrorKind::InvalidArgument, "an id must not be empty"));
    }
    if id.len() > MAX_ID {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("an id must be at most {MAX_ID} bytes long, this one has {}", id.len()),
        ));
    }
    let mut key = HelperKey::new();
    for part in [prefix.as_bytes(), b":", id] {
        key.push(part);
    }
    check_key(&key)?;
    Ok(key)
}

/// The key of the lock of `key`.
pub(crate) fn lock_key(key: &[u8]) -> Bytes {
    [key, LOCK_SUFFIX].concat().into()
}

/// Checks a duration that an option sets, and names the option.
pub(crate) fn check_duration(option: &str, duration: Duration) -> Result<Duration> {
    Ttl::new(duration).map(Ttl::as_duration).map_err(|error| {
        Error::new(ErrorKind::InvalidArgument, format!("`{option}` is out of range"))
            .with_source(error)
    })
}
