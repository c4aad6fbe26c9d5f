//! What a store says and does when its connection breaks under a call.

use std::fmt::Debug;
use std::time::Duration;

use bytes::Bytes;
use derp_kv_core::{Error, Expiry, KvStore, Result};
use futures_util::TryStreamExt;
use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use crate::bench::{Bench, LawResult};
use crate::scene::Scene;
use crate::violation::{Violation, ensure, ensure_eq, with_sources};
use crate::{Cut, Harness};

/// After which a store has found a new connection, or never will.
const HEALED: Duration = Duration::from_secs(10);

/// Between two looks at a store that is finding a new connection.
const PAUSE: Duration = Duration::from_millis(5);

const HOUR: Duration = Duration::from_secs(60 * 60);

const CUTS: [Cut; 2] = [Cut::Before, Cut::After];

/// How often each call meets each cut: a client may meet it in several of its states.
const TRIES: u32 = 3;

/// A write that changes what its key holds, so that a look tells whether it was applied.
#[derive(Clone, Copy, Debug)]
enum Write {
    Set,
    Mset,
    SetNx,
    Incr,
    CompareAndSet,
    Expire,
    Delete,
    DeleteMany,
    CompareAndDelete,
}

const WRITES: [Write; 9] = [
    Write::Set,
    Write::Mset,
    Write::SetNx,
    Write::Incr,
    Write::CompareAndSet,
    Write::Expire,
    Write::Delete,
    Write::DeleteMany,
    Write::CompareAndDelete,
];

/// What is found under a key.
type Found = Option<(Bytes, Expiry)>;

impl Write {
    /// The value that the key has before the call.
    fn before(self) -> Option<&'static [u8]> {
        match self {
            Self::SetNx => None,
            _ => Some(b"1"),
        }
    }

    /// Makes the call, and tells what it answered.
    async fn call(self, kv: &impl KvStore, key: &[u8]) -> Result<Answer> {
        Ok(match self {
            Self::Set => kv.set(key, b"2", None).await.map(|()| Answer::Done)?,
            Self::Mset => kv.mset(&[(key, b"2")], None).await.map(|()| Answer::Done)?,
            Self::SetNx => Answer::Did(kv.set_nx(key, b"2", None).await?),
            Self::Incr => Answer::Sum(kv.incr(key, 1, None).await?.value),
            Self::CompareAndSet => Answer::Did(kv.compare_and_set(key, b"1", b"2", None).await?),
            Self::Expire => Answer::Did(kv.expire(key, HOUR).await?),
            Self::Delete => Answer::Did(kv.delete(key).await?),
            Self::DeleteMany => Answer::Did(kv.delete_many(&[key]).await? == 1),
            Self::CompareAndDelete => Answer::Did(kv.compare_and_delete(key, b"1").await?),
        })
    }

    /// The key once the call was applied; of an expiry, only whether there is one.
    fn after(self) -> Option<(&'static [u8], bool)> {
        match self {
            Self::Set | Self::Mset | Self::SetNx | Self::Incr | Self::CompareAndSet => {
                Some((b"2", false))
            }
            Self::Expire => Some((b"1", true)),
            Self::Delete | Self::DeleteMany | Self::CompareAndDelete => None,
        }
    }

    /// How often the call was applied, by what is found: never, once, or in no such way.
    fn applied(self, found: &Found) -> Option<bool> {
        let found = found.as_ref().map(|(value, expiry)| (&**value, *expiry != Expiry::Never));
        if found == self.after() {
            return Some(true);
        }
        (found == self.before().map(|value| (value, false))).then_some(false)
    }
}

/// What a write answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Done,
    Did(bool),
    Sum(i64),
}

impl Answer {
    /// Whether it is that of the one time that the call was applied.
    fn is_of_the_one_time(self) -> bool {
        matches!(self, Self::Done | Self::Did(true) | Self::Sum(2))
    }
}

/// One write whose connection broke: what it said, and what is found afterwards.
struct Broken {
    write: Write,
    cut: Cut,
    said: Result<Answer>,
    found: Found,
}

impl Broken {
    fn told(&self) -> String {
        let (write, cut) = (self.write, self.cut);
        let found = crate::input::shown(&self.found);
        let said = match &self.said {
            Ok(answer) => format!("{answer:?}"),
            Err(error) => with_sources(error),
        };
        format!("{write:?}, cut {cut:?}, said `{said}`, and afterwards {found} is found")
    }
}

/// Asks again until the store has a connection. Only what passes by itself may be in the way.
async fn healed<T>(ask: impl AsyncFn() -> Result<T>) -> Result<T, Violation> {
    let began = Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) if began.elapsed() < HEALED => passing(&error)?,
            Err(error) => {
                let error = with_sources(&error);
                return Err(Violation::new(format!(
                    "{HEALED:?} after its connection broke, the store still fails: {error}"
                )));
            }
        }
        sleep(PAUSE).await;
    }
}

/// Whether the error says that the same call may succeed later.
fn passing(error: &Error) -> Result<(), Violation> {
    let text = with_sources(error);
    ensure!(error.is_transient(), "a call whose connection broke fails as if for good: {text}");
    Ok(())
}

/// Lets each write meet each cut and looks at what came of it.
async fn each_write<H: Harness>(
    scene: &mut Scene<'_, H>,
    check: impl Fn(&Broken) -> Result<(), Violation>,
) -> Result<(), Violation> {
    for number in 0..TRIES {
        for write in WRITES {
            for cut in CUTS {
                let key = format!("{number}/{write:?}/{cut:?}/").into_bytes();
                if let Some(value) = write.before() {
                    healed(async || scene.store.set(&key, value, None).await).await?;
                }
                scene.sever(&key, cut).await?;
                let said = write.call(&scene.store, &key).await;
                let found = healed(async || scene.store.get_with_ttl(&key).await).await?;
                check(&Broken { write, cut, said, found })?;
            }
        }
    }
    Ok(())
}

pub(crate) fn tells_what_was_applied<H: Harness>(bench: &Bench<'_, H>) -> LawResult {
    bench.severed(async |scene| {
        each_write(scene, |broken| {
            let applied = broken.write.applied(&broken.found);
            let is_true = match &broken.said {
                Ok(_) => applied != Some(false),
                Err(error) => {
                    passing(error)?;
                    error.may_have_applied() || applied == Some(false)
                }
            };
            ensure!(is_true, "{}", broken.told());
            Ok(())
        })
        .await
    })
}

pub(crate) fn applies_once<H: Harness>(bench: &Bench<'_, H>) -> LawResult {
    bench.severed(async |scene| {
        each_write(scene, |broken| {
            let once = broken.write.applied(&broken.found).is_some();
            let right = broken.said.as_ref().map_or(true, |answer| answer.is_of_the_one_time());
            ensure!(once && right, "{}", broken.told());
            Ok(())
        })
        .await
    })
}

/// Checks the answer of a read whose connection broke.
fn right_or_passing<T: Debug + PartialEq>(
    read: &str,
    cut: Cut,
    answer: Result<T>,
    expected: &T,
) -> Result<(), Violation> {
    match answer {
        Ok(answer) => ensure_eq!(&answer, expected, "the answer of {read}, cut {cut:?},"),
        Err(error) => {
            passing(&error)?;
            ensure!(!error.may_have_applied(), "{read}, which writes nothing, may have applied");
        }
    }
    Ok(())
}

pub(crate) fn reads_are_right_or_fail<H: Harness>(bench: &Bench<'_, H>) -> LawResult {
    bench.severed(async |scene| {
        for number in 0..TRIES {
            for cut in CUTS {
                let named = |read: &str| format!("{number}/{cut:?}/{read}/").into_bytes();
                let reads = ["get", "get_with_ttl", "exists", "ttl", "mget", "scan"];
                for key in reads.map(named) {
                    healed(async || scene.store.set(&key, b"v", None).await).await?;
                }
                let value = Bytes::from_static(b"v");
                for read in reads {
                    let key = named(read);
                    scene.sever(&key, cut).await?;
                    let kv = &scene.store;
                    match read {
                        "get" => {
                            let expected = Some(value.clone());
                            right_or_passing(read, cut, kv.get(&key).await, &expected)?;
                        }
                        "get_with_ttl" => {
                            let expected = Some((value.clone(), Expiry::Never));
                            right_or_passing(read, cut, kv.get_with_ttl(&key).await, &expected)?;
                        }
                        "exists" => right_or_passing(read, cut, kv.exists(&key).await, &true)?,
                        "ttl" => {
                            let expected = Some(Expiry::Never);
                            right_or_passing(read, cut, kv.ttl(&key).await, &expected)?;
                        }
                        "mget" => {
                            let expected = vec![Some(value.clone()), None];
                            let asked = kv.mget(&[&key, b"nobody"]).await;
                            right_or_passing(read, cut, asked, &expected)?;
                        }
                        _ => {
                            let found = kv.scan(&key).try_collect::<Vec<_>>().await;
                            let expected = vec![Bytes::copy_from_slice(&key)];
                            right_or_passing(read, cut, found, &expected)?;
                        }
                    }
                }
            }
        }
        Ok(())
    })
}

pub(crate) fn heals<H: Harness>(bench: &Bench<'_, H>) -> LawResult {
    const CALLERS: usize = 16;
    bench.severed(async |scene| {
        for cut in CUTS {
            let keys: Vec<_> = (0..CALLERS).map(|n| format!("{cut:?}/{n}/").into_bytes()).collect();
            for key in &keys {
                // Each key holds itself: an answer to another call shows.
                healed(async || scene.store.set(key, key, None).await).await?;
            }
            scene.sever(&keys[CALLERS / 2], cut).await?;
            let kv = &scene.store;
            let answers = join_all(keys.iter().map(|key| kv.get(key))).await;
            for (key, answer) in keys.iter().zip(answers) {
                let expected = Some(Bytes::copy_from_slice(key));
                right_or_passing("a get beside others", cut, answer, &expected)?;
            }
            for key in &keys {
                let found = healed(async || kv.get(key).await).await?;
                ensure_eq!(found.as_deref(), Some(&key[..]), "what is found once it healed");
                let written = healed(async || kv.set(key, b"again", None).await).await;
                written?;
                let found = healed(async || kv.get(key).await).await?;
                ensure_eq!(found.as_deref(), Some(&b"again"[..]), "what is written once it healed");
            }
        }
        Ok(())
    })
}
