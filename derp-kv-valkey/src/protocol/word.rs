//! Whether a text can be shown: what a caller or a script has put in the place of a word cannot.

/// The longest word that is taken for a command's name or an error's code.
const LONGEST: usize = 32;

/// The bytes as a word of ASCII letters, which commands and error codes are.
pub(crate) fn word(bytes: &[u8]) -> Option<&str> {
    let is_word = (1..=LONGEST).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_alphabetic);
    std::str::from_utf8(bytes).ok().filter(|_| is_word)
}
