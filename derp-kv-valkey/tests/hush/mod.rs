//! A subscriber of `tracing` that listens to everything, and to which no secret may be told.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Stands in each key, value, password and user name. Letters only: it even looks like a command.
pub(crate) const SECRET: &str = "Hushhush";

static TOLD: AtomicU64 = AtomicU64::new(0);
static LEAKS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Listens on all threads from now on.
pub(crate) fn listen() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| tracing::subscriber::set_global_default(Hush).expect("the first one"));
}

/// How many texts were told so far.
#[allow(dead_code, reason = "a module of several test targets")]
pub(crate) fn told() -> u64 {
    TOLD.load(Ordering::Relaxed)
}

/// What was told that is secret.
#[allow(dead_code, reason = "a module of several test targets")]
pub(crate) fn leaks() -> Vec<String> {
    LEAKS.lock().unwrap().clone()
}

/// Panics, so that the call that tells fails, and keeps it for where nobody notices.
pub(crate) fn hear(place: impl fmt::Display, text: &str) {
    TOLD.fetch_add(1, Ordering::Relaxed);
    if text.to_ascii_lowercase().contains(&SECRET.to_ascii_lowercase()) {
        LEAKS.lock().unwrap().push(format!("{place}: {text}"));
        panic!("{place} shows a secret");
    }
}

struct Hush;

/// Looks at fields. Numbers hide nothing.
struct Heard;

impl Visit for Heard {
    fn record_str(&mut self, field: &Field, value: &str) {
        hear(field, value);
    }

    fn record_u64(&mut self, _: &Field, _: u64) {}

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        hear(field, &format!("{value:?} {value:#?}"));
    }
}

impl Subscriber for Hush {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        hear("a name", span.metadata().name());
        span.record(&mut Heard);
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut Heard);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut Heard);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
