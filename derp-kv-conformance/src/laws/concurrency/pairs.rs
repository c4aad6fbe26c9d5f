use std::ops::Range;
use std::pin::Pin;
use std::time::Duration;

use derp_kv_core::{Counter, Expiry};
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::bench::{Bench, LawResult};
use crate::erased::Store;
use crate::history::{Answer, Op, call};
use crate::input::Blob;
use crate::laws::concurrency::crowd::{fill, read};
use crate::laws::concurrency::{DAY, SHORT};
use crate::laws::fits;
use crate::nested::{Call, nested};
use crate::scene::Scene;
use crate::side_by_side::{Caller, side_by_side};
use crate::violation::{Violation, ensure};

/// How many keys each pair of calls races on, which are those of its batches.
const GROUP: usize = 2;

/// How many groups are played at once.
const AT_ONCE: usize = 16;

/// Which of the two calls is stopped, after how much of its budget, and who gives a TTL.
const STOPS: [(usize, u32, bool); 10] = [
    (0, 1, false),
    (0, 1, true),
    (1, 1, false),
    (1, 1, true),
    (0, 0, true),
    (1, 0, false),
    (0, 2, true),
    (1, 2, false),
    (0, 3, false),
    (1, 3, true),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Set,
    Mset,
    SetNx,
    Incr,
    CompareAndSet,
    CompareAndDelete,
    Delete,
    DeleteMany,
    Expire,
    Get,
    GetWithTtl,
    Exists,
    Ttl,
    Mget,
}

/// The writes stand before the reads.
const KINDS: [Kind; 14] = [
    Kind::Set,
    Kind::Mset,
    Kind::SetNx,
    Kind::Incr,
    Kind::CompareAndSet,
    Kind::CompareAndDelete,
    Kind::Delete,
    Kind::DeleteMany,
    Kind::Expire,
    Kind::Get,
    Kind::GetWithTtl,
    Kind::Exists,
    Kind::Ttl,
    Kind::Mget,
];

const WRITES: usize = 9;

/// What a group's keys hold before the race.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Absent,
    Present,
    /// Of a TTL that has passed: nothing, though the record may still be there.
    Expired,
}

/// Two calls that race on the keys of a group.
#[derive(Clone, Copy, Debug)]
struct Pair {
    kinds: [Kind; 2],
    before: Before,
    /// Whether the first caller gives a TTL, and the second none, or the other way round.
    first_is_dated: bool,
    /// Which of them is stopped in its middle; none where both run on threads.
    stop: Option<(usize, u32)>,
}

impl Pair {
    fn all() -> Vec<Self> {
        let mut pairs = Vec::new();
        for (number, first) in KINDS[..WRITES].iter().enumerate() {
            for second in &KINDS[number..] {
                for before in [Before::Absent, Before::Present, Before::Expired] {
                    let kinds = [*first, *second];
                    let first_is_dated = pairs.len() % 2 == 0;
                    pairs.push(Self { kinds, before, first_is_dated, stop: None });
                    for (caller, units, first_is_dated) in STOPS {
                        let stop = Some((caller, units));
                        pairs.push(Self { kinds, before, first_is_dated, stop });
                    }
                }
            }
        }
        // Those on threads come first, and those that have the store to themselves then.
        pairs.sort_by_key(|pair| (pair.stop.is_some(), !pair.is_alone()));
        pairs
    }

    /// What a caller gives as TTL, which tells whose it is.
    fn ttl(&self, caller: usize) -> Option<Duration> {
        ((caller == 0) == self.first_is_dated).then(|| DAY * (2 + u32::from(caller == 0)))
    }

    fn held(&self) -> Option<Held> {
        let ttl = (!self.first_is_dated).then_some(DAY);
        (self.before == Before::Present).then(|| Held { value: Blob(b"5".to_vec()), ttl })
    }

    /// The caller's call on the keys, of which only a batch has more than one.
    fn op(&self, caller: usize, keys: &[Blob]) -> Op {
        let (kind, ttl) = (self.kinds[caller], self.ttl(caller));
        let key = keys[0].clone();
        let value = Blob([&b"10"[..], b"20"][caller].to_vec());
        let expected = Blob(b"5".to_vec());
        match kind {
            Kind::Set => Op::Set(key, value, ttl),
            Kind::Mset => {
                Op::Mset(keys.iter().map(|key| (key.clone(), value.clone())).collect(), ttl)
            }
            Kind::SetNx => Op::SetNx(key, value, ttl),
            Kind::Incr => Op::Incr(key, [100, 200][caller], ttl),
            Kind::CompareAndSet => Op::CompareAndSet { key, expected, value, ttl },
            Kind::CompareAndDelete => Op::CompareAndDelete { key, expected },
            Kind::Delete => Op::Delete(key),
            Kind::DeleteMany => Op::DeleteMany(keys.to_vec()),
            Kind::Expire => Op::Expire(key, DAY * [5, 6][caller]),
            Kind::Get => Op::Get(key),
            Kind::GetWithTtl => Op::GetWithTtl(key),
            Kind::Exists => Op::Exists(key),
            Kind::Ttl => Op::Ttl(key),
            Kind::Mget => Op::Mget(keys.to_vec()),
        }
    }

    /// Whether no other pair is under way beside it: a store may have one lock for all keys, which
    /// the others would hold. Two writes, of which one is stopped late, are enough for that.
    fn is_alone(&self) -> bool {
        let writes = self.kinds.iter().all(|kind| KINDS[..WRITES].contains(kind));
        writes && matches!(self.stop, Some((_, 2)))
    }

    fn is_batch(&self, caller: usize) -> bool {
        matches!(self.kinds[caller], Kind::Mset | Kind::DeleteMany | Kind::Mget)
    }
}

/// What a key holds.
#[derive(Clone, Debug)]
struct Held {
    value: Blob,
    ttl: Option<Duration>,
}

impl Held {
    fn expiry(&self) -> Expiry {
        self.ttl.map_or(Expiry::Never, Expiry::In)
    }
}

/// What a call on one key answers, and what it leaves behind.
fn alone(op: &Op, held: Option<Held>) -> (Answer, Option<Held>) {
    let present = held.is_some();
    let new = |value: &Blob, ttl: &Option<Duration>| Some(Held { value: value.clone(), ttl: *ttl });
    let value = held.as_ref().map(|held| held.value.clone());
    match op {
        Op::Get(_) => (Answer::Value(value), held),
        Op::GetWithTtl(_) => {
            (Answer::Dated(held.clone().map(|held| (held.value.clone(), held.expiry()))), held)
        }
        Op::Exists(_) => (Answer::Flag(present), held),
        Op::Ttl(_) => (Answer::Expiry(held.as_ref().map(Held::expiry)), held),
        Op::Mget(_) => (Answer::Values(vec![value]), held),
        Op::Set(_, value, ttl) => (Answer::Done, new(value, ttl)),
        Op::Mset(items, ttl) => (Answer::Done, items.first().and_then(|item| new(&item.1, ttl))),
        Op::SetNx(_, value, ttl) => (Answer::Flag(!present), held.or_else(|| new(value, ttl))),
        Op::Incr(_, by, ttl) => {
            let before = value.and_then(|value| Counter::parse(&value).ok()).unwrap_or(0);
            let ttl = held.map_or(*ttl, |held| held.ttl);
            let next = Held { value: Blob((before + by).to_string().into_bytes()), ttl };
            (Answer::Counter(before + by, next.expiry()), Some(next))
        }
        Op::CompareAndSet { expected, value: swapped, ttl, .. }
            if value.as_ref() == Some(expected) =>
        {
            (Answer::Flag(true), new(swapped, ttl))
        }
        Op::CompareAndDelete { expected, .. } if value.as_ref() == Some(expected) => {
            (Answer::Flag(true), None)
        }
        Op::Delete(_) => (Answer::Flag(present), None),
        Op::DeleteMany(_) => (Answer::Count(u64::from(present)), None),
        Op::Expire(_, ttl) => {
            let dated = held.map(|held| Held { ttl: Some(*ttl), ..held });
            (Answer::Flag(present), dated)
        }
        _ => (Answer::Flag(false), held),
    }
}

fn same_expiry(got: Expiry, want: Expiry) -> bool {
    fits(got, want.remaining())
}

fn same(got: &Answer, want: &Answer) -> bool {
    match (got, want) {
        (Answer::Dated(Some((got, left))), Answer::Dated(Some((want, whole)))) => {
            got == want && same_expiry(*left, *whole)
        }
        (Answer::Expiry(Some(left)), Answer::Expiry(Some(whole))) => same_expiry(*left, *whole),
        (Answer::Counter(got, left), Answer::Counter(want, whole)) => {
            got == want && same_expiry(*left, *whole)
        }
        _ => got == want,
    }
}

/// What a caller was answered on one key; none where a count says it for all keys together.
fn of_key(answers: &[Answer], place: usize) -> Option<Answer> {
    match answers {
        [Answer::Values(values)] => Some(Answer::Values(vec![values.get(place).cloned()?])),
        [Answer::Count(_)] => None,
        [answer @ Answer::Done] => Some(answer.clone()),
        _ => answers.get(place).cloned(),
    }
}

/// The least and the most that a count may be.
#[derive(Clone, Copy, Debug, Default)]
struct Bounds {
    least: u64,
    most: u64,
}

impl Bounds {
    fn add(&mut self, counts: impl Iterator<Item = u64> + Clone) {
        self.least += counts.clone().min().unwrap_or(0);
        self.most += counts.max().unwrap_or(0);
    }

    fn check(self, pair: &Pair, count: u64) -> Result<(), Violation> {
        let Self { least, most } = self;
        ensure!(
            (least..=most).contains(&count),
            "{:?} and {:?} on {:?} keys count {count}, not from {least} to {most}",
            pair.kinds[0],
            pair.kinds[1],
            pair.before
        );
        Ok(())
    }
}

fn count(answer: &Answer) -> u64 {
    if let Answer::Count(count) = answer { *count } else { 0 }
}

/// Checks a group: on each key, one of the two orders must explain answers and outcome.
fn check(
    pair: &Pair,
    keys: &[Blob],
    answers: [&[Answer]; 2],
    left: &[Option<(Blob, Expiry)>],
) -> Result<(), Violation> {
    let mut bounds = [Bounds::default(); 3];
    for (place, left) in left.iter().enumerate() {
        let got = answers.map(|answers| of_key(answers, place));
        let ops = [0, 1].map(|caller| pair.op(caller, &keys[place..=place]));
        let orders = [[0, 1], [1, 0]].map(|order| {
            let mut held = pair.held();
            let mut wanted = [Answer::Done, Answer::Done];
            for caller in order {
                (wanted[caller], held) = alone(&ops[caller], held);
            }
            (wanted, held)
        });
        let explains = |(wanted, held): &&([Answer; 2], Option<Held>)| {
            let answered =
                got.iter().zip(wanted).zip(answers).all(|((got, wanted), answers)| match got {
                    Some(got) => same(got, wanted),
                    None => matches!(answers, [Answer::Count(_)]),
                });
            let kept = match (left, held) {
                (None, None) => true,
                (Some((value, expiry)), Some(held)) => {
                    *value == held.value && same_expiry(*expiry, held.expiry())
                }
                _ => false,
            };
            answered && kept
        };
        let legal: Vec<_> = orders.iter().filter(explains).collect();
        ensure!(
            !legal.is_empty(),
            "no order explains {:?} and {:?} on {:?} key: they answer {:?} and {:?} and leave {left:?}",
            ops[0],
            ops[1],
            pair.before,
            answers[0].get(place).or(answers[0].first()),
            answers[1].get(place).or(answers[1].first())
        );
        for (caller, bounds) in bounds[..2].iter_mut().enumerate() {
            bounds.add(legal.iter().map(|(wanted, _)| count(&wanted[caller])));
        }
        bounds[2].add(legal.iter().map(|([first, second], _)| count(first) + count(second)));
    }
    let counted = answers.map(|answers| match answers {
        [answer @ Answer::Count(_)] => Some(count(answer)),
        _ => None,
    });
    for (caller, counted) in counted.iter().enumerate() {
        if let Some(counted) = counted {
            bounds[caller].check(pair, *counted)?;
        }
    }
    if let [Some(first), Some(second)] = counted {
        bounds[2].check(pair, first + second)?;
    }
    Ok(())
}

/// Gives all keys what they hold before the race.
async fn prepare(scene: &Scene<'_>, pairs: &[Pair], keys: &[Blob]) -> Result<(), Violation> {
    for (before, dated, ttl) in [
        (Before::Expired, true, Some(SHORT)),
        (Before::Expired, false, Some(SHORT)),
        (Before::Present, true, None),
        (Before::Present, false, Some(DAY)),
    ] {
        let its = |pair: &Pair| pair.before == before && pair.first_is_dated == dated;
        let groups = pairs.iter().zip(keys.chunks(GROUP)).filter(|(pair, _)| its(pair));
        let keys: Vec<_> = groups.flat_map(|(_, keys)| keys).cloned().collect();
        fill(&scene.store, &keys, b"5", ttl).await?;
    }
    scene.outlast(SHORT).await;
    Ok(())
}

/// Makes a caller's calls on the keys of a group.
async fn play(
    pair: Pair,
    number: usize,
    kv: Store,
    keys: Vec<Blob>,
) -> Result<Vec<Answer>, Violation> {
    let calls = if pair.is_batch(number) { vec![&keys[..]] } else { keys.chunks(1).collect() };
    let mut answers = Vec::new();
    for keys in calls {
        let op = pair.op(number, keys);
        let answer = call(&kv, b"", &op).await;
        answers.push(answer.ok_or_else(|| Violation::new(format!("{op:?} is no call")))?);
    }
    Ok(answers)
}

/// What each of the two callers is answered, group by group.
type Answers = Vec<[Vec<Answer>; 2]>;

/// Both calls of each pair on threads.
async fn on_threads(stores: &[Store], pairs: &[Pair], keys: &[Blob]) -> Result<Answers, Violation> {
    let (its, theirs) = (pairs.to_vec(), keys.to_vec());
    let race = move |caller: Caller, places: Range<usize>| {
        let (pair, keys) = (its[places.start / GROUP], theirs[places.clone()].to_vec());
        async move {
            if pair.is_batch(caller.number) {
                return play(pair, caller.number, caller.kv, keys).await;
            }
            let one = |place: usize| {
                let keys = vec![keys[place - places.start].clone()];
                play(pair, caller.number, caller.kv.clone(), keys)
            };
            Ok(caller.each(places.clone(), one).await?.concat())
        }
    };
    let answers = side_by_side(stores.to_vec(), keys.len(), GROUP, race).await?;
    let mut answers = answers.into_iter();
    let (first, second) = (answers.next().unwrap_or_default(), answers.next().unwrap_or_default());
    Ok(first.into_iter().zip(second).map(|(first, second)| [first, second]).collect())
}

/// One call of each pair while the other is stopped.
async fn one_inside_the_other(
    stores: &[Store],
    pairs: &[Pair],
    keys: &[Blob],
) -> Result<Answers, Violation> {
    let groups = pairs.iter().zip(keys.chunks(GROUP)).map(|(pair, keys)| {
        let (stopped, units) = pair.stop.unwrap_or_default();
        let calls: Vec<Call<_>> = [stopped, 1 - stopped]
            .map(|number| {
                let played = play(*pair, number, stores[number].clone(), keys.to_vec());
                Box::pin(played) as Call<_>
            })
            .into();
        async move {
            let mut answers = nested(calls, units).await?;
            if stopped == 1 {
                answers.reverse();
            }
            let second = answers.pop().unwrap_or_default();
            Ok::<_, Violation>([answers.pop().unwrap_or_default(), second])
        }
    });
    // Boxed: futures of one type.
    let mut groups: Vec<_> =
        groups.map(|group| Box::pin(group) as Pin<Box<dyn Future<Output = _>>>).collect();
    let together = groups.split_off(pairs.iter().filter(|pair| pair.is_alone()).count());
    let mut answers: Answers = stream::iter(groups).buffered(1).try_collect().await?;
    answers.extend(stream::iter(together).buffered(AT_ONCE).try_collect::<Answers>().await?);
    Ok(answers)
}

pub(crate) fn any_two_calls_have_an_order(bench: &Bench<'_>) -> LawResult {
    let pairs = Pair::all();
    let threads = pairs.iter().filter(|pair| pair.stop.is_none()).count();
    bench.sweep(async |scene, round| {
        let keys: Vec<_> = (0..pairs.len() * GROUP)
            .map(|key| Blob(format!("{round}/{key}").into_bytes()))
            .collect();
        prepare(scene, &pairs, &keys).await?;
        let stores = scene.handles(2).await?;
        let (parallel, stopped) = pairs.split_at(threads);
        let (its, theirs) = keys.split_at(threads * GROUP);
        let mut answers = on_threads(&stores, parallel, its).await?;
        answers.extend(one_inside_the_other(&stores, stopped, theirs).await?);
        let left = read(&scene.store, &keys).await?;
        let groups = pairs.iter().zip(keys.chunks(GROUP)).zip(left.chunks(GROUP));
        for (((pair, keys), left), [first, second]) in groups.zip(&answers) {
            check(pair, keys, [first, second], left)?;
        }
        Ok(())
    })
}
