/// An extension of a response that says: nothing was done for this request, and it may be tried again.
///
/// An [`IdempotencyLayer`](crate::IdempotencyLayer) whose attempts are
/// [rejected](crate::OnAbandoned::Reject) when they are abandoned takes 408, 5xx and an error of the service
/// for the end of work that was cut off, unless the response has this. Refusals of this crate's layers have
/// it.
///
/// # Examples
///
/// ```
/// use axum::response::IntoResponse;
/// use derp_kv_core::NothingDone;
/// use http::StatusCode;
///
/// async fn order() -> impl IntoResponse {
///     // The warehouse is closed, and nobody has asked it for anything.
///     (StatusCode::SERVICE_UNAVAILABLE, axum::Extension(NothingDone))
/// }
/// # #[tokio::main] async fn main() {
/// # let response = order().await.into_response();
/// # assert!(response.extensions().get::<NothingDone>().is_some());
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NothingDone;
