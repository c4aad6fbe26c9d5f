//! The codec, for fuzzers and property tests only: it may change in any release.

use crate::protocol::decode::Decoder;
use crate::protocol::encode;
pub use crate::protocol::reply::{ErrorReply, Reply};
use crate::protocol::steps::Encoded;

/// Reads replies as a connection does.
#[derive(Debug)]
pub struct Replies(Decoder);

impl Replies {
    /// `longest` string and `limit` of one reply's memory, in bytes.
    pub fn new(longest: usize, limit: usize) -> Self {
        Self(Decoder::with_limit(longest, limit))
    }

    /// Takes what one read brought, appends the replies that it completes, or says what is wrong.
    pub fn read(&mut self, mut bytes: &[u8], replies: &mut Vec<Reply>) -> Result<(), &'static str> {
        while !bytes.is_empty() {
            let buffer = self.0.buffer();
            let room = (buffer.capacity() - buffer.len()).min(bytes.len());
            let (now, later) = bytes.split_at(room);
            buffer.extend_from_slice(now);
            bytes = later;
            while let Some(reply) = self.0.next().map_err(|broken| broken.0)? {
                replies.push(reply);
            }
        }
        Ok(())
    }

    /// Whether a reply has begun and not ended.
    pub fn is_midway(&self) -> bool {
        self.0.is_midway()
    }
}

/// A command as it is sent.
pub fn encode(args: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    encode::encode(&mut out, args);
    out
}

/// A step as the command that runs its script from its text.
pub fn step(key: &[u8], step: &derp_kv_core::Step) -> derp_kv_core::Result<Vec<Vec<u8>>> {
    let encoded = Encoded::new(step)?;
    let args = encoded.args();
    Ok(encoded.script.by_text(key, &args).into_iter().map(<[u8]>::to_vec).collect())
}
