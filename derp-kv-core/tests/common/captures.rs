use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;

/// Writes down all spans when they end, and all events, of every target and level.
#[derive(Clone, Debug, Default)]
pub(crate) struct Captures(Arc<Mutex<Vec<String>>>);

impl Captures {
    /// What was written down since the last time.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    /// Captures what this thread does until the guard is dropped.
    pub(crate) fn here(&self) -> tracing::subscriber::DefaultGuard {
        tracing::subscriber::set_default(tracing_subscriber::registry().with(self.clone()))
    }
}

/// The fields of a span or an event, in the order of their names.
#[derive(Clone, Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl fmt::Display for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.0 {
            if *name != "message" {
                write!(f, " {name}={value}")?;
            }
        }
        Ok(())
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Captures {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        context.span(id).unwrap().extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let span = context.span(id).unwrap();
        values.record(span.extensions_mut().get_mut::<Fields>().unwrap());
    }

    fn on_follows_from(&self, id: &Id, follows: &Id, context: Context<'_, S>) {
        let follows = context.span(follows).unwrap().name().to_owned();
        let span = context.span(id).unwrap();
        span.extensions_mut().get_mut::<Fields>().unwrap().0.insert("(follows)", follows);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let message = fields.0.get("message").cloned().unwrap_or_default();
        let inside = context.event_span(event).map_or("", |span| span.name());
        let metadata = event.metadata();
        let line =
            format!("{} {} {message}:{fields} <{inside}", metadata.level(), metadata.target());
        self.0.lock().unwrap().push(line);
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let span = context.span(&id).unwrap();
        let inside = span.parent().map_or("", |parent| parent.name());
        let metadata = span.metadata();
        let extensions = span.extensions();
        let fields = extensions.get::<Fields>().unwrap();
        let (level, target, name) = (metadata.level(), metadata.target(), metadata.name());
        self.0.lock().unwrap().push(format!("{level} {target} {name}:{fields} <{inside}"));
    }
}
