//! One call: what is sent, and whether it may be sent twice.

use std::borrow::Cow;

use derp_kv_core::Operation;
use redis::Cmd;

use crate::protocol::script::Script;

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
    pub(crate) operation: Operation,
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

/// How a request is put to a server.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Form {
    /// The command that every server has.
    Plain,
    Native(Native),
    /// The script, from the server's cache.
    Digest,
    /// The script with its text.
    Text,
}

impl<'a> Request<'a> {
    pub(crate) fn in_form(&self, form: Form) -> Cow<'_, Cmd> {
        match &self.body {
            Body::Command(cmd) => Cow::Borrowed(cmd),
            Body::Script { script, args, native } => match (form, native) {
                (Form::Native(_), Some((_, cmd))) => Cow::Borrowed(cmd),
                (Form::Text, _) => Cow::Owned(script.by_text(self.key, args)),
                _ => Cow::Owned(script.by_digest(self.key, args)),
            },
        }
    }

    pub(crate) fn read(operation: Operation, key: &'a [u8], cmd: Cmd) -> Self {
        Self { operation, safety: Safety::Retry, key, body: Body::Command(cmd) }
    }

    pub(crate) fn write(operation: Operation, key: &'a [u8], cmd: Cmd) -> Self {
        Self { operation, safety: Safety::Once, key, body: Body::Command(cmd) }
    }

    /// A script that writes, and the command that some servers have instead.
    pub(crate) fn script(
        operation: Operation,
        key: &'a [u8],
        script: &'a Script,
        args: &'a [&'a [u8]],
        native: Option<(Native, Cmd)>,
    ) -> Self {
        let body = Body::Script { script, args, native };
        Self { operation, safety: Safety::Once, key, body }
    }
}
