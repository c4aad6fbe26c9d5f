//! Panics in the log.

use std::cell::Cell;
use std::fmt;
use std::io::Write;
use std::panic::PanicHookInfo;

use tracing::{Event, Subscriber, error};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// What the log's filter calls the lines.
pub(super) const TARGET: &str = module_path!();

thread_local! {
    /// Whether this thread is in the middle of a line.
    static IN_A_LINE: Cell<bool> = const { Cell::new(false) };
}

/// Writes down a panic, with the text that the program gives it. A text that is made of values may show what
/// nobody must read, and is left out; the place says enough.
///
/// Where the log does not show it, or the panic came from the log itself, a plain line goes to `otherwise`.
pub(super) fn panicked(info: &PanicHookInfo<'_>, is_shown: bool, mut otherwise: impl Write) {
    let at = info.location().map(ToString::to_string);
    if is_shown && !IN_A_LINE.get() {
        let text = info.payload().downcast_ref::<&'static str>().copied();
        error!(target: TARGET, at, text, "a thread panicked");
        return;
    }
    let at = at.map_or(String::new(), |at| format!(" at {at}"));
    // Where this cannot be written either, there is nobody to tell.
    let _ = writeln!(otherwise, "a thread panicked{at}");
}

/// Writes lines, and notes when one is begun and ended.
#[derive(Debug)]
pub(super) struct Noted<E>(pub(super) E);

impl<S, N, E> FormatEvent<S, N> for Noted<E>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    E: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let _line = Line { before: IN_A_LINE.replace(true) };
        self.0.format_event(context, writer, event)
    }
}

/// A line that is begun. It ends also by a panic, whose hook has run by then.
struct Line {
    before: bool,
}

impl Drop for Line {
    fn drop(&mut self) {
        IN_A_LINE.set(self.before);
    }
}
