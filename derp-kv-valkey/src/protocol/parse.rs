//! How lines and strings of RESP3 are read, one at a time.

use super::reply::{ErrorReply, Reply};

/// What is wrong with the stream. Nothing after it can be understood: the connection must close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken(pub(crate) &'static str);

pub(super) const UNKNOWN_FORM: Broken = Broken("a reply of an unknown type or form");

/// Memory of one reply, in bytes.
#[derive(Debug)]
pub(super) struct Budget {
    limit: usize,
    /// What the unfinished reply has cost. Attributes are not refunded, so that they end as well.
    spent: usize,
}

impl Budget {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, spent: 0 }
    }

    /// A reply is complete.
    pub(super) fn reset(&mut self) {
        self.spent = 0;
    }

    #[cfg_attr(not(feature = "fuzzing"), allow(dead_code, reason = "fuzzers ask for it"))]
    pub(super) fn is_spent(&self) -> bool {
        self.spent > 0
    }

    pub(super) fn charge(&mut self, bytes: usize) -> Result<(), Broken> {
        self.spent = self.spent.saturating_add(bytes);
        if self.spent > self.limit { Err(Broken("a reply is too large")) } else { Ok(()) }
    }
}

/// A length or a count of elements: digits alone, and not more than the largest has.
pub(super) fn count(line: &[u8]) -> Result<usize, Broken> {
    let append = |number: usize, digit: &u8| {
        let digit = digit.is_ascii_digit().then(|| usize::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    };
    let plain = (1..=20).contains(&line.len());
    let number = if plain { line.iter().try_fold(0, append) } else { None };
    number.ok_or(Broken("a length is not a number"))
}

/// Text; what is not UTF-8 is replaced, and takes up to three times its length then.
fn lossy(bytes: &[u8], budget: &mut Budget) -> Result<String, Broken> {
    budget.charge(bytes.len().saturating_mul(3))?;
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

/// `=` or `!`.
pub(super) fn text(kind: u8, bytes: &[u8], budget: &mut Budget) -> Result<Reply, Broken> {
    if kind == b'!' {
        return Ok(Reply::ServerError(ErrorReply::new(lossy(bytes, budget)?)));
    }
    match bytes.split_at_checked(4) {
        Some(([format @ .., b':'], text)) => {
            Ok(Reply::VerbatimString { format: lossy(format, budget)?, text: lossy(text, budget)? })
        }
        _ => Err(Broken("a verbatim string without its format")),
    }
}

pub(super) fn scalar(kind: u8, line: &[u8], budget: &mut Budget) -> Result<Reply, Broken> {
    let ascii = || std::str::from_utf8(line).ok();
    let digits = || line.strip_prefix(b"-").or(line.strip_prefix(b"+")).unwrap_or(line);
    let reply = match kind {
        b'+' if line == b"OK" => Some(Reply::Okay),
        b'+' => Some(Reply::SimpleString(lossy(line, budget)?)),
        b'-' => Some(Reply::ServerError(ErrorReply::new(lossy(line, budget)?))),
        b':' => ascii().and_then(|line| line.parse().ok()).map(Reply::Int),
        b',' => ascii().and_then(|line| line.parse().ok()).map(Reply::Double),
        b'#' if line == b"t" => Some(Reply::Boolean(true)),
        b'#' if line == b"f" => Some(Reply::Boolean(false)),
        b'_' if line.is_empty() => Some(Reply::Nil),
        b'(' if !digits().is_empty() && digits().iter().all(u8::is_ascii_digit) => {
            Some(Reply::BigNumber(lossy(line, budget)?))
        }
        _ => None,
    };
    reply.ok_or(UNKNOWN_FORM)
}
