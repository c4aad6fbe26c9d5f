use super::{Cluster, Result};

impl Cluster {
    /// Moves `slot` with its keys to node `to`, key by key, as cluster tools do on every version:
    /// while it lasts, the old owner answers ASK for keys that have gone.
    ///
    /// # Errors
    ///
    /// When a node refuses a step.
    pub async fn move_slot(&self, slot: u16, to: usize) -> Result<()> {
        self.begin_move(slot, to).await?;
        let port = self.node(to).port().to_string();
        loop {
            let from = self.node(self.owner_of(slot).await?);
            let keys = from.command(&["CLUSTER", "GETKEYSINSLOT", &slot.to_string(), "10"]).await?;
            let keys = keys.array()?;
            if keys.is_empty() {
                break;
            }
            let mut command: Vec<Vec<u8>> =
                ["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"]
                    .iter()
                    .map(|word| word.as_bytes().to_vec())
                    .collect();
            for key in keys {
                if let super::Reply::Bytes(key) = key {
                    command.push(key.clone());
                }
            }
            from.command(&command).await?;
        }
        self.finish_move(slot, to).await
    }

    /// The first step of [`move_slot`](Self::move_slot): marks the slot as importing and migrating.
    ///
    /// # Errors
    ///
    /// When a node refuses.
    pub async fn begin_move(&self, slot: u16, to: usize) -> Result<()> {
        let from = self.owner_of(slot).await?;
        let slot = slot.to_string();
        let set = ["CLUSTER", "SETSLOT", &slot];
        self.node(to).command(&[&set[..], &["IMPORTING", &self.ids[from]]].concat()).await?;
        self.node(from).command(&[&set[..], &["MIGRATING", &self.ids[to]]].concat()).await?;
        Ok(())
    }

    /// The last step of [`move_slot`](Self::move_slot): tells every responsive primary, the new
    /// owner first, whose the slot is.
    ///
    /// # Errors
    ///
    /// When a node refuses.
    pub async fn finish_move(&self, slot: u16, to: usize) -> Result<()> {
        let primaries = self.primaries().await?;
        let slot = slot.to_string();
        let others = primaries.into_iter().filter(|number| *number != to);
        for number in std::iter::once(to).chain(others) {
            if self.node(number).is_responsive() {
                let command = ["CLUSTER", "SETSLOT", &slot, "NODE", &self.ids[to]];
                self.node(number).command(&command).await?;
            }
        }
        Ok(())
    }

    /// Moves the slots `first..=last` of one owner to node `to` at once, with
    /// `CLUSTER MIGRATESLOTS` (Valkey 9), and returns when they are there.
    ///
    /// # Errors
    ///
    /// When the server does not know the command, or the slots do not arrive.
    pub async fn migrate_slots(&self, first: u16, last: u16, to: usize) -> Result<()> {
        let from = self.owner_of(first).await?;
        let (low, high) = (first.to_string(), last.to_string());
        let command = ["CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", &low, &high, "NODE", &self.ids[to]];
        self.node(from).command(&command).await?;
        self.until("the slots have arrived", async || {
            Ok(self.owner_of(first).await? == to && self.owner_of(last).await? == to)
        })
        .await
    }
}
