//! The cluster, reached through proxies, and what its nodes say of themselves.

use std::future::Future;
use std::time::{Duration, Instant};

use derp_kv_valkey::test_server::{Cluster, Proxy, slot_of};
use tokio::time::sleep;

use crate::report::{GROUPS, tag};

/// Three primaries with a replica each.
const PRIMARIES: usize = 3;
pub(crate) const NODE_TIMEOUT: Duration = Duration::from_secs(1);
/// A guard against a cluster that never agrees.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) type Failed = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Result<T, E = Failed> = std::result::Result<T, E>;

#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
    /// One before each node, at the port that the node tells clients (and its replica).
    pub(crate) proxies: Vec<Proxy>,
    /// Whether the server knows `CLUSTER MIGRATESLOTS`, and drops packets of other nodes on demand.
    pub(crate) is_9: bool,
}

impl Stage {
    pub(crate) async fn open() -> Result<Self> {
        let mut cluster = Cluster::builder(PRIMARIES, 1).node_timeout(NODE_TIMEOUT).start().await?;
        let mut proxies = Vec::new();
        for number in 0..cluster.nodes().len() {
            let node = cluster.node_mut(number);
            let proxy = Proxy::start(node.port()).await?;
            let port = proxy.port().to_string();
            node.command(&["CONFIG", "SET", "cluster-announce-port", &port]).await?;
            node.set_option("cluster-announce-port", port);
            proxies.push(proxy);
        }
        let is_9 = cluster.node(0).version().await? >= (9, 0, 0);
        let stage = Self { cluster, proxies, is_9 };
        until("every node is known by its proxy", async || {
            for node in stage.cluster.nodes() {
                let known = node.command(&["CLUSTER", "NODES"]).await?;
                let known = known.text()?;
                let is_known = |proxy: &Proxy| known.contains(&format!(":{}@", proxy.port()));
                if !stage.proxies.iter().all(is_known) {
                    return Ok(false);
                }
            }
            Ok(true)
        })
        .await?;
        stage.whole().await?;
        Ok(stage)
    }

    /// The slots that a node serves as a primary, by its own account; none where it serves nothing.
    async fn claims(&self, number: usize) -> Result<Vec<(u16, u16)>> {
        let node = self.cluster.node(number);
        if !node.is_responsive() {
            return Ok(Vec::new());
        }
        let state = node.command(&["CLUSTER", "INFO"]).await?;
        let nodes = node.command(&["CLUSTER", "NODES"]).await?;
        let myself = nodes.text()?.lines().find(|line| line.contains("myself")).unwrap_or_default();
        if !state.text()?.contains("cluster_state:ok") || !myself.contains("master") {
            return Ok(Vec::new());
        }
        let ranges = myself.split(' ').skip(8).filter(|range| !range.starts_with('['));
        let ends = ranges.filter_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some((first.parse().ok()?, last.parse().ok()?))
        });
        Ok(ends.collect())
    }

    /// Who serves each slot, by the nodes' own accounts; `None` unless all slots are served.
    async fn served(&self) -> Result<Option<Vec<usize>>> {
        let mut owners = vec![None; 16384];
        for number in 0..self.cluster.nodes().len() {
            for (first, last) in self.claims(number).await? {
                owners[usize::from(first)..=usize::from(last)].fill(Some(number));
            }
        }
        Ok(owners.into_iter().collect())
    }

    /// Returns once every slot is served by a primary that lives.
    pub(crate) async fn until_served(&self) -> Result<()> {
        until("every slot is served", async || Ok(self.served().await?.is_some())).await
    }

    /// Returns once node `number` is a primary and every slot is served; false after `at_most`.
    pub(crate) async fn becomes_primary(&self, number: usize, at_most: Duration) -> Result<bool> {
        let give_up = Instant::now() + at_most;
        while Instant::now() < give_up {
            if !self.claims(number).await?.is_empty() && self.served().await?.is_some() {
                return Ok(true);
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(false)
    }

    /// Returns once the cluster is as healthy as ever: all nodes run and agree, every primary has its
    /// replica, and that has all that the primary had when it was looked at.
    pub(crate) async fn whole(&self) -> Result<()> {
        self.cluster.wait_until_ok().await?;
        until("every primary has a replica in step", async || {
            for primary in self.primaries().await? {
                let [replica] = self.cluster.replicas_of(primary).await?[..] else {
                    return Ok(false);
                };
                let written = self.offset(primary, "master_repl_offset").await?;
                let replica = self.cluster.node(replica);
                if replica.info("master_link_status").await? != "up"
                    || replica.info("slave_repl_offset").await?.parse::<u64>()? < written
                {
                    return Ok(false);
                }
            }
            Ok(self.primaries().await?.len() == PRIMARIES)
        })
        .await
    }

    async fn offset(&self, number: usize, field: &str) -> Result<u64> {
        Ok(self.cluster.node(number).info(field).await?.parse()?)
    }

    pub(crate) async fn primaries(&self) -> Result<Vec<usize>> {
        let mut owners = self.served().await?.ok_or("a slot is not served")?;
        owners.sort_unstable();
        owners.dedup();
        Ok(owners)
    }

    pub(crate) async fn replica_of(&self, primary: usize) -> Result<usize> {
        let replicas = self.cluster.replicas_of(primary).await?;
        Ok(*replicas.first().ok_or("a primary without a replica")?)
    }

    /// The owner of each group's slot.
    pub(crate) async fn owners(&self) -> Result<Vec<usize>> {
        let owners = self.served().await?.ok_or("a slot is not served")?;
        Ok((0..GROUPS).map(|group| owners[usize::from(slot(group))]).collect())
    }

    /// The slots around that of `group`, up to `reach` on both sides, which have the same owner.
    pub(crate) async fn around(&self, group: usize, reach: u16) -> Result<(u16, u16)> {
        let owner = self.owners().await?[group];
        let slot = slot(group);
        for (first, last) in self.claims(owner).await? {
            if (first..=last).contains(&slot) {
                return Ok((first.max(slot.saturating_sub(reach)), last.min(slot + reach)));
            }
        }
        Err("the slot has moved meanwhile".into())
    }
}

pub(crate) fn slot(group: usize) -> u16 {
    slot_of(tag(group).as_bytes())
}

/// Repeats `check` until it is true; an error counts as false, for nodes may be on their way.
pub(crate) async fn until<F: Future<Output = Result<bool>>>(
    what: &str,
    check: impl Fn() -> F,
) -> Result<()> {
    let give_up = Instant::now() + PATIENCE;
    let mut last = None;
    while Instant::now() < give_up {
        match check().await {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) => last = Some(error),
        }
        sleep(Duration::from_millis(10)).await;
    }
    Err(format!("waited in vain until {what} (last error: {last:?})").into())
}
