//! Callers who ask by turns all at once and not at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use derp_kv_core::{RateLimit, RateLimiter};
use derp_kv_valkey::ValkeyStore;

use crate::asked::{Asked, Call};

const CALLERS: usize = 64;
/// How many ids there are, each asked for by as many callers.
const IDS: usize = 8;

pub(crate) struct Crowd {
    /// Its keys begin with it: those of another window mean something else.
    pub(crate) prefix: String,
    pub(crate) limit: RateLimit,
    pub(crate) window: Duration,
    pub(crate) arrivals: usize,
}

impl Crowd {
    pub(crate) async fn ask(&self, store: &ValkeyStore) -> Result<Asked> {
        let limit = self.limit.clone().key_prefix(self.prefix.clone());
        let limiter = RateLimiter::new(store.clone(), limit);
        let (began, arrived) = (Instant::now(), Arc::new(AtomicUsize::new(0)));
        let callers: Vec<_> = (0..CALLERS)
            .map(|number| {
                let caller = Caller {
                    limiter: limiter.clone(),
                    number,
                    began,
                    arrived: Arc::clone(&arrived),
                    arrivals: self.arrivals,
                };
                tokio::spawn(caller.ask(self.window))
            })
            .collect();
        let mut all = Asked::default();
        for caller in callers {
            all.add(caller.await.context("a caller panicked")?);
        }
        Ok(all)
    }
}

struct Caller {
    limiter: RateLimiter<ValkeyStore>,
    number: usize,
    began: Instant,
    arrived: Arc<AtomicUsize>,
    arrivals: usize,
}

impl Caller {
    async fn ask(self, window: Duration) -> Asked {
        let id = self.number % IDS;
        let name = format!("id{id}");
        let mut asked = Asked { admitted: vec![Vec::new(); IDS], ..Asked::default() };
        let mut numbers = 0x9e37_79b9_7f4a_7c15_u64 ^ (self.number as u64 + 1);
        let mut part = |of: Duration| {
            numbers ^= numbers << 13;
            numbers ^= numbers >> 7;
            numbers ^= numbers << 17;
            of.mul_f64((numbers % 1_000) as f64 / 1_000.0)
        };
        while self.arrived.load(Ordering::Relaxed) < self.arrivals {
            let until = Instant::now() + part(window);
            while Instant::now() < until {
                self.arrived.fetch_add(1, Ordering::Relaxed);
                asked.arrivals += 1;
                let sent = self.since();
                match self.limiter.check(&name).await {
                    Ok(status) if status.allowed => {
                        asked.admitted[id].push(Call { sent, answered: self.since() });
                    }
                    Ok(_) => {}
                    Err(_) => asked.errors += 1,
                }
            }
            tokio::time::sleep(part(window)).await;
        }
        asked
    }

    /// Nanoseconds since the beginning.
    fn since(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}
