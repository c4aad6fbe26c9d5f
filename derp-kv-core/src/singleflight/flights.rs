use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use dashmap::DashMap;

use crate::singleflight::flight::Flight;
#[cfg(feature = "mutants")]
use crate::singleflight::mutant::Mutant;

/// The computations that callers of one store share within the process, by key.
///
/// A backend keeps one beside its data and returns it from
/// [`KvStore::flights`](crate::KvStore::flights); the helpers do the rest. It is a handle: clones,
/// and handles [`under`](Self::under) a prefix, share one map, in which each flight stands under
/// the full key. No entry outlives the last of its callers.
///
/// # Examples
///
/// ```
/// use derp_kv_core::Flights;
///
/// let flights = Flights::new();
/// assert!(flights.is_empty());
/// ```
#[derive(Clone)]
pub struct Flights {
    shared: Arc<Shared>,
    prefix: Bytes,
}

#[derive(Default)]
struct Shared {
    cached: FlightMap,
    idempotent: FlightMap,
    /// How many flights both maps hold: a look at it spares most hits a look into a map.
    under_way: AtomicUsize,
    #[cfg(feature = "mutants")]
    mutant: Option<Mutant>,
}

type FlightMap = DashMap<Bytes, Arc<Flight>>;

/// Which helper's flights: one key of two helpers must not share one.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    Cached,
    Idempotent,
}

impl Default for Flights {
    fn default() -> Self {
        Self { shared: Arc::default(), prefix: Bytes::new() }
    }
}

impl Flights {
    /// No flights yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Flights that go wrong in one way.
    #[cfg(feature = "mutants")]
    #[doc(hidden)]
    #[must_use]
    pub fn broken(mutant: Mutant) -> Self {
        let shared = Shared { mutant: Some(mutant), ..Shared::default() };
        Self { shared: Arc::new(shared), prefix: Bytes::new() }
    }

    /// A handle for a store that puts `prefix` in front of its keys: it shares its flights with
    /// every other handle that comes to the same full keys.
    #[must_use]
    pub fn under(&self, prefix: &Bytes) -> Self {
        let prefix = if self.prefix.is_empty() {
            prefix.clone()
        } else {
            [&self.prefix[..], prefix].concat().into()
        };
        Self { shared: self.shared.clone(), prefix }
    }

    /// How many keys have a flight under way, those of other prefixes included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.under_way.load(Ordering::SeqCst)
    }

    /// Whether no flight is under way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The flight of `key`, boarded, where there is one.
    pub(crate) fn board_existing(&self, purpose: Purpose, key: &[u8]) -> Option<Seat> {
        if self.is_empty() {
            return None;
        }
        let key = self.full_key(key);
        let entry = self.shared.map(purpose).get(&key)?;
        // Under the map's lock, under which the last one aboard leaves.
        entry.board();
        Some(Seat { listed: Some((self.shared.clone(), purpose, key)), flight: entry.clone() })
    }

    /// The flight of `key`, boarded: the one under way, or a new one.
    pub(crate) fn board(&self, purpose: Purpose, key: &[u8]) -> Seat {
        let key = self.full_key(key);
        let entry = self.shared.map(purpose).entry(key.clone()).or_insert_with(|| {
            self.shared.under_way.fetch_add(1, Ordering::SeqCst);
            self.shared.new_flight()
        });
        entry.board();
        let flight = entry.clone();
        drop(entry);
        Seat { listed: Some((self.shared.clone(), purpose, key)), flight }
    }

    /// Lets nobody board the present flight of `key` any more and returns it; those aboard stay.
    pub(crate) fn detach(&self, purpose: Purpose, key: &[u8]) -> Option<Arc<Flight>> {
        if self.is_empty() {
            return None;
        }
        let (_, flight) = self.shared.map(purpose).remove(&self.full_key(key))?;
        self.shared.under_way.fetch_sub(1, Ordering::SeqCst);
        Some(flight)
    }

    fn full_key(&self, key: &[u8]) -> Bytes {
        if self.prefix.is_empty() {
            Bytes::copy_from_slice(key)
        } else {
            [&self.prefix[..], key].concat().into()
        }
    }
}

impl Shared {
    fn map(&self, purpose: Purpose) -> &FlightMap {
        match purpose {
            Purpose::Cached => &self.cached,
            Purpose::Idempotent => &self.idempotent,
        }
    }

    fn new_flight(&self) -> Arc<Flight> {
        #[cfg(feature = "mutants")]
        if let Some(mutant) = self.mutant {
            return Arc::new(Flight::broken(mutant));
        }
        Arc::default()
    }

    /// Takes the flight out of the map where it is `flight` and `gone` agrees, under the map's lock.
    fn remove_if(
        &self,
        purpose: Purpose,
        key: &Bytes,
        flight: &Arc<Flight>,
        gone: impl FnOnce() -> bool,
    ) {
        let this = |_: &Bytes, found: &Arc<Flight>| Arc::ptr_eq(found, flight) && gone();
        if self.map(purpose).remove_if(key, this).is_some() {
            self.under_way.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl fmt::Debug for Flights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flights").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// One caller's stay aboard a flight: dropped, it leaves.
pub(crate) struct Seat {
    /// Where the flight stands in the map; none for a flight that nobody else can board.
    listed: Option<(Arc<Shared>, Purpose, Bytes)>,
    pub(crate) flight: Arc<Flight>,
}

impl Seat {
    /// A flight of one caller, for stores that share none.
    pub(crate) fn alone() -> Self {
        Self { listed: None, flight: Arc::default() }
    }

    /// Lets nobody board the flight any more, which has ended: who comes later opens another.
    pub(crate) fn close(&self) {
        if let Some((shared, purpose, key)) = &self.listed {
            shared.remove_if(*purpose, key, &self.flight, || true);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some((shared, purpose, key)) = &self.listed {
            // Counted under the map's lock, where boarding counts too: the last one is known.
            shared.remove_if(*purpose, key, &self.flight, || self.flight.leave());
        }
    }
}
