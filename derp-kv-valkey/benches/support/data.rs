use std::time::Duration;

use anyhow::Result;
use redis::aio::ConnectionLike;

/// The keys and the value that every subject works with, alive for the whole run.
#[derive(Debug)]
pub struct Data {
    pub keys: Vec<&'static str>,
    pub counters: Vec<&'static str>,
    pub windows: Vec<&'static str>,
    pub value: &'static str,
}

impl Data {
    pub const TTL: Duration = Duration::from_secs(3600);
    const COUNTERS: usize = 1000;

    /// `count` keys with values of `value_bytes` each.
    pub fn new(count: usize, value_bytes: usize) -> &'static Self {
        let names = |kind: &str, count: usize| -> Vec<&'static str> {
            let name = |i| &*format!("bench:{kind}{value_bytes}:{i:07}").leak();
            (0..count).map(name).collect()
        };
        Box::leak(Box::new(Self {
            keys: names("value", count),
            counters: names("counter", Self::COUNTERS),
            windows: names("window", Self::COUNTERS),
            value: "x".repeat(value_bytes).leak(),
        }))
    }

    pub fn key(&self, at: usize) -> &'static str {
        self.keys[at % self.keys.len()]
    }

    pub fn counter(&self, at: usize) -> &'static str {
        self.counters[at % self.counters.len()]
    }

    pub fn window(&self, at: usize) -> &'static str {
        self.windows[at % self.windows.len()]
    }

    pub fn batch(&'static self, at: usize, count: usize) -> &'static [&'static str] {
        let at = at % (self.keys.len() - count + 1);
        &self.keys[at..at + count]
    }

    /// Writes the values.
    ///
    /// # Errors
    /// The server's.
    pub async fn fill(
        &self,
        connection: &(impl ConnectionLike + Clone + Send + Sync),
    ) -> Result<()> {
        for keys in self.keys.chunks(4096) {
            let writes = keys.iter().map(|key| {
                let mut connection = connection.clone();
                async move {
                    let command = redis::Cmd::set(*key, self.value);
                    command.exec_async(&mut connection).await
                }
            });
            futures_util::future::try_join_all(writes).await?;
        }
        Ok(())
    }
}
