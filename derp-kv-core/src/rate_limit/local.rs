//! What a process remembers of ids by itself, for a while.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How many ids are remembered at most.
const MOST_IDS: usize = 16_384;

/// Where all are in use, how often it is looked for ids whose time has passed.
const CLEAN_EVERY: Duration = Duration::from_millis(100);

/// A bounded map from ids to what is remembered of each until a moment.
#[derive(Debug)]
pub(crate) struct Remembered<V> {
    ids: Mutex<Ids<V>>,
    /// How many ids there are, to be read without the lock.
    len: AtomicUsize,
    /// How often something was forgotten on demand.
    forgotten: AtomicU64,
}

#[derive(Debug)]
struct Ids<V> {
    map: HashMap<Box<[u8]>, (V, Instant)>,
    cleaned: Option<Instant>,
}

impl<V> Default for Remembered<V> {
    fn default() -> Self {
        let ids = Ids { map: HashMap::new(), cleaned: None };
        Self { ids: Mutex::new(ids), len: AtomicUsize::new(0), forgotten: AtomicU64::new(0) }
    }
}

impl<V> Remembered<V> {
    /// Gives what is remembered of `id` to `look`, with the time that is left of it.
    pub(crate) fn look<T>(&self, id: &[u8], look: impl FnOnce(&V, Duration) -> T) -> Option<T> {
        if self.len.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut ids = self.lock();
        let (value, until) = ids.map.get(id)?;
        let left = until.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            return Some(look(value, left));
        }
        ids.map.remove(id);
        self.len.store(ids.map.len(), Ordering::Relaxed);
        None
    }

    /// Gives what is remembered of `id`, with the time that is left of it, to `change`, and keeps
    /// what it returns. An id beyond the bound shares what is remembered with all others beyond it.
    pub(crate) fn change<T, E>(
        &self,
        id: &[u8],
        change: impl FnOnce(Option<(&V, Duration)>) -> Result<(Kept<V>, T), E>,
    ) -> Result<T, E> {
        let now = Instant::now();
        let mut ids = self.lock();
        let id = if ids.map.contains_key(id) || ids.has_room(now) { id } else { &[] };
        let found = ids.map.get(id).filter(|(_, until)| *until > now);
        let found = found.map(|(value, until)| (value, *until - now));
        let (kept, answer) = change(found)?;
        match kept {
            Kept::AsItIs => {}
            Kept::Until(value, lasts) => {
                // A time that no clock can name is as good as for ever.
                let until = now.checked_add(lasts).unwrap_or(now + Duration::from_secs(86_400));
                match ids.map.get_mut(id) {
                    Some(place) => *place = (value, until),
                    None => drop(ids.map.insert(id.into(), (value, until))),
                }
            }
            Kept::Nothing => drop(ids.map.remove(id)),
        }
        self.len.store(ids.map.len(), Ordering::Relaxed);
        Ok(answer)
    }

    /// How often something was forgotten on demand.
    pub(crate) fn forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::SeqCst)
    }

    /// Remembers `value` for `lasts`, if there is room, and nothing was forgotten on demand since
    /// `before`: what was learnt before that may be true no more.
    pub(crate) fn remember(&self, id: &[u8], value: V, lasts: Duration, before: u64) {
        let now = Instant::now();
        let mut ids = self.lock();
        if self.forgotten() != before {
            return;
        }
        if (ids.map.contains_key(id) || ids.has_room(now))
            && let Some(until) = now.checked_add(lasts)
        {
            ids.map.insert(id.into(), (value, until));
            self.len.store(ids.map.len(), Ordering::Relaxed);
        }
    }

    pub(crate) fn forget(&self, id: &[u8]) {
        let mut ids = self.lock();
        self.forgotten.fetch_add(1, Ordering::SeqCst);
        ids.map.remove(id);
        self.len.store(ids.map.len(), Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Ids<V>> {
        // Nothing that runs under the lock leaves it half done.
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What [`Remembered::change`] keeps.
pub(crate) enum Kept<V> {
    AsItIs,
    Until(V, Duration),
    Nothing,
}

impl<V> Ids<V> {
    fn has_room(&mut self, now: Instant) -> bool {
        if self.map.len() >= MOST_IDS
            && self.cleaned.is_none_or(|cleaned| now >= cleaned + CLEAN_EVERY)
        {
            self.cleaned = Some(now);
            self.map.retain(|_, (_, until)| *until > now);
        }
        self.map.len() < MOST_IDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_more_ids_are_remembered_than_the_bound_and_the_others_share_a_place() {
        let ids = Remembered::default();
        let hour = Duration::from_secs(3600);
        let count = |found: Option<(&u64, Duration)>| {
            let count = found.map_or(0, |(count, _)| *count) + 1;
            Ok::<_, ()>((Kept::Until(count, hour), count))
        };
        for number in 0..MOST_IDS as u64 {
            assert_eq!(ids.change(&number.to_be_bytes(), count), Ok(1));
        }
        assert_eq!(ids.change(b"late", count), Ok(1));
        assert_eq!(ids.change(b"later", count), Ok(2), "both are beyond the bound");
        assert_eq!(ids.change(&7_u64.to_be_bytes(), count), Ok(2), "it has its place");
        ids.remember(b"latest", 1, hour, 0);
        assert_eq!(ids.look(b"latest", |count, _| *count), None);
        assert!(ids.lock().map.len() <= MOST_IDS + 1);

        tokio::time::advance(hour).await;
        assert_eq!(ids.change(b"new", count), Ok(1));
        assert_eq!(ids.lock().map.len(), 1, "what has passed is forgotten");
    }
}
