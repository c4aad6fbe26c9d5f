//! Streaming the keys under a prefix.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use derp_kv_core::{Error, ErrorKind, Operation, Result};
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, stream};
use redis::Value;
use tokio::time::timeout;

use crate::cluster::ownership::{Ownership, SlotSet};
use crate::cluster::router::{Progress, Router, lost, unserved};
use crate::cluster::slots::{slot_of, tag};
use crate::io::backoff::Backoff;
use crate::node::link::Link;
use crate::node::wire::{Sent, Wire};
use crate::protocol::reply::{self, Verdict, classify};

/// Keys that the server looks at for one answer: it is never blocked for long.
const COUNT: usize = 1000;
/// How often a node's scan may begin again, because its connection ended or its slots moved.
const LONGEST_RUN_OF_TROUBLE: usize = 16;

/// A scan under way.
///
/// A node's cursor is worth something only on that node and only while it runs, so a scan that
/// loses its connection begins that node again. Slots are covered, not nodes: a slot counts once a
/// node has been scanned from end to end and has owned it at both ends. What has moved meanwhile
/// is scanned again where it is now.
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
    trouble: usize,
    backoff: Backoff,
}

/// One node's keyspace, from end to end.
struct Pass {
    link: Arc<Link>,
    wire: Arc<Wire>,
    cursor: u64,
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
        router,
        prefix: prefix.to_vec(),
        pattern,
        wanted,
        receiving: Vec::new(),
        pass: None,
        found: VecDeque::new(),
        trouble: 0,
        backoff: Backoff::up_to(Duration::from_millis(160)),
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
            let at_most = self.router.config().op_timeout;
            let mut progress = Progress::default();
            match timeout(at_most, self.step(&mut progress)).await {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => return Ok(None),
                Ok(Err(error)) => return Err(error),
                Err(_) => {
                    self.router.shared.doubt();
                    return Err(progress.into_timeout(at_most));
                }
            }
        }
    }

    /// Does the next piece of work; `false` when all is covered.
    async fn step(&mut self, progress: &mut Progress) -> Result<bool> {
        let Some(pass) = &mut self.pass else { return self.begin(progress).await };
        let mut cmd = redis::cmd("SCAN");
        cmd.arg(pass.cursor).arg("MATCH").arg(&self.pattern).arg("COUNT").arg(COUNT);
        match self.request(&cmd, progress).await? {
            None => Ok(true),
            Some(page) => {
                let (cursor, keys) = read_page(page)?;
                self.take(keys);
                if cursor == 0 {
                    self.end(progress).await?;
                } else if let Some(pass) = &mut self.pass {
                    pass.cursor = cursor;
                }
                Ok(true)
            }
        }
    }

    /// Begins with the node of the first slot that is still wanted.
    async fn begin(&mut self, progress: &mut Progress) -> Result<bool> {
        loop {
            let receiving = self.wanted.first().is_none().then(|| self.receiving.pop()).flatten();
            let (link, slots, receives) = match (self.wanted.first(), receiving) {
                (Some(slot), _) => match self.router.shared.owner(slot) {
                    Some(link) => (link, self.wanted.clone(), false),
                    None => {
                        progress.obstacle = Some(unserved(slot));
                        self.router.shared.doubt();
                        self.backoff.sleep().await;
                        continue;
                    }
                },
                (None, Some((link, slots))) => (link, slots, true),
                (None, None) => return Ok(false),
            };
            let wire = match self.router.wire(&link, progress).await {
                Some(wire) => wire,
                None => {
                    if receives {
                        self.receiving.push((link, slots));
                    }
                    continue;
                }
            };
            self.pass = Some(Pass { link, wire, cursor: 0, slots, receives });
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
            progress.obstacle = self.wanted.first().map(unserved);
            self.pass = None;
            self.router.shared.doubt();
            self.backoff.sleep().await;
        }
    }

    /// What the node of the pass owns now. `None`: the pass is over.
    async fn ownership(&mut self, progress: &mut Progress) -> Result<Option<Ownership>> {
        let reply = self.request(redis::cmd("CLUSTER").arg("NODES"), progress).await?;
        let (Some(reply), Some(pass)) = (reply, &self.pass) else { return Ok(None) };
        Ownership::parse(&reply, pass.link.address()).map(Some).ok_or_else(reply::unexpected)
    }

    /// Sends to the node of the pass. `None`: the pass is over, and what it had to cover is still
    /// to be covered.
    async fn request(
        &mut self,
        cmd: &redis::Cmd,
        progress: &mut Progress,
    ) -> Result<Option<Value>> {
        let Some(pass) = &self.pass else { return Ok(None) };
        let (link, wire) = (Arc::clone(&pass.link), Arc::clone(&pass.wire));
        loop {
            let permit = wire.permit().await;
            let sent = wire.send(cmd).await;
            drop(permit);
            match sent {
                Sent::Reply(Value::ServerError(error)) => match classify(&error, link.address()) {
                    Verdict::Later(error) | Verdict::Replica(error) => {
                        progress.obstacle = Some(error);
                        self.backoff.sleep().await;
                    }
                    Verdict::Final(error) => return Err(error),
                    _ => return Err(reply::unexpected()),
                },
                Sent::Reply(reply) => return Ok(Some(reply)),
                Sent::Unsent | Sent::Lost => {
                    progress.obstacle = Some(lost(link.address()));
                    self.start_over().await?;
                    return Ok(None);
                }
            }
        }
    }

    /// Gives up the pass; its slots stay wanted.
    async fn start_over(&mut self) -> Result<()> {
        self.trouble += 1;
        if self.trouble > LONGEST_RUN_OF_TROUBLE {
            return Err(Error::new(
                ErrorKind::Unavailable,
                format!("the scan was interrupted {} times", self.trouble),
            ));
        }
        if let Some(pass) = self.pass.take()
            && pass.receives
        {
            self.receiving.push((pass.link, pass.slots));
        }
        self.router.shared.doubt();
        self.backoff.sleep().await;
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
        let covered = pass.slots.and(&ownership.owned);
        if pass.receives {
            return Ok(());
        }
        // Keys that had gone ahead to the next owner before they were seen here are there now.
        for (slot, to) in &ownership.leaving {
            if covered.contains(*slot) {
                let link = self.router.shared.link_to(to);
                match self.receiving.iter_mut().find(|(known, _)| known.address() == to) {
                    Some((_, slots)) => slots.insert(*slot),
                    None => self.receiving.push((link, SlotSet::one(*slot))),
                }
            }
        }
        self.wanted.remove_all(&covered);
        if covered.is_empty() {
            // Not the owner after all, or no longer: ask again who is.
            self.pass = None;
            self.start_over().await?;
        }
        Ok(())
    }

    fn take(&mut self, keys: Vec<Value>) {
        let Some(pass) = &self.pass else { return };
        let is_cluster = self.router.is_cluster();
        for key in keys {
            if let Value::BulkString(key) = key
                && key.starts_with(&self.prefix)
                && (!is_cluster || pass.slots.contains(slot_of(&key)))
            {
                self.found.push_back(Bytes::from(key));
            }
        }
    }
}

fn read_page(page: Value) -> Result<(u64, Vec<Value>)> {
    let Value::Array(page) = page else { return Err(reply::unexpected()) };
    let Ok([Value::BulkString(cursor), Value::Array(keys)]) = <[Value; 2]>::try_from(page) else {
        return Err(reply::unexpected());
    };
    let cursor = std::str::from_utf8(&cursor).ok().and_then(|text| text.parse().ok());
    Ok((cursor.ok_or_else(reply::unexpected)?, keys))
}
