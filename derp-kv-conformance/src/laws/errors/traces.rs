//! Finding a value, or a part of it, in what is printed.

use std::fmt::Write;

/// Bytes in a row of a value that nothing shows by chance.
const PART: usize = 6;

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// What gives a value away, in any of the notations that bytes are printed in.
pub(in crate::laws) struct Traces {
    /// Its text and its escapes, in lower case.
    texts: Vec<String>,
    hex: Vec<String>,
    base64: Vec<String>,
    numbers: Vec<Vec<u32>>,
}

impl Traces {
    pub(in crate::laws) fn of(value: &[u8]) -> Self {
        let parts = || value.windows(PART);
        let is_text = |part: &&[u8]| part.iter().all(u8::is_ascii_graphic);
        let lower = |part: &[u8]| part.escape_ascii().to_string().to_lowercase();
        let hex = parts().map(|part| {
            part.iter().fold(String::new(), |mut hex, byte| {
                // Writing to a string cannot fail.
                let _ = write!(hex, "{byte:02x}");
                hex
            })
        });
        // Of the three ways in which a part may lie in what is encoded.
        let encoded = (0..3).map(|skip| base64(&value[skip.min(value.len())..]));
        let base64 = encoded.flat_map(|text| {
            let parts = text.as_bytes().windows(8);
            parts
                .map(|part| part.iter().map(|byte| char::from(*byte)).collect())
                .collect::<Vec<_>>()
        });
        Self {
            texts: parts().filter(is_text).map(lower).collect(),
            hex: hex.collect(),
            base64: base64.collect(),
            numbers: parts()
                .map(|part| part.iter().map(|byte| u32::from(*byte)).collect())
                .collect(),
        }
    }

    /// Whether `printed` shows any part of the value.
    pub(in crate::laws) fn show_in(&self, printed: &str) -> bool {
        let lower = printed.to_lowercase();
        // Bytes in hex may have anything between them: `\x67\x68`, `0x67, 0x68`, `67 68`, `%67%68`.
        let lean = lower.replace("\\x", "").replace("0x", "").replace("\\u00", "");
        let lean: String = lean.chars().filter(char::is_ascii_alphanumeric).collect();
        let standard = printed.replace('-', "+").replace('_', "/");
        let digits = printed.split(|c: char| !c.is_ascii_digit()).filter(|run| !run.is_empty());
        let decimal: Vec<u32> = digits.clone().map(|run| run.parse().unwrap_or(u32::MAX)).collect();
        let octal: Vec<_> =
            digits.map(|run| u32::from_str_radix(run, 8).unwrap_or(u32::MAX)).collect();
        let shows = |numbers: &[u32]| {
            numbers.windows(PART).any(|run| self.numbers.iter().any(|part| part == run))
        };
        self.texts.iter().any(|part| lower.contains(part))
            || self.hex.iter().any(|part| lean.contains(part))
            || self.base64.iter().any(|part| standard.contains(part))
            || shows(&decimal)
            || shows(&octal)
    }
}

/// The whole characters of `bytes` in base64; what a byte more would change is left out.
fn base64(bytes: &[u8]) -> String {
    let groups = bytes.chunks_exact(3).flat_map(|group| {
        let bits = group.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        [18, 12, 6, 0].map(|shift| char::from(BASE64[bits >> shift & 63]))
    });
    groups.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"q7mzX4wkPv2hNt9ryJ6s";

    #[test]
    fn a_part_shows_in_every_notation() {
        let traces = Traces::of(SECRET);
        let part = &SECRET[9..17];
        let hex = part.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>();
        let octal = part.iter().map(|byte| format!("\\{byte:o}")).collect::<String>();
        let printed = [
            String::from_utf8_lossy(part).to_uppercase(),
            format!("{part:?}"),
            format!("{part:#?}"),
            format!("{part:02x?}"),
            format!("\\x{}", hex.join("\\x")),
            format!("0x{}", hex.join(", 0x")),
            hex.join(" "),
            octal,
        ];
        for printed in printed {
            let shown = format!("the value `{printed}…` is not an integer");
            assert!(traces.show_in(&shown), "{shown}");
        }
        for skip in 0..3 {
            let shown = format!("value: {}", base64(&SECRET[skip..]));
            assert!(traces.show_in(&shown), "{shown}");
        }
    }

    #[test]
    fn what_is_no_part_does_not_show() {
        let traces = Traces::of(SECRET);
        for printed in [
            "incr: not an integer: the value is not a decimal i64",
            "at 127.0.0.1:6379, 9223372036854775807 and 16 keys, [1, 2, 3, 4, 5, 6, 7]",
            "q7mzX",
            "",
        ] {
            assert!(!traces.show_in(printed), "{printed}");
        }
    }
}
