use super::{Error, Result};

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reply {
    /// No value.
    Nil,
    /// An integer.
    Int(i64),
    /// A status or a bulk string.
    Bytes(Vec<u8>),
    /// Several answers.
    Array(Vec<Reply>),
    /// A refusal, with its code: `WRONGTYPE Operation against …`.
    Refused(String),
}

impl Reply {
    /// The integer; a decimal string counts.
    ///
    /// # Errors
    ///
    /// When the answer is something else.
    pub fn int(&self) -> Result<i64> {
        match self {
            Self::Int(value) => Ok(*value),
            Self::Bytes(bytes) => {
                { std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()) }
                    .ok_or_else(|| Error::new(format!("expected an integer, got {self:?}")))
            }
            _ => Err(Error::new(format!("expected an integer, got {self:?}"))),
        }
    }

    /// The string.
    ///
    /// # Errors
    ///
    /// When the answer is something else, or not UTF-8.
    pub fn text(&self) -> Result<&str> {
        match self {
            Self::Bytes(bytes) => std::str::from_utf8(bytes)
                .map_err(|_| Error::new("expected text, got other bytes".to_owned())),
            _ => Err(Error::new(format!("expected text, got {self:?}"))),
        }
    }

    /// The answers of an array.
    ///
    /// # Errors
    ///
    /// When the answer is something else.
    pub fn array(&self) -> Result<&[Reply]> {
        match self {
            Self::Array(items) => Ok(items),
            _ => Err(Error::new(format!("expected an array, got {self:?}"))),
        }
    }
}
