//! What the helpers promise where the store fails, at each of their calls in turn.

mod counted;
mod once;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use derp_kv_core::{Error, ErrorKind, Expiry, KvStore};
use futures_util::future::try_join_all;

use crate::erased::Store;
use crate::scene::Scene;
use crate::violation::{Violation, ensure};
use crate::{Fault, FaultStore, Operation};

pub(crate) use counted::*;
pub(crate) use once::*;

/// A third of it, after which a lease is renewed, is longer than a loaded machine keeps a task
/// waiting.
const LOCK: Duration = Duration::from_secs(2);

/// Work during which a lease is renewed once.
const WORK: Duration = Duration::from_millis(800);

/// After which a client gives up the call that hangs: it is applied long before.
const PATIENCE: Duration = Duration::from_millis(1_500);

const FAULTS: [Fault; 5] = [
    Fault::FailBefore,
    Fault::FailAfter,
    Fault::Lose,
    Fault::Delay(Duration::from_millis(20)),
    Fault::Hang,
];

/// One key or id, and the store that fails under it.
struct Case {
    kv: FaultStore<Store>,
    /// As another process has it, where nothing fails.
    other: Store,
    id: String,
    fault: Fault,
}

/// Plays `scenario` once to count its calls, and then for each of them with each fault, all side
/// by side: where time is real, they share their waiting.
async fn each_fault(
    scene: &mut Scene<'_>,
    scenario: impl AsyncFn(&Case) -> Result<(), Violation>,
) -> Result<(), Violation> {
    let handles = scene.handles(2).await?;
    let (own, other) = (&handles[0], &handles[1]);
    let case = |kv: FaultStore<_>, id: String, fault| Case { kv, other: other.clone(), id, fault };
    let without = case(FaultStore::none(own.clone()), "without".to_owned(), FAULTS[0]);
    scenario(&without).await.map_err(|violation| violation.within("without any fault, "))?;
    let calls = without.kv.calls();
    let numbered = FAULTS.into_iter().flat_map(|fault| (0..calls).map(move |nth| (fault, nth)));
    let cases = numbered.enumerate().map(|(number, (fault, nth))| {
        case(FaultStore::nth(own.clone(), nth, fault), number.to_string(), fault)
    });
    let cases: Vec<_> = cases.collect();
    let plays = cases.iter().map(async |case| {
        scenario(case).await.map_err(|violation| {
            let call = case.kv.last_injected().map_or("a call", |operation| operation.name());
            violation.within(format!("with `{:?}` at {call}, ", case.fault))
        })
    });
    try_join_all(plays).await?;
    Ok(())
}

impl Case {
    /// A call by a client that does not wait for ever. `None`: it hung, and was given up.
    async fn call<T>(&self, call: impl Future<Output = T>) -> Option<T> {
        if self.fault != Fault::Hang || self.kv.injected() > 0 {
            return Some(call.await);
        }
        let given_up = async {
            self.kv.until_injected(1).await;
            if self.kv.last_injected() == Some(Operation::CompareAndSet) {
                // A renewal hangs in the background, and the call itself does not.
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(PATIENCE).await;
        };
        tokio::select! {
            biased;
            result = call => Some(result),
            () = given_up => None,
        }
    }

    /// Whether the error is the injected one, and tells the truth about it.
    fn check(&self, error: &Error) -> Result<(), Violation> {
        self.check_after(false, error)
    }

    /// [`check`](Self::check), of a call that had written something before the failed one, or not.
    fn check_after(&self, wrote: bool, error: &Error) -> Result<(), Violation> {
        let Some(picked) = self.kv.last_injected() else {
            return Err(Violation::new(format!("nothing failed, and yet a call did: {error}")));
        };
        let (kind, may_have_applied) = match self.fault {
            Fault::FailBefore => (ErrorKind::Unavailable, wrote),
            Fault::FailAfter | Fault::Lose => (ErrorKind::Timeout, wrote || picked.writes()),
            Fault::Delay(_) | Fault::Hang => {
                return Err(Violation::new(format!("nothing failed, and yet a call did: {error}")));
            }
        };
        let told = (error.kind(), error.may_have_applied());
        let right = told == (kind, may_have_applied);
        ensure!(right, "(kind, may_have_applied) is {told:?}, not {:?}", (kind, may_have_applied));
        Ok(())
    }

    /// Nothing is left that never expires; and no lock, unless a call that hangs still holds it.
    async fn leaves_nothing(&self, record: &str) -> Result<(), Violation> {
        let lock = format!("{record}:lock");
        for key in [record, &lock] {
            let expiry = self.other.ttl(key.as_bytes()).await?;
            ensure!(expiry != Some(Expiry::Never), "`{key}` is left without an expiry");
        }
        if self.fault == Fault::Hang {
            return Ok(());
        }
        crate::laws::helpers::until_absent(&self.other, lock.as_bytes()).await
    }
}

/// Work of which one may be under way at a time.
#[derive(Clone, Debug, Default)]
struct Alone {
    inside: Arc<AtomicU32>,
    beside: Arc<AtomicU32>,
    done: Arc<AtomicU32>,
}

struct Inside<'a>(&'a AtomicU32);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Alone {
    /// Works, and tells how often that had been done before.
    async fn work(&self) -> Result<u32, Error> {
        let others = self.inside.fetch_add(1, Ordering::SeqCst);
        let _inside = Inside(&self.inside);
        self.beside.fetch_add(others, Ordering::SeqCst);
        tokio::time::sleep(WORK).await;
        Ok(self.done.fetch_add(1, Ordering::SeqCst))
    }

    fn done(&self) -> u32 {
        self.done.load(Ordering::SeqCst)
    }

    fn check(&self) -> Result<(), Violation> {
        let beside = self.beside.load(Ordering::SeqCst);
        ensure!(beside == 0, "the work is begun while a living holder is at it");
        Ok(())
    }
}
