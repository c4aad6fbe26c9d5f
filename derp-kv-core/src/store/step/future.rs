use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::future::BoxFuture;
use tokio::task::coop::poll_proceed;

use crate::error::Result;
use crate::store::step::Step;
use crate::store::step::standing::Stepped;

/// What [`KvStore::step`](crate::KvStore::step) returns: a future that needs no allocation where
/// the store never waits.
///
/// Like every future it does nothing until it is polled.
///
/// # Cancel safety
///
/// Of a store that never waits, the step is made wholly in the poll that ends it. Otherwise it is
/// made or not, and what it answered is lost.
#[must_use = "a step that is not awaited is not made"]
pub struct StepFuture<'a>(Form<'a>);

enum Form<'a> {
    AtOnce {
        store: &'a dyn StepAtOnce,
        key: &'a [u8],
        step: &'a Step,
    },
    Boxed(BoxFuture<'a, Result<Stepped>>),
    /// It was made, and is not made again by one who polls once too often.
    Made,
}

/// A store that makes a step without waiting for anything: see [`StepFuture::at_once`].
pub trait StepAtOnce: Sync {
    /// Makes the step, under the store's lock.
    ///
    /// # Errors
    ///
    /// As [`KvStore::step`](crate::KvStore::step).
    fn step_at_once(&self, key: &[u8], step: &Step) -> Result<Stepped>;
}

impl<'a> StepFuture<'a> {
    /// The answer of a store that has to wait for it: in a box, as `async_trait` makes it for the
    /// other operations.
    pub fn new(call: impl Future<Output = Result<Stepped>> + Send + 'a) -> Self {
        Self(Form::Boxed(Box::pin(call)))
    }

    /// The answer of a store that never waits. Nothing is allocated.
    ///
    /// It takes a unit of tokio's cooperative budget, so that a loop of steps lets the other tasks of
    /// its thread run.
    pub fn at_once(store: &'a dyn StepAtOnce, key: &'a [u8], step: &'a Step) -> Self {
        Self(Form::AtOnce { store, key, step })
    }
}

impl Future for StepFuture<'_> {
    type Output = Result<Stepped>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Form::Boxed(call) => call.as_mut().poll(context),
            Form::AtOnce { store, key, step } => {
                ready!(poll_proceed(context)).made_progress();
                let stepped = store.step_at_once(key, step);
                self.0 = Form::Made;
                Poll::Ready(stepped)
            }
            Form::Made => unreachable!("a step is polled after it has answered"),
        }
    }
}

impl fmt::Debug for StepFuture<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StepFuture").finish_non_exhaustive()
    }
}
