//! The log of the program, on its standard error: lines for people, or JSON for machines.

use std::fmt;
use std::panic::PanicHookInfo;
use std::str::FromStr;

use tracing::field::{Field, Visit};
use tracing::{Subscriber, error};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FormatFields, layer};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

/// How a line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// For people.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

/// There is no such form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log is \"text\" or \"json\"")]
pub struct NoSuchForm;

impl FromStr for Form {
    type Err = NoSuchForm;

    fn from_str(name: &str) -> Result<Self, NoSuchForm> {
        match name {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(NoSuchForm),
        }
    }
}

/// What else hears of the spans.
pub type Also = Option<Box<dyn Layer<Registry> + Send + Sync>>;

/// Sends every event of the process that `filter` lets pass to standard error, and panics too. `also`
/// hears of all spans of INFO and above.
///
/// It is for the program's first lines, and does nothing where somebody has set up a log before.
pub fn init(form: Form, filter: Targets, also: Also) {
    // It must be on the registry itself, whose type it names.
    let log = tracing_subscriber::registry().with(also);
    let log = log.with(lines(form, std::io::stderr).with_filter(filter));
    if log.try_init().is_ok() {
        std::panic::set_hook(Box::new(panicked));
    }
}

fn lines<S, W>(form: Form, to: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> tracing_subscriber::fmt::MakeWriter<'w> + Send + Sync + 'static,
{
    match form {
        Form::Text => {
            let lines = layer().with_ansi(false).with_writer(to);
            lines.compact().fmt_fields(Plain).boxed()
        }
        Form::Json => layer().with_writer(to).json().flatten_event(true).boxed(),
    }
}

/// A panic, with the text that the program gives it. A text that is made of values may show what nobody
/// must read, and is left out; the place says enough.
fn panicked(info: &PanicHookInfo<'_>) {
    let at = info.location().map(ToString::to_string);
    let text = info.payload().downcast_ref::<&'static str>().copied();
    error!(at, text, "a thread panicked");
}

/// Fields as `name=value`, without those that only OpenTelemetry reads. Strings are quoted, and no
/// character of any value can end the line or speak to the terminal.
#[derive(Debug)]
struct Plain;

impl<'w> FormatFields<'w> for Plain {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut fields_written = PlainFields { writer, result: Ok(()), is_first: true };
        fields.record(&mut fields_written);
        fields_written.result
    }
}

struct PlainFields<'w> {
    writer: Writer<'w>,
    result: fmt::Result,
    is_first: bool,
}

impl Visit for PlainFields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let name = field.name();
        if self.result.is_err() || name.starts_with("otel.") {
            return;
        }
        let space = if std::mem::take(&mut self.is_first) { "" } else { " " };
        let value = OneLine(value);
        self.result = match name {
            "message" => write!(self.writer, "{space}{value}"),
            _ => write!(self.writer, "{space}{name}={value}"),
        };
    }
}

/// A value whose control characters are escaped.
struct OneLine<'a>(&'a dyn fmt::Debug);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::write(&mut Escaping(f), format_args!("{:?}", self.0))
    }
}

struct Escaping<'a, 'f>(&'a mut fmt::Formatter<'f>);

impl fmt::Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|character| self.write_char(character))
    }

    fn write_char(&mut self, character: char) -> fmt::Result {
        // The line separators of Unicode too, at which some viewers of logs begin a line.
        match character {
            '\u{2028}' | '\u{2029}' => write!(self.0, "{}", character.escape_unicode()),
            _ if character.is_control() => write!(self.0, "{}", character.escape_default()),
            _ => fmt::Write::write_char(self.0, character),
        }
    }
}
