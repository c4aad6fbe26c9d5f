//! Which store the service runs on.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use derp_kv_core::{Error, ErrorKind, KvStore, Layered, Observer, Result};
use derp_kv_memory::MemoryConfig;
use derp_kv_valkey::{ValkeyConfig, ValkeyStore};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::metrics::Metrics;
use crate::observers::Observers;
use crate::page::Page;

/// The memory bound of the embedded store where the file sets none: 256 MiB of cached values, and as
/// much of pinned records.
pub const DEFAULT_MAX_BYTES: u64 = 256 * 1024 * 1024;

/// A store that can be opened.
///
/// `[kv] backend` is `"memory"` or `"valkey"`. Without it, the one table `[kv.memory]` or
/// `[kv.valkey]` says which; both of them are an error, and so is none, for a file that was meant to
/// choose a store has another name for it then.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one of them in a process")]
pub enum Config {
    /// The embedded store, under a memory bound.
    Memory(MemoryConfig),
    /// A Valkey server or cluster.
    Valkey(ValkeyConfig),
}

#[derive(Default, Deserialize)]
struct File {
    #[serde(default)]
    kv: Tables,
}

#[derive(Default, Deserialize)]
struct Tables {
    backend: Option<String>,
    memory: Option<toml::Table>,
    valkey: Option<toml::Table>,
    #[serde(flatten)]
    unknown: BTreeMap<String, IgnoredAny>,
}

impl Config {
    /// Reads the text of a `derp.toml`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] names the field.
    pub fn from_toml_str(text: &str) -> Result<Self> {
        // The error's own text quotes the line, which may hold a password.
        let file: File = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let line = text.get(..start).map_or(1, |before| before.matches('\n').count() + 1);
            invalid(format!("derp.toml, line {line}: not valid TOML, or a wrong type in [kv]"))
        })?;
        let kv = file.kv;
        if let Some(unknown) = kv.unknown.keys().next() {
            let known = "backend, memory, valkey";
            return Err(invalid(format!("[kv] {unknown}: no such key; known: {known}")));
        }
        let valkey = match (kv.backend.as_deref(), kv.memory.is_some(), kv.valkey.is_some()) {
            (Some("memory"), ..) => false,
            (Some("valkey"), ..) => true,
            (Some(_), ..) => {
                return Err(invalid("[kv] backend: must be \"memory\" or \"valkey\""));
            }
            (None, true, true) => {
                let message = "[kv] backend: set it, for there is [kv.memory] and [kv.valkey]";
                return Err(invalid(message));
            }
            (None, false, false) => {
                let message =
                    "[kv] backend: set it, for there is no [kv.memory] and no [kv.valkey]";
                return Err(invalid(message));
            }
            (None, _, valkey) => valkey,
        };
        if valkey {
            return ValkeyConfig::from_toml_str(text).map(Self::Valkey);
        }
        let mut config = MemoryConfig::from_toml_str(text)?;
        config.max_bytes.get_or_insert(DEFAULT_MAX_BYTES);
        Ok(Self::Memory(config))
    }

    /// Reads a file.
    ///
    /// # Errors
    ///
    /// As [`from_toml_str`](Self::from_toml_str), and for a file that cannot be read.
    pub fn from_toml_path(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_toml_str(&read(path.as_ref())?)
    }

    /// Opens the store.
    ///
    /// # Errors
    ///
    /// Those of [`ValkeyStore::connect`]; and the options of the embedded store that are refused.
    pub async fn open(self) -> Result<Arc<dyn KvStore>> {
        Ok(match self {
            Self::Memory(config) => Arc::new(config.build()?),
            Self::Valkey(config) => Arc::new(ValkeyStore::connect(config).await?),
        })
    }

    /// Opens the store. What it and the helpers on it do is counted in `metrics`, and the page hears of its
    /// links.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub async fn open_watched(
        self,
        metrics: &Metrics,
        page: Option<&Page>,
    ) -> Result<Arc<dyn KvStore>> {
        let durations = metrics.durations(self.system());
        let mut observers: Vec<Arc<dyn Observer>> = vec![Arc::new(metrics.observer())];
        if let Some(page) = page {
            observers.push(Arc::new(page.links()));
        }
        let observers = Observers(observers);
        Ok(match self {
            Self::Memory(config) => {
                Arc::new(Layered::new(config.observer(observers).build()?, durations))
            }
            Self::Valkey(config) => {
                let kv = ValkeyStore::connect(config.observer(observers)).await?;
                Arc::new(Layered::new(kv, durations))
            }
        })
    }

    /// The `db.system.name` of OpenTelemetry, where Valkey goes by the name of what it came from.
    fn system(&self) -> &'static str {
        match self {
            Self::Memory(_) => "memory",
            Self::Valkey(_) => "redis",
        }
    }

    /// The name of the backend.
    #[must_use]
    pub fn backend(&self) -> &'static str {
        match self {
            Self::Memory(_) => "memory",
            Self::Valkey(_) => "valkey",
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        let mut config = MemoryConfig::default();
        config.max_bytes = Some(DEFAULT_MAX_BYTES);
        Self::Memory(config)
    }
}

pub(crate) fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path)
        .map_err(|error| invalid(format!("cannot read {}", path.display())).with_source(error))
}

pub(crate) fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidArgument, message.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_quotes_nothing_of_the_file() {
        for text in [
            "[kv.valkey]\npassword = \"hunter2",
            "[kv]\nbackend = \"memory\"\nvalkey = \"hunter2\"",
            "[kv]\nbackend = [\"hunter2\"]",
        ] {
            let error = Config::from_toml_str(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
            assert!(error.to_string().contains("line "), "{error}");
        }
    }

    #[test]
    fn a_misspelt_key_is_named_and_its_value_is_not() {
        for (text, named) in [
            ("[kv.valky]\npassword = \"hunter2\"", "[kv] valky: no such key"),
            ("[kv.memory]\n[kv.valky]\npassword = \"hunter2\"", "[kv] valky: no such key"),
            ("[kv]\nbackends = \"hunter2\"", "[kv] backends: no such key"),
            ("[kv]\nbackend = \"valkey\"\nurl = \"hunter2\"", "[kv] url: no such key"),
        ] {
            let error = Config::from_toml_str(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.to_string().contains(named), "{text}: {error}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_file_says_which_store() {
        for (text, backend) in [
            ("[kv]\nbackend = \"memory\"", "memory"),
            ("[kv.memory]", "memory"),
            ("[kv]\nbackend = \"valkey\"\n[kv.valkey]\n[kv.memory]", "valkey"),
            ("[kv.valkey]\n[other]\nvalky = 1", "valkey"),
        ] {
            assert_eq!(Config::from_toml_str(text).unwrap().backend(), backend, "{text}");
        }
        for text in ["", "[kv]", "[kvs.valkey]", "[valkey]"] {
            let error = Config::from_toml_str(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.to_string().contains("[kv] backend: set it"), "{text}: {error}");
        }
        assert_eq!(Config::default().backend(), "memory");
    }
}
