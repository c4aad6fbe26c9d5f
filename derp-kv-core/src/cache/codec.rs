use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, ErrorKind, Result};

/// How values of a type are stored in a [`Cache`](crate::Cache).
///
/// What is stored is the encoded value and nothing else, so that whoever knows the format reads it. A
/// type whose format changes gets another prefix in its cache, such as `v2:product:`: values of the old
/// format are not found then, and end by themselves.
///
/// # Examples
///
/// A codec for numbers:
///
/// ```
/// use derp_kv_core::bytes::Bytes;
/// use derp_kv_core::{Codec, Error, ErrorKind, Result};
///
/// struct Decimal;
///
/// impl Codec<u64> for Decimal {
///     fn encode(&self, value: &u64) -> Result<Bytes> {
///         Ok(value.to_string().into())
///     }
///     fn decode(&self, bytes: &Bytes) -> Result<u64> {
///         let number = std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok());
///         number.ok_or_else(|| Error::new(ErrorKind::Corrupt, "not a number"))
///     }
/// }
/// ```
pub trait Codec<T>: Send + Sync + 'static {
    /// The stored form of `value`.
    ///
    /// # Errors
    ///
    /// Where it has none. The value then goes to its caller and is not kept.
    fn encode(&self, value: &T) -> Result<Bytes>;

    /// The value of a stored form.
    ///
    /// # Errors
    ///
    /// Where it is none. The value then counts as missing.
    fn decode(&self, bytes: &Bytes) -> Result<T>;
}

/// Stores values as JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Json;

impl<T: Serialize + DeserializeOwned> Codec<T> for Json {
    fn encode(&self, value: &T) -> Result<Bytes> {
        // What went wrong is not passed on: messages of `serde` hold parts of values.
        serde_json::to_vec(value).map(Bytes::from).map_err(|_| {
            let message = "the value cannot be written as JSON, which has text in UTF-8, and maps whose \
                           keys are text, numbers or booleans";
            Error::new(ErrorKind::InvalidArgument, message)
        })
    }

    fn decode(&self, bytes: &Bytes) -> Result<T> {
        serde_json::from_slice(bytes).map_err(|_| {
            Error::new(ErrorKind::Corrupt, "the cached value is no JSON of the expected type")
        })
    }
}

/// Stores bytes as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Raw;

impl Codec<Bytes> for Raw {
    fn encode(&self, value: &Bytes) -> Result<Bytes> {
        Ok(value.clone())
    }

    fn decode(&self, bytes: &Bytes) -> Result<Bytes> {
        Ok(bytes.clone())
    }
}
