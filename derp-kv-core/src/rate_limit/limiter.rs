use std::borrow::Cow;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, ErrorKind, Result};
use crate::observe::call::call;
use crate::observe::decided_by::DecidedBy;
use crate::observe::span::waits;
use crate::operation::Operation;
use crate::rate_limit::decide::{
    by_plan, decided, rate_limit_peek, rate_limit_refund, rate_limit_reset,
};
use crate::rate_limit::limit::RateLimit;
use crate::rate_limit::local::Remembered;
use crate::rate_limit::status::RateLimitStatus;
use crate::rate_limit::without_store::{Counted, WithoutStore};
use crate::store::kv_store::KvStore;
use crate::store::step::ask::Ask;
use crate::store::step::standing::MAX_LIMITS;

/// One [`RateLimit`] on one store, for a service that checks it all day.
///
/// It is a cheap handle, whose clones remember together what
/// [`block_locally`](Self::block_locally) and [`WithoutStore::Local`] remember. A call allocates
/// nothing but what these remember of its id and what the store does: on a `MemoryStore` nothing, for
/// an id of usual length that it knows.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use derp_kv_core::{RateLimit, RateLimiter, WithoutStore};
///
/// # #[tokio::main] async fn main() -> derp_kv_core::Result<()> {
/// # let kv = derp_kv_memory::MemoryStore::new();
/// let searches = RateLimiter::new(kv, RateLimit::smooth(100, Duration::from_secs(1)).burst(10))
///     .on_store_error(WithoutStore::Local { share: 0.25 }) // of four processes
///     .block_locally();
/// let status = searches.check("search:ada").await?;
/// assert!(status.allowed && status.remaining == 9);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct RateLimiter<S> {
    store: S,
    limit: RateLimit,
    without_store: Option<WithoutStore>,
    blocked: Option<Arc<Remembered<Blocked>>>,
    counted: Arc<Counted>,
}

/// An id that the store denied.
#[derive(Clone, Copy, Debug)]
struct Blocked {
    /// A call that costs something else may be allowed earlier, or later.
    costs: [u64; MAX_LIMITS],
    status: RateLimitStatus,
}

impl<S: KvStore> RateLimiter<S> {
    /// A handle on `limit` in `store`. A mistake in the limit is an error of each call.
    pub fn new(store: S, limit: RateLimit) -> Self {
        Self { store, limit, without_store: None, blocked: None, counted: Arc::default() }
    }

    /// What to answer where the store fails. By default its error.
    ///
    /// It is decided as soon as the store fails: a store that is known to be down fails at once, and
    /// any other by its deadline. Give a store without one a [`Layer`](crate::Layer) that has one.
    ///
    /// What is wrong with the call stays an error: [`InvalidArgument`](ErrorKind::InvalidArgument), and
    /// [`Corrupt`](ErrorKind::Corrupt) or [`NotAnInteger`](ErrorKind::NotAnInteger) where the key holds
    /// something else. So does an error that has a [`retry_after`](Error::retry_after): the store is
    /// there, and too many others were at the key. A layer that answers in the place of a store that is
    /// down gives its error none.
    #[must_use]
    pub fn on_store_error(mut self, without_store: WithoutStore) -> Self {
        self.without_store = Some(without_store);
        self
    }

    /// Lets an id that was denied ask nobody until its `retry_after`. A call of another cost asks.
    ///
    /// It could not be allowed earlier, unless it is [reset](Self::reset) or
    /// [given back](Self::refund) something: through this handle that ends the block at once, through
    /// another process it is noticed at the `retry_after`. What remains is told as it was when the
    /// store denied it. A fixed window does not count what is denied so. Up to 16,384 ids are
    /// remembered, in up to about 1 KiB each beside the id.
    #[must_use]
    pub fn block_locally(mut self) -> Self {
        self.blocked.get_or_insert_default();
        self
    }

    /// The limit.
    pub fn limit(&self) -> &RateLimit {
        &self.limit
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &S {
        &self.store
    }

    /// Counts a call and tells whether it is within the limit:
    /// [`rate_limit`](crate::KvStoreExt::rate_limit).
    ///
    /// # Errors
    ///
    /// As [`rate_limit`](crate::KvStoreExt::rate_limit); where [`on_store_error`](Self::on_store_error)
    /// is set, only those that it leaves.
    ///
    /// # Cancel safety
    ///
    /// A dropped call is counted or not.
    pub async fn check(&self, id: impl AsRef<[u8]>) -> Result<RateLimitStatus> {
        self.decide(id.as_ref(), &self.limit).await
    }

    /// [`check`](Self::check) for a call that counts for `cost`.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check).
    ///
    /// # Cancel safety
    ///
    /// As [`check`](Self::check).
    pub async fn check_cost(&self, id: impl AsRef<[u8]>, cost: u64) -> Result<RateLimitStatus> {
        self.decide(id.as_ref(), &self.costing(cost)).await
    }

    /// Waits until a call is allowed, and counts it; where that would take longer than `at_most`, or
    /// is not known, answers at once that it is denied.
    ///
    /// It sleeps exactly as long as the answer says, and asks again: whoever waits alone asks twice.
    /// Of many who wait for one id, those who come first after each pause pass.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with time.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check).
    ///
    /// # Cancel safety
    ///
    /// A dropped call waits no longer, and is counted or not.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use derp_kv_core::{RateLimit, RateLimiter};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> derp_kv_core::Result<()> {
    /// # let kv = derp_kv_memory::MemoryStore::new();
    /// let mails = RateLimiter::new(kv, RateLimit::smooth(1, Duration::from_secs(1)));
    /// for _ in 0..3 {
    ///     assert!(mails.until_allowed("mail:ada", Duration::from_secs(5)).await?.allowed);
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn until_allowed(
        &self,
        id: impl AsRef<[u8]>,
        at_most: Duration,
    ) -> Result<RateLimitStatus> {
        let work = pin!(self.wait_until_allowed(id.as_ref(), at_most));
        call(self.store.observer(), Operation::RateLimit, work, decided).await
    }

    async fn wait_until_allowed(&self, id: &[u8], at_most: Duration) -> Result<RateLimitStatus> {
        let began = Instant::now();
        loop {
            let status = self.status(id, &self.limit).await?;
            let Some(wait) = status.retry_after.filter(|_| !status.allowed) else {
                return Ok(status);
            };
            if began.elapsed().saturating_add(wait) > at_most {
                return Ok(status);
            }
            waits();
            tokio::time::sleep(wait).await;
        }
    }

    /// Tells how a call would fare, and counts nothing:
    /// [`rate_limit_peek`](crate::KvStoreExt::rate_limit_peek). It always asks the store.
    ///
    /// # Errors
    ///
    /// As [`rate_limit_peek`](crate::KvStoreExt::rate_limit_peek).
    ///
    /// # Cancel safety
    ///
    /// Nothing is written; drop it at any time.
    pub async fn peek(&self, id: impl AsRef<[u8]>) -> Result<RateLimitStatus> {
        rate_limit_peek(&self.store, id, &self.limit).await
    }

    /// Gives back what a call was counted for: [`rate_limit_refund`](crate::rate_limit_refund).
    ///
    /// Only what the store has counted is in the store: give nothing back of a call whose
    /// [`source`](RateLimitStatus::source) was another.
    ///
    /// # Errors
    ///
    /// As [`rate_limit_refund`](crate::KvStoreExt::rate_limit_refund).
    ///
    /// # Cancel safety
    ///
    /// It is given back or not.
    pub async fn refund(&self, id: impl AsRef<[u8]>) -> Result<RateLimitStatus> {
        self.give_back(id.as_ref(), &self.limit).await
    }

    /// [`refund`](Self::refund) of a call that was counted for `cost`.
    ///
    /// # Errors
    ///
    /// As [`refund`](Self::refund).
    ///
    /// # Cancel safety
    ///
    /// As [`refund`](Self::refund).
    pub async fn refund_cost(&self, id: impl AsRef<[u8]>, cost: u64) -> Result<RateLimitStatus> {
        self.give_back(id.as_ref(), &self.costing(cost)).await
    }

    /// Forgets what was counted for `id`, and tells whether anything was:
    /// [`rate_limit_reset`](crate::KvStoreExt::rate_limit_reset).
    ///
    /// # Errors
    ///
    /// As [`rate_limit_reset`](crate::KvStoreExt::rate_limit_reset).
    ///
    /// # Cancel safety
    ///
    /// It is forgotten or not.
    pub async fn reset(&self, id: impl AsRef<[u8]>) -> Result<bool> {
        let id = id.as_ref();
        let reset = rate_limit_reset(&self.store, id, &self.limit).await;
        self.unblock(id);
        self.counted.forget(id);
        reset
    }

    async fn give_back(&self, id: &[u8], limit: &RateLimit) -> Result<RateLimitStatus> {
        let given = rate_limit_refund(&self.store, id, limit).await;
        self.unblock(id);
        given
    }

    fn costing(&self, cost: u64) -> Cow<'_, RateLimit> {
        if self.limit.rules().iter().all(|rule| rule.cost == cost) {
            Cow::Borrowed(&self.limit)
        } else {
            Cow::Owned(self.limit.clone().cost(cost))
        }
    }

    async fn decide(&self, id: &[u8], limit: &RateLimit) -> Result<RateLimitStatus> {
        let work = pin!(self.status(id, limit));
        call(self.store.observer(), Operation::RateLimit, work, decided).await
    }

    async fn status(&self, id: &[u8], limit: &RateLimit) -> Result<RateLimitStatus> {
        let named = |error: Error| error.with_operation(Operation::RateLimit);
        let key = limit.key(id).map_err(named)?;
        let plan = limit.plan(Ask::Admit).map_err(named)?;
        if let Some(without_store) = self.without_store {
            without_store.check().map_err(named)?;
        }
        if let Some(status) = self.block_of(id, limit) {
            return Ok(status);
        }
        let before = self.blocked.as_ref().map_or(0, |blocked| blocked.forgotten());
        match (by_plan(&self.store, &key, limit, &plan).await, self.without_store) {
            (Ok(status), _) => {
                self.block(id, limit, &status, before);
                Ok(status)
            }
            (Err(error), Some(without_store)) if is_failure(&error) => {
                without_store.decide(&self.counted, id, limit).map_err(named)
            }
            (Err(error), _) => Err(named(error)),
        }
    }

    /// The answer to a call of an id that is blocked.
    fn block_of(&self, id: &[u8], limit: &RateLimit) -> Option<RateLimitStatus> {
        let denied = |blocked: &Blocked, left: Duration| {
            let passed = blocked.status.retry_after.unwrap_or_default().saturating_sub(left);
            (costs(limit) == blocked.costs).then(|| blocked.status.aged(passed))
        };
        self.blocked.as_ref()?.look(id, denied).flatten()
    }

    /// Not where something was reset or given back since the store was asked.
    fn block(&self, id: &[u8], limit: &RateLimit, status: &RateLimitStatus, before: u64) {
        if let (Some(blocked), Some(lasts)) = (&self.blocked, status.retry_after)
            && !status.allowed
            && status.source == DecidedBy::Store
        {
            let denied = Blocked { costs: costs(limit), status: *status };
            blocked.remember(id, denied, lasts, before);
        }
    }

    fn unblock(&self, id: &[u8]) {
        if let Some(blocked) = &self.blocked {
            blocked.forget(id);
        }
    }
}

/// Whether the store failed, and not the call: what is wrong with the key or the limit stays wrong, and
/// who met too many others at one key may try again.
pub(crate) fn is_failure(error: &Error) -> bool {
    use ErrorKind::{AccessDenied, Backend, Full, ReadOnly, Timeout, Unavailable};
    let kinds = [Unavailable, Timeout, AccessDenied, ReadOnly, Full, Backend];
    kinds.contains(&error.kind()) && error.retry_after().is_none()
}

/// What a call costs under each of the limits.
fn costs(limit: &RateLimit) -> [u64; MAX_LIMITS] {
    let mut costs = [0; MAX_LIMITS];
    for (place, rule) in costs.iter_mut().zip(limit.rules()) {
        *place = rule.cost;
    }
    costs
}

impl<S: fmt::Debug> fmt::Debug for RateLimiter<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimiter")
            .field("store", &self.store)
            .field("limit", &self.limit)
            .field("without_store", &self.without_store)
            .field("blocks_locally", &self.blocked.is_some())
            .finish_non_exhaustive()
    }
}
