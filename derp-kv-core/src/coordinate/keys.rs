//! The keys that helpers make of what callers give them, and what they refuse.

use std::time::Duration;

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::store::ttl::Ttl;

/// What the key of a lock ends in. Reserved, so that no caller's key is another key's lock.
pub(crate) const LOCK_SUFFIX: &[u8] = b":lock";

/// The longest id of a helper, in bytes.
const MAX_ID: usize = 1024;

/// How long to sleep between two looks, where the options do not say.
pub(crate) const RETRY_DELAY: Duration = Duration::from_millis(50);

/// How long a lock outlives its holder, where the options do not say.
pub(crate) const LOCK_TTL: Duration = Duration::from_secs(2);

pub(crate) fn check_key(key: &[u8]) -> Result<()> {
    if key.ends_with(LOCK_SUFFIX) {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            "a key must not end in `:lock`, which is reserved for the locks of other keys",
        ));
    }
    Ok(())
}

/// The key of a helper's record: `{prefix}:{id}`.
pub(crate) fn helper_key(prefix: &str, id: &[u8]) -> Result<Bytes> {
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
    let key = [prefix.as_bytes(), b":", id].concat();
    check_key(&key)?;
    Ok(key.into())
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
