//! Fields of lines for people.

use std::fmt;

use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

use super::one_line::{OneLine, speaks};

/// Fields as `name=value`, without those that only OpenTelemetry reads. A value that is no single word is
/// quoted, so that none looks like another field, and no character of any value can end the line or speak to
/// the terminal. The message is the program's own text and is not quoted.
#[derive(Debug)]
pub(super) struct Plain;

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

impl PlainFields<'_> {
    fn write(&mut self, field: &Field, value: fmt::Arguments<'_>) {
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

impl Visit for PlainFields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.write(field, format_args!("{value:?}"));
    }

    /// Everything else. A value that is only displayed comes here too, with any text whatever.
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            return self.write(field, format_args!("{value:?}"));
        }
        let text = format!("{value:?}");
        if is_word(&text) || is_quoted(&text) {
            self.write(field, format_args!("{text}"));
        } else {
            self.write(field, format_args!("{text:?}"));
        }
    }
}

fn is_word(text: &str) -> bool {
    let parts = |c: char| c.is_whitespace() || speaks(c) || matches!(c, '"' | '=');
    !text.is_empty() && !text.contains(parts)
}

/// Whether the text is in quotes, the last of which ends it.
fn is_quoted(text: &str) -> bool {
    let inside = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    inside.is_some_and(|inside| {
        let mut is_escaped = false;
        let closes = inside.chars().any(|character| {
            let closes = character == '"' && !is_escaped;
            is_escaped = character == '\\' && !is_escaped;
            closes
        });
        !closes && !is_escaped
    })
}
