//! The atomic scripts, each on one key.

use std::sync::LazyLock;

use crate::protocol::Args;

/// A script and its digest.
pub(crate) struct Script {
    text: &'static str,
    hashed: redis::Script,
}

macro_rules! scripts {
    ($($name:ident = $file:literal;)*) => {$(
        pub(crate) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new(include_str!($file)));
    )*};
}

scripts! {
    GET_WITH_TTL = "scripts/get_with_ttl.lua";
    INCR = "scripts/incr.lua";
    COMPARE_AND_SET = "scripts/compare_and_set.lua";
    COMPARE_AND_DELETE = "scripts/compare_and_delete.lua";
    SMOOTH = "scripts/smooth.lua";
    STRICT = "scripts/strict.lua";
}

impl Script {
    fn new(text: &'static str) -> Self {
        Self { text, hashed: redis::Script::new(text) }
    }

    /// Runs it from the server's cache, where `NOSCRIPT` may come at any time.
    pub(crate) fn by_digest<'a>(&'a self, key: &'a [u8], args: Args<'a>) -> Vec<&'a [u8]> {
        call(b"EVALSHA", self.hashed.get_hash(), key, args)
    }

    /// Runs it from its text, and leaves it in the server's cache.
    pub(crate) fn by_text<'a>(&'a self, key: &'a [u8], args: Args<'a>) -> Vec<&'a [u8]> {
        call(b"EVAL", self.text, key, args)
    }
}

fn call<'a>(name: &'a [u8], body: &'a str, key: &'a [u8], args: Args<'a>) -> Vec<&'a [u8]> {
    [&[name, body.as_bytes(), b"1", key], args].concat()
}
