//! The log of the program, on its standard error: lines for people, or JSON for machines.

use std::fmt;
use std::io::{self, Write};
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

fn lines<S, W>(
    form: Form,
    to: impl Fn() -> W + Send + Sync + 'static,
) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: Write + 'static,
{
    match form {
        Form::Text => {
            let lines = layer().with_ansi(false).with_writer(to);
            lines.compact().fmt_fields(Plain).boxed()
        }
        Form::Json => {
            let lines = layer().with_writer(move || JsonLines(to()));
            lines.json().flatten_event(true).boxed()
        }
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
        if speaks(character) {
            return write!(self.0, "{}", character.escape_default());
        }
        fmt::Write::write_char(self.0, character)
    }
}

/// Whether the character does something to a terminal or to a reader of lines, Unicode's ends of lines
/// included.
fn speaks(character: char) -> bool {
    character.is_control() || matches!(character, '\u{2028}' | '\u{2029}')
}

/// Lines of JSON, in which those characters are escaped too that JSON leaves as they are.
struct JsonLines<W>(W);

impl<W: Write> Write for JsonLines<W> {
    /// A whole line, as it always comes.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let is_raw = |character: char| speaks(character) && character != '\n';
        match std::str::from_utf8(line) {
            Ok(text) if text.contains(is_raw) => {
                // They stand inside of strings: nowhere else does JSON have them.
                let escaped = text.chars().fold(String::new(), |mut line, character| {
                    if is_raw(character) {
                        line += &format!("\\u{:04x}", u32::from(character));
                    } else {
                        line.push(character);
                    }
                    line
                });
                self.0.write_all(escaped.as_bytes())?;
                Ok(line.len())
            }
            _ => self.0.write(line),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::subscriber::with_default;
    use tracing::{info, info_span};

    use super::*;

    #[derive(Clone, Debug, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written while `work` runs on this thread.
    fn written(form: Form, work: impl FnOnce()) -> String {
        let buffer = Buffer::default();
        let to = buffer.clone();
        let log = tracing_subscriber::registry().with(lines(form, move || to.clone()));
        with_default(log, work);
        let bytes = buffer.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn no_value_ends_a_line_or_speaks_to_a_terminal() {
        let hostile = "a\nb\r\u{1b}[31m\u{85}\u{2028}\0\t\u{9b}";
        for form in [Form::Text, Form::Json] {
            let text = written(form, || {
                let span = info_span!("request", of = hostile, shown = %hostile);
                let _in_span = span.enter();
                info!(string = hostile, display = %hostile, debug = ?hostile, "message {hostile}");
                info!("{hostile}");
            });
            let lines: Vec<_> = text.split('\n').collect();
            assert!(lines.len() == 3 && lines[2].is_empty(), "{text:?}");
            assert!(!text.contains(|c| speaks(c) && c != '\n'), "{text:?}");
            if form == Form::Json {
                let first: serde_json::Value = serde_json::from_str(lines[0]).unwrap();
                assert_eq!(first["string"], hostile);
            }
        }
    }

    #[test]
    fn text_leaves_out_what_only_open_telemetry_reads() {
        let text = written(Form::Text, || {
            let span = info_span!("request", otel.kind = "server", route = "/orders");
            span.in_scope(|| info!(otel.name = "x", status = 201, "answered"));
        });
        let line = text.split_once(' ').unwrap().1.trim_start();
        let target = module_path!();
        let expected = format!("INFO request: {target}: answered status=201 route=\"/orders\"\n");
        assert_eq!(line, expected);
    }

    #[test]
    fn a_panic_is_a_line_that_shows_no_value() {
        let secret = "hunter2";
        let text = written(Form::Text, || {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(panicked));
            let made = std::panic::catch_unwind(|| panic!("no such user: {secret}"));
            let fixed = std::panic::catch_unwind(|| panic!("there is a user"));
            std::panic::set_hook(before);
            assert!(made.is_err() && fixed.is_err());
        });
        let [made, fixed] = &text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
        assert!(made.contains("ERROR") && made.contains("a thread panicked at="), "{made}");
        assert!(made.contains(file!()) && !made.contains(secret), "{made}");
        assert!(fixed.contains("text=\"there is a user\""), "{fixed}");
    }
}
