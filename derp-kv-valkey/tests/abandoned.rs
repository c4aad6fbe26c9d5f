//! Processes that are killed while they work under an idempotency key.
//!
//! The test binary starts itself again as a worker: [`worker`] is a test that does nothing unless the
//! environment says what to do. `DERP_KV_KILLS` says how many processes are killed at random moments (50);
//! `scripts/kills.sh` kills a thousand.

#[path = "abandoned/campaign.rs"]
mod campaign;
mod common;
#[path = "abandoned/moments.rs"]
mod moments;
#[path = "abandoned/work.rs"]
mod work;

use campaign::Campaign;
use common::stage::setting;
use derp_kv_core::OnAbandoned;

const KILLS: &str = "DERP_KV_KILLS";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker() {
    work::as_told().await;
}

/// Whatever a process was at when it was killed, its work is not done again unless somebody says so.
#[tokio::test]
async fn work_whose_process_is_killed_is_never_done_twice() {
    let mut campaign = Campaign::open(OnAbandoned::Reject).await;
    let kills = setting(KILLS).unwrap_or(50);
    while campaign.kills() < kills {
        campaign.generation().await;
    }
    campaign.settle().await;
    println!("\n{campaign}");
    assert_eq!(campaign.done_twice(), 0, "work that was done twice");
    campaign.each_is_done_once_more_when_it_is_forgotten().await;
}

/// The same kills show work that is done twice, where it may be.
#[tokio::test]
async fn without_reject_it_is_done_twice() {
    let mut campaign = Campaign::open(OnAbandoned::Rerun).await;
    while campaign.done_twice() == 0 {
        assert!(campaign.kills() < 1_000, "these kills would not show work that is done twice");
        campaign.generation().await;
        campaign.settle().await;
    }
    println!("\n{campaign}");
}
