//! What happens, told to everybody who looks at the page.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use derp_kv_core::{Event, Expiry, LinkState, Observer};
use serde_json::{Value, json};
use tokio::sync::broadcast;

use super::state::{Herd, State};
use crate::database::{Replica, Stats, Watcher};

/// How many messages are kept for readers who come late. One who comes later gets a snapshot.
pub(crate) const BACKLOG: usize = 1024;

/// A message to a browser.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) name: &'static str,
    pub(crate) json: Arc<str>,
}

impl Message {
    fn new(name: &'static str, value: &Value) -> Self {
        Self { name, json: value.to_string().into() }
    }
}

/// Keeps the state, and tells of each change of it.
///
/// A change and its message are one step under a lock: a snapshot and the messages after it are all that
/// happened, once each and in order. However many read and however slowly, it keeps [`BACKLOG`] messages.
#[derive(Debug)]
pub(crate) struct Feed {
    state: Mutex<State>,
    messages: broadcast::Sender<Message>,
}

impl Feed {
    pub(crate) fn new(backend: &'static str) -> Self {
        let messages = broadcast::Sender::new(BACKLOG);
        Self { state: Mutex::new(State::new(backend)), messages }
    }

    /// Everything so far, and what comes after it.
    pub(crate) fn subscribe(&self) -> (Message, broadcast::Receiver<Message>) {
        let state = self.state();
        (Message::new("snapshot", &state.snapshot()), self.messages.subscribe())
    }

    /// A call of the store has ended; `answers` says whether that tells that the store is there, or not.
    pub(crate) fn command(&self, answers: Option<bool>) {
        let mut state = self.state();
        state.commands += 1;
        let before = state.is_up();
        state.answers = answers.unwrap_or(state.answers);
        self.tell_store(&state, before);
    }

    /// What is left of a product's key in the store.
    pub(crate) fn product(&self, id: u32, left: Option<Expiry>, stale: Duration) {
        let mut state = self.state();
        if let Some(product) = state.products.get_mut(&id) {
            product.seen(left, stale);
            self.tell("product", || state.product_message(id));
        }
    }

    pub(crate) fn herd(&self, herd: Herd) {
        let mut state = self.state();
        self.tell("herd", || json!(herd));
        state.herd = Some(herd);
    }

    fn tell(&self, name: &'static str, value: impl FnOnce() -> Value) {
        if self.messages.receiver_count() > 0 {
            // The last reader may have gone in the meantime.
            let _ = self.messages.send(Message::new(name, &value()));
        }
    }

    fn tell_store(&self, state: &State, was_up: bool) {
        if state.is_up() != was_up {
            self.tell("store", || state.store_message());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Feed {
    fn event(&self, event: Event<'_>) {
        let mut state = self.state();
        match event {
            Event::Answered { operation, outcome, .. } => {
                let (operation, outcome) = (operation.name(), outcome.name());
                let counts = state.answers_of.entry(operation).or_default();
                let count = counts.entry(outcome).or_default();
                *count += 1;
                let count = *count;
                self.tell("answered", || {
                    json!({
                        "operation": operation,
                        "outcome": outcome,
                        "count": count,
                        "commands": state.commands,
                    })
                });
            }
            Event::RefreshFailed { .. } => {
                state.refreshes_failed += 1;
                self.tell("refresh_failed", || json!({ "count": state.refreshes_failed }));
            }
            Event::Link { node, state: link, .. } => {
                let before = state.is_up();
                match link {
                    LinkState::Lost | LinkState::FailingFast => state.lose(node),
                    _ => {
                        state.lost.remove(node);
                    }
                }
                self.tell_store(&state, before);
            }
            // Whoever is lost may not belong to it any more; the links that are used tell it anew.
            Event::TopologyChanged { .. } => {
                let before = state.is_up();
                state.lost.clear();
                self.tell_store(&state, before);
            }
            _ => {}
        }
    }
}

impl Watcher for Feed {
    fn changed(&self, replica: Replica, stats: Stats) {
        let mut state = self.state();
        state.replica = replica;
        state.stats = stats;
        self.tell("database", || state.database_message());
    }

    fn query(&self, id: u32, under_way: bool) {
        let mut state = self.state();
        if let Some(product) = state.products.get_mut(&id) {
            product.queries =
                if under_way { product.queries + 1 } else { product.queries.saturating_sub(1) };
            self.tell("product", || state.product_message(id));
        }
    }
}
