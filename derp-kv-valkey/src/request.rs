//! One call: what is sent, and whether it may be sent twice.

use redis::Cmd;

use crate::script::Script;

/// What to do when nobody knows whether the server has executed a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Safety {
    /// It only reads: send it again.
    Retry,
    /// It writes, or its answer would change: report it.
    Once,
}

/// An optional command of newer servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Native {
    /// `SET .. IFEQ`, since Valkey 8.1.
    SetIfEq,
    /// `DELIFEQ`, since Valkey 9.0.
    DelIfEq,
}

pub(crate) struct Request<'a> {
    pub(crate) operation: &'static str,
    pub(crate) safety: Safety,
    pub(crate) key: &'a [u8],
    pub(crate) body: Body<'a>,
}

pub(crate) enum Body<'a> {
    Command(Cmd),
    /// A script, and the command that some servers have instead.
    Script {
        script: &'a Script,
        args: &'a [&'a [u8]],
        native: Option<(Native, Cmd)>,
    },
}

impl<'a> Request<'a> {
    pub(crate) fn read(operation: &'static str, key: &'a [u8], cmd: Cmd) -> Self {
        Self { operation, safety: Safety::Retry, key, body: Body::Command(cmd) }
    }

    pub(crate) fn write(operation: &'static str, key: &'a [u8], cmd: Cmd) -> Self {
        Self { operation, safety: Safety::Once, key, body: Body::Command(cmd) }
    }
}
