//! Recorded concurrent histories, and whether some order of their calls explains them.

use std::sync::{Arc, Mutex, PoisonError};

use derp_kv_core::{Counter, ErrorKind, Expiry};
use todc_utils::linearizability::history::Action;
use todc_utils::{History, Specification, WGLChecker};

use crate::history::{Answer, Op};
use crate::input::{Blob, shown};

/// A call of one key that has returned.
#[derive(Clone, Debug)]
struct Step {
    op: Op,
    answer: Answer,
}

/// The calls of one key, in the order in which they began and ended.
type Events = Vec<(usize, Action<Step>)>;

/// What a key holds; nothing here has a TTL.
struct OneKey;

impl Specification for OneKey {
    type State = Option<Blob>;
    type Operation = Step;

    fn init() -> Self::State {
        None
    }

    fn apply(step: &Step, state: &Self::State) -> (bool, Self::State) {
        let (answer, next) = answer_and_state(&step.op, state);
        (answer.as_ref() == Some(&step.answer), next)
    }
}

/// What the call answers and leaves behind; none for what is no call of one key.
fn answer_and_state(op: &Op, state: &Option<Blob>) -> (Option<Answer>, Option<Blob>) {
    let present = state.is_some();
    let kept = |answer| (answer, state.clone());
    let (answer, next) = match op {
        Op::Get(_) => kept(Answer::Value(state.clone())),
        Op::GetWithTtl(_) => kept(Answer::Dated(state.clone().map(|value| (value, Expiry::Never)))),
        Op::Exists(_) => kept(Answer::Flag(present)),
        Op::Ttl(_) => kept(Answer::Expiry(present.then_some(Expiry::Never))),
        Op::Mget(keys) => kept(Answer::Values(vec![state.clone(); keys.len()])),
        Op::Set(_, value, None) => (Answer::Done, Some(value.clone())),
        Op::Mset(items, None) => {
            (Answer::Done, items.last().map(|(_, value)| value.clone()).or(state.clone()))
        }
        Op::Delete(_) => (Answer::Flag(present), None),
        Op::DeleteMany(keys) if keys.is_empty() => kept(Answer::Count(0)),
        Op::DeleteMany(_) => (Answer::Count(u64::from(present)), None),
        Op::SetNx(_, value, None) => {
            (Answer::Flag(!present), state.clone().or_else(|| Some(value.clone())))
        }
        Op::Incr(_, by, None) => {
            let before = state.as_ref().map_or(Ok(0), |value| Counter::parse(value));
            match before.and_then(|before| Counter::add(before, *by)) {
                Ok(sum) => {
                    let value = Blob(sum.to_string().into_bytes());
                    (Answer::Counter(sum, Expiry::Never), Some(value))
                }
                Err(_) => kept(Answer::Refused(ErrorKind::NotAnInteger)),
            }
        }
        Op::CompareAndSet { expected, value, ttl: None, .. }
            if state.as_ref() == Some(expected) =>
        {
            (Answer::Flag(true), Some(value.clone()))
        }
        Op::CompareAndDelete { expected, .. } if state.as_ref() == Some(expected) => {
            (Answer::Flag(true), None)
        }
        Op::CompareAndSet { ttl: None, .. } | Op::CompareAndDelete { .. } => {
            kept(Answer::Flag(false))
        }
        _ => return (None, state.clone()),
    };
    (Some(answer), next)
}

impl Step {
    /// Whether the answer tells that nothing was written.
    fn wrote_nothing(&self) -> bool {
        match self.op {
            Op::Get(_) | Op::GetWithTtl(_) | Op::Exists(_) | Op::Ttl(_) | Op::Mget(_) => true,
            _ => matches!(self.answer, Answer::Flag(false) | Answer::Count(0) | Answer::Refused(_)),
        }
    }
}

/// Writes down who calls what on one key, and when; the order of its lock is the order of time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recorder {
    events: Arc<Mutex<Vec<Event>>>,
}

#[derive(Clone, Debug)]
struct Event {
    caller: usize,
    op: Op,
    /// None: the call begins.
    answer: Option<Answer>,
}

impl Recorder {
    pub(crate) fn begin(&self, caller: usize, op: &Op) {
        self.push(Event { caller, op: op.clone(), answer: None });
    }

    pub(crate) fn end(&self, caller: usize, op: &Op, answer: Answer) {
        self.push(Event { caller, op: op.clone(), answer: Some(answer) });
    }

    fn push(&self, event: Event) {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }

    /// What no order of the calls explains, if so; all of them have returned, and the key was
    /// absent before.
    pub(crate) fn unexplained(&self) -> Option<String> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let events = completed(&events);
        (!is_linearizable(&events)).then(|| printed(&without_idle_calls(events)))
    }
}

/// Each beginning with the answer that its call came to.
fn completed(events: &[Event]) -> Events {
    let action = |(place, event): (usize, &Event)| {
        let mut later = events[place..].iter().filter(|later| later.caller == event.caller);
        let answer = later.find_map(|later| later.answer.clone())?;
        let step = Step { op: event.op.clone(), answer };
        let action = if event.answer.is_none() { Action::Call } else { Action::Response };
        Some((event.caller, action(step)))
    };
    events.iter().enumerate().filter_map(action).collect()
}

fn is_linearizable(events: &Events) -> bool {
    events.is_empty()
        || WGLChecker::<OneKey>::is_linearizable(History::from_actions(events.clone()))
}

/// Leaves out calls that wrote nothing and without which there is still no order. (One that
/// wrote may not go: others may have answered what it wrote.)
fn without_idle_calls(mut events: Events) -> Events {
    let mut place = 0;
    while let Some((caller, action)) = events.get(place) {
        if let Action::Call(step) = action
            && step.wrote_nothing()
        {
            let mut fewer = events.clone();
            let caller = *caller;
            fewer.remove(place);
            if let Some(end) = fewer[place..].iter().position(|(other, _)| *other == caller) {
                fewer.remove(place + end);
            }
            if !is_linearizable(&fewer) {
                events = fewer;
                continue;
            }
        }
        place += 1;
    }
    events
}

fn printed(events: &Events) -> String {
    let line = |(caller, action): &(usize, Action<Step>)| match action {
        Action::Call(step) => format!("\n    caller {caller} calls {}", shown(&step.op)),
        Action::Response(step) => format!("\n    caller {caller} gets {}", shown(&step.answer)),
    };
    events.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    fn key() -> Blob {
        Blob(b"k".to_vec())
    }

    fn blob(bytes: &[u8]) -> Blob {
        Blob::from(bytes)
    }

    fn recorded(events: &[(usize, Op, Option<Answer>)]) -> Recorder {
        let recorder = Recorder::default();
        for (caller, op, answer) in events.iter().cloned() {
            recorder.push(Event { caller, op, answer });
        }
        recorder
    }

    /// Calls that do not overlap.
    fn one_by_one(steps: &[(Op, Answer)]) -> Recorder {
        let ends = |(op, answer): &(Op, Answer)| {
            [(0, op.clone(), None), (0, op.clone(), Some(answer.clone()))]
        };
        recorded(&steps.iter().flat_map(ends).collect::<Vec<_>>())
    }

    #[test]
    fn overlapping_calls_may_take_effect_in_any_order() {
        let (set, get) = (Op::Set(key(), blob(b"1"), None), Op::Get(key()));
        for seen in [None, Some(blob(b"1"))] {
            let recorder = recorded(&[
                (0, set.clone(), None),
                (1, get.clone(), None),
                (1, get.clone(), Some(Answer::Value(seen))),
                (0, set.clone(), Some(Answer::Done)),
            ]);
            assert_eq!(recorder.unexplained(), None);
        }
    }

    #[test]
    fn a_read_after_a_write_has_returned_must_see_it() {
        let steps = [
            (Op::Set(key(), blob(b"1"), None), Answer::Done),
            (Op::Get(key()), Answer::Value(Some(blob(b"1")))),
            (Op::Get(key()), Answer::Value(None)),
        ];
        let told = one_by_one(&steps).unexplained().unwrap();
        // The first read explains itself, and is left out.
        assert_eq!(
            told,
            "\n    caller 0 calls Set(b\"k\", b\"1\", None)\n    caller 0 gets Done\
             \n    caller 0 calls Get(b\"k\")\n    caller 0 gets Value(None)"
        );
    }

    #[test]
    fn one_increment_of_two_must_not_be_lost() {
        let incr = Op::Incr(key(), 1, None);
        let counts = |first, second| {
            let answer = |count| Some(Answer::Counter(count, Expiry::Never));
            recorded(&[
                (0, incr.clone(), None),
                (1, incr.clone(), None),
                (0, incr.clone(), answer(first)),
                (1, incr.clone(), answer(second)),
            ])
        };
        assert_eq!(counts(1, 2).unexplained(), None);
        assert_eq!(counts(2, 1).unexplained(), None);
        assert!(counts(1, 1).unexplained().is_some());
    }

    #[test]
    fn refusals_are_explained_by_the_value() {
        let steps = |value: &[u8]| {
            [
                (Op::Set(key(), blob(value), None), Answer::Done),
                (Op::Incr(key(), 1, None), Answer::Refused(ErrorKind::NotAnInteger)),
            ]
        };
        assert_eq!(one_by_one(&steps(b"x")).unexplained(), None);
        assert!(one_by_one(&steps(b"7")).unexplained().is_some());
    }

    /// Tries every order, as the checker must not need to.
    fn some_order_explains(events: &Events) -> bool {
        fn search(open: &mut Vec<(usize, usize, Step)>, state: &Option<Blob>) -> bool {
            if open.is_empty() {
                return true;
            }
            let first_end = open.iter().map(|(_, end, _)| *end).min().unwrap_or(0);
            (0..open.len()).any(|place| {
                let (began, _, step) = open[place].clone();
                let (valid, next) = OneKey::apply(&step, state);
                if began > first_end || !valid {
                    return false;
                }
                let taken = open.remove(place);
                let found = search(open, &next);
                open.insert(place, taken);
                found
            })
        }
        let mut calls = Vec::new();
        for (began, (caller, action)) in events.iter().enumerate() {
            let Action::Call(step) = action else { continue };
            let rest = events[began + 1..].iter();
            let end = rest.take_while(|(other, _)| other != caller).count() + began + 1;
            calls.push((began, end, step.clone()));
        }
        search(&mut calls, &None)
    }

    fn any_step() -> impl Strategy<Value = (Op, Answer)> {
        let value = || select(vec![blob(b"1"), blob(b"2")]);
        prop_oneof![
            proptest::option::of(value()).prop_map(|seen| (Op::Get(key()), Answer::Value(seen))),
            value().prop_map(|value| (Op::Set(key(), value, None), Answer::Done)),
            (value(), any::<bool>())
                .prop_map(|(value, won)| (Op::SetNx(key(), value, None), Answer::Flag(won))),
            any::<bool>().prop_map(|there| (Op::Delete(key()), Answer::Flag(there))),
            (1_i64..4).prop_map(|sum| {
                (Op::Incr(key(), 1, None), Answer::Counter(sum, Expiry::Never))
            }),
            (value(), value(), any::<bool>()).prop_map(|(expected, value, won)| {
                let op = Op::CompareAndSet { key: key(), expected, value, ttl: None };
                (op, Answer::Flag(won))
            }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn the_checker_agrees_with_trying_every_order(
            steps in vec((0_usize..3, any_step()), 1..7),
            turns in vec(0_usize..3, 64),
        ) {
            let mut queues = vec![Vec::new(); 3];
            for (caller, (op, answer)) in steps.into_iter().rev() {
                let step = Step { op, answer };
                queues[caller].push((caller, Action::Response(step.clone())));
                queues[caller].push((caller, Action::Call(step)));
            }
            let mut events = Vec::new();
            for turn in turns.into_iter().chain((0..3).cycle().take(64)) {
                events.extend(queues[turn].pop());
            }
            prop_assert_eq!(is_linearizable(&events), some_order_explains(&events));
        }
    }
}
