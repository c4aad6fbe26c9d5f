use std::borrow::Cow;
use std::path::Path;

use derp_kv_core::{Error, ErrorKind, Result};
use toml::{Table, Value};

use crate::builder::{MemoryBuilder, OnFull};
use crate::store::MemoryStore;

const FIELDS: [&str; 2] = ["max_bytes", "on_full"];

/// The table `[kv.memory]` of a `derp.toml`.
///
/// ```toml
/// [kv.memory]
/// max_bytes = 268_435_456     # cached values and pinned records each; none: unbounded
/// on_full = "evict_cached"    # or "reject"
/// ```
///
/// Both fields may be left out, and so may the table. Other tables of the file are ignored.
///
/// # Examples
///
/// ```
/// use derp_kv_memory::MemoryConfig;
///
/// let config = MemoryConfig::from_toml_str("[kv.memory]\nmax_bytes = 1_048_576")?;
/// assert_eq!(config.max_bytes, Some(1_048_576));
///
/// let error = MemoryConfig::from_toml_str("[kv.memory]\nmax_byte = 1").unwrap_err();
/// assert!(error.to_string().contains("max_byte"));
/// # Ok::<(), derp_kv_core::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryConfig {
    /// The memory bound in bytes, above zero; none: unbounded. It holds for cached values and for
    /// pinned records separately: a store that evicts may take up to twice as much.
    pub max_bytes: Option<u64>,
    /// What happens at the bound.
    pub on_full: OnFull,
}

impl MemoryConfig {
    /// Reads the table from the text of a `derp.toml`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] names the field and what would be right, and quotes nothing
    /// of the text: other tables may hold secrets.
    pub fn from_toml_str(text: &str) -> Result<Self> {
        let root: Table = text.parse().map_err(|error: toml::de::Error| {
            let start = error.span().map_or(0, |span| span.start);
            let line = 1 + text.bytes().take(start).filter(|byte| *byte == b'\n').count();
            invalid(format!("[kv.memory]: not valid TOML at line {line}"))
        })?;
        let Some(kv) = root.get("kv") else { return Ok(Self::default()) };
        let kv = kv.as_table().ok_or_else(|| invalid("[kv]: must be a table"))?;
        let Some(memory) = kv.get("memory") else { return Ok(Self::default()) };
        let memory = memory.as_table().ok_or_else(|| invalid("[kv.memory]: must be a table"))?;
        if let Some(unknown) = memory.keys().find(|key| !FIELDS.contains(&key.as_str())) {
            let known = FIELDS.join(", ");
            return Err(invalid(format!("[kv.memory] {unknown}: no such field; known: {known}")));
        }
        let max_bytes = memory.get("max_bytes").map(max_bytes).transpose()?;
        let on_full = memory.get("on_full").map(on_full).transpose()?.unwrap_or_default();
        Ok(Self { max_bytes, on_full })
    }

    /// Reads the table from a file.
    ///
    /// # Errors
    ///
    /// As [`from_toml_str`](Self::from_toml_str), and for a file that cannot be read.
    pub fn from_toml_path(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|error| {
            Error::new(ErrorKind::InvalidArgument, format!("cannot read {}", path.display()))
                .with_source(error)
        })?;
        Self::from_toml_str(&text)
    }

    /// The store that the table describes.
    #[must_use]
    pub fn build(&self) -> MemoryStore {
        let builder = MemoryBuilder { max_bytes: self.max_bytes, ..MemoryStore::builder() };
        builder.on_full(self.on_full).build()
    }
}

fn max_bytes(value: &Value) -> Result<u64> {
    let bytes = value.as_integer().and_then(|bytes| u64::try_from(bytes).ok());
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| {
        invalid("[kv.memory] max_bytes: must be an integer above zero; leave it out for no bound")
    })
}

fn on_full(value: &Value) -> Result<OnFull> {
    match value.as_str() {
        Some("evict_cached") => Ok(OnFull::EvictCached),
        Some("reject") => Ok(OnFull::Reject),
        _ => Err(invalid("[kv.memory] on_full: must be \"evict_cached\" or \"reject\"")),
    }
}

fn invalid(message: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}
