use std::path::Path;

use derp_kv_core::{Error, ErrorKind, Result};
use serde::Deserialize;

use crate::builder::{MemoryBuilder, OnFull};
use crate::store::MemoryStore;

/// The table `[kv.memory]` of a `derp.toml`.
///
/// ```toml
/// [kv.memory]
/// max_bytes = 268_435_456     # none: unbounded
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct MemoryConfig {
    /// The memory bound in bytes, above zero; none: unbounded.
    pub max_bytes: Option<u64>,
    /// What happens at the bound.
    #[serde(default)]
    pub on_full: OnFull,
}

#[derive(Default, Deserialize)]
struct File {
    #[serde(default)]
    kv: Tables,
}

#[derive(Default, Deserialize)]
struct Tables {
    #[serde(default)]
    memory: MemoryConfig,
}

impl MemoryConfig {
    /// Reads the table from the text of a `derp.toml`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] names the field and what is wrong with it.
    pub fn from_toml_str(text: &str) -> Result<Self> {
        let invalid = |message: String| Error::new(ErrorKind::InvalidArgument, message);
        let file: File =
            toml::from_str(text).map_err(|error| invalid(format!("[kv.memory]: {error}")))?;
        let config = file.kv.memory;
        if config.max_bytes == Some(0) {
            return Err(invalid(
                "[kv.memory] max_bytes: must be above zero; leave it out for no bound".to_owned(),
            ));
        }
        Ok(config)
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
