//! Text that stays within its line.

use std::fmt::{self, Write as _};
use std::io::{self, Write};

/// Whether the character does something to a terminal or to a reader of lines: controls, Unicode's ends of
/// lines, and what changes the direction of the text after it.
pub(super) fn speaks(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

/// A text in which these characters are escaped.
pub(super) struct OneLine<'a>(pub(super) fmt::Arguments<'a>);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Escaping(f).write_fmt(self.0)
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

/// Lines of JSON, in which those characters are escaped too that JSON leaves as they are.
pub(super) struct JsonLines<W>(pub(super) W);

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
