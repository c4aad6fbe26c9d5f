use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::{Certificates, Error, Result, Server, ServerBuilder, ServerCertificate};

/// A guard against a cluster that never agrees, not a measure.
const PATIENCE: Duration = Duration::from_secs(60);
const SLOTS: usize = 16384;

/// A cluster of the test's own. Nodes have numbers: first the primaries, then their replicas,
/// that of primary 0 first. A number stays with its node, whatever its role becomes.
///
/// # Examples
///
/// ```
/// use derp_kv_valkey::test_server::Cluster;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cluster = Cluster::start(3, 0).await?;
/// let key = cluster.key_owned_by(1).await?;
/// cluster.node(1).command(&["SET", &key, "here"]).await?;
/// assert!(cluster.node(0).command(&["GET", &key]).await.unwrap_err().to_string().contains("MOVED"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Server>,
    pub(super) ids: Vec<String>,
}

/// Options of a [`Cluster`].
#[derive(Clone, Debug)]
#[must_use]
pub struct ClusterBuilder {
    primaries: usize,
    replicas: usize,
    server: ServerBuilder,
}

impl ClusterBuilder {
    /// A line of every node's `valkey.conf`.
    pub fn option(mut self, name: &str, value: impl Into<String>) -> Self {
        self.server = self.server.option(name, value);
        self
    }

    /// How long a node may be silent before the others call it dead (default 2 s).
    pub fn node_timeout(self, timeout: Duration) -> Self {
        self.option("cluster-node-timeout", timeout.as_millis().to_string())
    }

    /// A user on every node, as [`ServerBuilder::user`].
    pub fn user(mut self, name: &str, password: &str, rules: &str) -> Self {
        self.server = self.server.user(name, password, rules);
        self
    }

    /// TLS on every node's port, and between the nodes. As [`ServerBuilder::tls`].
    pub fn tls(mut self, certificates: &Certificates, shown: ServerCertificate) -> Self {
        self.server = self.server.tls(certificates, shown);
        self.option("tls-cluster", "yes").option("tls-replication", "yes")
    }

    /// Starts the nodes and waits until all of them agree and every replica follows.
    ///
    /// # Errors
    ///
    /// As [`Server::start`]; and when the nodes do not agree within a minute.
    pub async fn start(self) -> Result<Cluster> {
        let count = self.primaries * (1 + self.replicas);
        if self.primaries == 0 {
            return Err(Error::new("a cluster needs a primary"));
        }
        let mut cluster = Cluster { nodes: Vec::new(), ids: Vec::new() };
        for _ in 0..count {
            let node = self.server.clone().start().await?;
            cluster.ids.push(node.command(&["CLUSTER", "MYID"]).await?.text()?.to_owned());
            cluster.nodes.push(node);
        }
        cluster.form(self.primaries).await?;
        Ok(cluster)
    }
}

/// The slot of a key: CRC-16 (XMODEM) of the key, or of its hash tag.
#[must_use]
pub fn slot_of(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        let length = rest.iter().position(|byte| *byte == b'}')?;
        (length > 0).then(|| &rest[..length])
    });
    let crc = tag.unwrap_or(key).iter().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    });
    crc % 16384
}

impl Cluster {
    /// Starts a cluster without passwords, TLS or persistence.
    ///
    /// # Errors
    ///
    /// As [`ClusterBuilder::start`].
    pub async fn start(primaries: usize, replicas_per_primary: usize) -> Result<Self> {
        Self::builder(primaries, replicas_per_primary).start().await
    }

    /// A cluster with options.
    pub fn builder(primaries: usize, replicas_per_primary: usize) -> ClusterBuilder {
        let server = Server::builder()
            .option("cluster-enabled", "yes")
            .option("cluster-config-file", "nodes.conf")
            .option("cluster-node-timeout", "2000")
            .option("cluster-allow-replica-migration", "no")
            .option("cluster-replica-validity-factor", "0")
            .option("repl-diskless-sync-delay", "0");
        ClusterBuilder { primaries, replicas: replicas_per_primary, server }
    }

    async fn form(&self, primaries: usize) -> Result<()> {
        for (number, node) in self.nodes[..primaries].iter().enumerate() {
            // Redis 6 takes no range of them.
            let slots = number * SLOTS / primaries..(number + 1) * SLOTS / primaries;
            let mut command = vec!["CLUSTER".to_owned(), "ADDSLOTS".to_owned()];
            command.extend(slots.map(|slot| slot.to_string()));
            node.command(&command).await?;
        }
        for (number, node) in self.nodes.iter().enumerate() {
            let epoch = (number + 1).to_string();
            node.command(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch]).await?;
        }
        for node in &self.nodes {
            for other in self.nodes.iter().filter(|other| other.port() != node.port()) {
                let port = other.port().to_string();
                let bus = other.command(&["CONFIG", "GET", "cluster-port"]).await?;
                let mut command = vec!["CLUSTER", "MEET", "127.0.0.1", &port];
                if let Some(bus) = bus.array()?.get(1) {
                    command.push(bus.text()?);
                }
                node.command(&command).await?;
            }
        }
        self.until("every node knows every other", async || {
            for node in &self.nodes {
                let known = lines(node).await?;
                if known.len() != self.nodes.len()
                    || known.iter().any(|line| line.contains("handshake"))
                {
                    return Ok(false);
                }
            }
            Ok(true)
        })
        .await?;
        for (number, node) in self.nodes.iter().enumerate().skip(primaries) {
            let replicas = (self.nodes.len() - primaries) / primaries;
            let primary = &self.ids[(number - primaries) / replicas];
            node.command(&["CLUSTER", "REPLICATE", primary]).await?;
        }
        self.wait_until_ok().await
    }

    /// Returns once every responsive node reports `cluster_state:ok`, agrees with the others on
    /// who owns which slot, and every responsive replica is in step with its primary.
    ///
    /// # Errors
    ///
    /// When that takes more than a minute.
    pub async fn wait_until_ok(&self) -> Result<()> {
        self.until("every node reports a good state", async || {
            let mut views = Vec::new();
            for (number, node) in self.nodes.iter().enumerate().filter(|(_, n)| n.is_responsive()) {
                let state = node.command(&["CLUSTER", "INFO"]).await?;
                if !state.text()?.contains("cluster_state:ok") {
                    return Ok(false);
                }
                if node.info("role").await? == "slave"
                    && node.info("master_link_status").await? != "up"
                {
                    return Ok(false);
                }
                views.push(self.view(number).await?);
            }
            Ok(views.windows(2).all(|pair| pair[0] == pair[1]))
        })
        .await
    }

    /// Repeats `check` until it is true; errors on the way count as false.
    pub(super) async fn until(
        &self,
        what: &str,
        mut check: impl AsyncFnMut() -> Result<bool>,
    ) -> Result<()> {
        let give_up = Instant::now() + PATIENCE;
        let mut last = None;
        while Instant::now() < give_up {
            match check().await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => last = Some(error),
            }
            sleep(Duration::from_millis(20)).await;
        }
        Err(Error::new(format!("waited in vain until {what} (last error: {last:?})")))
    }

    /// Each slot range with its owner's number, as node `number` sees it.
    async fn view(&self, number: usize) -> Result<Vec<(u16, u16, usize)>> {
        let mut ranges = Vec::new();
        for line in lines(&self.nodes[number]).await? {
            let Some(owner) = self.ids.iter().position(|id| line.starts_with(id.as_str())) else {
                continue;
            };
            for range in line.split(' ').skip(8).filter(|range| !range.starts_with('[')) {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                if let (Ok(first), Ok(last)) = (first.parse(), last.parse()) {
                    ranges.push((first, last, owner));
                }
            }
        }
        ranges.sort_unstable();
        Ok(ranges)
    }

    /// All nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Server] {
        &self.nodes
    }

    /// A node, by its number.
    ///
    /// # Panics
    ///
    /// When there is no such node.
    #[must_use]
    pub fn node(&self, number: usize) -> &Server {
        &self.nodes[number]
    }

    /// A node, to be killed, frozen or restarted.
    ///
    /// # Panics
    ///
    /// When there is no such node.
    pub fn node_mut(&mut self, number: usize) -> &mut Server {
        &mut self.nodes[number]
    }

    /// Hosts and ports of all nodes.
    #[must_use]
    pub fn addresses(&self) -> Vec<(String, u16)> {
        self.nodes.iter().map(Server::address).collect()
    }

    /// A responsive node that is in the majority's view.
    pub(super) fn witness(&self) -> Result<usize> {
        self.nodes
            .iter()
            .position(Server::is_responsive)
            .ok_or_else(|| Error::new("no node is responsive"))
    }

    /// The number of the node that owns `slot` now, as the first responsive node sees it.
    ///
    /// # Errors
    ///
    /// When nobody owns it, or no node answers.
    pub async fn owner_of(&self, slot: u16) -> Result<usize> {
        self.view(self.witness()?)
            .await?
            .into_iter()
            .find_map(|(first, last, owner)| (first..=last).contains(&slot).then_some(owner))
            .ok_or_else(|| Error::new(format!("nobody owns slot {slot}")))
    }

    /// The numbers of the nodes that own slots now.
    ///
    /// # Errors
    ///
    /// When no node answers.
    pub async fn primaries(&self) -> Result<Vec<usize>> {
        let mut owners: Vec<_> =
            self.view(self.witness()?).await?.into_iter().map(|(_, _, owner)| owner).collect();
        owners.sort_unstable();
        owners.dedup();
        Ok(owners)
    }

    /// The numbers of the replicas of `primary`.
    ///
    /// # Errors
    ///
    /// When no node answers.
    pub async fn replicas_of(&self, primary: usize) -> Result<Vec<usize>> {
        let known = lines(&self.nodes[self.witness()?]).await?;
        let follows = |id: &String| {
            known.iter().any(|line| {
                line.starts_with(id.as_str()) && line.split(' ').nth(3) == Some(&self.ids[primary])
            })
        };
        Ok((0..self.ids.len()).filter(|number| follows(&self.ids[*number])).collect())
    }

    /// A key of `slot`.
    #[must_use]
    pub fn key_in(slot: u16) -> String {
        (0_u64..)
            .map(|n| format!("key:{n}"))
            .find(|key| slot_of(key.as_bytes()) == slot)
            .unwrap_or_default()
    }

    /// A key whose slot node `number` owns now.
    ///
    /// # Errors
    ///
    /// When it owns none, or no node answers.
    pub async fn key_owned_by(&self, number: usize) -> Result<String> {
        self.view(self.witness()?)
            .await?
            .into_iter()
            .find_map(|(first, _, owner)| (owner == number).then(|| Self::key_in(first)))
            .ok_or_else(|| Error::new(format!("node {number} owns no slot")))
    }

    /// Returns once `slot` belongs to another node than `old`, and that node serves it; gives its
    /// number. The way to await a failover.
    ///
    /// # Errors
    ///
    /// When that takes more than a minute.
    pub async fn wait_for_new_owner(&self, slot: u16, old: usize) -> Result<usize> {
        let mut found = old;
        self.until("the slot has a new owner", async || {
            found = self.owner_of(slot).await?;
            if found == old {
                return Ok(false);
            }
            let key = Self::key_in(slot);
            Ok(self.nodes[found].command(&["EXISTS", &key]).await.is_ok())
        })
        .await?;
        Ok(found)
    }
}

async fn lines(node: &Server) -> Result<Vec<String>> {
    let reply = node.command(&["CLUSTER", "NODES"]).await?;
    Ok(reply.text()?.lines().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::slot_of;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(slot_of(b"123456789"), 0x31C3);
        assert_eq!(slot_of(b"{user1000}.following"), slot_of(b"user1000"));
        assert_eq!(slot_of(b"foo{}{bar}"), 8363);
    }
}
