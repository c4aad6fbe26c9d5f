//! The log of the program, on its standard error: lines for people, or JSON for machines.

mod one_line;
mod panics;
mod plain;

use std::io::Write;
use std::str::FromStr;

use tracing::{Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use one_line::JsonLines;
use panics::Noted;
use plain::Plain;

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

/// Sends every event of the process that `filter` lets pass to standard error, and panics too: one that
/// cannot be an event of the log is a plain line with its place. `also` hears of all spans of INFO and above.
///
/// The process has no other hook for panics then, for the one that there was may show the panic's text, which
/// may hold a value.
///
/// It is for the program's first lines, and does nothing where somebody has set up a log before.
pub fn init(form: Form, filter: Targets, also: Also) {
    let shows_panics = filter.would_enable(panics::TARGET, &Level::ERROR);
    // It must be on the registry itself, whose type it names.
    let log = tracing_subscriber::registry().with(also);
    let log = log.with(lines(form, std::io::stderr).with_filter(filter));
    if log.try_init().is_ok() {
        std::panic::set_hook(Box::new(move |info| {
            panics::panicked(info, shows_panics, std::io::stderr());
        }));
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
    // An error of its own would be told on standard error, by what panics where that is closed.
    let lines = layer().log_internal_errors(false);
    match form {
        Form::Text => {
            let lines = lines.with_ansi(false).with_writer(to);
            lines.compact().fmt_fields(Plain).map_event_format(Noted).boxed()
        }
        Form::Json => {
            let lines = lines.with_writer(move || JsonLines(to()));
            lines.json().flatten_event(true).map_event_format(Noted).boxed()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing::subscriber::with_default;
    use tracing::{info, info_span};

    use super::one_line::speaks;
    use super::*;

    #[derive(Clone, Debug, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Buffer {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

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
        buffer.text()
    }

    /// The line of text without its time.
    fn line(work: impl FnOnce()) -> String {
        let text = written(Form::Text, work);
        text.split_once(' ').unwrap().1.trim_start().to_owned()
    }

    #[test]
    fn no_value_ends_a_line_or_speaks_to_a_terminal() {
        let turns = "\u{61c}\u{200e}\u{200f}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\
                     \u{2066}\u{2067}\u{2068}\u{2069}";
        let hostile = &format!("a\nb\r\u{1b}[31m\u{85}\u{2028}\0\t\u{9b}{turns}");
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
            assert!(!text.contains(|c| turns.contains(c)), "{text:?}");
            if form == Form::Json {
                let first: serde_json::Value = serde_json::from_str(lines[0]).unwrap();
                assert_eq!(first["string"], **hostile);
            }
        }
    }

    #[test]
    fn no_value_is_taken_for_another_field() {
        let target = module_path!();
        let line = line(|| {
            let span = info_span!("request", of = %"a b=1");
            let forged = "x status=200";
            let closes = "x\" status=\"200";
            let _in_span = span.enter();
            info!(a = forged, b = %forged, c = closes, d = %closes, e = %"", f = %"10.0.0.7:80", "said");
            info!(g = ?forged, h = ?closes, i = ?[1, 2], j = ?Some(7), k = 1.5, l = true, "said");
        });
        let (first, second) = line.trim_end().split_once('\n').unwrap();
        let expected = format!(
            r#"INFO request: {target}: said a="x status=200" b="x status=200" c="x\" status=\"200" d="x\" status=\"200" e="" f=10.0.0.7:80 of="a b=1""#
        );
        assert_eq!(first, expected);
        let expected = format!(
            r#"INFO request: {target}: said g="x status=200" h="x\" status=\"200" i="[1, 2]" j=Some(7) k=1.5 l=true of="a b=1""#
        );
        assert_eq!(second.split_once(' ').unwrap().1.trim_start(), expected);
    }

    #[test]
    fn text_leaves_out_what_only_open_telemetry_reads() {
        let line = line(|| {
            let span = info_span!("request", otel.kind = "server", route = "/orders");
            span.in_scope(|| info!(otel.name = "x", status = 201, "answered"));
        });
        let target = module_path!();
        let expected = format!("INFO request: {target}: answered status=201 route=\"/orders\"\n");
        assert_eq!(line, expected);
    }

    /// A value that cannot be written.
    struct Panics;

    impl fmt::Debug for Panics {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            panic!("a value that cannot be written");
        }
    }

    /// All in one, for the hook is the whole process's.
    #[test]
    fn a_panic_is_a_line_that_shows_no_value() {
        let (secret, plain, is_shown) = ("hunter2", Buffer::default(), Arc::new(Mutex::new(true)));
        let text = written(Form::Text, || {
            let before = std::panic::take_hook();
            let (to, shown) = (plain.clone(), is_shown.clone());
            std::panic::set_hook(Box::new(move |info| {
                panics::panicked(info, *shown.lock().unwrap(), to.clone());
            }));
            let made = std::panic::catch_unwind(|| panic!("no such user: {secret}"));
            let fixed = std::panic::catch_unwind(|| panic!("there is a user"));
            // What is in the middle of a line of the log is none itself.
            let inside = std::panic::catch_unwind(|| info!(value = ?Panics, "never written"));
            let after = std::panic::catch_unwind(|| panic!("after it"));
            *is_shown.lock().unwrap() = false;
            let hidden = std::panic::catch_unwind(|| panic!("no such user: {secret}"));
            std::panic::set_hook(before);
            assert!([made, fixed, inside, after, hidden].iter().all(Result::is_err));
        });
        let [made, fixed, after] = &text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
        assert!(made.contains("ERROR") && made.contains("a thread panicked at="), "{made}");
        assert!(made.contains(file!()) && !made.contains(secret), "{made}");
        assert!(fixed.contains("text=\"there is a user\""), "{fixed}");
        assert!(after.contains("text=\"after it\""), "{after}");
        let plain = plain.text();
        let [inside, hidden] = &plain.lines().collect::<Vec<_>>()[..] else { panic!("{plain}") };
        for line in [inside, hidden] {
            assert!(line.starts_with(&format!("a thread panicked at {}:", file!())), "{line}");
            assert!(!line.contains(secret) && !line.contains("cannot be written"), "{line}");
        }
    }
}
