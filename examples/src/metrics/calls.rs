use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use derp_kv_core::{CallOutcome, Event, LinkState, Observer, Operation};
use metrics::{Counter, Histogram, Key, Label, Recorder, Unit};

use super::family::{Family, METADATA};

const LINK_STATE: &str = "derpkv.link.state";
const LINK_EVENTS: &str = "derpkv.link.events";
const PRIMARIES: &str = "derpkv.primaries";

/// The outcomes of calls that are no errors of a kind.
const CACHE: [&str; 7] = ["hit", "stale", "joined", "computed", "miss", "failed", "dropped"];
const IDEMPOTENCY: [&str; 4] = ["executed", "replayed", "failed", "dropped"];
const WEBHOOKS: [&str; 5] = ["executed", "duplicate", "given_up", "failed", "dropped"];

/// An [`Observer`] that counts what it hears; the [module](super) lists the metrics.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// use derp_kv_core::{GuardedGet, KvStoreExt, Layered, Observe};
/// use derp_kv_examples::metrics::CallMetrics;
/// use metrics_exporter_prometheus::PrometheusBuilder;
///
/// # #[tokio::main] async fn main() -> anyhow::Result<()> {
/// # let store = derp_kv_memory::MemoryStore::new();
/// let recorder = Arc::new(PrometheusBuilder::new().build_recorder());
/// // What the rest of the program counts with the macros of `metrics` goes there too.
/// metrics::set_global_recorder(recorder.clone()).ok();
/// let prometheus = recorder.handle();
///
/// let kv = Layered::new(store, Observe::with(CallMetrics::new(recorder)));
/// const PAGES: GuardedGet = GuardedGet::new(Duration::from_secs(300));
/// kv.guarded_get("product:42", &PAGES, || async { anyhow::Ok("a kettle") }).await?;
/// let text = prometheus.render();
/// assert!(text.contains(r#"derpkv_cache_requests{outcome="computed"} 1"#), "{text}");
/// # Ok(()) }
/// ```
pub struct CallMetrics {
    recorder: Arc<dyn Recorder + Send + Sync>,
    cache_requests: Family<Counter, 1>,
    computations: Family<Counter, 2>,
    compute_duration: Family<Histogram, 0>,
    idempotency_requests: Family<Counter, 1>,
    webhook_events: Family<Counter, 1>,
    decisions: Family<Counter, 2>,
    locks: Family<Counter, 2>,
    calls: Family<Histogram, 2>,
    refused: Family<Counter, 2>,
    leases_lost: Family<Counter, 0>,
    not_kept: Family<Counter, 1>,
    undecodable: Family<Counter, 0>,
    refreshes_failed: Family<Counter, 0>,
}

impl CallMetrics {
    /// Counts in `recorder`.
    #[must_use]
    pub fn new(recorder: Arc<dyn Recorder + Send + Sync>) -> Self {
        let to = &recorder;
        let state = "1: the link to a node is up, 0: it is down, NaN: neither.";
        to.describe_gauge(LINK_STATE.into(), None, state.into());
        let events = "What became of the link to a node.";
        to.describe_counter(LINK_EVENTS.into(), Some(Unit::Count), events.into());
        let primaries = "Nodes that take writes.";
        to.describe_gauge(PRIMARIES.into(), None, primaries.into());
        Self {
            cache_requests: Family::counters(
                to,
                "derpkv.cache.requests",
                ["outcome"],
                "Answers of caches.",
            )
            .at_zero(CACHE.map(|outcome| [outcome])),
            computations: Family::counters(
                to,
                "derpkv.cache.computations",
                ["reason", "succeeded"],
                "Computations of cached values.",
            )
            .at_zero(pairs(["miss", "refresh", "beside"], ["true", "false"])),
            compute_duration: Family::durations(
                to,
                "derpkv.compute.duration",
                [],
                "How long computations of cached values took.",
            ),
            idempotency_requests: Family::counters(
                to,
                "derpkv.idempotency.requests",
                ["outcome"],
                "Answers to requests with an idempotency key.",
            )
            .at_zero(IDEMPOTENCY.map(|outcome| [outcome])),
            webhook_events: Family::counters(
                to,
                "derpkv.webhook.events",
                ["outcome"],
                "Events, delivered for the first time or again.",
            )
            .at_zero(WEBHOOKS.map(|outcome| [outcome])),
            decisions: Family::counters(
                to,
                "derpkv.rate_limit.decisions",
                ["allowed", "source"],
                "Decisions of rate limits, and who decided.",
            )
            .at_zero(pairs(["true", "false"], ["store", "blocked", "local", "policy"])),
            locks: Family::counters(
                to,
                "derpkv.locks",
                ["operation", "outcome"],
                "Locks taken and refused.",
            )
            .at_zero(pairs(["try_lock", "lock"], ["acquired", "held", "dropped"])),
            calls: Family::durations(
                to,
                "derpkv.calls.duration",
                ["operation", "outcome"],
                "How long calls of the helpers took.",
            ),
            refused: Family::counters(
                to,
                "derpkv.calls.refused",
                ["operation", "error.type"],
                "Calls that the library or the store answered with an error.",
            ),
            leases_lost: Family::counters(
                to,
                "derpkv.lease.lost",
                [],
                "Leases that ended under their holders.",
            )
            .at_zero([[]]),
            not_kept: Family::counters(
                to,
                "derpkv.values.not_kept",
                ["reason"],
                "Computed values that were not kept.",
            )
            .at_zero([["full"], ["held"]]),
            undecodable: Family::counters(
                to,
                "derpkv.values.undecodable",
                [],
                "Cached values that could not be decoded.",
            )
            .at_zero([[]]),
            refreshes_failed: Family::counters(
                to,
                "derpkv.refreshes.failed",
                [],
                "Refreshes that came to nothing.",
            )
            .at_zero([[]]),
            recorder,
        }
    }

    fn answered(&self, operation: Operation, outcome: CallOutcome, took: Duration) {
        self.calls.with([operation.name(), outcome.name()]).record(took);
        if let CallOutcome::Refused(kind) = outcome {
            self.refused.with([operation.name(), kind.name()]).increment(1);
        }
        match operation {
            Operation::GuardedGet => self.cache_requests.with([outcome.name()]).increment(1),
            Operation::IdempotentExecute => {
                self.idempotency_requests.with([outcome.name()]).increment(1)
            }
            Operation::ProcessOnce | Operation::AlreadyProcessed => {
                self.webhook_events.with([outcome.name()]).increment(1);
            }
            Operation::RateLimit => {
                let allowed = match outcome {
                    CallOutcome::Allowed { .. } => "true",
                    CallOutcome::Denied { .. } => "false",
                    // It failed or was dropped, and nobody has decided; its duration is counted.
                    _ => return,
                };
                let source = outcome.source().unwrap_or_default();
                self.decisions.with([allowed, source]).increment(1);
            }
            Operation::TryLock | Operation::Lock => {
                self.locks.with([operation.name(), outcome.name()]).increment(1);
            }
            _ => {}
        }
    }

    fn link(&self, node: &str, state: LinkState) {
        let up = match state {
            LinkState::Connected | LinkState::Back { .. } => 1.0,
            LinkState::Lost | LinkState::FailingFast => 0.0,
            // What a later version tells, as that the node has left, is neither.
            _ => f64::NAN,
        };
        // Links change seldom, and nodes are not known before: nothing is kept of them here.
        let of_node = Label::new("node", node.to_owned());
        let key = Key::from_parts(LINK_STATE, vec![of_node.clone()]);
        self.recorder.register_gauge(&key, &METADATA).set(up);
        let labels = vec![of_node, Label::from_static_parts("state", state.name())];
        let key = Key::from_parts(LINK_EVENTS, labels);
        self.recorder.register_counter(&key, &METADATA).increment(1);
    }
}

impl Observer for CallMetrics {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Answered { operation, outcome, took, .. } => {
                self.answered(operation, outcome, took);
            }
            Event::Computed { reason, succeeded, took, .. } => {
                let succeeded = if succeeded { "true" } else { "false" };
                self.computations.with([reason.name(), succeeded]).increment(1);
                self.compute_duration.with([]).record(took);
            }
            Event::NotKept { kind, .. } => self.not_kept.with([kind.name()]).increment(1),
            Event::Undecodable { .. } => self.undecodable.with([]).increment(1),
            Event::RefreshFailed { .. } => self.refreshes_failed.with([]).increment(1),
            Event::LeaseLost { .. } => self.leases_lost.with([]).increment(1),
            Event::Link { node, state, .. } => self.link(node, state),
            Event::TopologyChanged { primaries, .. } => {
                let key = Key::from_static_name(PRIMARIES);
                let gauge = self.recorder.register_gauge(&key, &METADATA);
                gauge.set(primaries as f64);
            }
            // A later version tells more.
            _ => {}
        }
    }
}

/// Each of these with each of those.
fn pairs<const N: usize, const M: usize>(
    these: [&'static str; N],
    those: [&'static str; M],
) -> impl Iterator<Item = [&'static str; 2]> {
    these.into_iter().flat_map(move |this| those.map(|that| [this, that]))
}

impl fmt::Debug for CallMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallMetrics").finish_non_exhaustive()
    }
}
