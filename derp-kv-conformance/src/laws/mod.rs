//! The laws, a file for each area. Each function is named for its law in the list.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use derp_kv_core::{Error, ErrorKind, Expiry, KvStore};
use futures_util::TryStreamExt;

use crate::input::Blob;
use crate::resolution;
use crate::violation::{Violation, ensure, ensure_eq};

pub(crate) mod basics;
pub(crate) mod batch;
pub(crate) mod cache;
pub(crate) mod concurrency;
pub(crate) mod conditional;
pub(crate) mod connection;
pub(crate) mod counter;
pub(crate) mod errors;
pub(crate) mod expiry;
pub(crate) mod faults;
pub(crate) mod helpers;
pub(crate) mod herd;
pub(crate) mod prefix;
pub(crate) mod scan;
pub(crate) mod step;
pub(crate) mod wait;

/// Checks the value, and that the key has the expiry of a write just made with `ttl`.
async fn expect(
    kv: &impl KvStore,
    key: &[u8],
    value: &Blob,
    ttl: Option<Duration>,
) -> Result<(), Violation> {
    let Some((found, expiry)) = kv.get_with_ttl(key).await? else {
        return Err(Violation::new(format!("the key is absent, and not {value:?}")));
    };
    ensure_eq!(Blob(found.into()), *value, "the value");
    ensure!(fits(expiry, ttl), "the expiry is {expiry:?}, of a write with a TTL of {ttl:?}");
    Ok(())
}

/// Whether `expiry` may be that of a write just made with `ttl`, which is none, or longer than a
/// case takes.
fn fits(expiry: Expiry, ttl: Option<Duration>) -> bool {
    match (ttl, expiry) {
        (None, expiry) => expiry == Expiry::Never,
        (Some(ttl), Expiry::In(left)) => {
            // A fraction of a millisecond rounds up.
            let most = resolution::most_left(ttl + Duration::from_millis(1));
            left <= most && left + Duration::from_secs(90) + resolution::lateness() >= ttl
        }
        (Some(_), Expiry::Never) => false,
    }
}

/// More keys than any case writes: who yields so many yields some of them for ever.
const ENDLESS: usize = 200_000;

/// The keys that a scan yields, in its order. A scan without end fails, and does not fill the memory.
pub(crate) async fn all_keys(kv: &impl KvStore, prefix: &[u8]) -> derp_kv_core::Result<Vec<Bytes>> {
    let mut keys = kv.scan(prefix);
    let mut found = Vec::new();
    while let Some(key) = keys.try_next().await? {
        found.push(key);
        if found.len() > ENDLESS {
            return Err(Error::new(ErrorKind::Backend, "the scan yields keys without end"));
        }
    }
    Ok(found)
}

/// [`all_keys`], each once.
async fn scanned(kv: &impl KvStore, prefix: &[u8]) -> Result<BTreeSet<Blob>, Violation> {
    Ok(all_keys(kv, prefix).await?.into_iter().map(|key| Blob(key.into())).collect())
}

/// Polls `call` exactly so often, unless it ends before, and then drops it. Tells whether it was
/// under way then.
async fn drop_after(polls: u32, call: impl Future) -> bool {
    let mut call = pin!(call);
    for _ in 0..polls {
        // Once, and not again when whatever else wakes this task: a call may be half done now.
        let ready = poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx).is_ready())).await;
        if ready {
            return false;
        }
        tokio::task::yield_now().await;
    }
    polls > 0
}
