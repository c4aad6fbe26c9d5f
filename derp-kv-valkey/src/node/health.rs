//! Whether a connection is well.

use std::time::{Duration, Instant};

use crate::node::connection::{Connection, Sent};
use crate::node::queue::Traffic;
use crate::protocol::reply::Reply;

/// How long a connection may be silent at most before it is doubted, however often it was only slow.
const LONGEST_TRUST: Duration = Duration::from_secs(1);
/// After so long without a doubt, a link begins to trust its connection less again.
const CALM: Duration = Duration::from_secs(60);

/// For how long an answer may be due before the connection is doubted.
///
/// It grows with each doubt that was wrong, so that a server that is only slow is not met with ever
/// new connections.
#[derive(Clone, Copy)]
pub(super) struct Trust {
    least: Duration,
    now: Duration,
    doubted: Instant,
}

impl Trust {
    pub(super) fn in_answers_within(op_timeout: Duration) -> Self {
        // Twice per deadline and more: a dead connection is replaced in time for a retry.
        let least = (op_timeout / 4).clamp(Duration::from_millis(10), Duration::from_millis(500));
        Self { least, now: least, doubted: Instant::now() }
    }

    pub(super) fn grow(&mut self) {
        self.now = (self.now * 2).min(LONGEST_TRUST);
        self.doubted = Instant::now();
    }

    pub(super) fn patience(&mut self) -> Duration {
        if self.doubted.elapsed() >= CALM {
            self.now = (self.now / 2).max(self.least);
            self.doubted = Instant::now();
        }
        self.now
    }
}

/// Listens to a connection, and finds it silent where an answer is due and does not come.
pub(super) struct Ear {
    traffic: Traffic,
    heard: u64,
}

impl Ear {
    pub(super) fn to(connection: &Connection) -> Self {
        Self { traffic: connection.traffic(), heard: connection.heard() }
    }

    /// Compares with what there was to hear at the last call, one patience ago. Silent is a
    /// connection whose oldest request had left by then and has no answer, and one that does not
    /// even take requests. A request that takes long to leave is progress.
    pub(super) fn finds_silent(&mut self, connection: &Connection) -> bool {
        let before = std::mem::replace(self, Self::to(connection));
        let is_stuck = self.traffic.written == before.traffic.written;
        self.heard == before.heard
            && self.traffic.is_waiting
            && (is_stuck || (before.traffic.answer_due && self.traffic.answer_due))
    }
}

/// Asks for an echo, and checks it: an answer that belongs to another request shows that the
/// stream is out of step, which nothing but a new connection cures.
pub(super) async fn probe(connection: &Connection) -> bool {
    let nonce = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0_u8).to_string();
    // For as long as the connection is in doubt: whoever asks decides how long that is.
    let until = Instant::now() + Duration::from_secs(3600);
    match connection.control(&[b"PING", nonce.as_bytes()], until).await {
        Sent::Reply(Reply::BulkString(echo)) => echo == nonce.as_bytes(),
        // A refusal is a sign of life as well.
        Sent::Reply(Reply::ServerError(_)) => true,
        _ => false,
    }
}
