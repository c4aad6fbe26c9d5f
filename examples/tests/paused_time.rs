//! A user's own service, tested without a server and without waiting.

use std::time::Duration;

use derp_kv_core::{Cache, Dedup, Error, GuardedGet, Idempotency, KvStore, KvStoreExt, Result};
use derp_kv_memory::MemoryStore;

// begin: service
/// Sends each user one welcome mail a day, however often somebody asks for it.
#[derive(Debug)]
struct Welcome<S> {
    kv: S,
}

impl<S: KvStore + Clone> Welcome<S> {
    /// Whether a mail went out.
    async fn send(&self, user: &str) -> Result<bool> {
        Ok(!self.kv.already_processed(user, &Dedup::default()).await?)
    }
}
// end: service

// begin: test
#[tokio::test(start_paused = true)]
async fn a_day_later_the_mail_goes_out_again() -> Result<()> {
    let welcome = Welcome { kv: MemoryStore::new() };
    assert!(welcome.send("ada").await?);
    assert!(!welcome.send("ada").await?);

    tokio::time::advance(Duration::from_secs(24 * 60 * 60)).await;
    assert!(welcome.send("ada").await?);
    Ok(())
}
// end: test

// begin: slow
#[tokio::test(start_paused = true)]
async fn an_hour_of_work_runs_once() -> Result<()> {
    let kv = MemoryStore::new();
    let options = Idempotency::default();
    let report = || {
        kv.idempotent_execute("report:2026-11", &options, || async {
            tokio::time::sleep(Duration::from_secs(60 * 60)).await;
            Ok::<_, Error>("done".to_owned())
        })
    };
    let first = report().await?;
    let again = report().await?;
    assert!(!first.is_replay && again.is_replay);
    Ok(())
}
// end: slow

// begin: stale
#[tokio::test(start_paused = true)]
async fn an_old_price_is_shown_until_the_new_one_is_there() -> Result<()> {
    let options = GuardedGet::new(Duration::from_secs(60)).stale(Duration::from_secs(3600));
    let prices = Cache::<_, u64>::new(MemoryStore::new(), "price:", options);
    let price = |now: u64| prices.get("kettle", move |_stale| async move { Ok::<_, Error>(now) });
    assert_eq!(price(4_950).await?, 4_950);

    tokio::time::advance(Duration::from_secs(90)).await;
    assert_eq!(price(5_250).await?, 4_950);
    assert!(prices.drain(Duration::from_secs(1)).await);
    assert_eq!(price(6_000).await?, 5_250);
    Ok(())
}
// end: stale

#[test]
fn the_page_quotes_this_file() {
    let (page, code) = (include_str!("../TESTING.md"), include_str!("paused_time.rs"));
    for name in ["service", "test", "slow", "stale"] {
        let (begin, end) = (format!("// begin: {name}\n"), format!("// end: {name}\n"));
        let quoted = code.split_once(&begin).and_then(|(_, rest)| rest.split_once(&end));
        let quoted = quoted.expect("the marks are there").0;
        assert!(page.contains(&format!("```rust\n{quoted}```")), "TESTING.md: {name} differs");
    }
}
