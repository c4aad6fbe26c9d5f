//! The options of a store: the builder, and the table `[kv.memory]` of a `derp.toml`.

use std::borrow::Cow;
use std::path::Path;
use std::time::Duration;

use derp_kv_core::{Error, ErrorKind, Result};
use toml::{Table, Value};

use crate::clock::ManualClock;

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

/// What a bounded store does with a write for which it has no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnFull {
    /// Evict the values least recently used among those written by `set` and `mset`. What
    /// `set_nx`, `incr` and `compare_and_*` wrote is never evicted; where that alone reaches the
    /// bound, further writes of that kind fail with [`Full`](derp_kv_core::ErrorKind::Full).
    #[default]
    EvictCached,
    /// Evict nothing: the write fails with [`Full`](derp_kv_core::ErrorKind::Full). Space comes
    /// back with deletions and as TTLs pass.
    Reject,
}

/// Options of a [`MemoryStore`](crate::MemoryStore); [`MemoryStore::builder`](crate::MemoryStore::builder)
/// makes one.
///
/// # Examples
///
/// ```
/// use derp_kv_core::{ErrorKind, KvStore};
/// use derp_kv_memory::{MemoryStore, OnFull};
///
/// # #[tokio::main] async fn main() -> derp_kv_core::Result<()> {
/// let kv = MemoryStore::builder().max_bytes(1_000).on_full(OnFull::Reject).build();
/// let error = kv.set(b"k", &[0; 1_000], None).await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Full);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until `build`"]
pub struct MemoryBuilder {
    pub(crate) max_bytes: Option<u64>,
    pub(crate) on_full: OnFull,
    pub(crate) clock: Option<ManualClock>,
    pub(crate) sweep_every: Option<Duration>,
}

impl MemoryBuilder {
    /// Bounds the memory, in bytes, counted with an estimate of what an entry costs beside its
    /// key and value.
    ///
    /// The bound is one for cached values and again one for pinned records: a store that evicts
    /// may hold up to twice `max_bytes`. One that rejects has pinned records only.
    pub fn max_bytes(mut self, max_bytes: u64) -> Self {
        self.max_bytes = Some(max_bytes);
        self
    }

    /// What to do at the bound; by default [`OnFull::EvictCached`].
    pub fn on_full(mut self, on_full: OnFull) -> Self {
        self.on_full = on_full;
        self
    }

    /// Takes the time from `clock` instead of tokio.
    pub fn clock(mut self, clock: ManualClock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Gives the memory of expired entries back every so often, also while nothing is written.
    ///
    /// Without it each write takes care of a few. The sweep is a task of the tokio runtime in
    /// which the first write happens, and ends with the last handle; where that runtime ends
    /// before, the next write starts it again.
    pub fn sweep_every(mut self, every: Duration) -> Self {
        self.sweep_every = Some(every);
        self
    }
}
