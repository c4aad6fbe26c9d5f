//! Whether to send requests to the service or to start it anew.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Response};
use derp_kv_core::{Error, ErrorKind, KvStore};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use serde_json::{Value, json};
use tokio::time::timeout;
use tracing::{info, warn};

use crate::app::App;
use crate::error::with_causes;
use crate::stopping::Stopping;

/// Sooner than whoever probes gives up.
const DEADLINE: Duration = Duration::from_millis(500);

/// Nobody else's key, and there need not be anything under it. It is beside the helpers' own keys, which
/// every user of the server may read.
const KEY: &[u8] = b"derp:health:checkout";

/// Asks the store whether it answers.
#[derive(Clone, Debug)]
pub(crate) struct Health(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    kv: Arc<dyn KvStore>,
    stopping: Stopping,
    /// The call that is under way: a store that is sick is not made worse by all who ask how it is.
    asking: Mutex<Option<WeakShared<Asking>>>,
    failing: Mutex<Option<Failing>>,
}

type Asking = BoxFuture<'static, Result<Duration, Failing>>;

/// How the store fails.
#[derive(Clone, Copy, Debug)]
struct Failing {
    kind: ErrorKind,
    /// When a probe found out.
    since: Instant,
}

impl Health {
    pub(crate) fn new(kv: Arc<dyn KvStore>, stopping: Stopping) -> Self {
        let (asking, failing) = Default::default();
        Self(Arc::new(Inner { kv, stopping, asking, failing }))
    }

    /// How long the store took to answer, or how it fails: from one call for all who ask meanwhile.
    async fn ask(&self) -> Result<Duration, Failing> {
        let asking = {
            let mut under_way = locked(&self.0.asking);
            let joined = under_way.as_ref().and_then(WeakShared::upgrade);
            // One that has its answer is not asked again, for that may be out of date.
            joined.filter(|asking| asking.peek().is_none()).unwrap_or_else(|| {
                let inner = self.0.clone();
                let asking: Shared<Asking> = async move { inner.call().await }.boxed().shared();
                *under_way = asking.downgrade();
                asking
            })
        };
        asking.await
    }
}

impl Inner {
    async fn call(&self) -> Result<Duration, Failing> {
        let began = Instant::now();
        let too_late = |_| Err(Error::new(ErrorKind::Timeout, "no answer to the probe in time"));
        let answer = timeout(DEADLINE, self.kv.exists(KEY)).await.unwrap_or_else(too_late);
        let mut failing = locked(&self.failing);
        match answer {
            Ok(_) => {
                if let Some(Failing { since, .. }) = failing.take() {
                    let after_s = since.elapsed().as_secs_f64();
                    info!(after_s, "the store answers probes again");
                }
                Ok(began.elapsed())
            }
            Err(error) => {
                let since = failing.map_or(began, |failing| failing.since);
                if failing.is_none() {
                    warn!(error = with_causes(&error), "the store does not answer a probe");
                }
                Err(*failing.insert(Failing { kind: error.kind(), since }))
            }
        }
    }
}

/// `GET /health`: 200 while the store answers for one key, and 503 while it does not or the service is about
/// to stop.
///
/// This is less than that the service can do all its work: on a cluster it tells of the one shard that has the
/// key, and it writes nothing, so a store that is full or read-only passes. Metrics tell of those.
///
/// Each answer is that of a call which has begun after the one before ended; nothing is remembered but
/// since when the store fails, so the log has a line when that begins and one when it ends.
pub(crate) async fn ready(State(app): State<App>) -> Response {
    if app.health.0.stopping.has_begun() {
        return answer(StatusCode::SERVICE_UNAVAILABLE, &json!({ "status": "stopping" }));
    }
    match app.health.ask().await {
        Ok(took) => {
            let store = json!({ "answers": true, "took_ms": took.as_millis() as u64 });
            answer(StatusCode::OK, &json!({ "status": "ready", "store": store }))
        }
        Err(Failing { kind, since }) => {
            let store = json!({
                "answers": false,
                "error": kind.name(),
                "message": kind.to_string(),
                "failing_for_ms": since.elapsed().as_millis() as u64,
            });
            let state = json!({ "status": "failing", "store": store });
            answer(StatusCode::SERVICE_UNAVAILABLE, &state)
        }
    }
}

/// `GET /health/live`: 200 from a process that runs. A store that fails is no reason to start the service
/// anew.
pub(crate) async fn live() -> Response {
    answer(StatusCode::OK, &json!({ "status": "live" }))
}

fn answer(status: StatusCode, state: &Value) -> Response {
    (status, [(CACHE_CONTROL, "no-store")], Json(state)).into_response()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
