use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::bench::{Bench, LawResult, at_once};
use crate::erased::Store;
use crate::history::{Op, call};
use crate::input::Blob;
use crate::linearizability::Recorder;
use crate::scene::Scene;
use crate::violation::{Violation, ensure};

/// Few keys, so that callers meet; linearizability is local, so each is checked alone.
const KEYS: &[&[u8]] = &[b"a", b"b"];

/// Few values, so that comparisons match; one is no counter.
const VALUES: &[&[u8]] = &[b"0", b"1", b"2", b"x"];

/// How often each program runs: races are a matter of luck.
const TRIES: u32 = 3;

/// How often, once one has failed and is shrunk.
const TRIES_TO_FAIL: u32 = 40;

/// A call, and how many turns its caller lets pass before.
#[derive(Clone)]
struct Step {
    pause: u8,
    key: usize,
    op: Op,
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.op.fmt(f)
    }
}

/// What each of several callers does, one call after the other.
type Program = Vec<Vec<Step>>;

fn programs() -> impl Strategy<Value = Program> {
    vec(vec(step(), 1..8), 2..5)
}

fn step() -> impl Strategy<Value = Step> {
    (0..KEYS.len()).prop_flat_map(|key| {
        let op = op(Blob::from(KEYS[key]));
        (0_u8..4, op).prop_map(move |(pause, op)| Step { pause, key, op })
    })
}

/// Any call on one key, with as good as no chance to expire.
fn op(key: Blob) -> impl Strategy<Value = Op> {
    let value = || select(VALUES).prop_map(Blob::from);
    let at = |op: fn(Blob) -> Op| Just(op(key.clone()));
    let with = |op: fn(Blob, Blob) -> Op| {
        let key = key.clone();
        value().prop_map(move |value| op(key.clone(), value))
    };
    let swapped = key.clone();
    let swap = (value(), value()).prop_map(move |(expected, value)| Op::CompareAndSet {
        key: swapped.clone(),
        expected,
        value,
        ttl: None,
    });
    prop_oneof![
        4 => at(Op::Get),
        1 => at(Op::GetWithTtl),
        1 => at(Op::Exists),
        1 => at(Op::Ttl),
        1 => at(|key| Op::Mget(vec![key])),
        3 => with(|key, value| Op::Set(key, value, None)),
        1 => with(|key, value| Op::Mset(vec![(key, value)], None)),
        2 => with(|key, value| Op::SetNx(key, value, None)),
        2 => at(Op::Delete),
        1 => at(|key| Op::DeleteMany(vec![key])),
        3 => at(|key| Op::Incr(key, 1, None)),
        3 => swap,
        2 => with(|key, expected| Op::CompareAndDelete { key, expected }),
    ]
}

pub(crate) fn linearizable(bench: &Bench<'_>) -> LawResult {
    let failing = Cell::new(false);
    bench.contended_property(programs(), async |scene, program| {
        let tries = if failing.get() { TRIES_TO_FAIL } else { TRIES };
        for number in 0..tries {
            run(scene, number, &program).await.inspect_err(|_| failing.set(true))?;
        }
        Ok(())
    })
}

/// Runs each caller on a task and a handle of its own, on fresh keys.
async fn run(scene: &mut Scene<'_>, number: u32, program: &Program) -> Result<(), Violation> {
    let prefix = format!("{number}/").into_bytes();
    let recorders: BTreeMap<usize, Recorder> =
        (0..KEYS.len()).map(|key| (key, Recorder::default())).collect();
    at_once(scene.handles(program.len()).await?, |caller, kv| {
        let (steps, prefix, recorders) =
            (program[caller].clone(), prefix.clone(), recorders.clone());
        async move {
            for step in steps {
                play(caller, &kv, &prefix, &step, &recorders[&step.key]).await?;
            }
            Ok(())
        }
    })
    .await?;
    for recorder in recorders.values() {
        if let Some(history) = recorder.unexplained() {
            return Err(Violation::new(format!("no order of these calls explains them:{history}")));
        }
    }
    Ok(())
}

async fn play(
    caller: usize,
    kv: &Store,
    prefix: &[u8],
    step: &Step,
    recorder: &Recorder,
) -> Result<(), Violation> {
    for _ in 0..step.pause {
        tokio::task::yield_now().await;
    }
    recorder.begin(caller, &step.op);
    let answer = call(kv, prefix, &step.op).await;
    ensure!(answer.is_some(), "{:?} is no call", step.op);
    if let Some(answer) = answer {
        recorder.end(caller, &step.op, answer);
    }
    Ok(())
}
