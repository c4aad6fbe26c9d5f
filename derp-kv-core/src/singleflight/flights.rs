use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use dashmap::DashMap;
use futures_util::future::{Either, select};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::error::{Error, ErrorKind};

/// The computations that callers of one store share within the process, by key.
///
/// A backend keeps one for each keyspace and returns it from
/// [`KvStore::flights`](crate::KvStore::flights); the helpers do the rest. Of the callers that
/// share a flight one at a time leads: it does the work, and lands a value for all of them or,
/// where it fails, panics or is dropped, leaves the lead to the next. No entry outlives the last
/// of its callers.
///
/// # Examples
///
/// ```
/// use derp_kv_core::Flights;
///
/// let flights = Flights::new();
/// assert!(flights.is_empty());
/// ```
#[derive(Default)]
pub struct Flights {
    cached: FlightMap,
    idempotent: FlightMap,
}

type FlightMap = DashMap<Bytes, Arc<Flight>>;

/// Which helper's flights: one key of two helpers must not share one.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    Cached,
    Idempotent,
}

impl Flights {
    /// No flights yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many keys have a flight under way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.cached.len() + self.idempotent.len()
    }

    /// Whether no flight is under way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn map(&self, purpose: Purpose) -> &FlightMap {
        match purpose {
            Purpose::Cached => &self.cached,
            Purpose::Idempotent => &self.idempotent,
        }
    }

    /// Joins the flight of `key` where there is one.
    pub(crate) fn join_existing(&self, purpose: Purpose, key: &[u8]) -> Option<Ticket<'_>> {
        let map = self.map(purpose);
        let entry = map.get(key)?;
        // Under the shard's read lock; the last user leaves under its write lock.
        entry.users.fetch_add(1, Ordering::Relaxed);
        let flight = entry.value().clone();
        Some(Ticket { place: Some((map, entry.key().clone())), flight })
    }

    /// Joins the flight of `key`, or opens one.
    pub(crate) fn join(&self, purpose: Purpose, key: &[u8]) -> Ticket<'_> {
        let map = self.map(purpose);
        let key = Bytes::copy_from_slice(key);
        let entry = map.entry(key.clone()).or_default();
        entry.users.fetch_add(1, Ordering::Relaxed);
        let flight = entry.value().clone();
        drop(entry);
        Ticket { place: Some((map, key)), flight }
    }

    /// Lets nobody join the present flight of `key` any more; those on board stay.
    pub(crate) fn detach(&self, purpose: Purpose, key: &[u8]) {
        self.map(purpose).remove(key);
    }
}

impl fmt::Debug for Flights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flights").field("len", &self.len()).finish()
    }
}

struct Flight {
    users: AtomicUsize,
    lead: Semaphore,
    landed: OnceLock<Bytes>,
    broken: OnceLock<Error>,
    beside: Semaphore,
    tag: Mutex<Option<String>>,
    /// The value of the lock as last seen, and since when it has been that.
    holder: Mutex<Option<(Bytes, Instant)>>,
}

impl Default for Flight {
    fn default() -> Self {
        Self {
            users: AtomicUsize::new(0),
            lead: Semaphore::new(1),
            landed: OnceLock::new(),
            broken: OnceLock::new(),
            beside: Semaphore::new(1),
            tag: Mutex::new(None),
            holder: Mutex::new(None),
        }
    }
}

/// One caller's place in a flight.
pub(crate) struct Ticket<'a> {
    /// The map and key to leave; none for a flight that nobody else can join.
    place: Option<(&'a FlightMap, Bytes)>,
    flight: Arc<Flight>,
}

/// What a caller's wait for its turn came to.
pub(crate) enum Turn<'a> {
    /// The caller does the work.
    Lead(Lead<'a>),
    /// A leader landed this.
    Landed(Bytes),
    /// The store failed the leader like this: everybody asks it for themselves.
    Broken(Error),
}

impl Ticket<'_> {
    /// A flight of one caller, for stores that share none.
    pub(crate) fn alone() -> Self {
        Self { place: None, flight: Arc::default() }
    }

    pub(crate) async fn turn(&self) -> Turn<'_> {
        let permit = self.flight.lead.acquire().await;
        match (self.flight.landed.get(), permit) {
            (Some(value), _) => Turn::Landed(value.clone()),
            (None, Ok(permit)) => Turn::Lead(Lead { ticket: self, _permit: permit }),
            (None, Err(_)) => Turn::Broken(self.broken()),
        }
    }

    /// As [`turn`](Self::turn), and for the one place of a caller that works beside the lead.
    pub(crate) async fn turn_or_place(&self) -> Either<Turn<'_>, SemaphorePermit<'_>> {
        let (turn, place) = (pin!(self.turn()), pin!(self.flight.beside.acquire()));
        match select(turn, place).await {
            Either::Left((turn, _)) => Either::Left(turn),
            Either::Right((Ok(place), _)) => Either::Right(place),
            // The flight has ended, and says how.
            Either::Right((Err(_), turn)) => Either::Left(turn.await),
        }
    }

    /// The place beside the lead, once it is free; none where the flight ends before.
    pub(crate) async fn place_beside(&self) -> Option<SemaphorePermit<'_>> {
        self.flight.beside.acquire().await.ok()
    }

    /// The place beside the lead, where it is free.
    pub(crate) fn try_place_beside(&self) -> Option<SemaphorePermit<'_>> {
        self.flight.beside.try_acquire().ok()
    }

    /// Since when the lock has had this value, as far as anybody on board knows.
    pub(crate) fn held_since(&self, value: &Bytes) -> Instant {
        let mut holder = self.flight.holder.lock().unwrap_or_else(PoisonError::into_inner);
        match &*holder {
            Some((known, since)) if known == value => *since,
            _ => holder.insert((value.clone(), Instant::now())).1,
        }
    }

    /// What somebody on board has landed.
    pub(crate) fn landed(&self) -> Option<Bytes> {
        self.flight.landed.get().cloned()
    }

    fn broken(&self) -> Error {
        self.flight.broken.get().map_or_else(
            || Error::new(ErrorKind::Abandoned, "the computation ended without a result"),
            Error::copy,
        )
    }

    /// Gives `value` to all who share the flight and ends it: who comes later opens another.
    pub(crate) fn land(&self, value: Bytes) {
        // The first landing is the one that counts.
        let _ = self.flight.landed.set(value);
        self.close();
    }

    /// What the leader that is at work has marked the flight with.
    pub(crate) fn tag(&self) -> Option<String> {
        self.flight.tag.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn close(&self) {
        if let Some((map, key)) = &self.place {
            map.remove_if(key, |_, flight| Arc::ptr_eq(flight, &self.flight));
        }
        self.flight.lead.close();
        self.flight.beside.close();
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if let Some((map, key)) = &self.place {
            // Counted under the shard's lock, where joining counts too: the last one out is known.
            map.remove_if(key, |_, flight| {
                Arc::ptr_eq(flight, &self.flight)
                    && flight.users.fetch_sub(1, Ordering::Relaxed) == 1
            });
        }
    }
}

/// The lead of a flight. Dropped without a landing, it goes to the next caller.
pub(crate) struct Lead<'a> {
    ticket: &'a Ticket<'a>,
    _permit: SemaphorePermit<'a>,
}

impl Lead<'_> {
    pub(crate) fn land(self, value: Bytes) {
        self.ticket.land(value);
    }

    /// Sends all who share the flight to the store themselves; `error` is what it said.
    pub(crate) fn break_up(self, error: &Error) {
        let _ = self.ticket.flight.broken.set(error.copy());
        self.ticket.close();
    }

    pub(crate) fn mark(&self, tag: Option<&str>) {
        let mut mark = self.ticket.flight.tag.lock().unwrap_or_else(PoisonError::into_inner);
        *mark = tag.map(str::to_owned);
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        self.mark(None);
    }
}
