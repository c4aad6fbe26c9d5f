//! `IdempotencyLayer` around axum's services: in a server on a real socket, and called directly where time
//! is virtual.
#![cfg(feature = "tower")]

mod common;

#[path = "idempotency_layer/bodies.rs"]
mod bodies;
#[path = "idempotency_layer/clients.rs"]
mod clients;
#[path = "idempotency_layer/copies.rs"]
mod copies;
#[path = "idempotency_layer/documented.rs"]
mod documented;
#[path = "idempotency_layer/fuzz.rs"]
mod fuzz;
#[path = "idempotency_layer/policies.rs"]
mod policies;
#[path = "idempotency_layer/replays.rs"]
mod replays;
#[path = "idempotency_layer/services.rs"]
mod services;
#[path = "idempotency_layer/stage.rs"]
mod stage;
#[path = "idempotency_layer/stores.rs"]
mod stores;
