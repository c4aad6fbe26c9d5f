use std::sync::Arc;
use std::time::Instant;

use derp_kv_core::bytes::Bytes;
use derp_kv_core::futures_core::stream::BoxStream;
use derp_kv_core::{Layer, Operation, Result};
use futures_util::StreamExt;
use metrics::{Histogram, Recorder};

use super::family::Family;

/// A [`Layer`] that measures each call of the store, as OpenTelemetry measures a database's client:
/// `db.client.operation.duration`, in seconds.
///
/// `error.type` is the [name of the error's kind](derp_kv_core::ErrorKind::name), or `dropped` where the
/// caller went away before the answer, as a time-out around the call does. A wait for a change is no
/// measure of the store and is not counted. A scan lasts until its stream is dropped.
#[derive(Clone, Debug)]
pub struct StoreDurations {
    system: &'static str,
    durations: Arc<Family<Histogram, 3>>,
}

impl StoreDurations {
    /// Measures in `recorder` the calls of a store that is known as `system`, the `db.system.name` of
    /// OpenTelemetry. There is none for Valkey, which is counted as `redis`.
    #[must_use]
    pub fn new(recorder: Arc<dyn Recorder + Send + Sync>, system: &'static str) -> Self {
        let durations = Family::durations(
            &recorder,
            "db.client.operation.duration",
            ["db.system.name", "db.operation.name", "error.type"],
            "How long calls of the store took.",
        );
        Self { system, durations: Arc::new(durations) }
    }

    fn begin(&self, operation: Operation, if_dropped: &'static str) -> Timed {
        Timed { layer: self.clone(), operation, error: if_dropped, began: Instant::now() }
    }
}

impl Layer for StoreDurations {
    async fn around<T: Send>(
        &self,
        operation: Operation,
        _key: Option<&[u8]>,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let mut timed = self.begin(operation, "dropped");
        let result = call.await;
        timed.ended(&result);
        result
    }

    fn around_scan(
        &self,
        _prefix: &[u8],
        keys: BoxStream<'static, Result<Bytes>>,
    ) -> BoxStream<'static, Result<Bytes>> {
        // Who has seen enough drops it, and that is no failure.
        let mut timed = self.begin(Operation::Scan, "");
        keys.inspect(move |key| timed.ended(key)).boxed()
    }
}

/// A call under way; dropped, it is counted.
#[derive(Debug)]
struct Timed {
    layer: StoreDurations,
    operation: Operation,
    error: &'static str,
    began: Instant,
}

impl Timed {
    fn ended<T>(&mut self, result: &Result<T>) {
        self.error = result.as_ref().err().map_or("", |error| error.kind().name());
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        let labels = [self.layer.system, self.operation.name(), self.error];
        self.layer.durations.with(labels).record(self.began.elapsed());
    }
}
