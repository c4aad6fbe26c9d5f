//! The options of a store, from setters or from the table `[kv.memory]` of a `derp.toml`.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use derp_kv_core::{Error, ErrorKind, Observer, Result};
use toml::{Table, Value};

use crate::clock::ManualClock;
use crate::observer::SharedObserver;

const FIELDS: [&str; 3] = ["max_bytes", "on_full", "sweep_every_ms"];

/// What a bounded store does with a write that would exceed its bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnFull {
    /// Evict values written by `set` and `mset`, the least recently used first. What `set_nx`, `incr`
    /// and `compare_and_*` wrote is never evicted; where that alone reaches the bound, further writes
    /// of that kind fail with [`Full`](ErrorKind::Full).
    #[default]
    EvictCached,
    /// Evict nothing: the write fails with [`Full`](ErrorKind::Full). Space comes back with
    /// deletions and as TTLs pass.
    Reject,
}

/// The options of a [`MemoryStore`](crate::MemoryStore): a memory bound, what happens at it, a
/// background sweep, and for tests a clock.
///
/// Start from [`MemoryStore::builder`](crate::MemoryStore::builder) and chain setters, or read the
/// table `[kv.memory]` of a TOML file ([`from_toml_path`](Self::from_toml_path)); then
/// [`build`](Self::build) makes the store.
///
/// | field of `[kv.memory]` | setter | default | meaning |
/// |---|---|---|---|
/// | `max_bytes` | [`max_bytes`](method@Self::max_bytes) | none | the memory bound, above zero; none: unbounded |
/// | `on_full` | [`on_full`](method@Self::on_full) | `"evict_cached"` | `"evict_cached"` or `"reject"` |
/// | `sweep_every_ms` | [`sweep_every`](method@Self::sweep_every) | none | the background sweep, 1 ms or more |
/// | | [`clock`](method@Self::clock) | tokio's | |
/// | | [`observer`](method@Self::observer) | none | who hears what the helpers do |
///
/// Every field may be left out, and so may the table. Other tables of the file are ignored.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use derp_kv_core::{ErrorKind, KvStore};
/// use derp_kv_memory::{MemoryConfig, MemoryStore, OnFull};
///
/// # #[tokio::main] async fn main() -> derp_kv_core::Result<()> {
/// let config = MemoryConfig::from_toml_str(
///     r#"
///     [kv.memory]
///     max_bytes = 1_000
///     on_full = "reject"
///     sweep_every_ms = 500
///     "#,
/// )?;
/// let same = MemoryStore::builder()
///     .max_bytes(1_000)
///     .on_full(OnFull::Reject)
///     .sweep_every(Duration::from_millis(500));
/// assert_eq!(config, same);
///
/// let kv = config.build()?;
/// let error = kv.set(b"k", &[0; 1_000], None).await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Full);
///
/// let error = MemoryConfig::from_toml_str("[kv.memory]\nmax_byte = 1").unwrap_err();
/// assert!(error.to_string().contains("max_byte"));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "options do nothing until `build`"]
pub struct MemoryConfig {
    /// See [`max_bytes`](method@Self::max_bytes).
    pub max_bytes: Option<u64>,
    /// See [`on_full`](method@Self::on_full).
    pub on_full: OnFull,
    /// See [`sweep_every`](method@Self::sweep_every).
    pub sweep_every: Option<Duration>,
    /// See [`clock`](method@Self::clock).
    pub clock: Option<ManualClock>,
    pub(crate) observer: Option<SharedObserver>,
}

impl MemoryConfig {
    /// Bounds the memory, in bytes above zero, counted with an estimate of what an entry costs
    /// beside its key and value.
    ///
    /// The bound is one for cached values and again one for pinned entries: a store that evicts
    /// may hold up to twice `max_bytes`. One that rejects has pinned entries only.
    pub fn max_bytes(mut self, max_bytes: u64) -> Self {
        self.max_bytes = Some(max_bytes);
        self
    }

    /// What to do at the bound; by default [`OnFull::EvictCached`].
    pub fn on_full(mut self, on_full: OnFull) -> Self {
        self.on_full = on_full;
        self
    }

    /// Gives the memory of what has expired back every so often, which is 1 ms or longer, also while
    /// nothing is written.
    ///
    /// Without it each write takes care of a few expired entries. The sweep is a task of the tokio
    /// runtime in which the first write happens, and ends with the last handle; where that runtime
    /// ends before, the next write starts it again.
    pub fn sweep_every(mut self, every: Duration) -> Self {
        self.sweep_every = Some(every);
        self
    }

    /// Takes the time from `clock` instead of tokio.
    pub fn clock(mut self, clock: ManualClock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Tells `observer` what the helpers do on the store. Clones of these options have the same
    /// observer and are equal; otherwise options with observers differ.
    ///
    /// # Examples
    ///
    /// ```
    /// use derp_kv_core::{Event, Observer};
    /// use derp_kv_memory::MemoryStore;
    ///
    /// #[derive(Debug)]
    /// struct Print;
    ///
    /// impl Observer for Print {
    ///     fn event(&self, event: Event<'_>) {
    ///         if let Event::Answered { operation, outcome, took, .. } = event {
    ///             println!("{} {} {took:?}", operation.name(), outcome.name());
    ///         }
    ///     }
    /// }
    ///
    /// let kv = MemoryStore::builder().observer(Print).build()?;
    /// # let _ = kv;
    /// # Ok::<(), derp_kv_core::Error>(())
    /// ```
    pub fn observer(mut self, observer: impl Observer + 'static) -> Self {
        self.observer = Some(SharedObserver(Arc::new(observer)));
        self
    }

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
        let config = Self {
            max_bytes: count(memory, "max_bytes")?,
            on_full: on_full(memory)?.unwrap_or_default(),
            sweep_every: count(memory, "sweep_every_ms")?.map(Duration::from_millis),
            clock: None,
            observer: None,
        };
        match config.problem() {
            Some(problem) => Err(invalid(format!("[kv.memory] {problem}"))),
            None => Ok(config),
        }
    }

    /// Reads the table from a file.
    ///
    /// # Errors
    ///
    /// As [`from_toml_str`](Self::from_toml_str), and for a file that cannot be read.
    pub fn from_toml_path(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|error| {
            invalid(format!("cannot read {}", path.display())).with_source(error)
        })?;
        Self::from_toml_str(&text)
    }

    /// The one check of all options, wherever they come from.
    pub(crate) fn check(&self) -> Result<()> {
        self.problem().map_or(Ok(()), |problem| Err(invalid(problem)))
    }

    fn problem(&self) -> Option<&'static str> {
        if self.max_bytes == Some(0) {
            return Some("max_bytes: must be above zero; leave it out for no bound");
        }
        if self.sweep_every.is_some_and(|every| every < Duration::from_millis(1)) {
            return Some(
                "sweep_every_ms: must be 1 ms or longer; leave it out for no background sweep",
            );
        }
        None
    }
}

fn count(table: &Table, name: &str) -> Result<Option<u64>> {
    let Some(value) = table.get(name) else { return Ok(None) };
    let count = value.as_integer().and_then(|count| u64::try_from(count).ok());
    match count {
        Some(count) => Ok(Some(count)),
        None => Err(invalid(format!("[kv.memory] {name}: must be a whole number above zero"))),
    }
}

fn on_full(table: &Table) -> Result<Option<OnFull>> {
    match table.get("on_full").map(Value::as_str) {
        None => Ok(None),
        Some(Some("evict_cached")) => Ok(Some(OnFull::EvictCached)),
        Some(Some("reject")) => Ok(Some(OnFull::Reject)),
        Some(_) => Err(invalid("[kv.memory] on_full: must be \"evict_cached\" or \"reject\"")),
    }
}

fn invalid(message: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}
