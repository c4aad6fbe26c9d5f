//! The requests of one connection, and how much of each has left.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::node::transport::Direct;
use crate::protocol::reply::Reply;
use crate::protocol::request::{Payload, Safety};

/// What became of a request.
#[derive(Debug)]
pub(crate) enum Sent<T = Reply> {
    /// The server answered; an error reply is an answer too.
    Reply(T),
    /// Not a byte of it left, and none will.
    Unsent,
    /// The connection ended first: the server may have executed it.
    Lost,
    /// Its deadline passed. It had left, at least in part: the server may execute it.
    Expired,
    /// Its answer makes no sense, so that the connection had to end.
    Broken(&'static str),
}

/// The largest buffer that is kept for what is written next.
pub(super) const KEPT: usize = 64 * 1024;

impl<T> Sent<T> {
    /// The same with another form of the answer.
    pub(crate) fn map<U>(self, form: impl FnOnce(T) -> U) -> Sent<U> {
        match self {
            Self::Reply(reply) => Sent::Reply(form(reply)),
            Self::Unsent => Sent::Unsent,
            Self::Lost => Sent::Lost,
            Self::Expired => Sent::Expired,
            Self::Broken(reason) => Sent::Broken(reason),
        }
    }
}

/// Requests in the order in which they are written, which is the order of their answers.
///
/// Each request is a span of the stream of bytes that the connection writes. Where its bytes are is
/// its state, and the only thing that decides whether the server may have executed it:
///
/// ```text
///    answered | written, answer due | partly written | held by the writer | queued in `out`
///   ----------+---------------------+-------+--------+--------------------+----------------> bytes
///                                        written                         held           end
/// ```
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Where a caller that is alone writes by itself.
    direct: Option<Direct>,
    /// The bytes from `held` on.
    out: Vec<u8>,
    requests: VecDeque<Request>,
    /// So many bytes have been taken by the socket.
    written: u64,
    /// So many bytes have been given to who writes, and cannot be taken back.
    held: u64,
    /// So many bytes have been queued.
    end: u64,
    /// The I/O thread looks at the deadlines at this time by itself.
    alarm: Option<Instant>,
    /// There is a deadline before that.
    early: bool,
    /// The I/O thread has been told that there is something to write.
    told: bool,
    /// The next request is one whose round trip is measured: to read the clock for each would cost
    /// every caller.
    measures_next: bool,
    round_trip: Option<Duration>,
    has_ended: bool,
}

#[derive(Debug)]
struct Request {
    /// `None` once the caller has been told that the deadline passed.
    caller: Option<oneshot::Sender<Sent>>,
    safety: Safety,
    start: u64,
    end: u64,
    deadline: Instant,
    /// When it was queued, where its round trip is measured.
    measured: Option<Instant>,
    /// How many permits it holds.
    cost: usize,
    answers: Answers,
}

/// What a request is answered with.
#[derive(Debug)]
enum Answers {
    One,
    /// So many replies, given to the caller as an array.
    Several(usize, Vec<Reply>),
}

/// A request that has got its answer.
pub(super) struct Answered {
    caller: Option<oneshot::Sender<Sent>>,
    reply: Reply,
    pub(super) cost: usize,
}

impl Answered {
    pub(super) fn hand_out(self) {
        if let Some(caller) = self.caller {
            // A caller that has gone away does not want it.
            let _ = caller.send(Sent::Reply(self.reply));
        }
    }
}

/// The traffic of a connection, for whoever judges its health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) written: u64,
    /// There are requests without an answer.
    pub(crate) is_waiting: bool,
    /// The oldest of them has left as a whole.
    pub(crate) answer_due: bool,
}

/// What follows from queueing a request.
pub(super) struct Queued {
    pub(super) answer: oneshot::Receiver<Sent>,
    /// The I/O thread must be woken, to write or to keep the deadline.
    pub(super) wake: bool,
}

impl Queue {
    pub(super) fn new(direct: Option<Direct>) -> Self {
        Self { direct, measures_next: true, ..Self::default() }
    }

    /// Appends a request; `None` when the connection has ended. One that finds the connection idle
    /// is written at once, as far as the socket takes it.
    pub(super) fn push(
        &mut self,
        payload: Payload<'_>,
        safety: Safety,
        cost: usize,
        deadline: Instant,
    ) -> Option<Queued> {
        if self.has_ended {
            return None;
        }
        let is_idle = self.requests.is_empty() && self.written == self.end;
        let replies = payload.replies();
        payload.append_to(&mut self.out);
        let start = self.end;
        self.end = self.held + self.out.len() as u64;
        let (sender, answer) = oneshot::channel();
        let answers = match replies {
            1 => Answers::One,
            count => Answers::Several(count, Vec::with_capacity(count)),
        };
        let caller = Some(sender);
        // What keeps the link alive costs no permit, and is no caller's.
        let is_measured = cost > 0 && std::mem::take(&mut self.measures_next);
        let measured = is_measured.then(Instant::now);
        let end = self.end;
        let request = Request { caller, safety, start, end, deadline, measured, cost, answers };
        self.requests.push_back(request);
        if is_idle
            && self.out.len() <= KEPT
            && let Some(direct) = &self.direct
        {
            // A failure is left to the I/O thread, which meets it as well.
            let count = direct.try_write(&self.out).unwrap_or(0);
            self.out.drain(..count);
            self.held += count as u64;
            self.written += count as u64;
        }
        let early = self.alarm.is_none_or(|alarm| alarm > deadline) && !self.early;
        let unwritten = !self.out.is_empty() && !self.told;
        self.early |= early;
        self.told |= unwritten;
        Some(Queued { answer, wake: early || unwritten })
    }

    /// Whether the I/O thread has to look at the deadlines anew.
    pub(super) fn take_early(&mut self) -> bool {
        std::mem::take(&mut self.early)
    }

    /// Gives what is queued to the writer, whose buffer must be empty.
    pub(super) fn take_out(&mut self, buffer: &mut Vec<u8>) {
        self.told = false;
        std::mem::swap(&mut self.out, buffer);
        self.held = self.end;
    }

    pub(super) fn wrote(&mut self, count: usize) {
        self.written += count as u64;
    }

    /// Nobody knows how much of what the writer holds has left.
    pub(super) fn wrote_in_part(&mut self) {
        self.written = self.held;
    }

    /// Matches a reply to the request that it belongs to, and gives that back once it is whole.
    /// `Err`: it belongs to none.
    pub(super) fn answer(&mut self, reply: Reply) -> Result<Option<Answered>, ()> {
        let Some(request) = self.requests.front_mut() else { return Err(()) };
        if request.start >= self.written {
            return Err(());
        }
        let reply = match &mut request.answers {
            Answers::One => reply,
            Answers::Several(count, replies) => {
                replies.push(reply);
                if replies.len() < *count {
                    return Ok(None);
                }
                Reply::Array(std::mem::take(replies))
            }
        };
        let Some(request) = self.requests.pop_front() else { return Err(()) };
        if let Some(queued) = request.measured {
            self.measure(queued.elapsed());
        }
        Ok(Some(Answered { caller: request.caller, reply, cost: request.cost }))
    }

    /// As TCP smooths its own: each counts for an eighth.
    fn measure(&mut self, took: Duration) {
        self.round_trip = Some(self.round_trip.map_or(took, |so_far| so_far * 7 / 8 + took / 8));
    }

    /// Measures the round trip of the next request.
    pub(super) fn measure_next(&mut self) {
        self.measures_next = true;
    }

    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// How many requests have no answer.
    pub(super) fn in_flight(&self) -> usize {
        self.requests.len()
    }

    /// Tells the callers whose deadline has passed, takes their requests back where nothing of
    /// them has left, and says when to look again. `writing` is the writer's buffer, and how much
    /// of it has left. The permits of what was taken back are added to `freed`.
    pub(super) fn expire(
        &mut self,
        now: Instant,
        (writing, left): (&mut Vec<u8>, usize),
        freed: &mut usize,
    ) -> Option<Instant> {
        let is_unsent = |request: &Request, written| request.start >= written;
        if self.requests.iter().any(|r| r.deadline <= now && is_unsent(r, self.written)) {
            self.take_back(now, writing, left, freed);
        }
        self.alarm = None;
        for request in &mut self.requests {
            if request.deadline > now {
                let deadline = request.deadline;
                self.alarm = Some(self.alarm.map_or(deadline, |alarm| alarm.min(deadline)));
            } else if let Some(caller) = request.caller.take() {
                let _ = caller.send(Sent::Expired);
            }
        }
        self.alarm
    }

    /// Removes the requests of which nothing has left and whose deadline has passed, all in one
    /// pass: thousands may expire together.
    fn take_back(&mut self, now: Instant, writing: &mut Vec<u8>, left: usize, freed: &mut usize) {
        let (written, held) = (self.written, self.held);
        let mut kept_writing = Vec::with_capacity(writing.len() - left);
        let mut kept_out = Vec::with_capacity(self.out.len());
        let mut requests = VecDeque::with_capacity(self.requests.len());
        let mut keep = |from: u64, to: u64| {
            let length = (to - from) as usize;
            if from >= held {
                let offset = (from - held) as usize;
                kept_out.extend_from_slice(&self.out[offset..offset + length]);
            } else {
                let offset = left + (from - written) as usize;
                kept_writing.extend_from_slice(&writing[offset..offset + length]);
            }
        };
        // A request that was answered before all of it had left must leave as a whole all the same.
        let first = self.requests.front().map_or(self.end, |request| request.start);
        let mut end = first.max(written);
        keep(written, end);
        for mut request in std::mem::take(&mut self.requests) {
            if request.start >= written && request.deadline <= now {
                *freed += request.cost;
                if let Some(caller) = request.caller {
                    let _ = caller.send(Sent::Unsent);
                }
                continue;
            }
            if request.end > written {
                let start = request.start.max(written);
                keep(start, request.end);
                let length = request.end - start;
                request.start = end - (start - request.start);
                end += length;
                request.end = end;
            }
            requests.push_back(request);
        }
        self.held = written + kept_writing.len() as u64;
        self.end = end;
        self.requests = requests;
        self.out = kept_out;
        writing.truncate(left);
        writing.append(&mut kept_writing);
    }

    /// Tells the callers that only read, so that they can read elsewhere.
    pub(super) fn give_reads_back(&mut self) {
        for request in &mut self.requests {
            if request.safety == Safety::Retry
                && let Some(caller) = request.caller.take()
            {
                let _ = caller.send(Sent::Lost);
            }
        }
    }

    /// Nothing more is written or answered: tells every caller how far its request came. `broken`
    /// says what is wrong with the answer that could not be read, which the oldest request was due.
    pub(super) fn close(&mut self, mut broken: Option<&'static str>) {
        self.has_ended = true;
        self.direct = None;
        self.out = Vec::new();
        for request in std::mem::take(&mut self.requests) {
            let sent = match broken.take() {
                Some(reason) => Sent::Broken(reason),
                None if request.start >= self.written => Sent::Unsent,
                None => Sent::Lost,
            };
            if let Some(caller) = request.caller {
                let _ = caller.send(sent);
            }
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    pub(super) fn traffic(&self) -> Traffic {
        let oldest = self.requests.front();
        Traffic {
            written: self.written,
            is_waiting: oldest.is_some(),
            answer_due: oldest.is_some_and(|oldest| oldest.end <= self.written),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// A request of so many bytes, with so much time.
        Push(usize, u64),
        /// The writer takes what is queued, and so many bytes leave.
        Write(usize),
        Answer,
        /// So much time passes.
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..40_usize, 1..60_u64).prop_map(|(size, time)| Step::Push(size, time)),
            3 => (0..120_usize).prop_map(Step::Write),
            2 => Just(Step::Answer),
            1 => (1..20_u64).prop_map(Step::Pass),
        ]
    }

    proptest! {
        /// Whatever happens in whatever order: what has left is whole requests in the order in
        /// which they were queued, except for the last, and each caller is told what is so.
        #[test]
        fn each_caller_is_told_how_far_its_request_came(
            steps in prop::collection::vec(step(), 0..80),
        ) {
            let (mut queue, mut writing, mut left) = (Queue::new(None), Vec::new(), 0);
            let (mut wire, mut now) = (Vec::new(), Instant::now());
            let mut callers = Vec::new();
            for step in steps {
                match step {
                    Step::Push(size, time) => {
                        let body = format!("{:04}{}", callers.len(), "x".repeat(size));
                        let payload = Payload::Packed { bytes: body.clone().into(), replies: 1 };
                        let deadline = now + Duration::from_millis(time);
                        let queued = queue.push(payload, Safety::Once, 1, deadline).unwrap();
                        callers.push((body, queued.answer));
                    }
                    Step::Write(count) => {
                        if left == writing.len() {
                            writing.clear();
                            left = 0;
                            queue.take_out(&mut writing);
                        }
                        let count = count.min(writing.len() - left);
                        wire.extend_from_slice(&writing[left..left + count]);
                        left += count;
                        queue.wrote(count);
                    }
                    Step::Answer => {
                        if let Ok(Some(answered)) = queue.answer(Reply::Okay) {
                            answered.hand_out();
                        }
                    }
                    Step::Pass(millis) => {
                        now += Duration::from_millis(millis);
                        let mut freed = 0;
                        let next = queue.expire(now, (&mut writing, left), &mut freed);
                        prop_assert!(next.is_none_or(|next| next > now));
                    }
                }
            }
            queue.close(None);
            let mut expected = Vec::new();
            for (body, mut answer) in callers {
                let sent = answer.try_recv().expect("every caller is told");
                match sent {
                    Sent::Unsent => {}
                    Sent::Broken(_) => panic!("nothing was broken"),
                    Sent::Reply(_) | Sent::Lost | Sent::Expired => expected.extend(body.bytes()),
                }
            }
            prop_assert!(expected.starts_with(&wire), "a request that left was called unsent");
            prop_assert!(expected.len() - wire.len() < 44, "more than the last is not whole");
        }
    }
}
