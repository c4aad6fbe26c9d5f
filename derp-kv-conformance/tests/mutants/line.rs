//! The connection between a broken store and its data, which the suite may cut.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use derp_kv_conformance::Cut;
use derp_kv_core::{Ask, Counter, Error, ErrorKind, Expiry, Operation, RateLimit, Result, Stepped};
use futures_core::future::BoxFuture;

/// What a store makes of a broken connection.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Lie {
    /// It tells the truth.
    #[default]
    None,
    /// It never says that a write may have been applied.
    NeverDoubts,
    /// It does not say so of deletions, which it takes for harmless.
    DoubtsNoDeletion,
    /// It does not say so of batches.
    DoubtsNoBatch,
    /// It does not say so of what it sends in a script: counters and comparisons.
    DoubtsNoScript,
    /// It says `Ok` of a write that it has handed to the connection.
    BelievesInSending,
    /// It sends every write again.
    Resends,
    /// It sends again what needs no condition, and counters.
    ResendsCounters,
    /// It sends deletions and comparisons again, as if these were the same call.
    ResendsConditions,
    /// It says of writes that nothing will help.
    GivesUp,
    /// It takes a read without an answer for one that found nothing.
    MissesOnTrouble,
    /// It ends a scan where its connection ends.
    EndsScans,
    /// It says of a read that it may have been applied.
    DoubtsReads,
    /// It finds no new connection.
    StaysBroken,
    /// It gives each caller the answer of the one before, from the break on.
    Shifts,
    /// It loses the writes that follow a break, and says `Ok`.
    LosesTheNext,
    /// It sends a large batch in parts, and says of it what is true of the last part.
    ForgetsParts,
    /// It sends a large batch in parts, and says `Ok` although one was lost.
    SkipsParts,
    /// It sends again what was under way for others when the connection broke.
    ResendsInFlight,
    /// It says of what was under way for others that it was not applied.
    DoubtsNobodyElse,
}

/// More keys are sent in parts.
const PART: usize = 1_000;

/// Lies about a connection that broke under the call of another caller.
impl Lie {
    fn is_about_others(self) -> bool {
        matches!(self, Self::ResendsInFlight | Self::DoubtsNobodyElse)
    }
}

/// A connection that carries calls until it is cut.
#[derive(Debug, Default)]
pub(crate) struct Line {
    lie: Lie,
    armed: Mutex<HashMap<Vec<u8>, Cut>>,
    broke: AtomicBool,
    breaks: AtomicU64,
    loses: AtomicBool,
    last_value: Mutex<Option<Bytes>>,
}

impl Line {
    pub(crate) fn new(lie: Lie) -> Arc<Self> {
        Arc::new(Self { lie, ..Self::default() })
    }

    pub(crate) fn arm(&self, key: &[u8], cut: Cut) {
        self.armed.lock().unwrap().insert(key.to_vec(), cut);
    }

    fn take(&self, keys: &[&[u8]]) -> Option<Cut> {
        let mut armed = self.armed.lock().unwrap();
        keys.iter().find_map(|key| armed.remove(*key))
    }

    /// Makes the call that names `keys`, unless the connection breaks.
    pub(crate) async fn carry<'a, T: Send + Empty>(
        &self,
        operation: Operation,
        keys: &[&[u8]],
        call: impl Fn() -> BoxFuture<'a, Result<T>> + Send + Sync,
    ) -> Result<T> {
        let cut = self.take(keys);
        if self.lie == Lie::StaysBroken && self.broke.load(Ordering::SeqCst) {
            return Err(lost(operation));
        }
        let Some(cut) = cut else { return self.unbroken(operation, call).await };
        self.broke.store(true, Ordering::SeqCst);
        self.breaks.fetch_add(1, Ordering::SeqCst);
        self.loses.store(true, Ordering::SeqCst);
        if cut == Cut::After {
            call().await?;
        }
        let writes = operation.writes();
        let batch = matches!(operation, Operation::Mset | Operation::DeleteMany);
        let deletion = matches!(
            operation,
            Operation::Delete | Operation::DeleteMany | Operation::CompareAndDelete
        );
        let script = matches!(
            operation,
            Operation::Incr
                | Operation::CompareAndSet
                | Operation::CompareAndDelete
                | Operation::Step
        );
        match self.lie {
            Lie::NeverDoubts => Err(refused(operation)),
            Lie::DoubtsNoDeletion if deletion => Err(refused(operation)),
            Lie::DoubtsNoBatch if batch => Err(refused(operation)),
            Lie::DoubtsNoScript if script => Err(refused(operation)),
            Lie::ForgetsParts if keys.len() > PART => {
                if cut == Cut::Before {
                    call().await?;
                }
                Err(refused(operation))
            }
            Lie::SkipsParts if keys.len() > PART => Ok(T::empty()),
            Lie::BelievesInSending if operation == Operation::Set => Ok(T::empty()),
            Lie::Resends if writes => call().await,
            Lie::ResendsCounters if matches!(operation, Operation::Incr | Operation::Set) => {
                call().await
            }
            Lie::ResendsConditions if deletion || operation == Operation::CompareAndSet => {
                call().await
            }
            Lie::GivesUp if writes => Err(lost(operation).with_transient(false)),
            Lie::MissesOnTrouble if !writes => Ok(T::empty()),
            Lie::DoubtsReads if !writes => Err(lost(operation).with_may_have_applied(true)),
            _ => Err(lost(operation)),
        }
    }

    async fn unbroken<'a, T: Empty>(
        &self,
        operation: Operation,
        call: impl Fn() -> BoxFuture<'a, Result<T>> + Send + Sync,
    ) -> Result<T> {
        let loses = self.lie == Lie::LosesTheNext
            && operation == Operation::Set
            && self.loses.swap(false, Ordering::SeqCst);
        if loses {
            return Ok(T::empty());
        }
        let breaks = self.breaks.load(Ordering::SeqCst);
        let mut answer = call().await?;
        if self.lie.is_about_others() && operation == Operation::Incr {
            // The answer is on its way.
            tokio::task::yield_now().await;
            if self.breaks.load(Ordering::SeqCst) > breaks {
                return match self.lie {
                    Lie::ResendsInFlight => call().await,
                    _ => Err(refused(operation)),
                };
            }
        }
        if self.lie == Lie::Shifts && self.broke.load(Ordering::SeqCst) {
            answer.swap(&mut self.last_value.lock().unwrap());
        }
        Ok(answer)
    }

    /// Whether a scan that begins at `prefix` ends in an error instead, or in silence.
    pub(crate) fn scan(&self, prefix: &[u8]) -> Option<Result<()>> {
        self.take(&[prefix])?;
        self.broke.store(true, Ordering::SeqCst);
        Some(if self.lie == Lie::EndsScans { Ok(()) } else { Err(lost(Operation::Scan)) })
    }
}

/// What an answer is where there is none.
pub(crate) trait Empty {
    fn empty() -> Self;

    /// Exchanges a value that was read with one that was read before.
    fn swap(&mut self, _: &mut Option<Bytes>) {}
}

macro_rules! empty {
    ($($answer:ty => $empty:expr),* $(,)?) => {
        $(impl Empty for $answer {
            fn empty() -> Self {
                $empty
            }
        })*
    };
}

empty! {
    () => (),
    bool => false,
    u64 => 0,
    Counter => Counter { value: 0, expiry: Expiry::Never },
    Option<Expiry> => None,
    Option<(Bytes, Expiry)> => None,
    Vec<Option<Bytes>> => Vec::new(),
}

impl Empty for Stepped {
    fn empty() -> Self {
        let step = RateLimit::strict(1, std::time::Duration::from_secs(1)).step(Ask::Peek);
        step.and_then(|step| step.apply(None)).expect("a look at an absent key").1
    }
}

impl Empty for Option<Bytes> {
    fn empty() -> Self {
        None
    }

    fn swap(&mut self, last: &mut Option<Bytes>) {
        std::mem::swap(self, last);
    }
}

fn refused(operation: Operation) -> Error {
    Error::new(ErrorKind::Unavailable, "the connection is closed").with_operation(operation)
}

fn lost(operation: Operation) -> Error {
    Error::new(ErrorKind::Unavailable, "the connection was lost")
        .with_operation(operation)
        .with_may_have_applied(operation.writes())
}
