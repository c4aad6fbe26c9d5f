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

struct Heard(&'static Metadata<'static>);

impl Visit for Heard {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        hear(format_args!("{} {field}", self.0.name()), &format!("{value:?} {value:#?}"));
    }
}

impl Hush {
    fn place(meta: &'static Metadata<'static>) -> Heard {
        hear("a name", meta.name());
        hear("a target", meta.target());
        Heard(meta)
    }
}

impl Subscriber for Hush {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        span.record(&mut Self::place(span.metadata()));
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        struct Late;
        impl Visit for Late {
            fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
                hear(field, &format!("{value:?}"));
            }
        }
        values.record(&mut Late);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut Self::place(event.metadata()));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
