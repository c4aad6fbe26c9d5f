//! What a call of each rate limit costs the server, by its own account, over that of a fixed window.

mod support;

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use derp_kv_core::{Ask, Change, Expiry, KvStore, KvStoreExt as _, RateLimit};
use derp_kv_valkey::test_server::Server;
use derp_kv_valkey::{ValkeyConfig, ValkeyStore};
use futures_util::future::try_join_all;
use serde::Serialize;
use support::{Args, Rows};

const HOUR: Duration = Duration::from_secs(3600);

/// How much of the server's time a call may take, over a call of a fixed window.
const BOUND: f64 = 2.2;

/// One kind of call.
struct Case {
    name: &'static str,
    limit: RateLimit,
    allowed: bool,
}

#[derive(Serialize)]
struct Measured {
    suite: &'static str,
    bench: &'static str,
    subject: &'static str,
    /// What the server spends on a call, a script and all that it does.
    server_us_per_op: f64,
    /// That over the first case's, the median of the pairs of rounds.
    server_ratio: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    bound: Option<f64>,
}

fn cases() -> Vec<Case> {
    let case = |name, limit, allowed| Case { name, limit, allowed };
    let smooth = RateLimit::smooth(100_000_000, HOUR);
    let strict = RateLimit::strict(100_000_000, HOUR);
    let eight = |limit: &RateLimit| RateLimit::all(vec![limit.clone(); 8]);
    vec![
        case("fixed window", RateLimit::new(1 << 40, HOUR), true),
        case("smooth, allowed", smooth.clone(), true),
        case("smooth, denied", RateLimit::smooth(1, HOUR), false),
        case("strict, allowed", strict.clone(), true),
        case("strict, denied", RateLimit::strict(61, HOUR), false),
        case("eight smooth, allowed", eight(&smooth), true),
        case("eight smooth, denied", eight(&RateLimit::smooth(1, HOUR)), false),
        case("eight strict, allowed", eight(&strict), true),
        case("eight strict, denied", eight(&RateLimit::strict(61, HOUR)), false),
    ]
}

impl Case {
    fn key(&self) -> String {
        format!("{{steps}}{}", self.name)
    }

    /// As a caller leaves it that has called in each sub-window for a whole window.
    async fn prepare(&self, kv: &ValkeyStore) -> Result<()> {
        if self.name == "fixed window" {
            return Ok(());
        }
        let (mut held, mut left) = (Vec::new(), Duration::ZERO);
        for sub_window in 1..=61 {
            let seen = (!held.is_empty()).then_some((&held[..], Expiry::In(left)));
            if let (Change::Set { value, ttl }, _) = self.limit.step(Ask::Admit)?.apply(seen)? {
                held = value.to_vec();
                // The last one is the sub-window of now.
                left = if sub_window < 61 { ttl.saturating_sub(HOUR / 60) } else { ttl };
            }
        }
        Ok(kv.set(self.key().as_bytes(), &held, Some(left)).await?)
    }

    async fn call(&self, kv: &ValkeyStore) -> Result<()> {
        let allowed = if self.name == "fixed window" {
            kv.rate_limit(self.key(), &self.limit).await?.allowed
        } else {
            kv.step(self.key().as_bytes(), &self.limit.step(Ask::Admit)?).await?.admitted()
        };
        if allowed != self.allowed {
            bail!("{}: allowed is {allowed}", self.name);
        }
        Ok(())
    }

    /// Microseconds of the server for each call.
    async fn round(&self, server: &Server, kv: &ValkeyStore, calls: usize) -> Result<f64> {
        // A sub-window is a minute, and the rounds of all cases may take longer.
        self.prepare(kv).await?;
        server.command(&["CONFIG", "RESETSTAT"]).await?;
        for _ in 0..calls.div_ceil(100) {
            try_join_all((0..calls.min(100)).map(|_| self.call(kv))).await?;
        }
        let info = server.command(&["INFO", "commandstats"]).await?;
        let line = info.text()?.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:"));
        let per_call = line
            .context("no call")?
            .split(',')
            .find_map(|field| field.strip_prefix("usec_per_call="));
        Ok(per_call.context("no time")?.parse()?)
    }
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse()?;
    let mut rows = Rows::new(&args)?;
    let server = Server::start().await?;
    let config = ValkeyConfig::default().addresses([server.address()]);
    let kv = ValkeyStore::connect(config.op_timeout(Duration::from_secs(10))).await?;
    let (rounds, calls) = if args.short { (1, 10) } else { (args.rounds.unwrap_or(21), 2000) };
    let cases = cases();
    for case in &cases {
        case.prepare(&kv).await?;
        // The script is in the server's cache from here on.
        case.call(&kv).await?;
    }
    let mut samples = vec![Vec::new(); cases.len()];
    for nth in 0..rounds {
        // Each goes first as often as the others.
        for at in (0..cases.len()).map(|at| (at + nth) % cases.len()) {
            samples[at].push(cases[at].round(&server, &kv, calls).await?);
        }
    }
    for (case, mine) in cases.iter().zip(&samples) {
        let ratios = mine.iter().zip(&samples[0]).map(|(mine, first)| mine / first).collect();
        let one = !case.name.starts_with("eight");
        let row = Measured {
            suite: "steps",
            bench: case.name,
            subject: "Valkey",
            server_us_per_op: median(mine.clone()),
            server_ratio: median(ratios),
            bound: one.then_some(BOUND),
        };
        println!("{}", serde_json::to_string(&row)?);
        rows.append(&row)?;
    }
    Ok(())
}
