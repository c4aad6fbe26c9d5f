//! How each fault is made, and when it is over for the servers.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use derp_kv_valkey::test_server::Traffic;
use tokio::time::sleep;

use crate::clients::Clients;
use crate::dice::{Dice, now};
use crate::fault::Fault;
use crate::report::GROUPS;
use crate::stage::{NODE_TIMEOUT, PATIENCE, Result, Stage, slot};

/// Lets a node hear nothing of the others (`-2`) or everything (`-1`).
const DROP_PACKETS: [&str; 2] = ["DEBUG", "DROP-CLUSTER-PACKET-FILTER"];

/// Makes one fault after the other, each when the cluster is whole again.
#[derive(Debug)]
pub(crate) struct Chaos {
    pub(crate) stage: Stage,
    pub(crate) clients: Clients,
    dice: Dice,
    began: Instant,
    pub(crate) made: BTreeMap<Fault, u32>,
    /// Failovers that nobody asked for: the machine was so slow that the nodes took one for dead.
    pub(crate) unasked: u32,
}

impl Chaos {
    pub(crate) fn new(stage: Stage, clients: Clients, dice: Dice) -> Self {
        let (began, made) = (Instant::now(), BTreeMap::new());
        Self { stage, clients, dice, began, made, unasked: 0 }
    }

    /// Makes faults for `time`; every kind comes once before any comes again.
    pub(crate) async fn rage(&mut self, time: Duration) -> Result<()> {
        let mut deck = Vec::new();
        while self.began.elapsed() < time {
            if deck.is_empty() {
                deck = Fault::all(self.stage.is_9);
                self.dice.shuffle(&mut deck);
            }
            let Some(fault) = deck.pop() else { continue };
            self.strike(fault).await.map_err(|error| format!("{}: {error}", fault.name()))?;
            *self.made.entry(fault).or_default() += 1;
            sleep(self.dice.millis(50..500)).await;
        }
        Ok(())
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = (&'static str, u32)> {
        self.made.iter().map(|(fault, times)| (fault.name(), *times))
    }

    fn say(&self, fault: Fault, what: impl std::fmt::Display) {
        println!("[{:6.1} s] {}: {what}", self.began.elapsed().as_secs_f64(), fault.name());
    }

    async fn strike(&mut self, fault: Fault) -> Result<()> {
        let before = self.stage.primaries().await?;
        let primary = self.dice.pick(&before);
        let owners = self.stage.owners().await?;
        let its: Vec<usize> = (0..GROUPS).filter(|group| owners[*group] == primary).collect();
        let other =
            self.dice.pick(&before.iter().copied().filter(|n| *n != primary).collect::<Vec<_>>());
        let mut promoted = None;
        match fault {
            Fault::KillPrimary | Fault::FreezeLong | Fault::Deaf => {
                let replica = self.stage.replica_of(primary).await?;
                promoted = Some(replica);
                self.death(fault, [primary, replica, other], &its).await?;
            }
            Fault::KillReplica => {
                let replica = self.stage.replica_of(primary).await?;
                self.say(fault, format!("node {replica}"));
                self.stage.cluster.node_mut(replica).kill9();
                self.clients.recover(fault.name(), now()).await?;
                self.stage.cluster.node_mut(replica).restart().await?;
            }
            Fault::FreezeShort => {
                // Half as long as the other nodes wait.
                let time = self.dice.millis(50..500).min(NODE_TIMEOUT / 2);
                self.say(fault, format!("node {primary} for {time:?}"));
                self.stage.cluster.node_mut(primary).freeze()?;
                sleep(time).await;
                self.stage.cluster.node_mut(primary).thaw()?;
                self.clients.recover(fault.name(), now()).await?;
            }
            Fault::Failover => {
                let replica = self.stage.replica_of(primary).await?;
                promoted = Some(replica);
                self.say(fault, format!("node {primary} to node {replica}"));
                self.failover(replica, other).await?;
                self.clients.recover(fault.name(), now()).await?;
            }
            Fault::MoveByKey | Fault::MoveAtOnce => self.migrate(fault, owners).await?,
            Fault::Hole => self.partition(fault, &[primary], Traffic::HoleBoth).await?,
            Fault::HoleReplies => self.partition(fault, &[primary], Traffic::HoleReplies).await?,
            Fault::Refuse => self.partition(fault, &[primary], Traffic::Refuse).await?,
            Fault::HoleAll => {
                let all: Vec<_> = (0..self.stage.proxies.len()).collect();
                self.partition(fault, &all, Traffic::HoleBoth).await?;
            }
            Fault::Cut | Fault::CutAll => {
                let nodes = if fault == Fault::Cut { primary..primary + 1 } else { 0..6 };
                let times = 1 + self.dice.below(3);
                self.say(fault, format!("nodes {nodes:?}, {times} times"));
                for time in 0..times {
                    if time > 0 {
                        sleep(self.dice.millis(1..300)).await;
                    }
                    self.stage.proxies[nodes.clone()].iter().for_each(|proxy| proxy.cut_all());
                }
                self.clients.recover(fault.name(), now()).await?;
            }
            Fault::Pause | Fault::PauseWrites => {
                let time = self.dice.millis(100..1500);
                let what = if fault == Fault::Pause { "ALL" } else { "WRITE" };
                self.say(fault, format!("node {primary} for {time:?}"));
                let millis = time.as_millis().to_string();
                let node = self.stage.cluster.node(primary);
                node.command(&["CLIENT", "PAUSE", &millis, what]).await?;
                sleep(time).await;
                self.clients.recover(fault.name(), now()).await?;
            }
            Fault::KillClients => {
                let node = self.stage.cluster.node(primary);
                let killed = node.command(&["CLIENT", "KILL", "TYPE", "normal"]).await?.int()?;
                self.say(fault, format!("{killed} of node {primary}"));
                self.clients.recover(fault.name(), now()).await?;
            }
        }
        self.settle(&before, promoted).await
    }

    /// A primary is killed, stopped or made deaf until its replica takes over, and then comes back.
    /// What it has acknowledged last may be lost: its keys are in an era of their own meanwhile.
    async fn death(&mut self, fault: Fault, nodes: [usize; 3], its: &[usize]) -> Result<()> {
        let [primary, replica, other] = nodes;
        let beside = self.dice.chance(30);
        let also =
            if beside { format!(", connections of node {other} cut") } else { String::new() };
        self.clients.turn(its).await?;
        // The replica has everything of the eras before.
        self.stage.whole().await?;
        self.clients.mourn(its);
        self.say(fault, format!("node {primary}, groups {its:?}{also}"));
        let node = self.stage.cluster.node_mut(primary);
        match fault {
            Fault::KillPrimary => node.kill9(),
            Fault::FreezeLong => node.freeze()?,
            _ => drop(node.command(&[DROP_PACKETS[0], DROP_PACKETS[1], "-2"]).await?),
        }
        if beside {
            sleep(self.dice.millis(0..1000)).await;
            self.stage.proxies[other].cut_all();
        }
        if !self.stage.becomes_primary(replica, PATIENCE).await? {
            return Err("the replica does not take over".into());
        }
        self.clients.recover(fault.name(), now()).await?;
        sleep(self.dice.millis(1..800)).await;
        let node = self.stage.cluster.node_mut(primary);
        match fault {
            Fault::KillPrimary => node.restart().await?,
            Fault::FreezeLong => node.thaw()?,
            _ => drop(node.command(&[DROP_PACKETS[0], DROP_PACKETS[1], "-1"]).await?),
        }
        self.clients.recover("the old primary comes back", now()).await?;
        self.stage.whole().await?;
        self.clients.turn(its).await
    }

    async fn failover(&mut self, replica: usize, other: usize) -> Result<()> {
        let beside = self.dice.chance(30);
        loop {
            self.stage.cluster.node(replica).command(&["CLUSTER", "FAILOVER"]).await?;
            if beside {
                self.stage.proxies[other].cut_all();
            }
            // The server gives up after five seconds, and may be asked again.
            if self.stage.becomes_primary(replica, Duration::from_secs(6)).await? {
                return Ok(());
            }
        }
    }

    /// Moves slots that are in use to another primary.
    async fn migrate(&mut self, fault: Fault, owners: Vec<usize>) -> Result<()> {
        let primaries = self.stage.primaries().await?;
        for _ in 0..2 {
            let group = self.dice.below(GROUPS);
            let targets: Vec<_> =
                primaries.iter().copied().filter(|n| *n != owners[group]).collect();
            let to = self.dice.pick(&targets);
            let (reach, what) =
                if fault == Fault::MoveByKey { (1, "each") } else { (150, "together") };
            let (first, last) = self.stage.around(group, reach).await?;
            if self.stage.owners().await?[group] != owners[group] {
                continue;
            }
            self.say(
                fault,
                format!("{first} to {last} {what}, node {} to node {to}", owners[group]),
            );
            if fault == Fault::MoveByKey {
                for slot in first..=last {
                    self.stage.cluster.move_slot(slot, to).await?;
                }
            } else {
                self.stage.cluster.migrate_slots(first, last, to).await?;
            }
            assert!((first..=last).contains(&slot(group)));
        }
        self.stage.until_served().await?;
        self.clients.recover(fault.name(), now()).await
    }

    /// Nothing reaches these nodes, or nothing comes back, but for what they tell each other.
    async fn partition(&mut self, fault: Fault, nodes: &[usize], traffic: Traffic) -> Result<()> {
        let time = self.dice.millis(100..2500);
        self.say(fault, format!("nodes {nodes:?} for {time:?}"));
        for proxy in nodes.iter().map(|node| &self.stage.proxies[*node]) {
            proxy.set(traffic);
            if traffic == Traffic::Refuse {
                proxy.cut_all();
            }
        }
        sleep(time).await;
        nodes.iter().for_each(|node| self.stage.proxies[*node].set(Traffic::Pass));
        self.clients.recover(fault.name(), now()).await?;
        // What was in the hole never comes out. The clients know; a replica would wait for a minute.
        nodes.iter().for_each(|node| self.stage.proxies[*node].cut_all());
        Ok(())
    }

    /// Waits until the cluster is whole, and looks whether another failover has happened than the
    /// one that was meant: it, too, may have lost writes.
    async fn settle(&mut self, before: &[usize], promoted: Option<usize>) -> Result<()> {
        self.stage.whole().await?;
        let owners = self.stage.owners().await?;
        let is_unasked = |owner: usize| !before.contains(&owner) && Some(owner) != promoted;
        let lost: Vec<_> = (0..GROUPS).filter(|group| is_unasked(owners[*group])).collect();
        if !lost.is_empty() {
            println!("           a failover that nobody asked for: groups {lost:?}");
            self.unasked += 1;
            self.clients.mourn(&lost);
            self.clients.turn(&lost).await?;
        }
        Ok(())
    }
}
