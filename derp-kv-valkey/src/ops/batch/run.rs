//! Many keys in many messages: grouped by node, sent side by side, driven to the deadline.

use std::collections::HashMap;
use std::sync::Arc;

use derp_kv_core::{Error, Operation, Result, Ttl};
use futures_util::{StreamExt, stream};
use redis::{Cmd, Pipeline, Value};
use tokio::time::timeout;

use super::{CHUNK_BYTES, CHUNK_KEYS, Item, many};
use crate::cluster::router::{Progress, Router, lost};
use crate::cluster::slots::slot_of;
use crate::io::backoff::Backoff;
use crate::node::link::Link;
use crate::node::wire::Sent;
use crate::protocol::commands;
use crate::protocol::reply::{self, Verdict, classify};
use crate::protocol::request::{Request, Safety};

/// Messages under way at once.
const CONCURRENT: usize = 8;

/// Items, by their index, that go to one node together.
type Message = (Arc<Link>, Vec<usize>);

pub(super) enum Kind {
    Get,
    Set(Option<Ttl>),
    Delete,
}

pub(super) struct Batch<'a> {
    pub(super) operation: Operation,
    pub(super) kind: Kind,
    /// Of distinct keys where it writes.
    pub(super) items: Vec<Item<'a>>,
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

impl Batch<'_> {
    fn safety(&self) -> Safety {
        match self.kind {
            Kind::Get => Safety::Retry,
            Kind::Set(_) | Kind::Delete => Safety::Once,
        }
    }

    /// The answer for each item, or an error that says how far it came.
    pub(super) async fn run(&self, router: &Router) -> Result<Vec<Value>> {
        if self.items.is_empty() {
            return Ok(Vec::new());
        }
        let mut outcomes: Outcomes = self.items.iter().map(|_| None).collect();
        let mut progress = Progress::default();
        let at_most = router.config().op_timeout;
        let driven = self.drive(router, &mut outcomes, &mut progress);
        let timed_out = timeout(at_most, driven).await.is_err();
        if timed_out {
            router.shared.doubt();
        }

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
            let name = if matches!(self.kind, Kind::Get) { "MGET" } else { "DEL" };
            let cmd = many(name, indices.iter().map(|index| self.items[*index].0));
            match wire.send(&cmd).await {
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
        let Value::ServerError(error) = reply else {
            return Step::Settled(index, self.understood(reply));
        };
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
        router
            .drive(&request, &mut Progress::default())
            .await
            .and_then(|reply| self.understood(reply))
    }

    /// Whoever answers a `SET` with anything but `OK` has done nobody knows what. What the other
    /// commands answer is read by who asked.
    fn understood(&self, reply: Value) -> Result<Value> {
        if matches!(self.kind, Kind::Set(_)) && reply != Value::Okay {
            return Err(reply::unexpected().with_may_have_applied(true));
        }
        Ok(reply)
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
