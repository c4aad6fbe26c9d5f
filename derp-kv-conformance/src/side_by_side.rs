//! Callers who go over the same keys side by side, each on a thread of its own.
//!
//! Tasks of one runtime that are woken together run one after the other where no call of theirs
//! ever waits. A window of a few instructions is met by threads alone.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::erased::Store;
use crate::violation::Violation;

/// How long callers spin for each other at a group, and at all groups together: on a busy machine,
/// the other's thread may have no core for a while.
const AT_GROUP: Duration = Duration::from_millis(5);
const AT_ALL_GROUPS: Duration = Duration::from_millis(120);

/// How long they do at a key.
const AT_KEY: Duration = Duration::from_micros(20);

/// A place at which callers meet.
#[derive(Debug, Default)]
struct Place {
    arrived: AtomicUsize,
    seen: AtomicUsize,
}

/// Where callers meet.
#[derive(Debug)]
struct Meeting {
    groups: Vec<Place>,
    keys: Vec<Place>,
    callers: AtomicUsize,
    spent: AtomicU64,
}

impl Meeting {
    fn new(groups: usize, keys: usize, callers: usize) -> Self {
        let places = |count| std::iter::repeat_with(Place::default).take(count).collect();
        let callers = AtomicUsize::new(callers);
        Self { groups: places(groups), keys: places(keys), callers, spent: AtomicU64::new(0) }
    }

    /// Waits until two callers are at the place, each on a core: each has seen the other come.
    fn at(&self, place: &Place, most: Duration) -> Duration {
        let began = Instant::now();
        for count in [&place.arrived, &place.seen] {
            count.fetch_add(1, Ordering::SeqCst);
            // Nobody comes any more where no other caller is left.
            while count.load(Ordering::SeqCst) < self.callers.load(Ordering::SeqCst).min(2) {
                if began.elapsed() >= most {
                    return most;
                }
                std::hint::spin_loop();
            }
        }
        began.elapsed()
    }

    fn at_group(&self, group: usize) {
        let spent = Duration::from_micros(self.spent.load(Ordering::SeqCst));
        let spent = self.at(&self.groups[group], AT_GROUP.min(AT_ALL_GROUPS.saturating_sub(spent)));
        let spent = u64::try_from(spent.as_micros()).unwrap_or(u64::MAX);
        self.spent.fetch_add(spent, Ordering::SeqCst);
    }

    fn at_key(&self, key: usize) {
        self.at(&self.keys[key], AT_KEY);
    }
}

/// Nobody waits for a caller that has gone.
struct Leaves(Arc<Meeting>);

impl Drop for Leaves {
    fn drop(&mut self) {
        self.0.callers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// One of the callers.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) number: usize,
    pub(crate) kv: Store,
    meeting: Arc<Meeting>,
}

impl Caller {
    /// Makes a call for each key, all of them under way together; each begins when another caller
    /// has come to its key, as far as one comes.
    pub(crate) async fn each<T, F>(
        &self,
        keys: Range<usize>,
        call: impl Fn(usize) -> F,
    ) -> Result<Vec<T>, Violation>
    where
        F: Future<Output = Result<T, Violation>>,
    {
        let calls = keys.map(|key| {
            let call = call(key);
            async move {
                self.meeting.at_key(key);
                call.await
            }
        });
        join_all(calls).await.into_iter().collect()
    }
}

/// Runs one caller for each of the `stores`, on threads, over `keys` in groups of `group`. All of
/// them begin a group about together. Returns what each caller got of each group.
pub(crate) async fn side_by_side<T, F>(
    stores: Vec<Store>,
    keys: usize,
    group: usize,
    call: impl Fn(Caller, Range<usize>) -> F + Send + Sync + 'static,
) -> Result<Vec<Vec<T>>, Violation>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Violation>>,
{
    let groups = keys.div_ceil(group);
    let meeting = Arc::new(Meeting::new(groups, keys, stores.len()));
    let call = Arc::new(call);
    let mut threads = JoinSet::new();
    for (number, kv) in stores.into_iter().enumerate() {
        let caller = Caller { number, kv, meeting: meeting.clone() };
        let call = call.clone();
        threads.spawn_blocking(move || {
            let _leaves = Leaves(caller.meeting.clone());
            Handle::current().block_on(async {
                let mut got = Vec::new();
                for number in 0..groups {
                    caller.meeting.at_group(number);
                    let keys = number * group..((number + 1) * group).min(keys);
                    got.push(call(caller.clone(), keys).await?);
                }
                Ok::<_, Violation>((caller.number, got))
            })
        });
    }
    let mut results = Vec::new();
    while let Some(result) = threads.join_next().await {
        results.push(result??);
    }
    results.sort_by_key(|(number, _)| *number);
    Ok(results.into_iter().map(|(_, got)| got).collect())
}
