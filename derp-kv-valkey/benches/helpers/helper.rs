use anyhow::{Context as _, Result, ensure};
use derp_kv_core::{
    Dedup, GuardedGet, Idempotency, KvStore, KvStoreExt as _, Layered, Processed, RateLimit,
};

use crate::TTL;
use crate::without_flights::WithoutFlights;

/// A helper, and what happens to it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Helper {
    Hit,
    Miss,
    MissWithoutFlight,
    FirstCall,
    Replay,
    RateLimit,
    AlreadyProcessed,
    ProcessOnce,
    TryLock,
}

impl Helper {
    pub(crate) const ALL: [Self; 9] = [
        Self::Hit,
        Self::Miss,
        Self::MissWithoutFlight,
        Self::FirstCall,
        Self::Replay,
        Self::RateLimit,
        Self::AlreadyProcessed,
        Self::ProcessOnce,
        Self::TryLock,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hit => "guarded_get hit",
            Self::Miss => "guarded_get uncontended miss",
            Self::MissWithoutFlight => "the same without a flight of its own",
            Self::FirstCall => "idempotent_execute first call",
            Self::Replay => "idempotent_execute replay",
            Self::RateLimit => "rate_limit",
            Self::AlreadyProcessed => "already_processed",
            Self::ProcessOnce => "process_once first call",
            Self::TryLock => "try_lock and release",
        }
    }

    /// What hits and replays find.
    pub(crate) async fn prepare(kv: &(impl KvStore + Clone)) -> Result<()> {
        kv.guarded_get("hot", &GuardedGet::new(TTL), || async { anyhow::Ok("value") }).await?;
        kv.idempotent_execute("stored", &Idempotency::default(), || async { anyhow::Ok(1_u32) })
            .await?;
        Ok(())
    }

    /// Calls it once; `at` tells one time from another.
    pub(crate) async fn call(self, kv: &(impl KvStore + Clone), at: usize) -> Result<()> {
        let cached = GuardedGet::new(TTL);
        let value = || async { anyhow::Ok("value") };
        let one = || async { anyhow::Ok(1_u32) };
        match self {
            Self::Hit => ensure!(kv.guarded_get("hot", &cached, value).await? == "value"),
            Self::Miss => {
                ensure!(kv.guarded_get(format!("cold:{at}"), &cached, value).await? == "value");
            }
            Self::MissWithoutFlight => {
                let alone = Layered::new(kv.clone(), WithoutFlights);
                ensure!(alone.guarded_get(format!("alone:{at}"), &cached, value).await? == "value");
            }
            Self::FirstCall => {
                let (key, options) = (format!("first:{at}"), Idempotency::default());
                ensure!(!kv.idempotent_execute(key, &options, one).await?.is_replay);
            }
            Self::Replay => {
                let options = Idempotency::default();
                ensure!(kv.idempotent_execute("stored", &options, one).await?.is_replay);
            }
            Self::RateLimit => {
                ensure!(kv.rate_limit("caller", &RateLimit::new(1 << 40, TTL)).await?.allowed);
            }
            Self::AlreadyProcessed => {
                ensure!(!kv.already_processed(format!("event:{at}"), &Dedup::default()).await?);
            }
            Self::ProcessOnce => {
                let event = format!("once:{at}");
                let processed = kv.process_once(event, &Dedup::default(), one).await?;
                ensure!(processed == Processed::Now(1));
            }
            Self::TryLock => {
                let lease = kv.try_lock("lock", TTL).await?.context("the lock is free")?;
                ensure!(lease.release().await?);
            }
        }
        Ok(())
    }
}
