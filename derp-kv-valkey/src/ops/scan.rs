//! Streaming the keys under a prefix.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use derp_kv_core::{Error, ErrorKind, Operation, Result};
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, stream};

use crate::address::Address;
use crate::cluster::ownership::{Ownership, SlotSet};
use crate::cluster::router::{Progress, Router};
use crate::cluster::slots::{slot_of, tag};
use crate::io::backoff::Backoff;
use crate::node::connection::{Connection, Sent};
use crate::node::failure::{Failure, broken, lost};
use crate::node::identity::text;
use crate::node::link::Link;
use crate::observe::span::{CommandSpan, Server};
use crate::protocol::Args;
use crate::protocol::reply::Reply;
use crate::protocol::request::{Payload, Safety};
use crate::protocol::shape;
use crate::protocol::verdict::{Verdict, classify};

/// Keys that the server looks at for one answer: it is never blocked for long.
const COUNT: &[u8] = b"1000";
/// How often a scan may be interrupted without having come further than ever before, because a
/// connection ended or slots moved.
const LONGEST_RUN_OF_TROUBLE: usize = 16;
/// The longest pause after an interruption.
const LONGEST_PAUSE: Duration = Duration::from_millis(160);

/// A scan under way.
///
/// A node's cursor is worth something only on that node and only while it runs: a scan that loses
/// its connection goes on where the same process answers on the next one, and begins that node
/// again otherwise. Slots are covered, not nodes: a slot counts once a node has been scanned from
/// end to end and has owned it at both ends. What has moved meanwhile is scanned again where it is
/// now.
struct Scan {
    router: Arc<Router>,
    prefix: Vec<u8>,
    pattern: Vec<u8>,
    /// Slots still to be covered; without a cluster a single one stands for all.
    wanted: SlotSet,
    /// Nodes that may hold keys of slots that are moving to them.
    receiving: Vec<(Arc<Link>, SlotSet)>,
    pass: Option<Pass>,
    found: VecDeque<Bytes>,
    /// The most pages that a pass has read since slots were last covered.
    furthest: usize,
    /// Interruptions since there was progress.
    trouble: usize,
    backoff: Backoff,
    /// When the page that is being read must have come.
    until: Instant,
}

/// One node's keyspace, from end to end.
struct Pass {
    link: Arc<Link>,
    connection: Arc<Connection>,
    /// A request on `connection` has no answer.
    is_lost: bool,
    cursor: u64,
    pages: usize,
    /// The server's process, where the server tells; known from the second page on.
    process: Option<String>,
    slots: SlotSet,
    /// The node holds these slots' keys while they are on their way to it.
    receives: bool,
}

/// Scans the keys under `prefix`, which `pattern` matches.
pub(crate) fn scan(
    router: Arc<Router>,
    prefix: &[u8],
    pattern: Vec<u8>,
) -> BoxStream<'static, Result<Bytes>> {
    let wanted = if !router.is_cluster() {
        SlotSet::one(0)
    } else if let Some(tag) = tag(prefix) {
        // All keys with this prefix have its hash tag.
        SlotSet::one(slot_of(tag))
    } else {
        SlotSet::all()
    };
    let scan = Scan {
        until: router.deadline(),
        router,
        prefix: prefix.to_vec(),
        pattern,
        wanted,
        receiving: Vec::new(),
        pass: None,
        found: VecDeque::new(),
        furthest: 0,
        trouble: 0,
        backoff: Backoff::up_to(LONGEST_PAUSE),
    };
    stream::unfold(Some(scan), async |scan| {
        let mut scan = scan?;
        match scan.next().await {
            Ok(Some(key)) => Some((Ok(key), Some(scan))),
            Ok(None) => None,
            Err(error) => Some((Err(error.with_operation(Operation::Scan)), None)),
        }
    })
    // Who asks once more after the end gets the end again, not a panic.
    .fuse()
    .boxed()
}

impl Scan {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(key) = self.found.pop_front() {
                return Ok(Some(key));
            }
            // One page at a time, and only when the consumer wants more: each under its deadline.
            self.until = self.router.deadline();
            let mut progress = Progress::default();
            let io = self.router.io().clone();
            match io.timeout_at(self.until, self.step(&mut progress)).await {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => return Ok(None),
                Ok(Err(error)) => return Err(error),
                Err(_) => {
                    self.router.view.doubt();
                    return Err(progress.into_timeout(self.router.config().op_timeout));
                }
            }
        }
    }

    /// Does the next piece of work; `false` when all is covered.
    async fn step(&mut self, progress: &mut Progress) -> Result<bool> {
        if self.pass.as_ref().is_some_and(|pass| pass.is_lost || !pass.connection.is_ready()) {
            self.interrupted().await?;
            self.resume(progress).await?;
        }
        let Some(pass) = &mut self.pass else { return self.begin(progress).await };
        if pass.pages == 1 {
            pass.process = process(&self.router.view.server, &pass.connection, self.until).await;
        }
        let (cursor, pattern) = (pass.cursor.to_string(), self.pattern.clone());
        let page: Args<'_> = &[b"SCAN", cursor.as_bytes(), b"MATCH", &pattern, b"COUNT", COUNT];
        match self.request(page, progress).await? {
            None => Ok(true),
            Some(page) => {
                let (cursor, keys) = read_page(page)?;
                self.take(keys);
                if let Some(pass) = &mut self.pass {
                    pass.cursor = cursor;
                    pass.pages += 1;
                    if pass.pages > self.furthest {
                        self.furthest = pass.pages;
                        self.trouble = 0;
                        self.backoff = Backoff::up_to(LONGEST_PAUSE);
                    }
                }
                if cursor == 0 {
                    self.end(progress).await?;
                }
                Ok(true)
            }
        }
    }

    /// Whether there is time left for this page.
    fn in_time(&self, progress: &mut Progress) -> Result<()> {
        if Instant::now() < self.until {
            return Ok(());
        }
        self.router.view.doubt();
        Err(std::mem::take(progress).into_timeout(self.router.config().op_timeout))
    }

    /// Begins with the node of the first slot that is still wanted.
    async fn begin(&mut self, progress: &mut Progress) -> Result<bool> {
        loop {
            self.in_time(progress)?;
            let receiving = self.wanted.first().is_none().then(|| self.receiving.pop()).flatten();
            let (link, slots, receives) = match (self.wanted.first(), receiving) {
                (Some(slot), _) => match self.router.view.owner(slot) {
                    Some(link) => (link, self.wanted.clone(), false),
                    None => {
                        progress.obstacle = Some(self.router.view.unserved(slot));
                        self.router.view.doubt();
                        self.backoff.sleep_until(self.router.io(), self.until).await;
                        continue;
                    }
                },
                (None, Some((link, slots))) => (link, slots, true),
                (None, None) => return Ok(false),
            };
            let found = self.router.connection(&link, progress, self.until).await;
            let connection = match found.map_err(Failure::into_error)? {
                Some(connection) => connection,
                None => {
                    if receives {
                        self.receiving.push((link, slots));
                    }
                    continue;
                }
            };
            let (is_lost, cursor, pages, process) = (false, 0, 0, None);
            self.pass =
                Some(Pass { link, connection, is_lost, cursor, pages, process, slots, receives });
            if !self.router.is_cluster() || receives {
                return Ok(true);
            }
            let Some(ownership) = self.ownership(progress).await? else { return Ok(true) };
            let Some(pass) = &mut self.pass else { return Ok(true) };
            // A slot that arrives later may lie where the cursor has been by then.
            pass.slots = pass.slots.and(&ownership.owned);
            if !pass.slots.is_empty() {
                return Ok(true);
            }
            // Not the owner, whatever the map says: ask again who is.
            progress.obstacle = Some(not_the_owner(pass.link.address()));
            self.pass = None;
            self.router.view.doubt();
            self.backoff.sleep_until(self.router.io(), self.until).await;
        }
    }

    /// Goes on with a pass that has lost its connection where the same process answers on a new
    /// one, and gives the pass up otherwise.
    async fn resume(&mut self, progress: &mut Progress) -> Result<()> {
        while let Some(pass) = &self.pass {
            self.in_time(progress)?;
            let owner = pass.slots.first().and_then(|slot| self.router.view.owner(slot));
            let has_moved =
                !pass.receives && !owner.is_some_and(|owner| Arc::ptr_eq(&owner, &pass.link));
            if pass.cursor == 0 || pass.process.is_none() || has_moved {
                break;
            }
            let link = Arc::clone(&pass.link);
            let found = self.router.connection(&link, progress, self.until).await;
            let Some(connection) = found.map_err(Failure::into_error)? else { continue };
            let server = &self.router.view.server;
            let same = process(server, &connection, self.until).await == pass.process;
            if same && let Some(pass) = &mut self.pass {
                (pass.connection, pass.is_lost) = (connection, false);
                return Ok(());
            }
            break;
        }
        self.give_up();
        Ok(())
    }

    /// Gives up the pass; its slots stay wanted.
    fn give_up(&mut self) {
        if let Some(pass) = self.pass.take()
            && pass.receives
        {
            self.receiving.push((pass.link, pass.slots));
        }
    }

    /// What the node of the pass owns now. `None`: the pass is over.
    async fn ownership(&mut self, progress: &mut Progress) -> Result<Option<Ownership>> {
        let reply = self.request(&[b"CLUSTER", b"NODES"], progress).await?;
        let (Some(reply), Some(pass)) = (reply, &self.pass) else { return Ok(None) };
        Ownership::parse(&reply, pass.link.address()).map(Some).ok_or_else(shape::unexpected)
    }

    /// Sends to the node of the pass. `None`: the pass is interrupted, and what it had to cover is
    /// still to be covered.
    async fn request(&mut self, args: Args<'_>, progress: &mut Progress) -> Result<Option<Reply>> {
        let Some(pass) = &self.pass else { return Ok(None) };
        let (link, connection) = (Arc::clone(&pass.link), Arc::clone(&pass.connection));
        let span = CommandSpan::of_command(&self.router.view.server, args);
        let answered = self.answer(args, progress, &link, &connection, &span).await;
        span.reached(&connection);
        match &answered {
            Ok(None) => span.failed(ErrorKind::Unavailable),
            answered => span.ended(answered),
        }
        answered
    }

    async fn answer(
        &mut self,
        args: Args<'_>,
        progress: &mut Progress,
        link: &Link,
        connection: &Connection,
        span: &CommandSpan,
    ) -> Result<Option<Reply>> {
        loop {
            let payload = Payload::Command(args);
            match connection.send(payload, Safety::Retry, self.until).await {
                Sent::Reply(Reply::ServerError(error)) => match classify(&error, link.address()) {
                    Verdict::Later(obstacle) | Verdict::Replica(obstacle) => {
                        span.again(connection, Some(&error));
                        progress.obstacle = Some(obstacle);
                        self.backoff.sleep_until(self.router.io(), self.until).await;
                    }
                    verdict => {
                        span.refused(&error);
                        return Err(match verdict {
                            Verdict::Final(error) => error,
                            _ => shape::unexpected(),
                        });
                    }
                },
                Sent::Reply(reply) => return Ok(Some(reply)),
                Sent::Broken(reason) => return Err(broken(link.address(), reason)),
                Sent::Unsent | Sent::Lost | Sent::Expired => {
                    progress.obstacle = Some(lost(link.address()));
                    if let Some(pass) = &mut self.pass {
                        pass.is_lost = true;
                    }
                    return Ok(None);
                }
            }
        }
    }

    /// Counts an interruption, and pauses.
    async fn interrupted(&mut self) -> Result<()> {
        self.trouble += 1;
        if self.trouble > LONGEST_RUN_OF_TROUBLE {
            let message =
                format!("the scan was interrupted {} times and came no further", self.trouble);
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        self.router.view.doubt();
        self.backoff.sleep_until(self.router.io(), self.until).await;
        Ok(())
    }

    /// A node has been scanned to its end: settles what that has covered.
    async fn end(&mut self, progress: &mut Progress) -> Result<()> {
        if !self.router.is_cluster() {
            self.wanted.clear();
            self.pass = None;
            return Ok(());
        }
        let Some(ownership) = self.ownership(progress).await? else { return Ok(()) };
        let Some(pass) = self.pass.take() else { return Ok(()) };
        if pass.receives {
            return Ok(());
        }
        let mut covered = pass.slots.and(&ownership.owned);
        // Keys that had gone ahead to the next owner before they were seen here are there now.
        for (slot, to) in &ownership.leaving {
            if !covered.contains(*slot) {
                continue;
            }
            let Some(link) = self.router.view.receiver(to) else {
                // Until a map names the receiver, the slot is not covered.
                covered.remove_all(&SlotSet::one(*slot));
                continue;
            };
            match self.receiving.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &link)) {
                Some((_, slots)) => slots.insert(*slot),
                None => self.receiving.push((link, SlotSet::one(*slot))),
            }
        }
        self.wanted.remove_all(&covered);
        if covered.is_empty() {
            // Not the owner after all, or no longer: ask again who is.
            self.interrupted().await?;
        } else {
            (self.furthest, self.trouble) = (0, 0);
        }
        Ok(())
    }

    fn take(&mut self, keys: Vec<Reply>) {
        let Some(pass) = &self.pass else { return };
        let is_cluster = self.router.is_cluster();
        for key in keys {
            if let Reply::BulkString(key) = key
                && key.starts_with(&self.prefix)
                && (!is_cluster || pass.slots.contains(slot_of(&key)))
            {
                self.found.push_back(key);
            }
        }
    }
}

/// Which process of the server answers on `connection`: cursors mean something to no other one.
/// `None`: it does not tell, or this user may not ask.
async fn process(server: &Server, connection: &Connection, until: Instant) -> Option<String> {
    let args: Args<'_> = &[b"INFO", b"server"];
    let span = CommandSpan::of_command(server, args);
    let sent = connection.send(Payload::Command(args), Safety::Retry, until).await;
    span.reached(connection);
    let Sent::Reply(info) = sent else {
        span.failed(ErrorKind::Unavailable);
        return None;
    };
    if let Reply::ServerError(error) = &info {
        span.refused(error);
        span.failed(ErrorKind::AccessDenied);
    }
    let id = text(&info)?.lines().find_map(|line| line.strip_prefix("run_id:"))?;
    Some(id.to_owned())
}

fn not_the_owner(address: &Address) -> Error {
    let message = format!("{address}: the node serves none of the slots that the map gives it");
    Error::new(ErrorKind::Unavailable, message)
}

fn read_page(page: Reply) -> Result<(u64, Vec<Reply>)> {
    let Reply::Array(page) = page else { return Err(shape::unexpected()) };
    let Ok([Reply::BulkString(cursor), Reply::Array(keys)]) = <[Reply; 2]>::try_from(page) else {
        return Err(shape::unexpected());
    };
    let cursor = std::str::from_utf8(&cursor).ok().and_then(|text| text.parse().ok());
    Ok((cursor.ok_or_else(shape::unexpected)?, keys))
}
