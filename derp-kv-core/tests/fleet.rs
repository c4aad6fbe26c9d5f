//! Stale data, refreshes and cool-downs over several processes, on the in-memory store.

mod common;

#[path = "fleet/answers.rs"]
mod answers;
#[path = "fleet/budgets.rs"]
mod budgets;
#[path = "fleet/drops.rs"]
mod drops;
#[path = "fleet/failures.rs"]
mod failures;
#[path = "fleet/herd.rs"]
mod herd;
#[path = "fleet/nested.rs"]
mod nested;
#[path = "fleet/refreshes.rs"]
mod refreshes;
#[path = "fleet/runtimes.rs"]
mod runtimes;
#[path = "fleet/soft_timeouts.rs"]
mod soft_timeouts;
#[path = "fleet/stage.rs"]
mod stage;
