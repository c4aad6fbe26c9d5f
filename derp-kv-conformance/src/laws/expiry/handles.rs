use std::time::Duration;

use derp_kv_core::KvStore;
use futures_util::TryStreamExt;

use super::calls::{LOOKERS, Looker, READERS, WRITERS, Writer};
use super::timetable::Fate;
use crate::bench::{Bench, LawResult};
use crate::input::Blob;
use crate::model::{Known, Span};
use crate::resolution;
use crate::violation::{Violation, ensure, ensure_eq};

/// What one handle does to a key that another one has just read.
#[derive(Clone, Copy, Debug)]
enum Change {
    /// Of an absent key.
    Creates(Writer),
    /// Of a key with another value, and a TTL or none, to which a TTL or none is given.
    Replaces {
        writer: Writer,
        had_ttl: bool,
        gives_ttl: bool,
    },
    Delete,
    DeleteMany,
    CompareAndDelete,
}

fn changes() -> Vec<Change> {
    let mut changes = vec![Change::Delete, Change::DeleteMany, Change::CompareAndDelete];
    let creating = [Writer::Set, Writer::Mset, Writer::SetNx, Writer::Incr];
    changes.extend(creating.map(Change::Creates));
    for writer in WRITERS.into_iter().filter(|writer| *writer != Writer::SetNx) {
        for (had_ttl, gives_ttl) in [(false, true), (true, false), (true, true)] {
            if writer != Writer::Expire || gives_ttl {
                changes.push(Change::Replaces { writer, had_ttl, gives_ttl });
            }
        }
    }
    changes
}

impl Change {
    /// The value before.
    fn before(self) -> Option<&'static [u8]> {
        match self {
            Self::Creates(_) => None,
            Self::Replaces { writer: Writer::Expire, .. } => Some(b"1"),
            Self::Replaces { .. } => Some(b"0"),
            Self::Delete | Self::DeleteMany | Self::CompareAndDelete => Some(b"1"),
        }
    }

    fn ttl_before(self, ttls: Ttls) -> Option<Duration> {
        match self {
            Self::Replaces { had_ttl: false, .. } | Self::Creates(_) => None,
            Self::Replaces { gives_ttl: false, .. } => Some(ttls.short),
            // Nothing waits for the end of these.
            _ => Some(ttls.long),
        }
    }

    /// Leaves `b"1"` under the key, or nothing. Answers `None` where the key may have expired before
    /// the change was made: time is real, and any call may be slow.
    async fn call(
        self,
        kv: &impl KvStore,
        key: &[u8],
        before: Fate,
        ttls: Ttls,
        slack: Duration,
    ) -> Result<Option<Fate>, Violation> {
        let (changed, span) = Span::of(self.make(kv, key, before, ttls)).await;
        let (done, fate) = changed?;
        if self.before().is_some() && before.seen_by(span, slack) != Known::Present {
            return Ok(None);
        }
        ensure!(done, "{self:?} has done nothing");
        Ok(Some(fate))
    }

    async fn make(
        self,
        kv: &impl KvStore,
        key: &[u8],
        before: Fate,
        ttls: Ttls,
    ) -> Result<(bool, Fate), Violation> {
        Ok(match self {
            Self::Creates(writer) => {
                let (done, span) =
                    Span::of(writer.call(kv, key, (b"0", b"1"), Some(ttls.short))).await;
                (done?, Fate::of(Some(ttls.short), span))
            }
            Self::Replaces { writer, gives_ttl, .. } => {
                let ttl = gives_ttl.then_some(ttls.short);
                let (done, span) = Span::of(writer.call(kv, key, (b"0", b"1"), ttl)).await;
                let kept = writer == Writer::Incr;
                (done?, if kept { before } else { Fate::of(ttl, span) })
            }
            Self::Delete => (kv.delete(key).await?, Fate::Absent),
            Self::DeleteMany => (kv.delete_many(&[key]).await? == 1, Fate::Absent),
            Self::CompareAndDelete => (kv.compare_and_delete(key, b"1").await?, Fate::Absent),
        })
    }
}

#[derive(Clone, Copy, Debug)]
struct Ttls {
    /// One that the law outlasts.
    short: Duration,
    long: Duration,
}

/// Whether the handle sees the key as it is: there or not, with which value, and until when.
async fn sees(
    kv: &impl KvStore,
    looker: Looker,
    key: &[u8],
    value: &[u8],
    fate: Fate,
    slack: Duration,
) -> Result<(), Violation> {
    let wanted = Blob::from(value);
    let check_value = |found: Option<bytes::Bytes>| {
        let Some(found) = found else { return Ok(()) };
        ensure_eq!(Blob(found.into()), wanted, "the value that {looker:?} finds");
        Ok::<_, Violation>(())
    };
    match looker {
        Looker::GetWithTtl => {
            let (found, span) = Span::of(kv.get_with_ttl(key)).await;
            let (found, expiry) = found?.unzip();
            check_value(found)?;
            fate.check(expiry, span, slack)
        }
        Looker::Ttl => {
            let (expiry, span) = Span::of(kv.ttl(key)).await;
            fate.check(expiry?, span, slack)
        }
        Looker::Get => {
            let (found, span) = Span::of(kv.get(key)).await;
            let found = found?;
            fate.check_presence(found.is_some(), span, slack)?;
            check_value(found)
        }
        Looker::Mget => {
            let (found, span) = Span::of(kv.mget(&[key])).await;
            let found = found?.into_iter().next().flatten();
            fate.check_presence(found.is_some(), span, slack)?;
            check_value(found)
        }
        _ => {
            let (found, span) = Span::of(looker.finds(kv, key)).await;
            fate.check_presence(found?, span, slack)
        }
    }
}

/// Reads the key in every way, so that whatever keeps what it reads keeps this. A scan may walk
/// through all keys, and is left to who looks by one.
async fn read_all(kv: &impl KvStore, looker: Looker, key: &[u8]) -> Result<(), Violation> {
    kv.get(key).await?;
    kv.get_with_ttl(key).await?;
    kv.exists(key).await?;
    kv.ttl(key).await?;
    kv.mget(&[key]).await?;
    if looker == Looker::Scan {
        kv.scan(key).try_collect::<Vec<_>>().await?;
    }
    Ok(())
}

pub(crate) fn handles_agree(bench: &Bench<'_>) -> LawResult {
    // The store, a clone of it, and another process's handle: who changes, and who looks.
    const PAIRS: [(usize, usize); 6] = [(0, 2), (2, 0), (0, 1), (1, 0), (1, 2), (2, 1)];
    bench.single_thread(async |scene| {
        let mut handles = scene.handles(2).await?;
        handles.insert(1, handles[0].clone());
        let short = if scene.is_virtual() {
            Duration::from_secs(5).max(resolution::promised() * 5)
        } else {
            Duration::from_millis(300)
        };
        let ttls = Ttls { short, long: short * 100 };
        let slack = scene.slack();
        let mut left = Vec::new();
        for (number, change) in changes().into_iter().enumerate() {
            for (looker_number, looker) in LOOKERS.into_iter().enumerate() {
                for (pair, (actor, viewer)) in PAIRS.into_iter().enumerate() {
                    // Where each call takes its time, two pairs and three thirds of the calls take
                    // turns.
                    let turn = number + looker_number;
                    if !scene.is_virtual() && (pair != turn % 2 || turn % 3 > 0) {
                        continue;
                    }
                    let (acts, views) = (&handles[actor], &handles[viewer]);
                    let key = format!("{change:?} by {actor}, {looker:?} by {viewer}/");
                    let said = |violation: Violation| violation.within(format!("`{key}`: "));
                    let mut before = Fate::Absent;
                    if let Some(value) = change.before() {
                        let ttl = change.ttl_before(ttls);
                        let (written, span) = Span::of(acts.set(key.as_bytes(), value, ttl)).await;
                        written?;
                        before = Fate::of(ttl, span);
                    }
                    read_all(views, looker, key.as_bytes()).await?;
                    let fate = change.call(acts, key.as_bytes(), before, ttls, slack).await;
                    let Some(fate) = fate.map_err(said)? else { continue };
                    sees(views, looker, key.as_bytes(), b"1", fate, slack).await.map_err(said)?;
                    if READERS.contains(&looker) {
                        left.push((key, looker, fate));
                    }
                }
            }
        }
        // The end of what one handle has written, or has not, for every other one.
        scene.elapse(short + slack).await;
        for (key, looker, fate) in left {
            for handle in &handles {
                let seen = sees(handle, looker, key.as_bytes(), b"1", fate, slack).await;
                seen.map_err(|violation| violation.within(format!("`{key}`, after {short:?}: ")))?;
            }
        }
        Ok(())
    })
}
