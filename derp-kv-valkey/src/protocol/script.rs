//! The atomic scripts, each on one key.

use std::sync::LazyLock;

use crate::protocol::Args;

/// A script and its digest.
pub(crate) struct Script {
    #[cfg_attr(not(feature = "tracing"), expect(dead_code, reason = "spans show it"))]
    pub(crate) name: &'static str,
    text: &'static str,
    hashed: redis::Script,
}

macro_rules! scripts {
    ($($place:ident = $name:literal;)*) => {$(
        pub(crate) static $place: LazyLock<Script> = LazyLock::new(|| {
            Script::new($name, include_str!(concat!("scripts/", $name, ".lua")))
        });
    )*};
}

scripts! {
    GET_WITH_TTL = "get_with_ttl";
    INCR = "incr";
    COMPARE_AND_SET = "compare_and_set";
    COMPARE_AND_DELETE = "compare_and_delete";
    SMOOTH = "smooth";
    STRICT = "strict";
}

impl Script {
    fn new(name: &'static str, text: &'static str) -> Self {
        Self { name, text, hashed: redis::Script::new(text) }
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
