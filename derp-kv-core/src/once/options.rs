use std::borrow::Cow;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::coordinate::keys::{
    IDEMPOTENCY_PREFIX, LOCK_TTL, RETRY_DELAY, WEBHOOK_PREFIX, check_duration,
};
use crate::coordinate::token::hex;
use crate::error::{Error, ErrorKind, Result};
use crate::store::ttl::Ttl;

/// Options of [`idempotent_execute`](crate::KvStoreExt::idempotent_execute).
///
/// | option | default | meaning |
/// |---|---|---|
/// | [`status_code`](Self::status_code) | 200 | the status code that is kept with the body |
/// | [`ttl`](Self::ttl) | 24 hours | how long the answer is kept, and a repetition is a replay |
/// | [`lock_ttl`](Self::lock_ttl) | 2 s | how long the key stays taken after its holder crashed |
/// | [`retry_delay`](Self::retry_delay) | 50 ms | how long a waiting duplicate sleeps at most |
/// | [`key_prefix`](Self::key_prefix) | `derp:idempotency` | what the record's key begins with |
/// | [`fingerprint`](Self::fingerprint) | none | what makes two requests the same, such as the body |
/// | [`keep_all`](Self::keep_all) | off | keeps a [`Reply`](crate::Reply) of any status code |
/// | [`on_abandoned`](Self::on_abandoned) | [`Rerun`](OnAbandoned::Rerun) | what happens after an attempt that vanished |
///
/// The user guide explains each of them on its page about idempotency (`docs/guide/src/idempotency.md` in
/// the repository).
///
/// # Examples
///
/// ```
/// use derp_kv_core::Idempotency;
///
/// let options = Idempotency::default().status_code(201).fingerprint(r#"{"item":42}"#);
/// # let _ = options;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Idempotency {
    pub(crate) status_code: u16,
    pub(crate) ttl: Duration,
    pub(crate) lock_ttl: Duration,
    pub(crate) retry_delay: Duration,
    pub(crate) key_prefix: Cow<'static, str>,
    pub(crate) fingerprint: Option<String>,
    pub(crate) keep_all: bool,
    pub(crate) on_abandoned: OnAbandoned,
}

/// What a call does that finds an earlier attempt of its key abandoned: its caller went away, it panicked,
/// its process died, it lost its lease, or its record could not be written.
///
/// Nobody knows what such an attempt has done. Work that returned `Err`, or a reply that is not kept, is
/// not abandoned: that says that nothing was done and the work may be tried again. Work that does not know,
/// because a provider did not answer, says so by [`Attempt::abandon`](crate::Attempt::abandon). For the
/// same reason a time-out or a catcher of panics belongs around the call, and not inside of it, where it
/// would make an answer of work that was cut off.
///
/// An attempt is remembered for as long as a record lives, from its beginning on: choose a
/// [`ttl`](Idempotency::ttl) that is longer than the work and the retries of clients. All callers of a key
/// must say the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnAbandoned {
    /// It does the work again. Choose this where to do it twice does no harm, or where its effect is
    /// conditional on the key itself.
    #[default]
    Rerun,
    /// It gets [`Abandoned`](ErrorKind::Abandoned), and so does every call until somebody who has
    /// looked what was done calls [`idempotent_forget`](crate::KvStoreExt::idempotent_forget), or until
    /// an attempt that was only cut off comes back and ends. This costs two commands for each first
    /// call, and none for a replay.
    Reject,
}

impl Default for Idempotency {
    fn default() -> Self {
        Self {
            status_code: 200,
            ttl: Duration::from_secs(24 * 60 * 60),
            lock_ttl: LOCK_TTL,
            retry_delay: RETRY_DELAY,
            key_prefix: Cow::Borrowed(IDEMPOTENCY_PREFIX),
            fingerprint: None,
            keep_all: false,
            on_abandoned: OnAbandoned::Rerun,
        }
    }
}

impl Idempotency {
    /// The status code to keep with the body. By default 200.
    pub fn status_code(mut self, status_code: u16) -> Self {
        self.status_code = status_code;
        self
    }

    /// How long the record lives, and a repeated request is a replay. By default 24 hours.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// How long the key stays taken after a holder crashed, and how long a duplicate waits for
    /// one that is alive. By default two seconds.
    pub fn lock_ttl(mut self, lock_ttl: Duration) -> Self {
        self.lock_ttl = lock_ttl;
        self
    }

    /// How long a waiting duplicate sleeps at most before it looks again. By default 50 ms.
    pub fn retry_delay(mut self, retry_delay: Duration) -> Self {
        self.retry_delay = retry_delay;
        self
    }

    /// What the record's key begins with. By default `derp:idempotency`.
    pub fn key_prefix(mut self, key_prefix: impl Into<Cow<'static, str>>) -> Self {
        self.key_prefix = key_prefix.into();
        self
    }

    /// The request that the key stands for, such as its body: the same key with another request
    /// is then [`KeyReused`](ErrorKind::KeyReused). A SHA-256 hash of it is kept.
    pub fn fingerprint(mut self, request: impl AsRef<[u8]>) -> Self {
        self.fingerprint = Some(hex(&Sha256::digest(request.as_ref())));
        self
    }

    /// Keeps a [`Reply`](crate::Reply) of any status code, as Stripe does. By default only definitive
    /// ones are kept. Answers of other types are always kept.
    pub fn keep_all(mut self) -> Self {
        self.keep_all = true;
        self
    }

    /// What to do where an earlier attempt was abandoned. By default the work is done again.
    pub fn on_abandoned(mut self, on_abandoned: OnAbandoned) -> Self {
        self.on_abandoned = on_abandoned;
        self
    }

    /// Checks all of them, and returns `lock_ttl` and `retry_delay` in whole milliseconds.
    pub(crate) fn check(&self) -> Result<(Duration, Duration)> {
        Ttl::new(self.ttl)?;
        let lock_ttl = check_duration("lock_ttl", self.lock_ttl)?;
        let retry_delay = check_duration("retry_delay", self.retry_delay)?;
        if !(100..=999).contains(&self.status_code) {
            let message = "`status_code` must be from 100 to 999";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        Ok((lock_ttl, retry_delay))
    }
}

/// Options of [`already_processed`](crate::KvStoreExt::already_processed) and
/// [`process_once`](crate::KvStoreExt::process_once).
///
/// | option | default | meaning |
/// |---|---|---|
/// | [`ttl`](Self::ttl) | 24 hours | how long an event is remembered |
/// | [`lock_ttl`](Self::lock_ttl) | 2 s | how long an event stays claimed after its handler died |
/// | [`key_prefix`](Self::key_prefix) | `derp:webhook` | what the record's key begins with |
/// | [`give_up_after`](Self::give_up_after) | never | after how many attempts an event is given up |
///
/// The user guide explains them on its page about webhooks (`docs/guide/src/webhooks.md` in the
/// repository).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use derp_kv_core::Dedup;
///
/// // Stripe sends an event again for up to three days.
/// let options = Dedup::default().ttl(Duration::from_secs(4 * 24 * 60 * 60));
/// # let _ = options;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Dedup {
    pub(crate) ttl: Duration,
    pub(crate) lock_ttl: Duration,
    pub(crate) key_prefix: Cow<'static, str>,
    pub(crate) give_up_after: Option<u32>,
}

impl Default for Dedup {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(24 * 60 * 60),
            lock_ttl: LOCK_TTL,
            key_prefix: Cow::Borrowed(WEBHOOK_PREFIX),
            give_up_after: None,
        }
    }
}

impl Dedup {
    /// How long an event is remembered. By default 24 hours, as in derp-py: choose more than the
    /// sender's schedule of retries, which is up to three days at Stripe and 75 h 35 min in Standard
    /// Webhooks.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// How long an event stays claimed after its handler died. By default two seconds.
    pub fn lock_ttl(mut self, lock_ttl: Duration) -> Self {
        self.lock_ttl = lock_ttl;
        self
    }

    /// What the record's key begins with. By default `derp:webhook`. No other helper may have the
    /// same.
    pub fn key_prefix(mut self, key_prefix: impl Into<Cow<'static, str>>) -> Self {
        self.key_prefix = key_prefix.into();
        self
    }

    /// Gives an event up after so many attempts of [`process_once`](crate::KvStoreExt::process_once),
    /// failed or abandoned: later deliveries are
    /// [`Processed::GivenUp`](crate::Processed::GivenUp), which is answered like success, so that the
    /// sender stops. By default never. This costs two commands for each first delivery.
    ///
    /// The attempts are counted for as long as [`ttl`](Self::ttl) after the last of them.
    pub fn give_up_after(mut self, attempts: u32) -> Self {
        self.give_up_after = Some(attempts);
        self
    }

    /// Checks all of them, and returns `lock_ttl` in whole milliseconds.
    pub(crate) fn check(&self) -> Result<Duration> {
        Ttl::new(self.ttl)?;
        if self.give_up_after == Some(0) {
            let message = "`give_up_after` must be at least 1";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        check_duration("lock_ttl", self.lock_ttl)
    }
}
