use std::sync::Arc;
use std::time::Duration;

use derp_kv_core::{KvStore, Layered, Observe};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use super::calls::CallMetrics;
use super::durations::StoreDurations;

/// The bounds in seconds that OpenTelemetry gives to `db.client.operation.duration`, and that are as good
/// for the other times here.
const BUCKETS: [f64; 9] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];

/// How often single times are put into their buckets.
const UPKEEP: Duration = Duration::from_secs(5);

/// The metrics of one service, as Prometheus reads them. Clones are handles of the same.
#[derive(Clone, Debug)]
pub struct Metrics {
    recorder: Arc<PrometheusRecorder>,
    prometheus: PrometheusHandle,
}

impl Metrics {
    /// Nothing counted yet.
    #[must_use]
    pub fn new() -> Self {
        let builder = PrometheusBuilder::new().with_recommended_naming(true);
        let builder = builder.set_buckets(&BUCKETS).expect("there are buckets");
        let recorder = Arc::new(builder.build_recorder());
        Self { prometheus: recorder.handle(), recorder }
    }

    /// Hears what the helpers on a store do, and what its links do.
    #[must_use]
    pub fn observer(&self) -> CallMetrics {
        CallMetrics::new(self.recorder.clone())
    }

    /// Measures the calls of a store that is known as `system`.
    #[must_use]
    pub fn durations(&self, system: &'static str) -> StoreDurations {
        StoreDurations::new(self.recorder.clone(), system)
    }

    /// The store, counted in both ways.
    pub fn around(&self, kv: impl KvStore, system: &'static str) -> Arc<dyn KvStore> {
        let measured = Layered::new(kv, self.durations(system));
        Arc::new(Layered::new(measured, Observe::with(self.observer())))
    }

    /// The text that Prometheus reads.
    #[must_use]
    pub fn text(&self) -> String {
        self.prometheus.render()
    }

    /// Puts what was measured into its buckets every few seconds, for ever: until then each single time
    /// takes memory. A reader of the [text](Self::text) does the same, but there may be none.
    pub async fn keep_up(self) {
        let mut every = tokio::time::interval(UPKEEP);
        loop {
            every.tick().await;
            self.prometheus.run_upkeep();
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
