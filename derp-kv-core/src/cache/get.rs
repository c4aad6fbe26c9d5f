//! Getting one value of a cache.

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::cache::codec::Codec;
use crate::cache::duty::{Computed, Duty};
use crate::cache::fill::IntoFill;
use crate::cache::freshness::{Age, Got, Source, StaleCause};
use crate::cache::handle::{ASKS, Cache, abandoned, disagreement};
use crate::cache::lookup::{Asked, Lookup};
use crate::cache::refresh::{Claimed, Refresh, joined, serve};
use crate::cache::tell::{OPERATION, told};
use crate::cache::typed::Typed;
use crate::coordinate::entry::Entry;
use crate::coordinate::nesting::inherited;
use crate::error::{Error, Result};
use crate::observe::call::{Call, in_span};
use crate::observe::span::{Current, refreshing};
#[cfg(feature = "mutants")]
use crate::singleflight::mutant::Mutant;
use crate::store::kv_store::KvStore;
#[cfg(feature = "mutants")]
use crate::store::mutant;

/// What came of a refresh, for the caller that began it.
enum Refreshed<T, F, E> {
    Computed(T),
    Failed(E),
    /// It was not this caller's to do.
    Declined {
        cause: StaleCause,
        compute: F,
    },
    /// It had been done by somebody else.
    Newer {
        entry: Entry,
        compute: F,
    },
}

impl<S, T, C> Cache<S, T, C>
where
    S: KvStore + Clone,
    T: Send + 'static,
    C: Codec<T>,
{
    /// Reads the value of `key`, or computes it once for everybody and keeps it.
    ///
    /// `compute` gets the value that it is to replace, where there is one, and returns a `T` or a
    /// [`Fill`](crate::Fill) of it.
    ///
    /// # Errors
    ///
    /// As [`guarded_get`](crate::guarded_get). A value that cannot be decoded is no error: it is computed
    /// anew, and the store's [`Observer`](crate::Observer) hears of it. Where callers of one key disagree
    /// about its codec and each finds what the other one wrote, the call is
    /// [`Corrupt`](crate::ErrorKind::Corrupt) after three tries. A value that cannot be encoded goes to its
    /// caller and is not kept; who waited for it gets [`Failing`](crate::ErrorKind::Failing).
    ///
    /// # Panics
    ///
    /// Where `compute` panics and the caller waits for it. A panic of a refresh is not passed on.
    ///
    /// # Cancel safety
    ///
    /// Drop it at any time. A computation that has begun goes on, and its value is kept.
    pub async fn get<K, F, Fut, V, E>(&self, key: K, compute: F) -> Result<T, E>
    where
        K: AsRef<[u8]> + Send,
        F: FnOnce(Option<T>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<V, E>> + Send + 'static,
        V: IntoFill<T> + Send,
        E: From<Error> + Send + 'static,
    {
        let call = Call::new(self.store.observer(), OPERATION);
        let got = in_span!(call, self.found_or_computed(call, self.full_key(key), compute));
        got.map(|got| got.value)
    }

    /// [`get`](Self::get), and what it knows of the value: whether it is stale, and where it comes from.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    ///
    /// # Cancel safety
    ///
    /// As [`get`](Self::get).
    pub async fn get_detailed<K, F, Fut, V, E>(&self, key: K, compute: F) -> Result<Got<T>, E>
    where
        K: AsRef<[u8]> + Send,
        F: FnOnce(Option<T>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<V, E>> + Send + 'static,
        V: IntoFill<T> + Send,
        E: From<Error> + Send + 'static,
    {
        let call = Call::new(self.store.observer(), OPERATION);
        in_span!(call, self.found_or_computed(call, self.full_key(key), compute))
    }

    async fn found_or_computed<F, Fut, V, E>(
        &self,
        call: Call<'_>,
        key: Bytes,
        compute: F,
    ) -> Result<Got<T>, E>
    where
        F: FnOnce(Option<T>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<V, E>> + Send + 'static,
        V: IntoFill<T> + Send,
        E: From<Error> + Send + 'static,
    {
        let mut lookup = match Lookup::new(&self.store, &key, &self.options) {
            Ok(lookup) => lookup,
            Err(error) => return Err(call.refused(error)),
        };
        let mut compute = compute;
        let mut undecodable = 0;
        loop {
            let (entry, is_joined) = match lookup.ask().await {
                Asked::Found(entry) => (entry, false),
                Asked::Landed(entry) => (entry, true),
                Asked::Duty(duty) => {
                    return match self.compute(duty, compute).await {
                        Ok(Ok(value)) => Ok(told(call, Got::fresh(value, Source::Computed))),
                        Ok(Err(error)) => Err(call.failed(error)),
                        Err(error) => Err(call.refused(error)),
                    };
                }
                Asked::Refused(error) => return Err(call.refused(error)),
            };
            let Some(value) = self.typed.decode(&entry.value) else {
                undecodable += 1;
                #[cfg(feature = "mutants")]
                if mutant::is(&self.store, Mutant::FailsOnUndecodable) {
                    undecodable = ASKS;
                }
                if undecodable == ASKS {
                    return Err(call.refused(disagreement()));
                }
                lookup.ignore(entry.value);
                continue;
            };
            let window = self.typed.window(&self.options, &value);
            if is_joined {
                match joined(&entry, window) {
                    Some(got) => return Ok(told(call, got.with_value(value))),
                    None => continue,
                }
            }
            if window.age(entry.left()) == Age::Fresh {
                return Ok(told(call, Got::fresh(value, Source::Store)));
            }
            let refresh = match lookup.board_refresh(window, &entry) {
                Ok(refresh) => refresh,
                Err(cause) => match serve(&entry, window, cause) {
                    Some(got) => return Ok(told(call, got.with_value(value))),
                    None => continue,
                },
            };
            let caller = Arc::new(());
            let wanted = Arc::downgrade(&caller);
            let mut refreshed = self.refresh_in_background(refresh, entry.clone(), wanted, compute);
            // A fresh value needs no waiting for a fresher one, and a stale one lasts no longer than it may.
            let patience = match window.age(entry.left()) {
                Age::Stale { .. } => self.options.soft_timeout.unwrap_or_default(),
                Age::Fresh | Age::Early => Duration::ZERO,
            };
            #[cfg(feature = "mutants")]
            let patience = if mutant::is(&self.store, Mutant::WaitsForTheRefresh) {
                Duration::MAX
            } else {
                patience
            };
            let patience = entry.left().map_or(patience, |left| patience.min(left));
            let waited = if patience.is_zero() {
                None
            } else {
                Some(timeout(patience, &mut refreshed).await)
            };
            let refreshed = match waited {
                Some(Ok(refreshed)) => refreshed,
                waited => {
                    let cause = match waited {
                        None => StaleCause::Refreshing,
                        Some(_) => StaleCause::TimedOut,
                    };
                    if let Some(got) = serve(&entry, window, cause) {
                        return Ok(told(call, got.with_value(value)));
                    }
                    // It went away meanwhile: the caller has nothing but what it has begun.
                    refreshed.await
                }
            };
            let Ok(refreshed) = refreshed else {
                // The computation panicked.
                match serve(&entry, window, StaleCause::Failed) {
                    Some(got) => return Ok(told(call, got.with_value(value))),
                    None => return Err(call.refused(abandoned())),
                }
            };
            match refreshed {
                Refreshed::Computed(value) => {
                    return Ok(told(call, Got::fresh(value, Source::Computed)));
                }
                Refreshed::Failed(error) => {
                    return match serve(&entry, window, StaleCause::Failed) {
                        Some(got) => Ok(told(call, got.with_value(value))),
                        None => Err(call.failed(error)),
                    };
                }
                Refreshed::Declined { cause, compute: given_back } => {
                    if let Some(got) = serve(&entry, window, cause) {
                        return Ok(told(call, got.with_value(value)));
                    }
                    compute = given_back;
                }
                Refreshed::Newer { entry, compute: given_back } => {
                    let newer = self.typed.decode(&entry.value);
                    if let Some(newer) = newer
                        && let Some(got) = serve(&entry, window, StaleCause::Refreshing)
                    {
                        return Ok(told(call, got.with_value(newer)));
                    }
                    compute = given_back;
                }
            }
        }
    }

    /// Computes in the background, and waits for it.
    ///
    /// # Errors
    ///
    /// The inner one is the computation's; the outer one says that it ended without a result.
    async fn compute<F, Fut, V, E>(&self, duty: Box<Duty<S>>, compute: F) -> Result<Result<T, E>>
    where
        F: FnOnce(Option<T>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<V, E>> + Send + 'static,
        V: IntoFill<T> + Send,
        E: From<Error> + Send + 'static,
    {
        let typed = self.typed.clone();
        let caller = Arc::new(());
        let wanted = Arc::downgrade(&caller);
        let work =
            inherited(
                async move { duty.run_while_wanted(wanted, filled(typed, compute, None)).await },
            );
        match self.detached(work).await {
            Ok(Ok(Some(result))) => Ok(result),
            Ok(Err(panic)) => resume_unwind(panic),
            Ok(Ok(None)) | Err(_) => Err(abandoned()),
        }
    }

    /// Runs `work` as a task, and sends what comes of it, or its panic.
    pub(crate) fn detached<R: Send + 'static>(
        &self,
        work: impl Future<Output = R> + Send + 'static,
    ) -> oneshot::Receiver<std::thread::Result<R>> {
        let (sender, receiver) = oneshot::channel();
        #[cfg(feature = "mutants")]
        if mutant::is(&self.store, Mutant::EndsWithItsCaller) {
            let mut sender = sender;
            self.background.spawn(async move {
                let work = AssertUnwindSafe(work).catch_unwind();
                let result = tokio::select! {
                    result = work => result,
                    () = sender.closed() => return,
                };
                let _ = sender.send(result);
            });
            return receiver;
        }
        self.background.spawn(Current::new().around(async move {
            // Nothing of it is used again.
            let result = AssertUnwindSafe(work).catch_unwind().await;
            let _ = sender.send(result);
        }));
        receiver
    }

    fn refresh_in_background<F, Fut, V, E>(
        &self,
        refresh: Refresh<S>,
        seen: Entry,
        wanted: Weak<()>,
        compute: F,
    ) -> oneshot::Receiver<Refreshed<T, F, E>>
    where
        F: FnOnce(Option<T>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<V, E>> + Send + 'static,
        V: IntoFill<T> + Send,
        E: From<Error> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let typed = self.typed.clone();
        self.background.spawn(refreshing(OPERATION, async move {
            let refreshed = match refresh.claim(&seen).await {
                Claimed::Not(cause) => Refreshed::Declined { cause, compute },
                Claimed::Already(entry) => Refreshed::Newer { entry, compute },
                Claimed::Duty { duty, seen } => {
                    let stale = seen.and_then(|seen| typed.decode(&seen.value));
                    let work = filled(typed, compute, stale);
                    match duty.run_while_wanted(wanted, work).await {
                        Some(Ok(value)) => Refreshed::Computed(value),
                        Some(Err(error)) => Refreshed::Failed(error),
                        // Nobody is there to hear of it.
                        None => return,
                    }
                }
            };
            let _ = sender.send(refreshed);
        }));
        receiver
    }
}

async fn filled<T, C, F, Fut, V, E>(
    typed: Typed<T, C>,
    compute: F,
    stale: Option<T>,
) -> Result<Computed<T>, E>
where
    C: Codec<T>,
    F: FnOnce(Option<T>) -> Fut,
    Fut: Future<Output = Result<V, E>>,
    V: IntoFill<T>,
{
    let value = compute(stale).await?;
    Ok(typed.computed(value.into_fill()))
}
