//! Operations on many keys.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use derp_kv_core::{Error, Result, Ttl};
use futures_util::{StreamExt, stream};
use redis::{Cmd, Pipeline, Value};
use tokio::time::timeout;

use crate::backoff::Backoff;
use crate::commands;
use crate::link::Link;
use crate::reply::{self, Verdict, classify};
use crate::request::{Request, Safety};
use crate::router::{Progress, Router, lost};
use crate::slots::slot_of;
use crate::wire::Sent;

/// Keys in one message.
const CHUNK_KEYS: usize = 512;
/// Bytes in one message, unless a single item is longer: small requests of other callers get
/// their turn in between.
const CHUNK_BYTES: usize = 4 * 1024 * 1024;
/// Messages under way at once.
const CONCURRENT: usize = 8;

/// A key, and its value where the operation writes one.
type Item<'a> = (&'a [u8], &'a [u8]);
/// Items, by their index, that go to one node together.
type Message = (Arc<Link>, Vec<usize>);

enum Kind {
    Get,
    Set(Option<Ttl>),
    Delete,
}

struct Batch<'a> {
    operation: &'static str,
    kind: Kind,
    /// Of distinct keys.
    items: Vec<Item<'a>>,
}

/// What became of one item, where it is settled.
type Outcomes = Vec<Option<Result<Value>>>;

/// What became of one message.
enum Step {
    Settled(usize, Result<Value>),
    /// To be tried again; a redirect of this one key is followed by itself.
    Again {
        index: usize,
        alone: bool,
    },
}

pub(crate) async fn mget(router: &Router, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
    let (distinct, places) = distinct(keys.iter().map(|key| (*key, &[][..])));
    let batch = Batch { operation: "mget", kind: Kind::Get, items: distinct };
    let values = batch.run(router).await?.into_iter().map(reply::value);
    let values = values
        .collect::<Result<Vec<_>>>()
        .map_err(|error| error.with_operation(batch.operation))?;
    // A clone costs an allocation: only for a key that was asked for twice.
    if values.len() == keys.len() {
        return Ok(values);
    }
    Ok(places.into_iter().map(|place| values[place].clone()).collect())
}

pub(crate) async fn mset(
    router: &Router,
    items: &[(&[u8], &[u8])],
    ttl: Option<Ttl>,
) -> Result<()> {
    let (distinct, _) = distinct(items.iter().copied());
    let batch = Batch { operation: "mset", kind: Kind::Set(ttl), items: distinct };
    batch.run(router).await.map(drop)
}

pub(crate) async fn delete_many(router: &Router, keys: &[&[u8]]) -> Result<u64> {
    let (distinct, _) = distinct(keys.iter().map(|key| (*key, &[][..])));
    let batch = Batch { operation: "delete_many", kind: Kind::Delete, items: distinct };
    batch.run(router).await?.iter().try_fold(0, |sum, reply| {
        let count = u64::try_from(reply::integer(reply)?).map_err(|_| reply::unexpected())?;
        Ok(sum + count)
    })
}

/// Each key once, with its last value, and where each of the given keys went.
fn distinct<'a>(items: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> (Vec<Item<'a>>, Vec<usize>) {
    let mut distinct: Vec<Item<'_>> = Vec::new();
    let mut seen = HashMap::new();
    let places = items
        .map(|(key, value)| {
            let place = *seen.entry(key).or_insert_with(|| {
                distinct.push((key, value));
                distinct.len() - 1
            });
            distinct[place].1 = value;
            place
        })
        .collect();
    (distinct, places)
}

impl Batch<'_> {
    fn safety(&self) -> Safety {
        match self.kind {
            Kind::Get => Safety::Retry,
            Kind::Set(_) | Kind::Delete => Safety::Once,
        }
    }

    /// The answer for each item, or an error that says how far it came.
    async fn run(&self, router: &Router) -> Result<Vec<Value>> {
        if self.items.is_empty() {
            return Ok(Vec::new());
        }
        let mut outcomes: Outcomes = self.items.iter().map(|_| None).collect();
        let mut progress = Progress::default();
        let at_most = router.config().op_timeout;
        let driven = self.drive(router, &mut outcomes, &mut progress);
        let timed_out = timeout(at_most, driven).await.is_err();

        let settled = outcomes.iter().filter(|outcome| matches!(outcome, Some(Ok(_)))).count();
        let failed = outcomes.iter().find_map(|outcome| match outcome {
            Some(Err(error)) => Some(error),
            _ => None,
        });
        if settled == outcomes.len() {
            return Ok(outcomes.into_iter().flatten().flatten().collect());
        }
        let writes = self.safety() == Safety::Once;
        let in_doubt = outcomes
            .iter()
            .any(|outcome| matches!(outcome, Some(Err(error)) if error.may_have_applied()));
        let (cause, message) = match failed {
            Some(error) => (error.kind(), error.to_string()),
            None => {
                let error = progress.into_timeout(at_most);
                (error.kind(), error.to_string())
            }
        };
        // What a message that was cut off by the deadline has done is unknown.
        let may_have_applied = writes && (settled > 0 || in_doubt || timed_out);
        let message = format!("{settled} of {} keys done: {message}", outcomes.len());
        Err(Error::new(cause, message)
            .with_operation(self.operation)
            .with_may_have_applied(may_have_applied))
    }

    async fn drive(&self, router: &Router, outcomes: &mut Outcomes, progress: &mut Progress) {
        let mut backoff = Backoff::up_to(std::time::Duration::from_millis(160));
        let mut pending: Vec<usize> = (0..self.items.len()).collect();
        while !pending.is_empty() {
            let (messages, homeless) = self.split(router, &pending);
            let mut alone = Vec::new();
            pending = homeless;
            let mut steps = stream::iter(messages)
                .map(|(link, indices)| self.send(router, link, indices))
                .buffer_unordered(CONCURRENT);
            while let Some((steps, obstacle)) = steps.next().await {
                if obstacle.is_some() {
                    progress.obstacle = obstacle;
                }
                for step in steps {
                    match step {
                        Step::Settled(index, outcome) => outcomes[index] = Some(outcome),
                        Step::Again { index, alone: true } => alone.push(index),
                        Step::Again { index, alone: false } => pending.push(index),
                    }
                }
            }
            drop(steps);
            let mut singles = stream::iter(alone)
                .map(|index| async move { (index, self.drive_alone(router, index).await) })
                .buffer_unordered(CONCURRENT);
            while let Some((index, outcome)) = singles.next().await {
                outcomes[index] = Some(outcome);
            }
            drop(singles);
            if !pending.is_empty() {
                router.shared.doubt();
                backoff.sleep().await;
            }
        }
    }

    /// Groups items into messages to the nodes that serve them; some may have no node now.
    fn split(&self, router: &Router, pending: &[usize]) -> (Vec<Message>, Vec<usize>) {
        let topology = router.shared.topology();
        let mut messages: Vec<Message> = Vec::new();
        let mut homeless = Vec::new();
        // The open message of each node, and its size.
        let mut open: HashMap<*const Link, (usize, usize)> = HashMap::new();
        for &index in pending {
            let (key, value) = self.items[index];
            let slot = if router.is_cluster() { slot_of(key) } else { 0 };
            let Some(link) = topology.owner(slot) else {
                homeless.push(index);
                continue;
            };
            let size = key.len() + value.len();
            let (place, bytes) = open.entry(Arc::as_ptr(link)).or_insert((usize::MAX, 0));
            let full = messages.get(*place).is_none_or(|(_, indices)| {
                indices.len() >= CHUNK_KEYS || *bytes + size > CHUNK_BYTES
            });
            if full {
                messages.push((Arc::clone(link), Vec::new()));
                (*place, *bytes) = (messages.len() - 1, 0);
            }
            *bytes += size;
            messages[*place].1.push(index);
        }
        (messages, homeless)
    }

    async fn send(
        &self,
        router: &Router,
        link: Arc<Link>,
        indices: Vec<usize>,
    ) -> (Vec<Step>, Option<Error>) {
        let mut progress = Progress::default();
        let all_again = |indices: Vec<usize>| {
            indices.into_iter().map(|index| Step::Again { index, alone: false }).collect()
        };
        let Some(wire) = router.wire(&link, &mut progress).await else {
            return (all_again(indices), progress.obstacle);
        };
        let _permit = wire.permit().await;
        let sent = if router.is_cluster() || matches!(self.kind, Kind::Set(_)) {
            wire.send_all(&self.pipeline(&indices), indices.len()).await
        } else {
            match wire.send(&self.many(&indices)).await {
                Sent::Reply(reply) => Sent::Reply(self.spread(reply, indices.len())),
                Sent::Unsent => Sent::Unsent,
                Sent::Lost => Sent::Lost,
            }
        };
        let replies = match sent {
            Sent::Reply(replies) if replies.len() == indices.len() => replies,
            Sent::Reply(_) => {
                let odd = |index| {
                    let error =
                        reply::unexpected().with_may_have_applied(self.safety() == Safety::Once);
                    Step::Settled(index, Err(error))
                };
                return (indices.into_iter().map(odd).collect(), None);
            }
            Sent::Lost if self.safety() == Safety::Once => {
                let lost = |index| {
                    Step::Settled(index, Err(lost(link.address()).with_may_have_applied(true)))
                };
                return (indices.into_iter().map(lost).collect(), None);
            }
            Sent::Unsent => return (all_again(indices), None),
            Sent::Lost => return (all_again(indices), Some(lost(link.address()))),
        };
        let mut obstacle = None;
        let steps = indices
            .into_iter()
            .zip(replies)
            .map(|(index, reply)| self.step(router, &link, index, reply, &mut obstacle))
            .collect();
        (steps, obstacle)
    }

    fn step(
        &self,
        router: &Router,
        link: &Link,
        index: usize,
        reply: Value,
        obstacle: &mut Option<Error>,
    ) -> Step {
        let Value::ServerError(error) = reply else { return Step::Settled(index, Ok(reply)) };
        match classify(&error, link.address()) {
            Verdict::Moved(Some(to)) if router.is_cluster() => {
                router.shared.moved(slot_of(self.items[index].0), &to, link.address());
                Step::Again { index, alone: false }
            }
            Verdict::Ask(Some(_)) if router.is_cluster() => Step::Again { index, alone: true },
            Verdict::Later(error) => {
                *obstacle = Some(error);
                Step::Again { index, alone: false }
            }
            Verdict::Replica(error) if router.is_cluster() => {
                *obstacle = Some(error);
                Step::Again { index, alone: false }
            }
            Verdict::Replica(error) => {
                link.renew();
                Step::Settled(index, Err(error))
            }
            Verdict::Final(error) => Step::Settled(index, Err(error)),
            Verdict::Moved(_) | Verdict::Ask(_) | Verdict::NoScript => {
                Step::Settled(index, Err(reply::unexpected()))
            }
        }
    }

    async fn drive_alone(&self, router: &Router, index: usize) -> Result<Value> {
        let key = self.items[index].0;
        let cmd = self.one(index);
        let request = match self.safety() {
            Safety::Retry => Request::read(self.operation, key, cmd),
            Safety::Once => Request::write(self.operation, key, cmd),
        };
        router.drive(&request, &mut Progress::default()).await
    }

    fn one(&self, index: usize) -> Cmd {
        let (key, value) = self.items[index];
        match self.kind {
            Kind::Get => commands::one_key("GET", key),
            Kind::Set(ttl) => commands::set(key, value, ttl),
            Kind::Delete => commands::one_key("DEL", key),
        }
    }

    fn pipeline(&self, indices: &[usize]) -> Pipeline {
        let mut pipeline = Pipeline::with_capacity(indices.len());
        for index in indices {
            pipeline.add_command(self.one(*index));
        }
        pipeline
    }

    /// One command for all keys: `MGET` or `DEL`.
    fn many(&self, indices: &[usize]) -> Cmd {
        let bytes = indices.iter().map(|index| self.items[*index].0.len()).sum::<usize>();
        let mut cmd = Cmd::with_capacity(indices.len() + 1, bytes + 4);
        cmd.arg(if matches!(self.kind, Kind::Get) { "MGET" } else { "DEL" });
        for index in indices {
            cmd.arg(self.items[*index].0);
        }
        cmd
    }

    /// The answer to one command for all keys, as one answer a key. A count goes to the first.
    fn spread(&self, reply: Value, count: usize) -> Vec<Value> {
        match reply {
            Value::Array(values) => values,
            Value::ServerError(error) => vec![Value::ServerError(error); count],
            Value::Int(_) if matches!(self.kind, Kind::Delete) => {
                let rest = std::iter::repeat_n(Value::Int(0), count - 1);
                std::iter::once(reply).chain(rest).collect()
            }
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_go_to_one_place_and_the_last_value_wins() {
        let items: [(&[u8], &[u8]); 4] = [(b"a", b"1"), (b"b", b"2"), (b"a", b"3"), (b"", b"4")];
        let (distinct, places) = distinct(items.into_iter());
        assert_eq!(distinct, [(&b"a"[..], &b"3"[..]), (b"b", b"2"), (b"", b"4")]);
        assert_eq!(places, [0, 1, 0, 2]);
    }
}
