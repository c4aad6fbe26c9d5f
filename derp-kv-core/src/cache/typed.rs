//! The type of a cache's values: how they are stored, and for how long.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::cache::codec::Codec;
use crate::cache::duty::Computed;
use crate::cache::fill::{Fill, Keep};
use crate::cache::freshness::Window;
use crate::cache::options::GuardedGet;
use crate::error::{Error, ErrorKind, Result};
use crate::store::ttl::MAX_TTL;

pub(crate) struct Typed<T, C> {
    codec: Arc<C>,
    /// Whether a value is an absence, and how long those are fresh.
    absence: Option<Absence<T>>,
    values: PhantomData<fn() -> T>,
}

/// What tells that a value is an absence, and how long those are fresh.
type Absence<T> = (fn(&T) -> bool, Duration);

impl<T, C> Clone for Typed<T, C> {
    fn clone(&self) -> Self {
        Self { codec: self.codec.clone(), absence: self.absence, values: PhantomData }
    }
}

impl<T, C> Typed<T, C> {
    pub(crate) fn new(codec: C) -> Self {
        Self { codec: Arc::new(codec), absence: None, values: PhantomData }
    }

    pub(crate) fn with_absence(self, is_absent: fn(&T) -> bool, ttl: Duration) -> Self {
        Self { absence: Some((is_absent, ttl.min(MAX_TTL))), ..self }
    }

    /// How long absences are fresh, where `value` is one and they have a TTL of their own.
    fn absent_ttl(&self, value: &T) -> Option<Duration> {
        self.absence.and_then(|(is_absent, ttl)| is_absent(value).then_some(ttl))
    }

    /// When such a value becomes stale, and is refreshed.
    pub(crate) fn window(&self, options: &GuardedGet, value: &T) -> Window {
        options.window(self.absent_ttl(value).or(options.ttl))
    }
}

impl<T, C: Codec<T>> Typed<T, C> {
    pub(crate) fn decode(&self, bytes: &Bytes) -> Option<T> {
        self.codec.decode(bytes).ok()
    }

    /// A value that was computed, with its stored form. One that could not be read back has none: its
    /// caller gets it, and nobody else could.
    pub(crate) fn computed(&self, fill: Fill<T>) -> Computed<T> {
        let Fill { value, keep } = self.with_own_ttl(fill);
        let fill = self.encode(&value).map(|bytes| Fill { value: bytes, keep });
        Computed { value, fill }
    }

    /// A value that the caller brought, with its stored form.
    pub(crate) fn encoded(&self, value: &T) -> Result<Fill> {
        let keep = self.absent_ttl(value).map_or(Keep::AsOptions, keep_absence);
        Ok(Fill { value: self.encode(value)?, keep })
    }

    /// Encodes, and decodes once: what cannot be read back would be a miss for everybody.
    fn encode(&self, value: &T) -> Result<Bytes> {
        let bytes = self.codec.encode(value)?;
        self.codec.decode(&bytes).map_err(|_| {
            let message = "the value cannot be read back from its stored form: JSON has one `null` for \
                           `None` and numbers that are not finite, and a field that is not written must \
                           have a default";
            Error::new(ErrorKind::InvalidArgument, message)
        })?;
        Ok(bytes)
    }

    fn with_own_ttl(&self, fill: Fill<T>) -> Fill<T> {
        match (fill.keep, self.absent_ttl(&fill.value)) {
            (Keep::AsOptions, Some(ttl)) => Fill { keep: keep_absence(ttl), ..fill },
            _ => fill,
        }
    }
}

/// An absence that is not kept ends the value that was there: it is no longer true.
fn keep_absence(ttl: Duration) -> Keep {
    if ttl.is_zero() { Keep::Remove } else { Keep::For(ttl) }
}
