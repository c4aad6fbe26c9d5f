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
    computing_all(std::slice::from_ref(flight), work).await
}

/// Runs `work`, which computes the values of all `flights`.
pub(crate) async fn computing_all<T>(flights: &[Arc<Flight>], work: impl Future<Output = T>) -> T {
    let mut innermost = COMPUTING.try_with(Arc::clone).ok();
    for flight in flights {
        innermost = Some(Arc::new(Computation { flight: flight.clone(), around: innermost }));
    }
    match innermost {
        Some(innermost) => COMPUTING.scope(innermost, work).await,
        None => work.await,
    }
}

/// Runs `work`, which is to be a task of its own, inside the computations that this task is in.
pub(crate) fn inherited<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let around = COMPUTING.try_with(Arc::clone).ok();
    async move {
        match around {
            Some(around) => COMPUTING.scope(around, work).await,
            None => work.await,
        }
    }
}

/// Whether this task is inside a computation.
pub(crate) fn is_nested() -> bool {
    COMPUTING.try_with(|_| ()).is_ok()
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
