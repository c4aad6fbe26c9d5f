//! Callers that sleep until a key changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use derp_kv_core::KvStore;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::kinds::Kind;
use crate::erased::Store;
use crate::resolution;
use crate::scene::Scene;
use crate::violation::{Violation, ensure};

/// Longer than any law lasts: who sleeps so long has slept through a change.
pub(in crate::laws) const FOREVER: Duration = Duration::from_secs(60 * 60);

/// How soon every waiter has heard of a change, also on a loaded machine.
const HEARD: Duration = Duration::from_secs(10);

/// [`HEARD`], of a change that may be the end of a TTL, which a store may promise to be late.
pub(in crate::laws) fn heard() -> Duration {
    HEARD + resolution::lateness()
}

/// After which a caller that came to wait sleeps inside of the store: no event tells.
const ASLEEP: Duration = Duration::from_millis(150);

/// So many returns of one caller for nothing, two in each millisecond, are no sleep. A backend that
/// wakes all waiters on any change returns once for each change that a law makes, which are fewer.
const FOR_NOTHING: u32 = 3_000;

/// Where callers lie down to wait: it knows when all of them have come.
#[derive(Clone, Debug)]
pub(super) struct Bedroom {
    expected: Arc<AtomicU32>,
    came: Arc<Semaphore>,
}

impl Default for Bedroom {
    fn default() -> Self {
        Self { expected: Arc::default(), came: Arc::new(Semaphore::new(0)) }
    }
}

impl Bedroom {
    /// One more caller is going to come.
    fn expect(&self) {
        self.expected.fetch_add(1, Ordering::Relaxed);
    }

    fn enter(&self) {
        self.came.add_permits(1);
    }

    /// Lets all who are expected fall asleep. In virtual time the clock moves only where nothing
    /// else can run.
    pub(super) async fn asleep(&self) {
        let expected = self.expected.swap(0, Ordering::Relaxed);
        // The semaphore is never closed.
        if let Ok(came) = self.came.acquire_many(expected).await {
            came.forget();
        }
        tokio::time::sleep(ASLEEP).await;
    }
}

/// The callers that wait for a change of one key. Dropping it ends them.
#[derive(Debug)]
pub(super) struct Listeners {
    pub(super) key: Vec<u8>,
    /// What they wait for, as a violation tells it.
    what: String,
    callers: JoinSet<Result<(), Violation>>,
    returns: Arc<AtomicU32>,
}

impl Listeners {
    pub(super) fn new(key: Vec<u8>, what: impl Into<String>) -> Self {
        Self { key, what: what.into(), callers: JoinSet::new(), returns: Arc::default() }
    }

    /// One more caller, which waits over `kv` until the value is not `seen`.
    pub(super) fn add(
        &mut self,
        kv: &Store,
        seen: Option<&[u8]>,
        at_most: Duration,
        bedroom: &Bedroom,
    ) {
        let (kv, key, seen) = (kv.clone(), self.key.clone(), seen.map(<[u8]>::to_vec));
        let (bedroom, returns) = (bedroom.clone(), self.returns.clone());
        bedroom.expect();
        self.callers.spawn(async move {
            bedroom.enter();
            let (began, mut own) = (Instant::now(), 0_u32);
            while kv.get(&key).await?.as_deref() == seen.as_deref() {
                kv.wait_for_change(&key, seen.as_deref(), at_most).await;
                returns.fetch_add(1, Ordering::Relaxed);
                own += 1;
                let waited = began.elapsed();
                ensure!(
                    own < FOR_NOTHING || waited * 2 >= Duration::from_millis(own.into()),
                    "a wait of at most {at_most:?} has returned {own} times within {waited:?}, \
                     for nothing"
                );
            }
            Ok(())
        });
    }

    /// How often these callers' waits have returned.
    pub(super) fn returns(&self) -> u32 {
        self.returns.load(Ordering::Relaxed)
    }

    /// Fails where a caller has failed so far.
    pub(super) fn unharmed(&mut self) -> Result<(), Violation> {
        while let Some(heard) = self.callers.try_join_next() {
            heard??;
        }
        Ok(())
    }

    /// Ends the callers that are there, and waits until they are gone.
    pub(super) async fn go_away(&mut self) {
        self.callers.shutdown().await;
    }

    /// Whether every caller hears of the change before `until`.
    pub(super) async fn hear(&mut self, until: Instant) -> Result<(), Violation> {
        let many = self.callers.len();
        loop {
            match timeout_at(until, self.callers.join_next()).await {
                Ok(None) => return Ok(()),
                Ok(Some(heard)) => heard?.map_err(|violation| {
                    violation.within(format!("waiting for {}: ", self.what))
                })?,
                Err(_) => {
                    let (deaf, what, heard) = (self.callers.len(), &self.what, heard());
                    return Err(Violation::new(format!(
                        "{deaf} of {many} waiters slept through {what}: {heard:?} went by"
                    )));
                }
            }
        }
    }
}

/// By when a change that is made now is heard.
pub(super) fn heard_by() -> Instant {
    Instant::now() + heard()
}

/// Whether the backend knows of changes, or only sleeps for as long as it is allowed to.
///
/// One that returns early, in any case at all, knows.
pub(in crate::laws) async fn knows_of_changes(scene: &mut Scene<'_>) -> Result<bool, Violation> {
    const GLANCE: Duration = Duration::from_millis(300);
    let handles = scene.handles(2).await?;
    let bedroom = Bedroom::default();
    let mut waits = JoinSet::new();
    let mut glance = |kv: &Store, key: &[u8], seen: Option<&'static [u8]>| {
        let (kv, key, bedroom) = (kv.clone(), key.to_vec(), bedroom.clone());
        bedroom.expect();
        waits.spawn(async move {
            bedroom.enter();
            let began = Instant::now();
            kv.wait_for_change(&key, seen, GLANCE).await;
            began.elapsed() < GLANCE
        });
    };
    scene.store.set(b"glance", b"v", None).await?;
    glance(&handles[0], b"glance", None);
    glance(&handles[0], b"no glance", Some(b"v"));
    let mut changes = Vec::new();
    for (number, kind) in Kind::all().into_iter().enumerate() {
        for (changer, handle) in handles.iter().enumerate() {
            let key = format!("glance {number} {changer}").into_bytes();
            kind.prepare(handle, &key).await?;
            glance(&handles[0], &key, kind.before.seen());
            changes.push((kind, handle, key));
        }
    }
    bedroom.asleep().await;
    for (kind, handle, key) in changes {
        kind.make(handle, &key).await?;
    }
    while let Some(early) = waits.join_next().await {
        if early? {
            return Ok(true);
        }
    }
    Ok(false)
}
