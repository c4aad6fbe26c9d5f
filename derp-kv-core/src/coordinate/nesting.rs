//! A computation that asks for the very key that it computes must not wait for itself.

use std::sync::Arc;

use crate::singleflight::flight::Flight;

tokio::task_local! {
    /// The innermost computation that this task is in.
    static COMPUTING: Arc<Computation>;
}

struct Computation {
    flight: Arc<Flight>,
    around: Option<Arc<Computation>>,
}

/// Runs `work`, which computes the value of `flight`.
pub(crate) async fn computing<T>(flight: &Arc<Flight>, work: impl Future<Output = T>) -> T {
    let around = COMPUTING.try_with(Arc::clone).ok();
    COMPUTING.scope(Arc::new(Computation { flight: flight.clone(), around }), work).await
}

/// Whether this task is inside a computation of `flight`, at any depth.
pub(crate) fn is_computing(flight: &Arc<Flight>) -> bool {
    COMPUTING
        .try_with(|innermost| {
            std::iter::successors(Some(innermost), |computation| computation.around.as_ref())
                .any(|computation| Arc::ptr_eq(&computation.flight, flight))
        })
        .unwrap_or(false)
}
