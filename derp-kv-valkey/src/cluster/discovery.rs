//! Finding the nodes, and noticing when they change.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use derp_kv_core::{Error, ErrorKind, Result};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};

use crate::cluster::slots::SlotMap;
use crate::cluster::topology::Topology;
use crate::cluster::view::View;
use crate::config::{Mode, ValkeyConfig};
use crate::io::Threads;
use crate::node::connection::{Connection, Sent};
use crate::node::failure::{Failure, lost};
use crate::node::identity::Node;
use crate::node::link::Link;
use crate::protocol::reply::Reply;
use crate::protocol::shape;
use crate::protocol::verdict::{Verdict, classify};

/// How often the view is refreshed when nothing raises a doubt.
const PERIOD: Duration = Duration::from_secs(30);
/// The shortest time between two refreshes.
const PAUSE: Duration = Duration::from_millis(25);
/// The time between two refreshes, however great the doubt, while nothing changes.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How long one node may take to answer.
const ANSWER: Duration = Duration::from_secs(1);
/// How long the other nodes may take once one has answered.
const OTHERS: Duration = Duration::from_millis(100);

/// The first view of the servers, or why there is none.
pub(crate) async fn connect(config: &Arc<ValkeyConfig>, threads: &Threads) -> Result<Topology> {
    match config.mode {
        Mode::Standalone => {
            let address = config.addresses.first().ok_or_else(|| {
                crate::config::field("addresses", "must name at least one [host, port]")
            })?;
            let node = Node::at(address);
            let opened = Connection::open(&node, config, threads.of(&node.address)).await;
            let connection = opened.map_err(Failure::into_error)?;
            Ok(Topology::standalone(Link::over(node, Arc::clone(config), threads, connection)))
        }
        Mode::Cluster => {
            let mut seeds: FuturesUnordered<_> = config
                .addresses
                .iter()
                .enumerate()
                .map(async |(index, address)| {
                    (index, open_and_ask(&Node::at(address), config, threads).await)
                })
                .collect();
            let mut first_error: Option<(usize, Error)> = None;
            while let Some((index, answer)) = seeds.next().await {
                match answer {
                    Ok((connection, map)) => {
                        let node = connection.node.clone();
                        let link = Link::over(node, Arc::clone(config), threads, connection);
                        let seed = Topology::standalone(link);
                        return Ok(Topology::cluster(&map, &seed, config, threads));
                    }
                    Err(error) => {
                        if first_error.as_ref().is_none_or(|(first, _)| index < *first) {
                            first_error = Some((index, error));
                        }
                    }
                }
            }
            Err(first_error.map_or_else(shape::unexpected, |(_, error)| error))
        }
    }
}

/// Connects and asks for the map, within one connection time-out.
async fn open_and_ask(
    node: &Node,
    config: &Arc<ValkeyConfig>,
    threads: &Threads,
) -> Result<(Arc<Connection>, SlotMap)> {
    let until = Instant::now() + config.connect_timeout;
    let opened = Connection::open(node, config, threads.of(&node.address)).await;
    let connection = opened.map_err(Failure::into_error)?;
    let map = ask(&connection, until).await?;
    Ok((connection, map))
}

/// Asks one node for the map.
async fn ask(connection: &Connection, until: Instant) -> Result<SlotMap> {
    let address = &connection.node.address;
    let reply = match connection.control(&[b"CLUSTER", b"SLOTS"], until).await {
        Sent::Reply(Reply::ServerError(error)) => {
            return Err(match classify(&error, address) {
                Verdict::Later(error) | Verdict::Replica(error) | Verdict::Final(error) => error,
                _ => shape::unexpected(),
            });
        }
        Sent::Reply(reply) => reply,
        Sent::Expired => {
            let message = format!("{address}: no answer to CLUSTER SLOTS");
            return Err(Error::new(ErrorKind::Timeout, message));
        }
        Sent::Unsent | Sent::Lost | Sent::Broken(_) => return Err(lost(address)),
    };
    let map = SlotMap::parse(&reply, address).ok_or_else(shape::unexpected)?;
    let unusable = |reason| Err(Error::new(ErrorKind::Unavailable, format!("{address}: {reason}")));
    match map.ranges.iter().find(|(.., node)| node.is_ok()).or(map.ranges.first()) {
        None => unusable("the cluster has no slots assigned; create it first".to_owned()),
        Some((slot, _, Err(reason))) => unusable(format!("no node serves slot {slot}: {reason}")),
        Some(_) => Ok(map),
    }
}

/// Whether the node at the end of `connection`, which a redirect has named and no map, belongs to the
/// cluster. Nothing else may be sent to it before.
pub(crate) async fn is_of_same_cluster(
    view: &View,
    connection: &Connection,
    until: Instant,
) -> bool {
    let topology = view.topology();
    if !topology.has_ids() || connection.node.id.as_ref().is_some_and(|id| topology.knows(id)) {
        return true;
    }
    let map = ask(connection, until.min(Instant::now() + ANSWER)).await;
    let same = map.is_ok_and(|map| topology.is_of_same_cluster(&map));
    if same && let Some(id) = &connection.node.id {
        view.confirm(id.clone());
    }
    same
}

/// Refreshes the view from time to time and whenever it is in doubt: at first soon, and while
/// nothing comes of it ever less often, until a redirect or a changed map shows that things move.
pub(crate) async fn keep_fresh(view: Arc<View>) {
    let io = view.threads.main();
    let mut pause = PAUSE;
    let mut ranges = None;
    // When a seed was heard, and when a redirect last made a refresh soon.
    let (mut heard, mut hurried) = (Instant::now(), Instant::now());
    loop {
        let idle = Instant::now();
        let _ = io.timeout(PERIOD, view.doubted()).await;
        if idle.elapsed() > LONGEST_PAUSE {
            pause = PAUSE;
        }
        let is_periodic = heard.elapsed() >= PERIOD;
        if is_periodic {
            heard = Instant::now();
            view.forget_strangers();
        }
        let map = learn(&view, is_periodic).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        if let Some(map) = map {
            view.replace(&map);
            if ranges.replace(map.ranges.clone()).is_some_and(|before| before != map.ranges) {
                pause = PAUSE;
            }
        }
        io.sleep(PAUSE).await;
        // Nodes that send calls to each other and back redirect without end.
        let hurry = async {
            view.redirected().await;
            io.sleep_until(hurried + LONGEST_PAUSE / 4).await;
        };
        if io.timeout(pause - PAUSE, hurry).await.is_ok() {
            hurried = Instant::now();
            pause = PAUSE;
        }
    }
}

/// Asks all nodes at once, so that none can hold the others up, and takes what most of them say.
/// Where none of them answers, their replicas and the configured addresses are asked; `hear_seed`
/// asks one of the latter in any case. What another cluster says is not heard.
async fn learn(view: &View, hear_seed: bool) -> Option<SlotMap> {
    let topology = &view.topology();
    let astray = &Mutex::new(None);
    let heard = async |map: Option<SlotMap>, connection: &Connection| {
        let map = map?;
        if topology.is_of_same_cluster(&map) {
            return Some(map);
        }
        // A node that was reset and joined another cluster keeps its connections.
        connection.kill();
        let address = connection.node.address.clone();
        *astray.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
        None
    };
    let visit = async |node: Node| {
        let opened = open_and_ask(&node, &view.config, &view.threads).await;
        let (connection, map) = opened.ok()?;
        heard(Some(map), &connection).await
    };
    let asked = topology.links().iter().filter_map(|link| link.live());
    let known = asked.map(|connection| {
        async move {
            let map = ask(&connection, Instant::now() + ANSWER).await.ok();
            heard(map, &connection).await
        }
        .boxed()
    });
    let seeds = || view.config.addresses.iter().map(Node::at);
    let is_new = |seed: &Node| topology.links().iter().all(|link| link.address() != &seed.address);
    let one_seed = seeds().filter(is_new).take(usize::from(hear_seed));
    let mut map = vote(known.chain(one_seed.map(|seed| visit(seed).boxed())).collect()).await;
    if map.is_none() {
        let mut others: Vec<Node> = seeds().collect();
        others.extend(topology.replicas.iter().cloned());
        let mut places = HashSet::new();
        others.retain(|node| places.insert(node.address.clone()));
        map = vote(others.into_iter().map(|node| visit(node).boxed()).collect()).await;
    }
    view.set_astray(
        astray.lock().unwrap_or_else(PoisonError::into_inner).take().filter(|_| map.is_none()),
    );
    map
}

/// The map that most nodes agree on; of equals the one that came first.
async fn vote(
    mut answers: FuturesUnordered<impl Future<Output = Option<SlotMap>>>,
) -> Option<SlotMap> {
    let mut votes: Vec<(SlotMap, usize)> = Vec::new();
    loop {
        let next = if votes.is_empty() {
            answers.next().await
        } else {
            tokio::time::timeout(OTHERS, answers.next()).await.unwrap_or(None)
        };
        let Some(answer) = next else { break };
        let Some(map) = answer else { continue };
        match votes.iter_mut().find(|(known, _)| known.ranges == map.ranges) {
            Some((_, count)) => *count += 1,
            None => votes.push((map, 1)),
        }
    }
    let most = votes.iter().map(|(_, count)| *count).max()?;
    votes.into_iter().find(|(_, count)| *count == most).map(|(map, _)| map)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Address;

    #[tokio::test]
    async fn most_votes_win_and_the_first_of_equals() {
        let map = |port| SlotMap {
            ranges: vec![(0, 16383, Ok(Node::at(&Address::new("a", port))))],
            replicas: Vec::new(),
        };
        let ask = async |ports: &[Option<u16>]| {
            let answers = ports.iter().map(|port| std::future::ready(port.map(map))).collect();
            vote(answers).await
        };
        assert_eq!(ask(&[Some(1), Some(2), None, Some(2)]).await, Some(map(2)));
        assert_eq!(ask(&[None, None]).await, None);
        assert_eq!(ask(&[]).await, None);
    }
}
