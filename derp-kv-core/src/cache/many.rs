//! Many keys of one cache at once.

use std::collections::HashMap;
use std::panic::resume_unwind;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::cache::codec::Codec;
use crate::cache::duty::Duty;
use crate::cache::fill::{Fill, IntoFill};
use crate::cache::freshness::{Age, StaleCause};
use crate::cache::handle::{ASKS, Cache, abandoned, disagreement};
use crate::cache::lookup::{Asked, Lookup};
use crate::cache::options::OnStoreError;
use crate::cache::refresh::{Claimed, Refresh, serve};
use crate::cache::tell::{OPERATION, outcome};
use crate::cache::typed::Typed;
use crate::coordinate::entry::Entry;
use crate::coordinate::nesting::{computing_all, inherited};
use crate::error::{Error, ErrorKind, Result};
use crate::observe::call::Call;
use crate::observe::call_outcome::CallOutcome;
use crate::observe::raised::{Failure as _, Raised};
use crate::observe::span::refreshing;
#[cfg(feature = "mutants")]
use crate::singleflight::mutant::Mutant;
use crate::store::kv_store::KvStore;
#[cfg(feature = "mutants")]
use crate::store::mutant;

/// A distinct key of a call.
struct Wanted<K, T> {
    key: K,
    full: Bytes,
    value: Option<T>,
    /// When a value that was found goes away.
    gone_at: Option<Instant>,
    /// Where the value comes from.
    outcome: CallOutcome,
}

/// What came of one key.
enum Answer<T, S> {
    /// With the moment at which it goes away, where that is known.
    Value(T, Option<Instant>, CallOutcome),
    /// To compute it.
    Duty(Box<Duty<S>>),
}

/// The computation failed; its error goes to the caller by another way.
struct BatchFailed;

/// When keys fall to a caller within this time of each other, they go into one computation. Those that
/// waited for one holder become free at almost the same moment.
const GATHERED_WITHIN: Duration = Duration::from_millis(5);

impl<S, T, C> Cache<S, T, C>
where
    S: KvStore + Clone,
    T: Clone + Send + 'static,
    C: Codec<T>,
{
    /// Reads the values of all `keys`, and computes those that are missing together.
    ///
    /// `compute` gets the missing keys that nobody else is computing, and returns a value for each, in
    /// their order: one query in the place of many. Those that others compute are waited for; where some
    /// of these fall to this caller after all, `compute` is called again for them.
    ///
    /// All keys are read in one `mget`, with [`stale`](crate::GuardedGet::stale) or
    /// [`early`](crate::GuardedGet::early) in a read for each, sent together. Then each missing key has
    /// its own lock and flight, as in [`get`](Self::get): two calls whose keys overlap compute none of them
    /// twice. Stale values are served, and refreshed together in the background; nobody waits for that.
    ///
    /// The answer has a value for each key, in the order of the keys. A repeated key is asked for once.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get); the first of any key. [`InvalidArgument`](ErrorKind::InvalidArgument) where
    /// `compute` returns another number of values than it got keys. What is computed for other keys is
    /// kept all the same. Where `compute` fails for several keys, missing ones are tried again as soon as
    /// anybody asks, whatever [`backoff`](crate::GuardedGet::backoff) says: which of them it failed for is
    /// not known.
    ///
    /// # Panics
    ///
    /// Where `compute` panics and the caller waits for it.
    ///
    /// # Cancel safety
    ///
    /// Drop it at any time. A computation that has begun goes on, and its values are kept.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// use derp_kv_core::{Cache, GuardedGet};
    /// # #[tokio::main] async fn main() -> anyhow::Result<()> {
    /// # let kv = derp_kv_memory::MemoryStore::new();
    /// let lengths = Cache::<_, usize>::new(kv, "length:", GuardedGet::new(Duration::from_secs(60)));
    /// let values = lengths
    ///     .get_many(&["kettle", "pot"], |missing: Vec<&str>| async move {
    ///         anyhow::Ok(missing.iter().map(|name| name.len()).collect()) // one query
    ///     })
    ///     .await?;
    /// assert_eq!(values, [6, 3]);
    /// # Ok(()) }
    /// ```
    pub async fn get_many<K, F, Fut, V, E>(&self, keys: &[K], compute: F) -> Result<Vec<T>, E>
    where
        K: AsRef<[u8]> + Clone + Send + Sync + 'static,
        F: Fn(Vec<K>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<V>, E>> + Send + 'static,
        V: IntoFill<T> + Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let mut places = Vec::with_capacity(keys.len());
        let mut wanted: Vec<Wanted<K, T>> = Vec::with_capacity(keys.len());
        let mut known = HashMap::with_capacity(keys.len());
        for key in keys {
            let full = self.full_key(key);
            let place = *known.entry(full.clone()).or_insert(wanted.len());
            if place == wanted.len() {
                wanted.push(Wanted {
                    key: key.clone(),
                    full,
                    value: None,
                    gone_at: None,
                    outcome: CallOutcome::Miss,
                });
            }
            places.push(place);
        }
        let compute = move |keys| {
            let work = compute(keys);
            async { work.await.map_err(Raised::Theirs) }
        };
        let call = Call::new(self.store.observer(), OPERATION).of_keys(wanted.len());
        let filled = call.span.around(self.fill_all(&mut wanted, Arc::new(compute))).await;
        if let Err(error) = filled {
            let outcome = error.outcome();
            let each = wanted.iter().map(|key| key.value.as_ref().map_or(outcome, |_| key.outcome));
            call.ended_each(outcome, each);
            return Err(error.into_inner());
        }
        call.ended_each(CallOutcome::Done, wanted.iter().map(|key| key.outcome));
        let values = places.into_iter().map(|place| wanted[place].value.clone());
        values.collect::<Option<Vec<T>>>().ok_or_else(|| abandoned().into())
    }

    async fn fill_all<K, F, Fut, V, E>(
        &self,
        wanted: &mut [Wanted<K, T>],
        compute: Arc<F>,
    ) -> Result<(), E>
    where
        K: Clone + Send + Sync + 'static,
        F: Fn(Vec<K>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<V>, E>> + Send + 'static,
        V: IntoFill<T> + Send + 'static,
        E: From<Error> + Send + 'static,
    {
        loop {
            let mut open: Vec<_> = wanted.iter_mut().filter(|key| key.value.is_none()).collect();
            if open.is_empty() {
                return Ok(());
            }
            self.fill(&mut open, compute.clone()).await?;
            // What was found may have gone away while the others were waited for.
            let now = Instant::now();
            for key in &mut *wanted {
                if key.gone_at.take_if(|gone_at| *gone_at <= now).is_some() {
                    key.value = None;
                }
            }
        }
    }

    async fn fill<K, F, Fut, V, E>(
        &self,
        wanted: &mut [&mut Wanted<K, T>],
        compute: Arc<F>,
    ) -> Result<(), E>
    where
        K: Clone + Send + Sync + 'static,
        F: Fn(Vec<K>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<V>, E>> + Send + 'static,
        V: IntoFill<T> + Send + 'static,
        E: From<Error> + Send + 'static,
    {
        // The store is read with keys of its own, so that the values can be written down meanwhile.
        let full: Vec<Bytes> = wanted.iter().map(|wanted| wanted.full.clone()).collect();
        let mut lookups = Vec::with_capacity(full.len());
        for full in &full {
            lookups.push(Lookup::new(&self.store, full, &self.options)?);
        }
        let mut down = vec![None; wanted.len()];
        let mut refreshes = Vec::new();
        for (place, found) in self.read(&full, &lookups).await?.into_iter().enumerate() {
            let entry = match found {
                Ok(Some(entry)) => entry,
                Ok(None) => continue,
                Err(kind) => {
                    down[place] = Some(kind);
                    continue;
                }
            };
            let Some(value) = self.typed.decode(&entry.value) else {
                lookups[place].ignore(entry.value);
                continue;
            };
            let window = self.typed.window(&self.options, &value);
            wanted[place].outcome = CallOutcome::Hit;
            if window.age(entry.left()) != Age::Fresh {
                let Some(got) = serve(&entry, window, StaleCause::Refreshing) else { continue };
                wanted[place].outcome = outcome(&got);
                if let Ok(refresh) = lookups[place].board_refresh(window, &entry) {
                    refreshes.push((wanted[place].key.clone(), refresh, entry.clone()));
                }
            }
            wanted[place].gone_at = entry.gone_at;
            wanted[place].value = Some(value);
        }
        if !refreshes.is_empty() {
            self.refresh_together(refreshes, compute.clone());
        }

        let missing: Vec<_> = lookups
            .iter_mut()
            .enumerate()
            .filter(|(place, _)| wanted[*place].value.is_none())
            .collect();
        let at_once = missing.iter().map(|(place, lookup)| lookup.ask_at_once(down[*place]));
        let at_once = join_all(at_once).await;
        let mut others = FuturesUnordered::new();
        let mut ours = Vec::new();
        let mut computations = FuturesUnordered::new();
        for ((place, lookup), asked) in missing.into_iter().zip(at_once) {
            match asked {
                #[cfg(feature = "mutants")]
                Some(Asked::Duty(duty)) if mutant::is(&self.store, Mutant::ComputesKeyByKey) => {
                    let alone = vec![(wanted[place].key.clone(), place, duty)];
                    computations.push(self.compute_together(alone, compute.clone()));
                }
                Some(Asked::Duty(duty)) => ours.push((place, duty)),
                asked => {
                    others.push(async move { (place, self.value_or_duty(lookup, asked).await) })
                }
            }
        }
        // Those that others compute are waited for while the own ones are computed.
        loop {
            if !ours.is_empty() {
                let ours =
                    ours.drain(..).map(|(place, duty)| (wanted[place].key.clone(), place, duty));
                computations.push(self.compute_together(ours.collect(), compute.clone()));
            }
            tokio::select! {
                Some((place, answer)) = others.next() => {
                    let until = Instant::now() + GATHERED_WITHIN;
                    let mut next = Some((place, answer));
                    while let Some((place, answer)) = next {
                        match answer? {
                            Answer::Value(value, gone_at, outcome) => {
                                wanted[place].value = Some(value);
                                wanted[place].gone_at = gone_at;
                                wanted[place].outcome = outcome;
                            }
                            Answer::Duty(duty) => ours.push((place, duty)),
                        }
                        next = if ours.is_empty() {
                            None
                        } else {
                            timeout_at(until, others.next()).await.ok().flatten()
                        };
                    }
                }
                Some(values) = computations.next() => {
                    for (place, value) in values? {
                        wanted[place].value = Some(value);
                        wanted[place].outcome = CallOutcome::Computed;
                    }
                }
                else => return Ok(()),
            }
        }
    }

    /// What is in the store for each key. Where the store may fail without failing the call, a key that
    /// could not be read has the kind of its error.
    async fn read(
        &self,
        full: &[Bytes],
        lookups: &[Lookup<'_, S>],
    ) -> Result<Vec<Result<Option<Entry>, ErrorKind>>> {
        let found = if self.options.reads_ttl() {
            let reads = lookups.iter().map(|lookup| lookup.reading().read(&self.store, lookup.key));
            join_all(reads).await
        } else {
            let keys: Vec<&[u8]> = full.iter().map(|key| &key[..]).collect();
            match self.store.mget(&keys).await {
                Ok(found) => {
                    let entry = |value| Entry::new(value, None);
                    found.into_iter().map(|value| Ok(value.map(entry))).collect()
                }
                Err(error) => full.iter().map(|_| Err(error.copy())).collect(),
            }
        };
        if self.options.on_store_error == OnStoreError::Compute {
            return Ok(found
                .into_iter()
                .map(|found| found.map_err(|error| error.kind()))
                .collect());
        }
        let found: Result<Vec<_>> = found.into_iter().map(|found| found.map(Ok)).collect();
        found.map_err(|error| error.with_operation(OPERATION))
    }

    /// Waits for a value that somebody else computes, unless it falls to this caller after all.
    async fn value_or_duty(
        &self,
        lookup: &mut Lookup<'_, S>,
        asked: Option<Asked<S>>,
    ) -> Result<Answer<T, S>> {
        let mut asked = asked;
        for _ in 0..ASKS {
            let answer = match asked.take() {
                Some(asked) => asked,
                None => lookup.ask().await,
            };
            let (entry, outcome) = match answer {
                Asked::Found(entry) => (entry, CallOutcome::Hit),
                Asked::Landed(entry) => (entry, CallOutcome::Joined),
                Asked::Duty(duty) => return Ok(Answer::Duty(duty)),
                Asked::Refused(error) => return Err(error),
            };
            match self.typed.decode(&entry.value) {
                Some(value) => return Ok(Answer::Value(value, entry.gone_at, outcome)),
                None => lookup.ignore(entry.value),
            }
        }
        Err(disagreement())
    }

    /// Computes values in the background, and waits for them.
    async fn compute_together<K, F, Fut, V, E>(
        &self,
        ours: Vec<(K, usize, Box<Duty<S>>)>,
        compute: Arc<F>,
    ) -> Result<Vec<(usize, T)>, E>
    where
        K: Send + Sync + 'static,
        F: Fn(Vec<K>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<V>, E>> + Send + 'static,
        V: IntoFill<T> + Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let mut places = Vec::with_capacity(ours.len());
        let ours = ours.into_iter().map(|(key, place, duty)| {
            places.push(place);
            (key, duty)
        });
        let ours: Vec<_> = ours.collect();
        let caller = Arc::new(());
        let work = run_together(self.typed.clone(), ours, Arc::downgrade(&caller), compute);
        let values = match self.detached(inherited(work)).await {
            Ok(Ok(result)) => result?,
            Ok(Err(panic)) => resume_unwind(panic),
            Err(_) => return Err(abandoned().into()),
        };
        Ok(places.into_iter().zip(values).collect())
    }

    fn refresh_together<K, F, Fut, V, E>(
        &self,
        refreshes: Vec<(K, Refresh<S>, Entry)>,
        compute: Arc<F>,
    ) where
        K: Send + Sync + 'static,
        F: Fn(Vec<K>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<V>, E>> + Send + 'static,
        V: IntoFill<T> + Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let typed = self.typed.clone();
        self.background.spawn(refreshing(OPERATION, async move {
            let claims = refreshes.into_iter().map(|(key, refresh, seen)| async move {
                match refresh.claim(&seen).await {
                    Claimed::Duty { duty, .. } => Some((key, duty)),
                    Claimed::Not(_) | Claimed::Already(_) => None,
                }
            });
            let ours: Vec<_> = join_all(claims).await.into_iter().flatten().collect();
            if !ours.is_empty() {
                // Its failure is told to the observer, key by key.
                let _ = run_together(typed, ours, Weak::new(), compute).await;
            }
        }));
    }
}

/// Computes the values of several duties in one call, and keeps each under its own.
async fn run_together<S, T, C, K, F, Fut, V, E>(
    typed: Typed<T, C>,
    ours: Vec<(K, Box<Duty<S>>)>,
    caller: Weak<()>,
    compute: Arc<F>,
) -> Result<Vec<T>, E>
where
    S: KvStore + Clone,
    C: Codec<T>,
    T: Send,
    K: Send,
    F: Fn(Vec<K>) -> Fut + Send + Sync,
    Fut: Future<Output = Result<Vec<V>, E>> + Send,
    V: IntoFill<T> + Send,
    E: From<Error> + Send,
{
    let (keys, mut duties): (Vec<K>, Vec<Box<Duty<S>>>) = ours.into_iter().unzip();
    if duties.len() > 1 {
        // Which of the keys made it fail, nobody knows: the others must not cool down for it. Where
        // there is a value to serve, they may.
        let missing = duties.iter_mut().filter(|duty| !duty.refreshes());
        missing.for_each(|duty| duty.cell.options.backoff = Some(Duration::ZERO));
    }
    let flights: Vec<_> = duties.iter().map(|duty| duty.flight().clone()).collect();
    let mut senders = Vec::with_capacity(duties.len());
    let each = duties.into_iter().map(|duty| {
        let (sender, receiver) = oneshot::channel::<Fill<T>>();
        senders.push(sender);
        let typed = &typed;
        duty.run_while_wanted(caller.clone(), async move {
            let fill = receiver.await.map_err(|_| BatchFailed)?;
            Ok::<_, BatchFailed>(typed.computed(fill))
        })
    });
    let each = join_all(each.collect::<Vec<_>>());
    // Where it fails its senders are dropped, and all duties end as failed.
    let batch = async move {
        let values = computing_all(&flights, compute(keys)).await?;
        for (sender, value) in senders.into_iter().zip(one_each(values, flights.len())?) {
            let _ = sender.send(value.into_fill());
        }
        Ok::<_, E>(())
    };
    let mut batch = pin!(batch);
    let mut each = pin!(each);
    // Once no duty is left, because nobody wants them any more, neither is the computation wanted.
    let (batch, each) = tokio::select! {
        biased;
        batch = &mut batch => (batch, each.await),
        each = &mut each => (Ok(()), each),
    };
    batch?;
    let values = each.into_iter().map(|value| value.and_then(Result::ok));
    values.collect::<Option<Vec<T>>>().ok_or_else(|| abandoned().into())
}

fn one_each<V>(values: Vec<V>, keys: usize) -> Result<Vec<V>> {
    if values.len() == keys {
        return Ok(values);
    }
    let message = format!(
        "the computation must return one value for each key that it gets, in their order: it returned \
         {} for {keys}",
        values.len()
    );
    Err(Error::new(ErrorKind::InvalidArgument, message).with_operation(OPERATION))
}
