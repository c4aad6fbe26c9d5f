//! Commands that the store has no method for.

use derp_kv_core::{Error, ErrorKind, Result};

use crate::protocol::Args;

/// Whether a command may be sent again when nobody knows whether the server has executed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Repeat {
    /// It only reads, or does the same when it is done twice: send it again.
    Safe,
    /// Send it once. A lost answer is an error with
    /// [`may_have_applied`](derp_kv_core::Error::may_have_applied).
    Once,
}

/// Commands after which a connection is another one for all who share it, or which keep them
/// waiting.
const FORBIDDEN: &[&str] = &[
    "ASKING",
    "AUTH",
    "BLMOVE",
    "BLMPOP",
    "BLPOP",
    "BRPOP",
    "BRPOPLPUSH",
    "BZMPOP",
    "BZPOPMAX",
    "BZPOPMIN",
    "CLIENT",
    "DISCARD",
    "EXEC",
    "HELLO",
    "MONITOR",
    "MULTI",
    "PSUBSCRIBE",
    "PSYNC",
    "PUNSUBSCRIBE",
    "QUIT",
    "READONLY",
    "READWRITE",
    "REPLCONF",
    "RESET",
    "SELECT",
    "SSUBSCRIBE",
    "SUBSCRIBE",
    "SUNSUBSCRIBE",
    "SYNC",
    "UNSUBSCRIBE",
    "UNWATCH",
    "WAIT",
    "WAITAOF",
    "WATCH",
];

/// Refuses what must not be sent over a shared connection.
pub(crate) fn check(args: Args<'_>) -> Result<()> {
    let Some((name, rest)) = args.split_first() else {
        return Err(Error::new(ErrorKind::InvalidArgument, "a command needs at least its name"));
    };
    let is = |word: &[u8], other: &str| word.eq_ignore_ascii_case(other.as_bytes());
    // The words of `GROUP name consumer` may be any.
    let named = if is(name, "XREADGROUP") { 3 } else { 0 };
    let options = rest.iter().skip(named).take_while(|word| !is(word, "STREAMS"));
    let blocks = (is(name, "XREAD") || is(name, "XREADGROUP"))
        && options.into_iter().any(|word| is(word, "BLOCK"));
    let debugs = is(name, "SCRIPT") && rest.first().is_some_and(|word| is(word, "DEBUG"));
    match FORBIDDEN.iter().find(|forbidden| is(name, forbidden)) {
        None if !blocks && !debugs => Ok(()),
        found => {
            let option = if debugs { &"SCRIPT DEBUG" } else { &"XREAD .. BLOCK" };
            let name = found.unwrap_or(option);
            let message = format!(
                "{name} changes or blocks the connection, which all callers share: use a client of its own for it"
            );
            Err(Error::new(ErrorKind::InvalidArgument, message))
        }
    }
}
