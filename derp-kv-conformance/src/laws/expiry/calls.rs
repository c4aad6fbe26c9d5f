use std::time::Duration;

use derp_kv_core::{KvStore, Result};
use futures_util::TryStreamExt;

use crate::model::Span;
use crate::violation::{Violation, ensure};

/// The ways to give a key a TTL.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Writer {
    Set,
    Mset,
    SetNx,
    Incr,
    CompareAndSet,
    Expire,
}

pub(super) const WRITERS: [Writer; 6] =
    [Writer::Set, Writer::Mset, Writer::SetNx, Writer::Incr, Writer::CompareAndSet, Writer::Expire];

impl Writer {
    /// Leaves `b"1"` under an absent `key`, with `ttl`. Only the last call has it.
    pub(super) async fn write(
        self,
        kv: &impl KvStore,
        key: &[u8],
        ttl: impl Into<Option<Duration>>,
    ) -> Result<Span, Violation> {
        let before: &[u8] = match self {
            Self::CompareAndSet => b"0",
            Self::Expire => b"1",
            _ => b"",
        };
        if !before.is_empty() {
            kv.set(key, before, None).await?;
        }
        let (done, span) = Span::of(self.call(kv, key, (b"0", b"1"), ttl.into())).await;
        ensure!(done?, "{self:?} did not write");
        Ok(span)
    }

    /// Changes the value from the first one to the second, or a counter by one, and gives it `ttl`.
    /// Without a TTL, `expire` is no call at all.
    pub(super) async fn call(
        self,
        kv: &impl KvStore,
        key: &[u8],
        (from, to): (&[u8], &[u8]),
        ttl: Option<Duration>,
    ) -> Result<bool> {
        match self {
            Self::Set => kv.set(key, to, ttl).await.map(|()| true),
            Self::Mset => kv.mset(&[(key, to)], ttl).await.map(|()| true),
            Self::SetNx => kv.set_nx(key, to, ttl).await,
            Self::Incr => kv.incr(key, 1, ttl).await.map(|_| true),
            Self::CompareAndSet => kv.compare_and_set(key, from, to, ttl).await,
            Self::Expire => match ttl {
                Some(ttl) => kv.expire(key, ttl).await,
                None => kv.exists(key).await,
            },
        }
    }
}

/// The ways to find out whether a key is there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Looker {
    Get,
    GetWithTtl,
    Exists,
    Ttl,
    Mget,
    Scan,
    Delete,
    DeleteMany,
    Expire,
    SetNx,
    Incr,
    CompareAndSet,
    CompareAndDelete,
}

pub(super) const LOOKERS: [Looker; 13] = [
    Looker::Get,
    Looker::GetWithTtl,
    Looker::Exists,
    Looker::Ttl,
    Looker::Mget,
    Looker::Scan,
    Looker::Delete,
    Looker::DeleteMany,
    Looker::Expire,
    Looker::SetNx,
    Looker::Incr,
    Looker::CompareAndSet,
    Looker::CompareAndDelete,
];

/// Those that change nothing.
pub(super) const READERS: [Looker; 6] =
    [Looker::Get, Looker::GetWithTtl, Looker::Exists, Looker::Ttl, Looker::Mget, Looker::Scan];

impl Looker {
    /// Whether the call finds the `b"1"` that was under `key`.
    pub(super) async fn finds(self, kv: &impl KvStore, key: &[u8]) -> Result<bool> {
        Ok(match self {
            Self::Get => kv.get(key).await?.is_some(),
            Self::GetWithTtl => kv.get_with_ttl(key).await?.is_some(),
            Self::Exists => kv.exists(key).await?,
            Self::Ttl => kv.ttl(key).await?.is_some(),
            Self::Mget => kv.mget(&[key]).await? != [None],
            Self::Scan => !kv.scan(key).try_collect::<Vec<_>>().await?.is_empty(),
            Self::Delete => kv.delete(key).await?,
            Self::DeleteMany => kv.delete_many(&[key]).await? > 0,
            Self::Expire => kv.expire(key, Duration::from_secs(60)).await?,
            Self::SetNx => !kv.set_nx(key, b"1", None).await?,
            Self::Incr => kv.incr(key, 5, None).await?.value != 5,
            Self::CompareAndSet => kv.compare_and_set(key, b"1", b"1", None).await?,
            Self::CompareAndDelete => kv.compare_and_delete(key, b"1").await?,
        })
    }
}
