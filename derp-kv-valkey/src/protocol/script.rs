//! The atomic scripts, each on one key.

use std::sync::LazyLock;

use redis::Cmd;

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
}

impl Script {
    fn new(text: &'static str) -> Self {
        Self { text, hashed: redis::Script::new(text) }
    }

    /// Runs it from the server's cache, where `NOSCRIPT` may come at any time.
    pub(crate) fn by_digest(&self, key: &[u8], args: &[&[u8]]) -> Cmd {
        call("EVALSHA", self.hashed.get_hash(), key, args)
    }

    /// Runs it from its text, and leaves it in the server's cache.
    pub(crate) fn by_text(&self, key: &[u8], args: &[&[u8]]) -> Cmd {
        call("EVAL", self.text, key, args)
    }
}

fn call(name: &str, body: &str, key: &[u8], args: &[&[u8]]) -> Cmd {
    let bytes =
        name.len() + body.len() + key.len() + args.iter().map(|arg| arg.len()).sum::<usize>();
    let mut cmd = Cmd::with_capacity(4 + args.len(), bytes + 1);
    cmd.arg(name).arg(body).arg(1).arg(key);
    for arg in args {
        cmd.arg(*arg);
    }
    cmd
}
