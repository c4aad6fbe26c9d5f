//! Asking for a value: what `guarded_get` and `Cache` have in common.

use bytes::Bytes;

use crate::cache::duty::{Cell, Duty, Right};
use crate::cache::freshness::{StaleCause, Window};
use crate::cache::options::{GuardedGet, OnStoreError};
use crate::cache::refresh::Refresh;
use crate::cache::tell::OPERATION;
use crate::coordinate::contention::{Contention, Patience, Turn};
use crate::coordinate::entry::{Entry, Reading};
use crate::coordinate::keys::check_cache_key;
use crate::error::{Error, ErrorKind, Result};
use crate::observe::event::Event;
use crate::singleflight::flights::Purpose;
#[cfg(feature = "mutants")]
use crate::singleflight::mutant::Mutant;
use crate::store::kv_store::KvStore;
#[cfg(feature = "mutants")]
use crate::store::mutant;

/// One caller that wants the value of a key.
pub(crate) struct Lookup<'a, S> {
    pub(crate) store: &'a S,
    pub(crate) key: &'a [u8],
    pub(crate) options: GuardedGet,
    /// A value that counts as none: it cannot be decoded.
    ignored: Option<Bytes>,
}

/// What a caller is to do.
pub(crate) enum Asked<S> {
    /// To return the value, or to refresh it.
    Found(Entry),
    /// To return the value of another caller in this process, which was waited for.
    Landed(Entry),
    /// To compute the value.
    Duty(Box<Duty<S>>),
    /// To return the error.
    Refused(Error),
}

impl<'a, S: KvStore + Clone> Lookup<'a, S> {
    pub(crate) fn new(store: &'a S, key: &'a [u8], options: &GuardedGet) -> Result<Self> {
        let options = check_cache_key(key).and_then(|()| options.checked());
        let options = options.map_err(|error| error.with_operation(OPERATION))?;
        #[cfg(feature = "mutants")]
        let options = if mutant::is(store, Mutant::IgnoresEarly) {
            GuardedGet { early: None, ..options }
        } else {
            options
        };
        Ok(Self { store, key, options, ignored: None })
    }

    /// From now on treats a stored value equal to `value` as missing.
    pub(crate) fn ignore(&mut self, value: Bytes) {
        Event::Undecodable { operation: OPERATION }.tell(self.store.observer());
        self.ignored = Some(value);
    }

    pub(crate) async fn ask(&self) -> Asked<S> {
        self.asked(self.contention().turn().await)
    }

    /// What the caller is to do, where that is known without waiting for anybody. It has seen that the
    /// value is not there, or that the store is `down`.
    pub(crate) async fn ask_at_once(&self, down: Option<ErrorKind>) -> Option<Asked<S>> {
        self.contention().turn_at_once(down).await.map(|turn| self.asked(turn))
    }

    fn asked(&self, turn: Turn) -> Asked<S> {
        match turn {
            Turn::Found(entry) => Asked::Found(entry),
            Turn::Landed(entry) => Asked::Landed(entry),
            Turn::Lead(lead) => Asked::Duty(self.duty(Right::Lead(lead))),
            Turn::Beside(beside) => Asked::Duty(self.duty(Right::Beside(beside))),
            Turn::Refused(error) => Asked::Refused(error),
        }
    }

    /// How the value is read.
    pub(crate) fn reading(&self) -> Reading<'_> {
        Reading { timed: self.options.reads_ttl(), ignored: self.ignored.as_deref() }
    }

    /// The right of this process to try for a refresh.
    pub(crate) fn board_refresh(
        &self,
        window: Window,
        seen: &Entry,
    ) -> Result<Refresh<S>, StaleCause> {
        Refresh::board(self.store, self.key, self.options, window, seen)
    }

    fn contention(&self) -> Contention<'_, S> {
        Contention {
            looks: true,
            store: self.store,
            key: self.key,
            reading: self.reading(),
            operation: OPERATION,
            purpose: Purpose::Cached,
            tag: None,
            lease: self.options.lease(),
            retry_delay: self.options.retry_delay,
            patience: Patience::ThenBeside {
                although_the_store_fails: self.options.on_store_error == OnStoreError::Compute,
            },
        }
    }

    fn duty(&self, right: Right) -> Box<Duty<S>> {
        Box::new(Duty { cell: Cell::of(self.store, self.key, self.options), right })
    }
}
