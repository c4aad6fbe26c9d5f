//! Many keys in many messages: grouped by node, sent side by side, driven to the deadline.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use derp_kv_core::{Error, ErrorKind, Operation, Result, Ttl};
use futures_util::{StreamExt, stream};

use crate::cluster::router::{Progress, Router, no_answer};
use crate::cluster::slots::slot_of;
use crate::cluster::view::Moved;
use crate::io::backoff::Backoff;
use crate::node::connection::Sent;
use crate::node::failure::lost;
use crate::node::link::Link;
use crate::observe::span::{CommandSpan, Server};
use crate::protocol::commands;
use crate::protocol::encode::encode;
use crate::protocol::reply::Reply;
use crate::protocol::request::{Payload, Request, Safety};
use crate::protocol::shape;
use crate::protocol::verdict::{Verdict, classify};

/// Keys in one message.
pub(super) const CHUNK_KEYS: usize = 512;
/// Bytes in one message, unless a single item is longer: small requests of other callers get
/// their turn in between.
pub(super) const CHUNK_BYTES: usize = 4 * 1024 * 1024;
/// Messages under way at once.
const CONCURRENT: usize = 8;

/// A key, and its value where the operation writes one.
pub(super) type Item<'a> = (&'a [u8], &'a [u8]);

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
type Outcomes = Vec<Option<Result<Reply>>>;

/// What became of one message.
enum Step {
    Settled(usize, Result<Reply>),
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
    pub(super) async fn run(&self, router: &Router) -> Result<Vec<Reply>> {
        let mut outcomes: Outcomes = self.items.iter().map(|_| None).collect();
        let obstacle = self.drive(router, &mut outcomes).await;

        let settled = outcomes.iter().filter(|outcome| matches!(outcome, Some(Ok(_)))).count();
        if settled == outcomes.len() {
            return Ok(outcomes.into_iter().flatten().flatten().collect());
        }
        let count = outcomes.len();
        let failures: Vec<Error> = outcomes.into_iter().flatten().filter_map(Result::err).collect();
        let in_doubt = failures.iter().any(Error::may_have_applied);
        let cause = failures.into_iter().next().or(obstacle);
        let writes = self.safety() == Safety::Once;
        Err(cause
            .unwrap_or_else(|| no_answer(router.config().op_timeout))
            .with_context(format_args!("{settled} of {count} keys done"))
            .with_operation(self.operation)
            .with_may_have_applied(writes && (settled > 0 || in_doubt)))
    }

    /// Settles items until all are settled or the deadline passes. What it was waiting for then is
    /// returned.
    async fn drive(&self, router: &Router, outcomes: &mut Outcomes) -> Option<Error> {
        let until = router.deadline();
        let mut obstacle = None;
        let mut backoff = Backoff::up_to(Duration::from_millis(160));
        let mut pending: Vec<usize> = (0..self.items.len()).collect();
        loop {
            let (messages, homeless) = self.split(router, &pending);
            if let Some(index) = homeless.first() {
                obstacle = Some(router.view.unserved(slot_of(self.items[*index].0)));
            }
            let mut alone = Vec::new();
            pending = homeless;
            let mut steps = stream::iter(messages)
                .map(|(link, indices)| self.send(router, link, indices, until))
                .buffer_unordered(CONCURRENT);
            while let Some((steps, met)) = steps.next().await {
                obstacle = met.or(obstacle);
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
                .map(|index| async move { (index, self.drive_alone(router, index, until).await) })
                .buffer_unordered(CONCURRENT);
            while let Some((index, outcome)) = singles.next().await {
                outcomes[index] = Some(outcome);
            }
            drop(singles);
            if pending.is_empty() {
                return obstacle;
            }
            router.view.doubt();
            if Instant::now() >= until {
                return obstacle;
            }
            backoff.sleep_until(router.io(), until).await;
        }
    }

    /// Groups items into messages to the nodes that serve them; some may have no node now.
    fn split(&self, router: &Router, pending: &[usize]) -> (Vec<Message>, Vec<usize>) {
        let topology = router.view.topology();
        let mut messages: Vec<Message> = Vec::new();
        let mut homeless = Vec::new();
        // The open message of each node, and its size.
        let mut open: HashMap<*const Link, (usize, usize)> = HashMap::new();
        for &index in pending {
            let (key, value) = self.items[index];
            let slot = if router.is_cluster() { slot_of(key) } else { 0 };
            let Some(link) = topology.owner(slot).map(|link| link.of(key)) else {
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
        until: Instant,
    ) -> (Vec<Step>, Option<Error>) {
        let mut progress = Progress::default();
        let safety = self.safety();
        let all_again = |indices: Vec<usize>| {
            indices.into_iter().map(|index| Step::Again { index, alone: false }).collect()
        };
        // One error stands for the whole message: what is neither settled nor pending is not done.
        let all_failed = |indices: Vec<usize>, error: Error| {
            let first = indices.into_iter().next();
            first.map(|index| Step::Settled(index, Err(error))).into_iter().collect()
        };
        let connection = match router.connection(&link, &mut progress, until).await {
            Ok(Some(connection)) => connection,
            Ok(None) => return (all_again(indices), progress.obstacle),
            Err(failure) => return (all_failed(indices, failure.into_error()), None),
        };
        let one_each = router.is_cluster() || matches!(self.kind, Kind::Set(_));
        let span = self.span(&router.view.server, one_each, indices.len());
        let sent = if one_each {
            connection.send_all(self.payload(&indices), safety, until).await
        } else {
            let name: &[u8] = if matches!(self.kind, Kind::Get) { b"MGET" } else { b"DEL" };
            let args = many(name, indices.iter().map(|index| self.items[*index].0));
            let sent = connection.send(Payload::Command(&args), safety, until).await;
            sent.map(|reply| self.spread(reply, indices.len()))
        };
        span.reached(&connection);
        if let Some(error) = router.unanswered(&sent, safety, link.address()) {
            span.failed(error.kind());
            return (all_failed(indices, error), None);
        }
        let replies = match sent {
            Sent::Reply(replies) if replies.len() == indices.len() => replies,
            Sent::Reply(_) => {
                span.failed(ErrorKind::Backend);
                let once = safety == Safety::Once;
                let odd = shape::unexpected().with_may_have_applied(once);
                return (all_failed(indices, odd), None);
            }
            unanswered => {
                span.failed(ErrorKind::Unavailable);
                let lost = matches!(unanswered, Sent::Lost).then(|| lost(link.address()));
                return (all_again(indices), lost);
            }
        };
        span.ended_pipeline(&connection, &replies, link.address());
        let mut obstacle = None;
        let steps = indices
            .into_iter()
            .zip(replies)
            .map(|(index, reply)| self.step(router, &link, index, reply, &mut obstacle))
            .collect();
        (steps, obstacle)
    }

    /// The span of one message: of a command for each key, or of one for all of them.
    fn span(&self, server: &Server, one_each: bool, keys: usize) -> CommandSpan {
        let (alone, together) = match self.kind {
            Kind::Get => ("GET", "PIPELINE GET"),
            Kind::Set(_) => ("SET", "PIPELINE SET"),
            Kind::Delete => ("DEL", "PIPELINE DEL"),
        };
        match (one_each, &self.kind) {
            (true, _) if keys == 1 => CommandSpan::of_command(server, &[alone.as_bytes()]),
            (true, _) => CommandSpan::of_pipeline(server, together, keys),
            (false, Kind::Get) => CommandSpan::of_command(server, &[b"MGET"]),
            (false, _) => CommandSpan::of_command(server, &[alone.as_bytes()]),
        }
    }

    fn step(
        &self,
        router: &Router,
        link: &Link,
        index: usize,
        reply: Reply,
        obstacle: &mut Option<Error>,
    ) -> Step {
        let Reply::ServerError(error) = reply else {
            return Step::Settled(index, self.understood(reply));
        };
        match classify(&error, link.address()) {
            Verdict::Moved(Some(to)) if router.is_cluster() => {
                let moved = router.view.moved(slot_of(self.items[index].0), &to, link.address());
                Step::Again { index, alone: matches!(moved, Moved::Stranger(_)) }
            }
            Verdict::Moved(None) | Verdict::Ask(_) if router.is_cluster() => {
                Step::Again { index, alone: true }
            }
            Verdict::Later(error) => {
                *obstacle = Some(error);
                Step::Again { index, alone: false }
            }
            Verdict::Replica(error) => {
                *obstacle = Some(router.not_a_primary(0, error));
                Step::Again { index, alone: false }
            }
            Verdict::Final(error) => Step::Settled(index, Err(error)),
            Verdict::Moved(_) | Verdict::Ask(_) | Verdict::NoScript => {
                Step::Settled(index, Err(shape::unexpected()))
            }
        }
    }

    async fn drive_alone(&self, router: &Router, index: usize, until: Instant) -> Result<Reply> {
        let (key, _) = self.items[index];
        let ttl = self.ttl();
        let args = self.one(index, &ttl);
        let request = match self.safety() {
            Safety::Retry => Request::read(self.operation, key, &args),
            Safety::Once => Request::write(self.operation, key, &args),
        };
        router.drive(&request, until).await.and_then(|reply| self.understood(reply))
    }

    /// Whoever answers a `SET` with anything but `OK` has done nobody knows what. What the other
    /// commands answer is read by who asked.
    fn understood(&self, reply: Reply) -> Result<Reply> {
        if matches!(self.kind, Kind::Set(_)) && reply != Reply::Okay {
            return Err(shape::unexpected().with_may_have_applied(true));
        }
        Ok(reply)
    }

    fn ttl(&self) -> String {
        match self.kind {
            Kind::Set(ttl) => commands::ttl(ttl),
            Kind::Get | Kind::Delete => String::new(),
        }
    }

    fn one<'a>(&'a self, index: usize, ttl: &'a str) -> Vec<&'a [u8]> {
        let (key, value) = self.items[index];
        match self.kind {
            Kind::Get => vec![b"GET", key],
            Kind::Set(_) => commands::set(key, value, ttl, &[]),
            Kind::Delete => vec![b"DEL", key],
        }
    }

    fn payload(&self, indices: &[usize]) -> Payload<'static> {
        let (mut bytes, ttl) = (Vec::new(), self.ttl());
        for index in indices {
            encode(&mut bytes, &self.one(*index, &ttl));
        }
        Payload::Packed { bytes, replies: indices.len() }
    }

    /// The answer to one command for all keys, as one answer a key. A count goes to the first.
    fn spread(&self, reply: Reply, count: usize) -> Vec<Reply> {
        match reply {
            Reply::Array(values) => values,
            Reply::ServerError(error) => vec![Reply::ServerError(error); count],
            Reply::Int(_) if matches!(self.kind, Kind::Delete) => {
                let rest = std::iter::repeat_n(Reply::Int(0), count - 1);
                std::iter::once(reply).chain(rest).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// One command for many keys: `MGET` or `DEL`.
pub(super) fn many<'a>(name: &'a [u8], keys: impl Iterator<Item = &'a [u8]>) -> Vec<&'a [u8]> {
    std::iter::once(name).chain(keys).collect()
}
