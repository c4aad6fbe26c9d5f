//! What a subscriber of `tracing` hears, kept.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex};

use tokio::sync::Notify;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

/// All fields, as text.
pub(crate) type Fields = BTreeMap<&'static str, String>;

/// A span that has ended, or an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// `target level name` of a span, `target level` of an event.
    pub(crate) what: String,
    /// The name of the span in which it is.
    pub(crate) within: Option<String>,
    /// An event's text is the field `message`.
    pub(crate) fields: Fields,
}

#[derive(Default)]
struct Heard {
    told: Mutex<Vec<Told>>,
    news: Notify,
}

/// What all tests of this target were told. Each asks for what is of its own server.
static HEARD: LazyLock<Arc<Heard>> = LazyLock::new(|| {
    let heard = Arc::new(Heard::default());
    let subscriber = tracing_subscriber::registry().with(Capture(Arc::clone(&heard)));
    // For all threads: events of links are told on the stores' own.
    tracing::subscriber::set_global_default(subscriber).expect("the first one");
    heard
});

/// Begins to listen, if nobody does by now.
pub(crate) fn listen() {
    LazyLock::force(&HEARD);
}

/// Takes what was told that `is_mine`.
pub(crate) fn take(is_mine: impl Fn(&Told) -> bool) -> Vec<Told> {
    HEARD.told.lock().unwrap().extract_if(.., |told| is_mine(told)).collect()
}

/// Waits until something was told that `is_it`, and takes it.
pub(crate) async fn hear(is_it: impl Fn(&Told) -> bool + Send + Sync) -> Told {
    loop {
        let mut news = std::pin::pin!(HEARD.news.notified());
        news.as_mut().enable();
        if let Some(told) = take(&is_it).into_iter().next() {
            return told;
        }
        news.await;
    }
}

struct Capture(Arc<Heard>);

impl Capture {
    fn tell(&self, told: Told) {
        self.0.told.lock().unwrap().push(told);
        self.0.news.notify_waiters();
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Capture {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let span = context.span(id).unwrap();
        let meta = span.metadata();
        let mut told = Told {
            what: format!("{} {} {}", meta.target(), meta.level(), meta.name()),
            within: span.parent().map(|parent| parent.name().to_owned()),
            fields: Fields::new(),
        };
        attributes.record(&mut Kept(&mut told.fields));
        span.extensions_mut().insert(told);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let span = context.span(id).unwrap();
        let mut extensions = span.extensions_mut();
        values.record(&mut Kept(&mut extensions.get_mut::<Told>().unwrap().fields));
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let meta = event.metadata();
        let mut told = Told {
            what: format!("{} {}", meta.target(), meta.level()),
            within: context.event_span(event).map(|span| span.name().to_owned()),
            fields: Fields::new(),
        };
        event.record(&mut Kept(&mut told.fields));
        self.tell(told);
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let told = context.span(&id).unwrap().extensions_mut().remove::<Told>();
        self.tell(told.unwrap());
    }
}

struct Kept<'a>(&'a mut Fields);

impl Visit for Kept<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        let before = self.0.insert(field.name(), value.to_owned());
        assert_eq!(before, None, "{} is told twice", field.name());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}
