use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use derp_kv_core::{KvStore, Result};
use derp_kv_memory::MemoryStore;
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::time::Instant;

use crate::mutants::broken::{Mutant, mutant};
use crate::mutants::defect::{Ttl, defect, defects};

const LAW: &str = "scan::covers_every_page";

pub(super) fn mutants() -> Vec<Mutant> {
    vec![
        mutant::<Ends1000>(LAW, "a scan ends after 1,000 keys"),
        mutant::<Ends4096>(LAW, "a scan ends after 4,096 keys"),
        mutant::<Ends5000>(LAW, "a scan ends after 5,000 keys"),
        mutant::<Ends10000>(LAW, "a scan ends after 10,000 keys"),
        mutant::<DeadPageEnds>(LAW, "a page of expired keys alone ends a scan"),
        mutant::<OtherPageEnds>(LAW, "a page of keys with other prefixes alone ends a scan"),
        mutant::<SkipsRewritten>(LAW, "a scan leaves out what was written since it began"),
        mutant::<PagesByAge>(
            LAW,
            "a scan goes by the order of writes, and by how many came before",
        ),
        mutant::<OffsetOf1000>(
            LAW,
            "a scan of pages of 1,000 goes on by how many keys came before",
        ),
        mutant::<DeletedCursorEnds>(LAW, "a scan ends where the key that it stands at is deleted"),
        mutant::<DeletedCursorRestarts>(
            LAW,
            "a scan begins again where the key that it stands at is deleted or not the least",
        ),
        mutant::<OneCursor>(LAW, "the scans of a store have one cursor"),
        mutant::<CursorOfPrefix>(LAW, "a scan goes on where the last of its prefix was given up"),
        mutant::<Endless>(LAW, "a scan begins again at its end"),
        mutant::<CursorExpires>(LAW, "a scan whose consumer is slow ends"),
        mutant::<NewestFirst>(LAW, "a scan goes from the newest write to the oldest, page by page"),
        mutant::<SkipsPageEnds>(
            LAW,
            "the first key of each page of 1,000 but the first is left out",
        ),
        mutant::<LastPageLost>(LAW, "a last page that is not full is lost, of pages of 512"),
        mutant::<Buffers>(LAW, "of more than 8,192 keys a scan keeps the last"),
        mutant::<CursorLossy>(LAW, "the cursor of a scan is kept as what is UTF-8 of its key"),
        mutant::<CursorFolds>(LAW, "the cursor of a scan is kept in lower case"),
        mutant::<CursorEndsAtNul>(LAW, "the cursor of a scan ends at a NUL"),
        mutant::<CursorCollates>(LAW, "a scan sorts by bytes, and its cursor goes without case"),
        mutant::<CursorIsText>(LAW, "a scan ends where its cursor would be no UTF-8"),
        mutant::<NotFused>(LAW, "a scan that has ended begins again"),
    ]
}

const PAGE: usize = 1_000;

async fn sorted(kv: &MemoryStore, prefix: &[u8]) -> Result<Vec<Bytes>> {
    let mut keys: Vec<_> = kv.scan(prefix).try_collect().await?;
    keys.sort_unstable();
    Ok(keys)
}

/// A scan page by page: `next` makes a page, and what the one after it begins from.
fn paged<P, F>(
    kv: &MemoryStore,
    prefix: &[u8],
    first: P,
    next: impl Fn(MemoryStore, Vec<u8>, P) -> F + Send + 'static,
) -> BoxStream<'static, Result<Bytes>>
where
    P: Send + 'static,
    F: Future<Output = Result<Option<(Vec<Bytes>, P)>>> + Send + 'static,
{
    let (kv, prefix) = (kv.clone(), prefix.to_vec());
    let pages = stream::try_unfold(first, move |at| next(kv.clone(), prefix.clone(), at));
    pages.map_ok(|keys| stream::iter(keys.into_iter().map(Ok))).try_flatten().boxed()
}

/// Every key that was ever written, as a table in which expired rows stay.
#[derive(Clone, Debug, Default)]
struct DeadPageEnds(Arc<Mutex<BTreeMap<Vec<u8>, ()>>>);

defect! { DeadPageEnds []
    set(self, kv, key, value, ttl) {
        self.0.lock().unwrap().insert(key.to_vec(), ());
        kv.set(key, value, ttl).await
    }
    mset(self, kv, items, ttl) {
        self.0.lock().unwrap().extend(items.iter().map(|(key, _)| (key.to_vec(), ())));
        kv.mset(items, ttl).await
    }
    scan(self, kv, prefix) {
        let rows = self.0.clone();
        paged(kv, prefix, Vec::new(), move |kv, prefix, from: Vec<u8>| {
            let rows = rows.clone();
            async move {
                let page: Vec<_> = {
                    let rows = rows.lock().unwrap();
                    let rows = rows.range(from..).map(|(key, ())| key.clone());
                    rows.filter(|key| key.starts_with(&prefix)).take(PAGE).collect()
                };
                let Some(last) = page.last() else { return Ok(None) };
                let next = [last, &[0][..]].concat();
                let mut live = Vec::new();
                for key in page {
                    if kv.exists(&key).await? {
                        live.push(Bytes::from(key));
                    }
                }
                Ok((!live.is_empty()).then_some((live, next)))
            }
        })
    }
}

/// When each key was written, counted.
#[derive(Clone, Debug, Default)]
struct Writes(Arc<Mutex<HashMap<Vec<u8>, u64>>>);

impl Writes {
    fn note(&self, key: &[u8]) {
        let mut writes = self.0.lock().unwrap();
        let now = 1 + writes.get(&b"\0clock"[..]).copied().unwrap_or_default();
        writes.insert(b"\0clock".to_vec(), now);
        writes.insert(key.to_vec(), now);
    }

    fn of(&self, key: &[u8]) -> u64 {
        self.0.lock().unwrap().get(key).copied().unwrap_or_default()
    }
}

#[derive(Clone, Debug, Default)]
struct SkipsRewritten(Writes);

defect! { SkipsRewritten []
    mset(self, kv, items, ttl) {
        items.iter().for_each(|(key, _)| self.0.note(key));
        kv.mset(items, ttl).await
    }
    scan(self, kv, prefix) {
        let (writes, began) = (self.0.clone(), self.0.of(b"\0clock"));
        let old = move |key: &Bytes| std::future::ready(writes.of(key) <= began);
        kv.scan(prefix).try_filter(old).boxed()
    }
}

#[derive(Clone, Debug, Default)]
struct PagesByAge(Writes);

defect! { PagesByAge []
    mset(self, kv, items, ttl) {
        items.iter().for_each(|(key, _)| self.0.note(key));
        kv.mset(items, ttl).await
    }
    scan(self, kv, prefix) {
        let writes = self.0.clone();
        paged(kv, prefix, 0, move |kv, prefix, before: usize| {
            let writes = writes.clone();
            async move {
                let mut keys: Vec<_> = kv.scan(&prefix).try_collect().await?;
                keys.sort_by_cached_key(|key| writes.of(key));
                let page: Vec<_> = keys.into_iter().skip(before).take(PAGE).collect();
                let next = before + page.len();
                Ok((!page.is_empty()).then_some((page, next)))
            }
        })
    }
}

#[derive(Clone, Debug, Default)]
struct NewestFirst(Writes);

defect! { NewestFirst []
    mset(self, kv, items, ttl) {
        items.iter().for_each(|(key, _)| self.0.note(key));
        kv.mset(items, ttl).await
    }
    scan(self, kv, prefix) {
        let writes = self.0.clone();
        paged(kv, prefix, u64::MAX, move |kv, prefix, before| {
            let writes = writes.clone();
            async move {
                let mut keys: Vec<_> = kv.scan(&prefix).try_collect().await?;
                keys.retain(|key| writes.of(key) < before);
                keys.sort_by_cached_key(|key| std::cmp::Reverse(writes.of(key)));
                keys.truncate(PAGE);
                let next = keys.last().map(|key| writes.of(key));
                Ok(next.map(|next| (keys, next)))
            }
        })
    }
}

/// Where the one scan is.
#[derive(Clone, Debug, Default)]
struct OneCursor(Arc<Mutex<usize>>);

defect! { OneCursor []
    scan(self, kv, prefix) {
        let cursor = self.0.clone();
        *cursor.lock().unwrap() = 0;
        paged(kv, prefix, (), move |kv, prefix, ()| {
            let cursor = cursor.clone();
            async move {
                let keys = sorted(&kv, &prefix).await?;
                let mut cursor = cursor.lock().unwrap();
                let page: Vec<_> = keys.into_iter().skip(*cursor).take(PAGE).collect();
                *cursor += page.len();
                Ok((!page.is_empty()).then_some((page, ())))
            }
        })
    }
}

/// After which key the scan of a prefix goes on.
#[derive(Clone, Debug, Default)]
struct CursorOfPrefix(Arc<Mutex<HashMap<Vec<u8>, Bytes>>>);

defect! { CursorOfPrefix []
    scan(self, kv, prefix) {
        let cursors = self.0.clone();
        paged(kv, prefix, (), move |kv, prefix, ()| {
            let cursors = cursors.clone();
            async move {
                let mut keys = sorted(&kv, &prefix).await?;
                let mut cursors = cursors.lock().unwrap();
                if let Some(after) = cursors.get(&prefix) {
                    keys.retain(|key| key > after);
                }
                keys.truncate(PAGE);
                match keys.last() {
                    Some(last) => cursors.insert(prefix, last.clone()),
                    None => cursors.remove(&prefix),
                };
                Ok((!keys.is_empty()).then_some((keys, ())))
            }
        })
    }
}

/// The page after the key that the scan stands at; `None` where that is not there.
async fn after(kv: &MemoryStore, prefix: &[u8], at: Option<&Bytes>) -> Result<Option<Vec<Bytes>>> {
    let keys = sorted(kv, prefix).await?;
    let Some(at) = at else { return Ok(Some(keys.into_iter().take(PAGE).collect())) };
    let place = keys.binary_search(at).ok();
    Ok(place.map(|place| keys.into_iter().skip(place + 1).take(PAGE).collect()))
}

/// A scan by pages, each of which begins behind what is kept of the last key. Where that is not behind
/// what was kept before, the scan ends.
fn by_cursor(
    kv: &MemoryStore,
    prefix: &[u8],
    kept: fn(&[u8]) -> Option<Vec<u8>>,
) -> BoxStream<'static, Result<Bytes>> {
    paged(kv, prefix, Some(Vec::new()), move |kv, prefix, at: Option<Vec<u8>>| async move {
        let Some(at) = at else { return Ok(None) };
        let mut keys = sorted(&kv, &prefix).await?;
        keys.retain(|key| at.is_empty() || key[..] > at[..]);
        keys.truncate(PAGE);
        let next = keys.last().map(|last| kept(last).filter(|next| *next > at));
        Ok(next.map(|next| (keys, next)))
    })
}

defects! {
    CursorLossy {
        scan(self, kv, prefix) {
            by_cursor(kv, prefix, |key| Some(String::from_utf8_lossy(key).into_owned().into_bytes()))
        }
    }
    CursorFolds {
        scan(self, kv, prefix) { by_cursor(kv, prefix, |key| Some(key.to_ascii_lowercase())) }
    }
    CursorEndsAtNul {
        scan(self, kv, prefix) {
            by_cursor(kv, prefix, |key| key.split(|byte| *byte == 0).next().map(<[u8]>::to_vec))
        }
    }
    CursorCollates {
        scan(self, kv, prefix) {
            paged(kv, prefix, Vec::new(), |kv, prefix, at: Vec<u8>| async move {
                let mut keys = sorted(&kv, &prefix).await?;
                keys.retain(|key| key.to_ascii_lowercase() > at);
                keys.truncate(PAGE);
                let next = keys.last().map(|last| last.to_ascii_lowercase());
                Ok(next.map(|next| (keys, next)))
            })
        }
    }
    CursorIsText {
        scan(self, kv, prefix) {
            by_cursor(kv, prefix, |key| std::str::from_utf8(key).ok().map(|text| text.into()))
        }
    }
    Ends1000 {
        scan(self, kv, prefix) { kv.scan(prefix).take(1_000).boxed() }
    }
    Ends4096 {
        scan(self, kv, prefix) { kv.scan(prefix).take(4_096).boxed() }
    }
    Ends5000 {
        scan(self, kv, prefix) { kv.scan(prefix).take(5_000).boxed() }
    }
    Ends10000 {
        scan(self, kv, prefix) { kv.scan(prefix).take(10_000).boxed() }
    }
    OtherPageEnds {
        scan(self, kv, prefix) {
            let prefix = prefix.to_vec();
            let pages = kv.scan(b"").chunks(PAGE).map(move |page| {
                let keep = |key: &Result<Bytes>| {
                    key.as_ref().map_or(true, |key| key.starts_with(&prefix))
                };
                page.into_iter().filter(keep).collect::<Vec<_>>()
            });
            let pages = pages.take_while(|page| std::future::ready(!page.is_empty()));
            pages.map(stream::iter).flatten().boxed()
        }
    }
    OffsetOf1000 {
        scan(self, kv, prefix) {
            paged(kv, prefix, 0, |kv, prefix, before: usize| async move {
                let keys = sorted(&kv, &prefix).await?;
                let page: Vec<_> = keys.into_iter().skip(before).take(PAGE).collect();
                let next = before + page.len();
                Ok((!page.is_empty()).then_some((page, next)))
            })
        }
    }
    DeletedCursorEnds {
        scan(self, kv, prefix) {
            paged(kv, prefix, None, |kv, prefix, at: Option<Bytes>| async move {
                let page = after(&kv, &prefix, at.as_ref()).await?.unwrap_or_default();
                let last = page.last().cloned();
                Ok(last.map(|last| (page, Some(last))))
            })
        }
    }
    DeletedCursorRestarts {
        scan(self, kv, prefix) {
            paged(kv, prefix, None, |kv, prefix, at: Option<Bytes>| async move {
                if let Some(at) = &at && !kv.exists(at).await? {
                    // Without a place to go on from, it yields what it has yielded before.
                    return Ok(Some((vec![at.clone(); PAGE], Some(at.clone()))));
                }
                let page = after(&kv, &prefix, at.as_ref()).await?.unwrap_or_default();
                let last = page.last().cloned();
                Ok(last.map(|last| (page, Some(last))))
            })
        }
    }
    Endless {
        scan(self, kv, prefix) {
            paged(kv, prefix, (), |kv, prefix, ()| async move {
                let keys = sorted(&kv, &prefix).await?;
                Ok((!keys.is_empty()).then_some((keys, ())))
            })
        }
    }
    CursorExpires {
        scan(self, kv, prefix) {
            let asked = Arc::new(Mutex::new(None::<Instant>));
            let in_time = move |_: &Result<Bytes>| {
                let last = asked.lock().unwrap().replace(Instant::now());
                let idle = last.map_or(Duration::ZERO, |last| last.elapsed());
                std::future::ready(idle < Duration::from_secs(60))
            };
            kv.scan(prefix).take_while(in_time).boxed()
        }
    }
    SkipsPageEnds {
        scan(self, kv, prefix) {
            let numbered = kv.scan(prefix).enumerate();
            let kept = numbered.filter(|(number, _)| {
                std::future::ready(*number == 0 || number % PAGE != 0)
            });
            kept.map(|(_, key)| key).boxed()
        }
    }
    LastPageLost {
        scan(self, kv, prefix) {
            let pages = kv.scan(prefix).chunks(512).enumerate();
            let full = pages.filter(|(number, page)| {
                std::future::ready(*number == 0 || page.len() == 512)
            });
            full.map(|(_, page)| stream::iter(page)).flatten().boxed()
        }
    }
    Buffers {
        scan(self, kv, prefix) {
            let keys = kv.scan(prefix).collect::<Vec<_>>();
            let kept = async move {
                let mut keys = keys.await;
                let surplus = keys.len().saturating_sub(8_192);
                keys.drain(..surplus);
                stream::iter(keys)
            };
            stream::once(kept).flatten().boxed()
        }
    }
    NotFused {
        scan(self, kv, prefix) {
            let (kv, prefix) = (kv.clone(), prefix.to_vec());
            let mut keys = kv.scan(&prefix);
            stream::poll_fn(move |cx| {
                let polled = keys.poll_next_unpin(cx);
                if let std::task::Poll::Ready(None) = polled {
                    keys = kv.scan(&prefix);
                }
                polled
            })
            .boxed()
        }
    }
}
