//! What a store must answer: a map with deadlines.
//!
//! A deadline is known as a span, from before to after the call that set it. Where a key may have
//! expired or not, the model does not say.

use std::collections::BTreeMap;
use std::time::Duration;

use derp_kv_core::{Counter, ErrorKind, Expiry, KvStore, Ttl};
use tokio::time::Instant;

use crate::history::{Answer, Op, call};
use crate::input::{Blob, shown};
use crate::resolution;
use crate::scene::Scene;
use crate::violation::Violation;

/// When a call was under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) began: Instant,
    pub(crate) ended: Instant,
}

impl Span {
    /// Makes the call and measures it.
    pub(crate) async fn of<T>(call: impl Future<Output = T>) -> (T, Self) {
        let began = Instant::now();
        let output = call.await;
        (output, Self { began, ended: Instant::now() })
    }
}

/// When a key expires: as long after a moment in the span as was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    ttl: Duration,
    set: Span,
}

/// What is known of a key that has a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    Present,
    Absent,
    Unsure,
}

impl Deadline {
    pub(crate) fn new(ttl: Duration, set: Span) -> Self {
        Self { ttl: Ttl::new(ttl).map_or(ttl, Ttl::as_duration), set }
    }

    pub(crate) fn ttl(&self) -> Duration {
        self.ttl
    }

    /// The key is there for all of the time before.
    pub(crate) fn earliest(&self) -> Instant {
        self.set.began + self.ttl
    }

    /// The key is absent from then on, where it may show for `slack` longer.
    pub(crate) fn latest(&self, slack: Duration) -> Instant {
        self.set.ended + self.ttl + slack
    }

    /// Whether a call saw the key, which may show for `slack` longer.
    pub(crate) fn seen_by(&self, call: Span, slack: Duration) -> Known {
        if call.ended.saturating_duration_since(self.set.began) < self.ttl {
            Known::Present
        } else if call.began.saturating_duration_since(self.set.ended) >= self.ttl + slack {
            Known::Absent
        } else {
            Known::Unsure
        }
    }

    /// Checks what a store tells of the time left.
    pub(crate) fn check(
        &self,
        reported: Expiry,
        call: Span,
        slack: Duration,
    ) -> Result<(), Violation> {
        let Expiry::In(left) = reported else {
            return Err(Violation::new(format!(
                "a key with a TTL of {:?} never expires",
                self.ttl
            )));
        };
        // A backend may report what is left in units of the resolution that it promises.
        let resolution = resolution::promised();
        let least = self.ttl.saturating_sub(call.ended.saturating_duration_since(self.set.began));
        let most = self.ttl.saturating_sub(call.began.saturating_duration_since(self.set.ended));
        let least = least.saturating_sub(resolution);
        let most = resolution::most_left(self.ttl).min(most + resolution + slack);
        if left.is_zero() || left < least || left > most {
            return Err(Violation::new(format!(
                "of a TTL of {:?}, {left:?} are left, which is not from {least:?} to {most:?}",
                self.ttl
            )));
        }
        Ok(())
    }
}

#[derive(Clone, Debug)]
struct Entry {
    value: Blob,
    deadline: Option<Deadline>,
}

enum Stop {
    /// A key may have expired or not: nothing can be said from here on.
    Unsure,
    Violated(Violation),
}

impl From<Violation> for Stop {
    fn from(violation: Violation) -> Self {
        Self::Violated(violation)
    }
}

/// The keys that a history has left.
#[derive(Debug, Default)]
struct Model {
    entries: BTreeMap<Blob, Entry>,
    slack: Duration,
}

/// Plays the history on the store and on the model, and compares each answer.
pub(crate) async fn play(
    scene: &Scene<'_>,
    store: &impl KvStore,
    prefix: &[u8],
    history: &[Op],
) -> Result<(), Violation> {
    let mut model = Model { slack: scene.slack(), ..Model::default() };
    for (number, op) in history.iter().enumerate() {
        if let Op::Elapse(duration) = op {
            scene.elapse(*duration).await;
            continue;
        }
        let (answer, span) = Span::of(call(store, prefix, op)).await;
        let Some(answer) = answer else { continue };
        match model.step(op, &answer, span) {
            Ok(()) => {}
            Err(Stop::Unsure) => return Ok(()),
            Err(Stop::Violated(violation)) => {
                let op = shown(op);
                return Err(violation.within(format!("step {number}, {op}: ")));
            }
        }
    }
    Ok(())
}

impl Model {
    fn step(&mut self, op: &Op, answer: &Answer, span: Span) -> Result<(), Stop> {
        let expected = self.expected(op, answer, span)?;
        if *answer != expected {
            let (answer, expected) = (shown(answer), shown(&expected));
            return Err(Violation::new(format!("it answered {answer}, not {expected}")).into());
        }
        if !matches!(answer, Answer::Refused(_)) {
            self.apply(op, answer, span);
        }
        Ok(())
    }

    /// What is right; an expiry is taken from the answer once it is checked.
    fn expected(&self, op: &Op, answer: &Answer, span: Span) -> Result<Answer, Stop> {
        let refused = Answer::Refused;
        if let Op::Set(_, _, Some(ttl))
        | Op::Mset(_, Some(ttl))
        | Op::Expire(_, ttl)
        | Op::SetNx(_, _, Some(ttl))
        | Op::Incr(_, _, Some(ttl))
        | Op::CompareAndSet { ttl: Some(ttl), .. } = op
            && Ttl::new(*ttl).is_err()
        {
            return Ok(refused(ErrorKind::InvalidArgument));
        }
        let value = |key| Ok::<_, Stop>(self.look(key, span)?.map(|entry| entry.value.clone()));
        let present = |key| Ok::<_, Stop>(self.look(key, span)?.is_some());
        Ok(match op {
            Op::Get(key) => Answer::Value(value(key)?),
            Op::Exists(key) | Op::Delete(key) | Op::Expire(key, _) => Answer::Flag(present(key)?),
            Op::GetWithTtl(key) => match (self.look(key, span)?, answer) {
                (Some(entry), Answer::Dated(Some((_, expiry)))) => {
                    self.check(entry.deadline, *expiry, span)?;
                    Answer::Dated(Some((entry.value.clone(), *expiry)))
                }
                (entry, _) => Answer::Dated(entry.map(Entry::undated)),
            },
            Op::Ttl(key) => match (self.look(key, span)?, answer) {
                (Some(entry), Answer::Expiry(Some(expiry))) => {
                    self.check(entry.deadline, *expiry, span)?;
                    answer.clone()
                }
                (entry, _) => Answer::Expiry(entry.map(|entry| entry.undated().1)),
            },
            Op::Mget(keys) => Answer::Values(keys.iter().map(value).collect::<Result<_, _>>()?),
            Op::Scan(prefix) => {
                let mut keys = std::collections::BTreeSet::new();
                for key in self.entries.keys().filter(|key| key.starts_with(prefix)) {
                    if present(key)? {
                        keys.insert(key.clone());
                    }
                }
                Answer::Keys(keys)
            }
            Op::DeleteMany(keys) => {
                let keys: std::collections::BTreeSet<_> = keys.iter().collect();
                let mut count = 0;
                for key in keys {
                    count += u64::from(present(key)?);
                }
                Answer::Count(count)
            }
            Op::SetNx(key, ..) => Answer::Flag(!present(key)?),
            Op::Incr(key, by, ttl) => {
                let entry = self.look(key, span)?;
                let before = entry.map_or(Ok(0), |entry| Counter::parse(&entry.value));
                match before.and_then(|before| Counter::add(before, *by)) {
                    Err(error) => refused(error.kind()),
                    Ok(sum) => {
                        let fresh = || ttl.map(|ttl| Deadline::new(ttl, span));
                        let deadline = entry.map_or_else(fresh, |entry| entry.deadline);
                        let expiry = match answer {
                            Answer::Counter(_, expiry) => *expiry,
                            _ => Expiry::Never,
                        };
                        self.check(deadline, expiry, span)?;
                        Answer::Counter(sum, expiry)
                    }
                }
            }
            Op::CompareAndSet { key, expected, .. } | Op::CompareAndDelete { key, expected } => {
                Answer::Flag(value(key)?.as_ref() == Some(expected))
            }
            Op::Set(..) | Op::Mset(..) | Op::Elapse(_) => Answer::Done,
        })
    }

    /// Does what the answer says was done.
    fn apply(&mut self, op: &Op, answer: &Answer, span: Span) {
        let dated = |ttl: &Option<Duration>| ttl.map(|ttl| Deadline::new(ttl, span));
        let done = !matches!(answer, Answer::Flag(false));
        match op {
            Op::Set(key, value, ttl) => self.put(key, value, dated(ttl)),
            Op::Mset(items, ttl) => {
                for (key, value) in items {
                    self.put(key, value, dated(ttl));
                }
            }
            Op::SetNx(key, value, ttl) | Op::CompareAndSet { key, value, ttl, .. } if done => {
                self.put(key, value, dated(ttl));
            }
            Op::Delete(key) | Op::CompareAndDelete { key, .. } if done => {
                self.entries.remove(key);
            }
            Op::DeleteMany(keys) => self.entries.retain(|key, _| !keys.contains(key)),
            Op::Expire(key, ttl) if done => {
                if let Some(entry) = self.entries.get_mut(key) {
                    entry.deadline = Some(Deadline::new(*ttl, span));
                }
            }
            Op::Incr(key, _, ttl) => {
                let Answer::Counter(sum, _) = answer else { return };
                let sum = Blob(sum.to_string().into_bytes());
                let kept = match self.look(key, span) {
                    Ok(Some(entry)) => entry.deadline,
                    Ok(None) | Err(_) => dated(ttl),
                };
                self.put(key, &sum, kept);
            }
            _ => {}
        }
    }

    fn put(&mut self, key: &Blob, value: &Blob, deadline: Option<Deadline>) {
        self.entries.insert(key.clone(), Entry { value: value.clone(), deadline });
    }

    fn look(&self, key: &Blob, span: Span) -> Result<Option<&Entry>, Stop> {
        let Some(entry) = self.entries.get(key) else { return Ok(None) };
        let known = entry.deadline.map(|deadline| deadline.seen_by(span, self.slack));
        match known {
            None | Some(Known::Present) => Ok(Some(entry)),
            Some(Known::Absent) => Ok(None),
            Some(Known::Unsure) => Err(Stop::Unsure),
        }
    }

    fn check(
        &self,
        deadline: Option<Deadline>,
        reported: Expiry,
        span: Span,
    ) -> Result<(), Violation> {
        match (deadline, reported) {
            (None, Expiry::Never) => Ok(()),
            (None, Expiry::In(left)) => {
                Err(Violation::new(format!("a key without a TTL expires in {left:?}")))
            }
            (Some(deadline), reported) => deadline.check(reported, span, self.slack),
        }
    }
}

impl Entry {
    /// What is expected where the answer holds no expiry to check.
    fn undated(&self) -> (Blob, Expiry) {
        let expiry = self.deadline.map_or(Expiry::Never, |deadline| Expiry::In(deadline.ttl));
        (self.value.clone(), expiry)
    }
}
