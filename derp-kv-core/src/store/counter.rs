use crate::error::{Error, ErrorKind, Result};
use crate::store::expiry::Expiry;

/// What [`KvStore::incr`](crate::KvStore::incr) left behind: the new value and its expiry, read
/// in the same atomic step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Counter {
    /// The value after the increment.
    pub value: i64,
    /// When the counter goes away.
    pub expiry: Expiry,
}

impl Counter {
    /// Reads a stored value as a counter: a decimal `i64` exactly as `i64::to_string` prints it.
    ///
    /// Like the counters of Valkey, it refuses a sign of plus, leading zeros, white space and the
    /// empty value. Backends call this so that all of them agree on what an integer is.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotAnInteger`] for everything else.
    ///
    /// # Examples
    ///
    /// ```
    /// use derp_kv_core::{Counter, ErrorKind};
    ///
    /// assert_eq!(Counter::parse(b"-12")?, -12);
    /// for bytes in [&b""[..], b"+1", b"01", b" 1", b"-0", b"1.0", b"9223372036854775808"] {
    ///     assert_eq!(Counter::parse(bytes).unwrap_err().kind(), ErrorKind::NotAnInteger);
    /// }
    /// # Ok::<(), derp_kv_core::Error>(())
    /// ```
    pub fn parse(value: &[u8]) -> Result<i64> {
        let canonical = match value {
            [b'0'] => true,
            [b'-', rest @ ..] | rest => matches!(rest.first(), Some(b'1'..=b'9')),
        };
        std::str::from_utf8(value)
            .ok()
            .filter(|_| canonical)
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| Error::new(ErrorKind::NotAnInteger, "the value is not a decimal i64"))
    }

    /// `value + by`, with overflow as an error.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotAnInteger`] where the sum leaves the range of `i64`.
    pub fn add(value: i64, by: i64) -> Result<i64> {
        value.checked_add(by).ok_or_else(|| {
            Error::new(ErrorKind::NotAnInteger, "the increment would leave the range of i64")
        })
    }
}
