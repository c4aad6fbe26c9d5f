use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use dashmap::{DashMap, Entry};
use tokio::time::Instant;

use crate::singleflight::flight::Flight;
#[cfg(feature = "mutants")]
use crate::singleflight::mutant::Mutant;

/// The computations that callers of one store share within the process, by key.
///
/// A backend keeps one beside its data and returns it from
/// [`KvStore::flights`](crate::KvStore::flights); the helpers do the rest. It is a handle: clones,
/// and handles [`under`](Self::under) a prefix, share one map, in which each flight stands under
/// the full key. An entry goes with the last of its callers. Only a refresh that left no new value keeps
/// its entry for a while, so that it is not begun again at once.
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
    refreshed: FlightMap,
    idempotent: FlightMap,
    #[cfg(feature = "mutants")]
    mutant: Option<Mutant>,
}

/// The flights of one purpose.
#[derive(Default)]
struct FlightMap {
    by_key: DashMap<Bytes, Arc<Flight>>,
    /// How many they are: a look at it spares most callers a look into the map.
    len: AtomicUsize,
}

/// Which helper's flights: one key of two helpers must not share one.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    Cached,
    /// Of a value that is there: nobody waits for these, they show that a refresh is under way.
    Refreshed,
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

    #[cfg(feature = "mutants")]
    pub(crate) fn is(&self, mutant: Mutant) -> bool {
        self.shared.mutant == Some(mutant)
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

    /// How many keys have a flight under way, or rest after a refresh, those of other prefixes included.
    #[must_use]
    pub fn len(&self) -> usize {
        let maps = [&self.shared.cached, &self.shared.refreshed, &self.shared.idempotent];
        maps.iter().map(|map| map.len.load(Ordering::SeqCst)).sum()
    }

    /// Whether no flight is under way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The flight of `key`, boarded, where there is one.
    pub(crate) fn board_existing(&self, purpose: Purpose, key: &[u8]) -> Option<Seat> {
        let map = self.shared.map(purpose);
        if map.is_empty() {
            return None;
        }
        let key = self.full_key(key);
        let entry = map.by_key.get(&key)?;
        // Under the map's lock, under which the last one aboard leaves.
        entry.board();
        Some(Seat { listed: Some((self.shared.clone(), purpose, key)), flight: entry.clone() })
    }

    /// The flight of `key`, boarded: the one under way, or a new one.
    pub(crate) fn board(&self, purpose: Purpose, key: &[u8]) -> Seat {
        let key = self.full_key(key);
        let map = self.shared.map(purpose);
        let entry = map.by_key.entry(key.clone()).or_insert_with(|| {
            map.len.fetch_add(1, Ordering::SeqCst);
            self.shared.new_flight()
        });
        entry.board();
        let flight = entry.clone();
        drop(entry);
        Seat { listed: Some((self.shared.clone(), purpose, key)), flight }
    }

    /// A new flight of `key`, boarded, or the one that is under way, which it does not board. One that
    /// is [over](Flight::is_over) for a value that goes away at `gone_at` is replaced.
    pub(crate) fn open(
        &self,
        purpose: Purpose,
        key: &[u8],
        gone_at: Option<Instant>,
    ) -> Result<Seat, Arc<Flight>> {
        let key = self.full_key(key);
        let map = self.shared.map(purpose);
        // Most find one, and a look keeps nobody from looking.
        if let Some(flight) = map.by_key.get(&key).filter(|flight| !flight.is_over(gone_at)) {
            return Err(flight.clone());
        }
        let flight = self.shared.new_flight();
        flight.board();
        flight.is_of(gone_at);
        match map.by_key.entry(key.clone()) {
            Entry::Occupied(entry) if !entry.get().is_over(gone_at) => {
                return Err(entry.get().clone());
            }
            Entry::Occupied(mut entry) => drop(entry.insert(flight.clone())),
            Entry::Vacant(entry) => {
                map.len.fetch_add(1, Ordering::SeqCst);
                entry.insert(flight.clone());
            }
        }
        Ok(Seat { listed: Some((self.shared.clone(), purpose, key)), flight })
    }

    /// The flight of `key`, which it does not board, where there is one.
    pub(crate) fn find(&self, purpose: Purpose, key: &[u8]) -> Option<Arc<Flight>> {
        let map = self.shared.map(purpose);
        if map.is_empty() {
            return None;
        }
        map.by_key.get(&self.full_key(key)).map(|flight| flight.clone())
    }

    /// Lets nobody board the present flight of `key` any more and returns it; those aboard stay.
    pub(crate) fn detach(&self, purpose: Purpose, key: &[u8]) -> Option<Arc<Flight>> {
        let map = self.shared.map(purpose);
        if map.is_empty() {
            return None;
        }
        let (_, flight) = map.by_key.remove(&self.full_key(key))?;
        map.len.fetch_sub(1, Ordering::SeqCst);
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

impl FlightMap {
    fn is_empty(&self) -> bool {
        self.len.load(Ordering::SeqCst) == 0
    }
}

impl Shared {
    fn map(&self, purpose: Purpose) -> &FlightMap {
        match purpose {
            Purpose::Cached => &self.cached,
            Purpose::Refreshed => &self.refreshed,
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
        let map = self.map(purpose);
        if map.by_key.remove_if(key, this).is_some() {
            map.len.fetch_sub(1, Ordering::SeqCst);
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
