//! What the helpers and the store do, as metrics: a recipe on the `metrics` crate, which counts for
//! Prometheus here and for any other recorder of that crate.
//!
//! | metric | labels | |
//! |---|---|---|
//! | `derpkv.cache.requests` | `outcome` | answers of `guarded_get` and of a `Cache` |
//! | `derpkv.cache.computations` | `reason`, `succeeded` | computations of cached values |
//! | `derpkv.compute.duration` | | how long these took |
//! | `derpkv.idempotency.requests` | `outcome` | answers of `idempotent_execute` |
//! | `derpkv.webhook.events` | `outcome` | answers of `process_once` and `already_processed` |
//! | `derpkv.rate_limit.decisions` | `allowed`, `source` | decisions of rate limits |
//! | `derpkv.locks` | `operation`, `outcome` | answers of `try_lock` and `lock` |
//! | `derpkv.calls.duration` | `operation`, `outcome` | how long each helper's calls took |
//! | `derpkv.calls.refused` | `operation`, `error.type` | calls that the library or the store refused |
//! | `derpkv.lease.lost` | | leases that ended under their holders |
//! | `derpkv.values.not_kept` | `reason` | computed values that were not kept |
//! | `derpkv.values.undecodable` | | cached values that could not be decoded |
//! | `derpkv.refreshes.failed` | | refreshes that came to nothing |
//! | `derpkv.link.state` | `node` | 1: the link to the node is up, 0: it is down |
//! | `derpkv.link.events` | `node`, `state` | what became of that link |
//! | `derpkv.primaries` | | nodes that take writes, once the topology has changed |
//! | `db.client.operation.duration` | `db.system.name`, `db.operation.name`, `error.type` | how long each call of the store took |
//!
//! Labels are names out of small sets, and addresses of nodes; never a key, and never a value. A node that has
//! left keeps its series until the process ends, for the `metrics` crate takes none back: there is one of each
//! node that was ever seen. The gauge of one that is neither up nor down is `NaN`.
//!
//! Counters whose labels are known beforehand are there from the start, at 0, so that `increase()` sees the first
//! event too: all but `derpkv.calls.refused`, `derpkv.link.events` and those outcomes and reasons that are kinds
//! of errors.
//!
//! The [`CallMetrics`] are an observer of the helpers, the [`StoreDurations`] a layer around the store. Both
//! count in the recorder that they are given and in no global one, so that each service of a process has
//! metrics of its own. Once a set of labels has occurred, neither allocates for it again, but for changes of a
//! link and of the topology, which are seldom.

mod calls;
mod durations;
mod family;
mod prometheus;

pub use calls::CallMetrics;
pub use durations::StoreDurations;
pub use prometheus::Metrics;
