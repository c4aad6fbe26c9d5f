use std::time::Duration;

use derp_kv_core::{Ask, Change, ErrorKind, Expiry, KvStore, RateLimit, Step, Stepped};
use futures_util::future::try_join_all;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::match_at::{Did, Met};
use super::times::Times;
use super::{Held, limits, seen};
use crate::bench::{Bench, LawResult};
use crate::erased::Store;
use crate::input::{Blob, bytes, shown};
use crate::model::{Deadline, Known, Span};
use crate::resolution;
use crate::scene::Scene;
use crate::violation::{Violation, ensure, ensure_eq, with_sources};

/// What is done to the key of a history.
#[derive(Clone, Debug)]
enum Act {
    /// A step under the limits of this place.
    Step(usize, Ask),
    Wait(Duration),
    /// Any bytes, with an expiry or without one.
    Set(Blob, Option<Duration>),
    /// What the key holds, without an expiry.
    Immortalize,
    /// What the key holds, without its last byte.
    Cut,
    Delete,
    Expire(Duration),
}

/// The limits of a history, which it changes between, and what is done.
type History = (Vec<RateLimit>, Vec<Act>);

fn histories(is_virtual: bool) -> impl Strategy<Value = History> + Clone {
    let millis = |range: std::ops::Range<u64>| range.prop_map(Duration::from_millis);
    let asks = select(vec![Ask::Admit, Ask::Admit, Ask::Admit, Ask::Peek, Ask::Refund]);
    let waits = match is_virtual {
        true => prop_oneof![
            2 => millis(0..40),
            2 => (0_u64..30_000_000).prop_map(Duration::from_nanos),
            1 => millis(0..5_000),
        ]
        .boxed(),
        false => millis(0..25).boxed(),
    };
    let ttls = millis(1..20_000);
    let act = prop_oneof![
        12 => (0_usize..3, asks).prop_map(|(place, ask)| Act::Step(place, ask)),
        6 => waits.prop_map(Act::Wait),
        1 => (bytes(), proptest::option::of(ttls.clone())).prop_map(|(value, ttl)| Act::Set(value, ttl)),
        1 => Just(Act::Immortalize),
        1 => Just(Act::Cut),
        1 => Just(Act::Delete),
        1 => ttls.prop_map(Act::Expire),
    ];
    let periods = if is_virtual { 1..=4_000 } else { 1..=200 };
    // Most keep to one kind for a while: a value of the other is corrupt.
    let kinds = prop_oneof![
        3 => limits(periods).prop_map(|limits| vec![limits]),
        2 => vec(limits(if is_virtual { 1..=4_000 } else { 1..=200 }), 3),
    ];
    (kinds, vec(act, 1..if is_virtual { 60 } else { 30 }))
}

pub(crate) fn agrees_with_the_core(bench: &Bench<'_>) -> LawResult {
    let side_by_side = if bench.is_virtual() { 1..=1 } else { 8..=16 };
    let strategy = vec(histories(bench.is_virtual()), side_by_side);
    bench.timed_property(strategy, async |scene, histories| {
        let handles = scene.handles(2).await?;
        let scene: &Scene<'_> = scene;
        let plays = histories.iter().enumerate().map(|(number, history)| {
            let play = Play { scene, handles: &handles, key: format!("{number}/").into_bytes() };
            async move { play.play(history).await }
        });
        try_join_all(plays).await?;
        Ok(())
    })
}

/// A history that is played on a key of its own.
struct Play<'a> {
    scene: &'a Scene<'a>,
    handles: &'a [Store],
    key: Vec<u8>,
}

impl Play<'_> {
    async fn play(&self, (limits, acts): &History) -> Result<(), Violation> {
        let kv = &self.scene.store;
        for (number, act) in acts.iter().enumerate() {
            match act {
                Act::Step(place, ask) => {
                    let limits = &limits[place % limits.len()];
                    let step = limits.step(*ask)?;
                    let stepped = self.step(&self.handles[number % 2], &step).await;
                    stepped.map_err(|seen| seen.within(format!("step {number}, {ask:?}: ")))?;
                }
                Act::Wait(duration) => self.scene.elapse(*duration).await,
                Act::Set(value, ttl) => kv.set(&self.key, value, *ttl).await?,
                Act::Immortalize => {
                    if let Some(value) = kv.get(&self.key).await? {
                        kv.set(&self.key, &value, None).await?;
                    }
                }
                Act::Cut => {
                    if let Some((value, expiry)) = kv.get_with_ttl(&self.key).await? {
                        let cut = &value[..value.len().saturating_sub(1)];
                        kv.set(&self.key, cut, expiry.remaining()).await?;
                    }
                }
                Act::Delete => drop(kv.delete(&self.key).await?),
                Act::Expire(ttl) => drop(kv.expire(&self.key, *ttl).await?),
            }
        }
        Ok(())
    }

    /// Makes a step, between a look at the key before and one after it.
    async fn step(&self, kv: &impl KvStore, step: &Step) -> Result<(), Violation> {
        let looks = &self.scene.store;
        let (before, look) = Span::of(looks.get_with_ttl(&self.key)).await;
        let before: Held = before?;
        let (answer, call) = Span::of(kv.step(&self.key, step)).await;
        let (after, again) = Span::of(looks.get_with_ttl(&self.key)).await;
        let made = Made {
            step,
            before,
            answer,
            call,
            after: after?,
            again,
            passed: call.ended - look.began,
            is_virtual: self.scene.is_virtual(),
            slack: self.scene.slack(),
        };
        made.check()
    }
}

/// A step that was made, with what was seen of its key before and after.
struct Made<'a> {
    step: &'a Step,
    before: Held,
    answer: derp_kv_core::Result<Stepped>,
    call: Span,
    after: Held,
    again: Span,
    /// From before the look to after the step.
    passed: Duration,
    is_virtual: bool,
    slack: Duration,
}

impl Made<'_> {
    fn check(&self) -> Result<(), Violation> {
        let gone = self.may_be_gone(self.passed);
        if gone && self.agrees(self.step.apply(None)?, &None).is_ok() {
            return Ok(());
        }
        let would = match (self.step.apply(seen(&self.before)), &self.answer) {
            (Ok(would), _) => would,
            (Err(error), Err(answer)) => {
                ensure_eq!(answer.kind(), ErrorKind::Corrupt, "the error of a foreign value");
                ensure!(error.kind() == ErrorKind::Corrupt, "the core says {error}");
                let certain = !answer.may_have_applied() && !answer.is_transient();
                ensure!(certain, "the error of a foreign value is in doubt: {answer:?}");
                return self.kept();
            }
            (Err(_), Ok(stepped)) => {
                let value = shown(&self.before);
                return Err(Violation::new(format!(
                    "{value}, which is foreign, is answered {stepped:?}"
                )));
            }
        };
        match &self.before {
            Some((value, Expiry::In(left))) if !self.is_exact() => self.agrees_within(value, *left),
            _ => self.agrees(would, &self.before),
        }
    }

    /// The answer, of a call that must not fail.
    fn stepped(&self) -> Result<Stepped, Violation> {
        self.answer
            .as_ref()
            .map(|stepped| *stepped)
            .map_err(|error| Violation::new(format!("it fails: {}", with_sources(error))))
    }

    /// Checks the answer and what is there after it against what the core makes of `before`.
    fn agrees(&self, (change, would): (Change, Stepped), before: &Held) -> Result<(), Violation> {
        ensure_eq!(self.stepped()?, would, "the answer");
        match change {
            Change::Keep if before.is_none() => {
                ensure!(self.after.is_none(), "what was absent is now {}", shown(&self.after));
                Ok(())
            }
            Change::Keep => self.kept(),
            Change::Set { value, ttl } => {
                let Some((found, expiry)) = &self.after else { return self.outlived(ttl) };
                ensure_eq!(Blob(found.to_vec()), Blob(value.to_vec()), "the value");
                if self.is_exact() {
                    ensure_eq!(*expiry, Expiry::In(ttl), "the expiry");
                }
                self.written(*expiry, ttl)
            }
            _ => {
                ensure!(self.after.is_none(), "what was to be deleted is {}", shown(&self.after));
                Ok(())
            }
        }
    }

    /// Checks them where the clock ran between the look and the step: the core must come to them with
    /// some time left that there may have been.
    fn agrees_within(&self, value: &[u8], left: Duration) -> Result<(), Violation> {
        let stepped = self.stepped()?;
        let nanos = |left: Duration| u64::try_from(left.as_nanos()).unwrap_or(u64::MAX / 2);
        let unit = resolution::promised();
        let least = nanos(left.saturating_sub(self.passed + unit)).max(1);
        let most = nanos(left + unit);
        let found = self.after.as_ref().map(|(found, _)| &found[..]);
        let met = Met { step: self.step, value };
        // What was written may have expired before it was looked at; and a store that rounds its
        // TTLs to seconds may have seen any of too many times.
        let hidden = found.is_none() && !self.is_virtual;
        let fits = if hidden || unit > resolution::FINEST {
            met.admits_within(stepped.admitted(), least, most)
        } else {
            met.comes_to_within(&Did { stepped, left: found }, least, most)
        };
        ensure!(
            fits,
            "with {left:?} left at the look, the answer is {stepped:?}, and then there is {}: not what \
             the core comes to with any time from {:?} to {:?} left",
            shown(&self.after),
            Duration::from_nanos(least),
            Duration::from_nanos(most)
        );
        match &self.after {
            Some((found, _)) if found == value => self.kept(),
            Some((found, expiry)) => self.written(*expiry, ttl_in(found)),
            None => Ok(()),
        }
    }

    /// Checks that nothing was written, and that the TTL has gone on running.
    fn kept(&self) -> Result<(), Violation> {
        let (Some((value, expiry)), Some((found, then))) = (&self.before, &self.after) else {
            let passed = self.passed + (self.again.ended - self.again.began);
            let gone = self.after.is_none() && self.may_be_gone(passed);
            let same = self.before.is_none() && self.after.is_none();
            let (before, after) = (shown(&self.before), shown(&self.after));
            ensure!(same || gone, "{before}, which nothing changes, is now {after}");
            return Ok(());
        };
        ensure_eq!(Blob(found.to_vec()), Blob(value.to_vec()), "what nothing changes");
        let (Expiry::In(left), Expiry::In(then)) = (*expiry, *then) else {
            ensure_eq!(*then, *expiry, "the expiry, which nothing changes,");
            return Ok(());
        };
        let passed = self.passed + (self.again.ended - self.call.ended);
        let unit = if self.is_exact() { Duration::ZERO } else { resolution::promised() };
        let same = then <= left + unit && then + passed + unit >= left;
        ensure!(same, "{left:?} were left of what nothing changes, and {then:?} after {passed:?}");
        Ok(())
    }

    /// Checks the expiry of what was written with a TTL.
    fn written(&self, expiry: Expiry, ttl: Duration) -> Result<(), Violation> {
        Deadline::new(ttl, self.call).check(expiry, self.again, self.slack)
    }

    /// Checks that what was written with a TTL may be gone by the look at it.
    fn outlived(&self, ttl: Duration) -> Result<(), Violation> {
        let known = Deadline::new(ttl, self.call).seen_by(self.again, self.slack);
        ensure!(known != Known::Present, "what was written with a TTL of {ttl:?} is absent");
        Ok(())
    }

    /// Whether the clock stood still: what the look showed is what the step saw.
    fn is_exact(&self) -> bool {
        let fine = resolution::promised() <= resolution::FINEST;
        let passed = self.passed + (self.again.ended - self.call.ended);
        self.is_virtual && fine && passed.is_zero()
    }

    /// Whether the key may have expired within so long after the look.
    fn may_be_gone(&self, passed: Duration) -> bool {
        let Some((_, Expiry::In(left))) = &self.before else { return false };
        !self.is_exact() && *left <= passed + resolution::promised()
    }
}

/// The TTL that the value says it was written with.
fn ttl_in(value: &[u8]) -> Duration {
    Duration::from_nanos(Times::read(value).ttl)
}
