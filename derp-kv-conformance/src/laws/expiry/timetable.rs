//! Keys, and the moments at which looking at them tells something.

use std::time::Duration;

use derp_kv_core::{Expiry, KvStore};
use tokio::time::Instant;

use super::calls::Looker;
use crate::model::{Deadline, Known, Span};
use crate::scene::Scene;
use crate::violation::{Violation, ensure};

/// What becomes of a key.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    Absent,
    Forever,
    Until(Deadline),
}

impl Fate {
    /// That of a key just written with `ttl`.
    pub(super) fn of(ttl: Option<Duration>, written: Span) -> Self {
        ttl.map_or(Self::Forever, |ttl| Self::Until(Deadline::new(ttl, written)))
    }

    pub(super) fn seen_by(self, call: Span, slack: Duration) -> Known {
        match self {
            Self::Absent => Known::Absent,
            Self::Forever => Known::Present,
            Self::Until(deadline) => deadline.seen_by(call, slack),
        }
    }

    /// Checks what a call has told of the key: `None` where it found none.
    pub(super) fn check(
        self,
        told: Option<Expiry>,
        call: Span,
        slack: Duration,
    ) -> Result<(), Violation> {
        self.check_presence(told.is_some(), call, slack)?;
        match (self, told) {
            (Self::Forever, Some(expiry)) => {
                ensure!(expiry == Expiry::Never, "it has no TTL, and expires in {expiry:?}");
                Ok(())
            }
            (Self::Until(deadline), Some(expiry)) => deadline.check(expiry, call, slack),
            (Self::Absent, _) | (_, None) => Ok(()),
        }
    }

    pub(super) fn check_presence(
        self,
        found: bool,
        call: Span,
        slack: Duration,
    ) -> Result<(), Violation> {
        let known = self.seen_by(call, slack);
        let why = self.why();
        ensure!(found || known != Known::Present, "it is gone before its time, although {why}");
        ensure!(!found || known != Known::Absent, "it is there after its time, although {why}");
        Ok(())
    }

    fn why(self) -> String {
        match self {
            Self::Absent => "nothing has written it since it went away".to_owned(),
            Self::Forever => "it has no TTL".to_owned(),
            Self::Until(deadline) => format!("its TTL is {:?}", deadline.ttl()),
        }
    }
}

/// When to look at a key that has a deadline.
#[derive(Clone, Copy, Debug)]
pub(super) enum Moment {
    /// The last one at which it is there; where time is real, at once.
    Before,
    /// The first one at which it is absent.
    After,
}

impl Moment {
    pub(super) fn of(self, deadline: &Deadline, scene: &Scene<'_>) -> Instant {
        match self {
            Self::Before if scene.is_virtual() => deadline.earliest() - Duration::from_nanos(1),
            Self::Before => Instant::now(),
            Self::After => deadline.latest(scene.slack()),
        }
    }
}

/// How to look.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way {
    Finds(Looker),
    /// By everything that tells an expiry.
    Reports,
}

/// One look at one key. The key itself says to a reader how it came to be.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) at: Instant,
    pub(super) key: String,
    pub(super) way: Way,
    pub(super) fate: Fate,
}

impl Look {
    async fn check(&self, kv: &impl KvStore, slack: Duration) -> Result<(), Violation> {
        let key = self.key.as_bytes();
        match self.way {
            Way::Finds(looker) => {
                let (found, span) = Span::of(looker.finds(kv, key)).await;
                return self.fate.check_presence(found?, span, slack);
            }
            Way::Reports => {
                let (expiry, span) = Span::of(kv.ttl(key)).await;
                self.fate.check(expiry?, span, slack)?;
            }
        }
        let (dated, span) = Span::of(kv.get_with_ttl(key)).await;
        let told = dated?.map(|(_, expiry)| expiry);
        self.fate.check(told, span, slack)?;
        // One that is about to end would be created anew.
        let lasts = told.is_some_and(|expiry| {
            expiry.remaining().is_none_or(|left| left > Duration::from_secs(5) + slack)
        });
        if lasts {
            let (counter, span) = Span::of(kv.incr(key, 0, Some(IGNORED))).await;
            self.fate.check(Some(counter?.expiry), span, slack)?;
        }
        Ok(())
    }
}

/// What `incr` leaves aside where the key is there.
const IGNORED: Duration = Duration::from_secs(77);

/// Looks at everything in its time.
pub(super) async fn keep(scene: &Scene<'_>, mut looks: Vec<Look>) -> Result<(), Violation> {
    looks.sort_by_key(|look| look.at);
    for look in looks {
        let ahead = look.at.saturating_duration_since(Instant::now());
        if !ahead.is_zero() {
            scene.elapse(ahead).await;
        }
        look.check(&scene.store, scene.slack()).await.map_err(|violation| {
            violation.within(format!("`{}`, by {:?}: ", look.key, look.way))
        })?;
    }
    Ok(())
}
