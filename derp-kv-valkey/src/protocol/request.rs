//! One call: what is sent, and whether it may be sent twice.

use std::borrow::Cow;

use derp_kv_core::Operation;

use crate::protocol::Args;
use crate::protocol::encode::{encode, encoded_len};
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
    Command(Args<'a>),
    /// A script, and the command that some servers have instead.
    Script {
        script: &'a Script,
        args: Args<'a>,
        native: Option<(Native, Args<'a>)>,
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
    pub(crate) fn in_form(&self, form: Form) -> Cow<'_, [&'a [u8]]> {
        match &self.body {
            Body::Command(args) => Cow::Borrowed(*args),
            Body::Script { script, args, native } => match (form, native) {
                (Form::Native(_), Some((_, args))) => Cow::Borrowed(*args),
                (Form::Text, _) => Cow::Owned(script.by_text(self.key, args)),
                _ => Cow::Owned(script.by_digest(self.key, args)),
            },
        }
    }

    pub(crate) fn read(operation: Operation, key: &'a [u8], args: Args<'a>) -> Self {
        Self { operation, safety: Safety::Retry, key, body: Body::Command(args) }
    }

    pub(crate) fn write(operation: Operation, key: &'a [u8], args: Args<'a>) -> Self {
        Self { operation, safety: Safety::Once, key, body: Body::Command(args) }
    }

    /// A script that writes, and the command that some servers have instead.
    pub(crate) fn script(
        operation: Operation,
        key: &'a [u8],
        script: &'a Script,
        args: Args<'a>,
        native: Option<(Native, Args<'a>)>,
    ) -> Self {
        let body = Body::Script { script, args, native };
        Self { operation, safety: Safety::Once, key, body }
    }
}

/// What is written to a connection at a time.
pub(crate) enum Payload<'a> {
    Command(Args<'a>),
    /// A command that follows an `ASK` redirect, answered by two replies.
    Asking(Args<'a>),
    /// Commands that are encoded already, each answered by a reply.
    Packed {
        bytes: Vec<u8>,
        replies: usize,
    },
}

const ASKING: Args<'static> = &[b"ASKING"];

impl Payload<'_> {
    /// Bytes.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Command(args) => encoded_len(args),
            Self::Asking(args) => encoded_len(ASKING) + encoded_len(args),
            Self::Packed { bytes, .. } => bytes.len(),
        }
    }

    pub(crate) fn replies(&self) -> usize {
        match self {
            Self::Command(_) => 1,
            Self::Asking(_) => 2,
            Self::Packed { replies, .. } => *replies,
        }
    }

    /// The same, encoded by now where it is longer than `size`.
    pub(crate) fn packed_if_over(self, size: usize) -> Self {
        if matches!(self, Self::Packed { .. }) || self.len() <= size {
            return self;
        }
        let (mut bytes, replies) = (Vec::with_capacity(self.len()), self.replies());
        self.append_to(&mut bytes);
        Self::Packed { bytes, replies }
    }

    pub(crate) fn append_to(self, out: &mut Vec<u8>) {
        match self {
            Self::Command(args) => encode(out, args),
            Self::Asking(args) => {
                encode(out, ASKING);
                encode(out, args);
            }
            Self::Packed { bytes, .. } if out.is_empty() => *out = bytes,
            Self::Packed { bytes, .. } => out.extend_from_slice(&bytes),
        }
    }
}
