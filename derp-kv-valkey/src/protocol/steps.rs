//! The steps that the core knows, as scripts.

use std::time::Duration;

use bytes::Bytes;
use derp_kv_core::{
    Ask, Error, ErrorKind, Expiry, Operation, Result, SmoothStep, Step, Stepped, StrictStep,
};

use crate::protocol::reply::Reply;
use crate::protocol::request::{Body, Request, Safety};
use crate::protocol::script::{self, Script};
use crate::protocol::shape;

/// A step as its script takes it.
pub(crate) struct Encoded {
    pub(crate) script: &'static Script,
    ask: Ask,
    limits: Vec<u8>,
    nonce: [u8; 8],
}

impl Encoded {
    pub(crate) fn new(step: &Step) -> Result<Self> {
        let (script, ask, limits, nonce) = match step {
            Step::Smooth(step) => (&*script::SMOOTH, step.ask(), smooth(step), step.nonce()),
            Step::Strict(step) => (&*script::STRICT, step.ask(), strict(step), step.nonce()),
            _ => return Err(unknown()),
        };
        let script = match ask {
            Ask::Admit | Ask::Refund => script,
            Ask::Peek => &script::GET_WITH_TTL,
            _ => return Err(unknown()),
        };
        Ok(Self { script, ask, limits, nonce })
    }

    pub(crate) fn args(&self) -> Vec<&[u8]> {
        let args: [&[u8]; 3] = [&self.limits, &self.nonce, b"refund"];
        let count = match self.ask {
            Ask::Admit => 2,
            Ask::Refund => 3,
            _ => 0,
        };
        args[..count].to_vec()
    }

    pub(crate) fn request<'a>(&self, key: &'a [u8], args: &'a [&'a [u8]]) -> Request<'a> {
        let safety = if self.ask == Ask::Peek { Safety::Retry } else { Safety::Once };
        let body = Body::Script { script: self.script, args, native: None };
        Request { operation: Operation::Step, safety, key, body }
    }

    /// What the step came to by what the script saw. A key that holds something else is an error of
    /// the step, inside of an answer that makes sense: the script has left it alone.
    pub(crate) fn read(&self, step: &Step, reply: Reply) -> Result<Result<Stepped>> {
        let (seen, made) = match &reply {
            Reply::Nil if self.ask == Ask::Peek => (None, None),
            Reply::Array(parts) => match &parts[..] {
                [value, Reply::Int(pttl)] if self.ask == Ask::Peek => (seen(value, *pttl)?, None),
                [value, Reply::Int(pttl), Reply::Int(made @ (0 | 1))] if self.ask != Ask::Peek => {
                    (seen(value, *pttl)?, Some(*made == 1))
                }
                _ => return Err(shape::unexpected()),
            },
            _ => return Err(shape::unexpected()),
        };
        let stepped = step.apply(seen.map(|(value, expiry)| (&value[..], expiry)));
        let admitted = stepped.as_ref().is_ok_and(|(_, stepped)| stepped.admitted());
        if made.is_some_and(|made| made != admitted) {
            return Err(shape::unexpected());
        }
        Ok(stepped.map(|(_, stepped)| stepped))
    }
}

/// What is left is the clock of a step: in its last millisecond a key has 0 left, and not 1.
fn seen(value: &Reply, pttl: i64) -> Result<Option<(&Bytes, Expiry)>> {
    match (value, pttl) {
        (Reply::Nil, -2) => Ok(None),
        (Reply::BulkString(value), -1) => Ok(Some((value, Expiry::Never))),
        (Reply::BulkString(value), 0..) => {
            Ok(Some((value, Expiry::In(Duration::from_millis(pttl.unsigned_abs())))))
        }
        _ => Err(shape::unexpected()),
    }
}

fn smooth(step: &SmoothStep) -> Vec<u8> {
    let mut limits = Vec::with_capacity(18 * step.limits().len());
    for limit in step.limits() {
        for time in [limit.increment(), limit.tolerance()] {
            limits.extend(millis(time));
            limits.extend(&(time.subsec_nanos() % 1_000_000).to_be_bytes()[1..]);
        }
    }
    limits
}

fn strict(step: &StrictStep) -> Vec<u8> {
    let mut limits = Vec::with_capacity(20 * step.limits().len());
    for limit in step.limits() {
        limits.extend(limit.limit().to_be_bytes());
        limits.extend(limit.cost().to_be_bytes());
        limits.extend(millis(limit.window()));
        limits.extend(millis(limit.sub_window()));
    }
    limits
}

/// Whole milliseconds. A step counts nanoseconds in 64 bits: these need 45.
fn millis(time: Duration) -> [u8; 6] {
    let [.., a, b, c, d, e, f] = time.as_millis().to_be_bytes();
    [a, b, c, d, e, f]
}

fn unknown() -> Error {
    Error::new(ErrorKind::Unsupported, "this version of the store does not know such a step")
}
