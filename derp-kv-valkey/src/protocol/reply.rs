//! What a server answered.

use bytes::Bytes;

/// A server's answer: the types of RESP3.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Reply {
    /// No value.
    Nil,
    /// The status `OK`.
    Okay,
    /// An integer.
    Int(i64),
    /// A floating point number, which may be infinite or not a number.
    Double(f64),
    /// True or false.
    Boolean(bool),
    /// A status other than `OK`.
    SimpleString(String),
    /// Any bytes: how keys and values arrive.
    BulkString(Bytes),
    /// An integer of any size, in decimal digits.
    BigNumber(String),
    /// Text that is meant to be shown as it is.
    VerbatimString {
        /// `txt` is plain text, `mkd` Markdown.
        format: String,
        /// The text itself.
        text: String,
    },
    /// Several answers; also a set, whose order means nothing.
    Array(Vec<Reply>),
    /// Pairs of a field and its value, in the server's order.
    Map(Vec<(Reply, Reply)>),
    /// What the server sent without having been asked.
    Push {
        /// For example `invalidate` or `message`.
        kind: String,
        /// What follows the kind.
        data: Vec<Reply>,
    },
    /// A refusal.
    ServerError(ErrorReply),
}

/// An error that a server answered: `CODE details`.
///
/// Servers may quote arguments in the details, so they do not belong into a log as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorReply {
    line: String,
}

impl ErrorReply {
    pub(crate) fn new(line: String) -> Self {
        Self { line }
    }

    /// The first word, for example `ERR` or `MOVED`.
    pub fn code(&self) -> &str {
        self.line.split_once(' ').map_or(&self.line, |(code, _)| code)
    }

    /// What follows the first word.
    pub fn details(&self) -> Option<&str> {
        self.line.split_once(' ').map(|(_, details)| details)
    }
}
