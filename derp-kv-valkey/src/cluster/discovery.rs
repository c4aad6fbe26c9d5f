//! Finding the nodes, and noticing when they change.

use std::sync::Arc;
use std::time::Duration;

use derp_kv_core::{Error, ErrorKind, Result};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::address::Address;
use crate::cluster::router::Shared;
use crate::cluster::slots::SlotMap;
use crate::cluster::topology::Topology;
use crate::config::{Mode, ValkeyConfig};
use crate::node::link::Link;
use crate::node::wire::{Sent, Wire};
use crate::protocol::reply::{Verdict, classify};

/// How often the view is refreshed when nothing raises a doubt.
const PERIOD: Duration = Duration::from_secs(30);
/// The shortest time between two refreshes.
const PAUSE: Duration = Duration::from_millis(25);
/// How long one node may take to answer.
const ANSWER: Duration = Duration::from_secs(1);
/// How long the other nodes may take once one has answered.
const OTHERS: Duration = Duration::from_millis(100);

/// The first view of the servers, or why there is none.
pub(crate) async fn connect(config: &Arc<ValkeyConfig>) -> Result<Topology> {
    match config.mode {
        Mode::Standalone => {
            let address = config.addresses.first().cloned().ok_or_else(|| {
                crate::config::field("addresses", "must name at least one [host, port]")
            })?;
            let wire =
                Wire::open(&address, config).await.map_err(|failure| failure.into_error())?;
            Ok(Topology::standalone(Link::over(address, Arc::clone(config), wire)))
        }
        Mode::Cluster => {
            let mut seeds: FuturesUnordered<_> = config
                .addresses
                .iter()
                .enumerate()
                .map(|(index, address)| async move { (index, open_and_ask(address, config).await) })
                .collect();
            let mut first_error: Option<(usize, Error)> = None;
            while let Some((index, answer)) = seeds.next().await {
                match answer {
                    Ok((wire, map)) => {
                        let address = &config.addresses[index];
                        let link = Link::over(address.clone(), Arc::clone(config), wire);
                        let known = [(address.clone(), link)].into();
                        return Ok(Topology::cluster(&map, &known, config));
                    }
                    Err(error) => {
                        if first_error.as_ref().is_none_or(|(first, _)| index < *first) {
                            first_error = Some((index, error));
                        }
                    }
                }
            }
            Err(first_error.map_or_else(crate::protocol::reply::unexpected, |(_, error)| error))
        }
    }
}

/// Connects and asks for the map, within one connection time-out.
async fn open_and_ask(
    address: &Address,
    config: &Arc<ValkeyConfig>,
) -> Result<(Arc<Wire>, SlotMap)> {
    let until = Instant::now() + config.connect_timeout;
    let wire = Wire::open(address, config).await.map_err(|failure| failure.into_error())?;
    let map = timeout_at(until, ask(&wire, address)).await.map_err(|_| {
        Error::new(ErrorKind::Timeout, format!("{address}: no answer to CLUSTER SLOTS"))
    })??;
    Ok((wire, map))
}

/// Asks one node for the map.
async fn ask(wire: &Wire, address: &Address) -> Result<SlotMap> {
    let reply = match wire.send_control(redis::cmd("CLUSTER").arg("SLOTS")).await {
        Sent::Reply(redis::Value::ServerError(error)) => {
            return Err(match classify(&error, address) {
                Verdict::Later(error) | Verdict::Replica(error) | Verdict::Final(error) => error,
                _ => crate::protocol::reply::unexpected(),
            });
        }
        Sent::Reply(reply) => reply,
        Sent::Unsent | Sent::Lost => return Err(crate::cluster::router::lost(address)),
    };
    let map = SlotMap::parse(&reply, address).ok_or_else(crate::protocol::reply::unexpected)?;
    if map.ranges.is_empty() {
        return Err(Error::new(
            ErrorKind::Unavailable,
            format!("{address}: the cluster has no slots assigned; create it first"),
        ));
    }
    Ok(map)
}

/// Refreshes the view from time to time and whenever it is in doubt.
pub(crate) async fn keep_fresh(shared: Arc<Shared>) {
    loop {
        let _ = timeout(PERIOD, shared.doubted()).await;
        if let Some(map) = learn(&shared).await {
            shared.replace(|before| Topology::cluster(&map, &before.by_address(), &shared.config));
        }
        sleep(PAUSE).await;
    }
}

/// Asks all nodes at once, so that none can hold the others up, and takes what most of them say.
async fn learn(shared: &Shared) -> Option<SlotMap> {
    let topology = shared.topology();
    let asked = topology.links().iter().filter_map(|link| Some((link, link.live()?)));
    let known =
        asked
            .map(|(link, wire)| async move {
                timeout(ANSWER, ask(&wire, link.address())).await.ok()?.ok()
            })
            .collect();
    if let Some(map) = vote(known).await {
        return Some(map);
    }
    let seeds = shared.config.addresses.iter().chain(&topology.replicas);
    let strangers = seeds
        .map(|address| async move {
            open_and_ask(address, &shared.config).await.ok().map(|(_, map)| map)
        })
        .collect();
    vote(strangers).await
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
            timeout(OTHERS, answers.next()).await.unwrap_or(None)
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

    #[tokio::test]
    async fn most_votes_win_and_the_first_of_equals() {
        let map = |port| SlotMap {
            ranges: vec![(0, 16383, Address::new("a", port))],
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
