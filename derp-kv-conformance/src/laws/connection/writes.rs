//! One write whose connection breaks.

use std::time::Duration;

use bytes::Bytes;
use derp_kv_core::{Expiry, KvStore, Result};

use super::{CUTS, Cuts, TRIES, batches, crowd, healed, passing, secrets};
use crate::Cut;
use crate::bench::{Bench, LawResult};
use crate::scene::Scene;
use crate::violation::{Violation, ensure, with_sources};

const HOUR: Duration = Duration::from_secs(60 * 60);

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

/// Lets each write meet each cut and looks at what came of it. Each has a scene of its own, so that a
/// client may take its time to find another connection.
fn each_write(
    bench: &Bench<'_>,
    cuts: &Cuts,
    check: impl Fn(&Broken) -> Result<(), Violation>,
) -> LawResult {
    for write in WRITES {
        bench.severed(async |scene| meets_each_cut(scene, write, cuts, &check).await)?;
    }
    Ok(())
}

async fn meets_each_cut(
    scene: &mut Scene<'_>,
    write: Write,
    cuts: &Cuts,
    check: impl Fn(&Broken) -> Result<(), Violation>,
) -> Result<(), Violation> {
    for number in 0..TRIES {
        for cut in CUTS {
            let key = format!("{number}/{write:?}/{cut:?}/").into_bytes();
            if let Some(value) = write.before() {
                healed(async || scene.store.set(&key, value, None).await).await?;
            }
            scene.sever(&key, cut).await?;
            let said = write.call(&scene.store, &key).await;
            cuts.note(&said);
            let found = healed(async || scene.store.get_with_ttl(&key).await).await?;
            check(&Broken { write, cut, said, found })?;
        }
    }
    Ok(())
}

pub(crate) fn tells_what_was_applied(bench: &Bench<'_>) -> LawResult {
    let cuts = Cuts::default();
    each_write(bench, &cuts, |broken| {
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
    })?;
    batches::tell_what_was_applied(bench, &cuts)?;
    secrets::are_not_shown(bench)?;
    cuts.proved(bench)
}

pub(crate) fn applies_once(bench: &Bench<'_>) -> LawResult {
    let cuts = Cuts::default();
    each_write(bench, &cuts, |broken| {
        let once = broken.write.applied(&broken.found).is_some();
        let right = broken.said.as_ref().map_or(true, |answer| answer.is_of_the_one_time());
        ensure!(once && right, "{}", broken.told());
        Ok(())
    })?;
    crowd::counts_once(bench, &cuts)?;
    cuts.proved(bench)
}
