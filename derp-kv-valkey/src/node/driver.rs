//! The task that reads and writes one connection.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::task::AtomicWaker;
use tokio::sync::{Semaphore, watch};
use tokio::time::Sleep;

use crate::node::queue::{Answered, KEPT, Queue};
use crate::node::transport::Transport;
use crate::node::waiters::Waiters;
use crate::protocol::decode::Decoder;
use crate::protocol::reply::Reply;

/// What the callers of a connection share with its driver.
#[derive(Debug)]
pub(super) struct Shared {
    /// Held for as long as bytes are copied, never while anything is awaited.
    queue: Mutex<Queue>,
    /// Wakes the driver.
    pub(super) driver: AtomicWaker,
    /// Bounds the requests under way and their bytes, and with them the memory that a silent node
    /// can bind. A request's permits come back when its answer does, not when its caller leaves.
    pub(super) permits: Semaphore,
    pub(super) waiters: Waiters,
    /// Bytes that have come from the server.
    pub(super) heard: AtomicU64,
    pub(super) closed: watch::Sender<bool>,
}

impl Shared {
    pub(super) fn new(queue: Queue, permits: usize) -> Self {
        Self {
            queue: Mutex::new(queue),
            driver: AtomicWaker::new(),
            permits: Semaphore::new(permits),
            waiters: Waiters::default(),
            heard: AtomicU64::new(0),
            closed: watch::Sender::new(false),
        }
    }

    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn close(&self, broken: Option<&'static str>) {
        self.queue().close(broken);
        self.permits.close();
        self.waiters.wake_all();
        self.closed.send_replace(true);
    }
}

/// Writes what is queued, all of it in one system call where the socket takes it, reads the
/// answers, hands them out in order, and keeps the deadlines.
pub(super) struct Driver {
    shared: Arc<Shared>,
    transport: Transport,
    decoder: Decoder,
    /// What has been taken from the queue, and how much of it has left.
    writing: Vec<u8>,
    left: usize,
    is_flushed: bool,
    replies: Vec<Reply>,
    answered: Vec<Answered>,
    alarm: Pin<Box<Sleep>>,
    is_armed: bool,
    /// What is wrong with what the server has sent.
    broken: Option<&'static str>,
}

impl Driver {
    pub(super) fn new(
        shared: Arc<Shared>,
        transport: Transport,
        decoder: Decoder,
        alarm: Sleep,
    ) -> Self {
        Self {
            shared,
            transport,
            decoder,
            writing: Vec::new(),
            left: 0,
            is_flushed: true,
            replies: Vec::new(),
            answered: Vec::new(),
            alarm: Box::pin(alarm),
            is_armed: false,
            broken: None,
        }
    }

    /// Writes until nothing is queued or the socket takes no more.
    fn write(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        loop {
            if self.left == self.writing.len() {
                self.left = 0;
                self.writing.clear();
                if self.writing.capacity() > KEPT {
                    self.writing = Vec::new();
                }
                self.shared.queue().take_out(&mut self.writing);
                if self.writing.is_empty() {
                    break;
                }
            }
            match self.transport.poll_write(cx, &self.writing[self.left..]) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => {
                    self.is_flushed = false;
                    self.left += count;
                    self.shared.queue().wrote(count);
                }
                Poll::Ready(Err(error)) => {
                    // TLS sends record by record: the first may have left before another failed.
                    if self.transport.is_tls() {
                        self.shared.queue().wrote_in_part();
                    }
                    return Err(error);
                }
                Poll::Pending => break,
            }
        }
        if !self.is_flushed
            && let Poll::Ready(flushed) = self.transport.poll_flush(cx)
        {
            self.is_flushed = true;
            flushed?;
        }
        Ok(())
    }

    /// Reads what has come and hands it out; `false` when nothing more has come.
    fn read(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let Poll::Ready(count) = self.transport.poll_read(cx, self.decoder.buffer()) else {
            return Ok(false);
        };
        let count = count?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.shared.heard.fetch_add(count as u64, Ordering::Relaxed);
        self.broken = loop {
            match self.decoder.next() {
                Ok(Some(Reply::Push { kind, data })) => self.shared.waiters.push(&kind, &data),
                Ok(Some(reply)) => self.replies.push(reply),
                Ok(None) => break None,
                Err(broken) => break Some(broken.0),
            }
        };
        let unasked = self.hand_out();
        self.broken = self.broken.or(unasked);
        if self.broken.is_some() { Err(io::ErrorKind::InvalidData.into()) } else { Ok(true) }
    }

    /// Gives each reply to whom it belongs, or says what is wrong with them.
    fn hand_out(&mut self) -> Option<&'static str> {
        let mut unasked = None;
        {
            let mut queue = self.shared.queue();
            for reply in self.replies.drain(..) {
                match queue.answer(reply) {
                    Ok(answered) => self.answered.extend(answered),
                    Err(()) => unasked = Some("it answered what was not asked"),
                }
            }
        }
        // Callers are woken outside of the lock, which they want next.
        let mut freed = 0;
        for answered in self.answered.drain(..) {
            freed += answered.cost;
            answered.hand_out();
        }
        if freed > 0 {
            self.shared.permits.add_permits(freed);
        }
        unasked
    }

    fn keep_deadlines(&mut self, cx: &mut Context<'_>) {
        if self.shared.queue().take_early() {
            self.is_armed = false;
        } else if !self.is_armed {
            return;
        }
        // The alarm is silent where much has been read in this turn: the clock is not.
        let is_late = |alarm: &Sleep| alarm.deadline().into_std() <= Instant::now();
        while !self.is_armed || self.alarm.as_mut().poll(cx).is_ready() || is_late(&self.alarm) {
            let mut freed = 0;
            let unwritten = (&mut self.writing, self.left);
            let next = self.shared.queue().expire(Instant::now(), unwritten, &mut freed);
            if freed > 0 {
                self.shared.permits.add_permits(freed);
            }
            self.is_armed = next.is_some();
            let Some(next) = next else { return };
            self.alarm.as_mut().reset(next.into());
        }
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        this.shared.driver.register(cx.waker());
        // What has expired is not written any more.
        this.keep_deadlines(cx);
        loop {
            let more = this.write(cx).and_then(|()| this.read(cx));
            match more {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) => return Poll::Ready(()),
            }
        }
        this.keep_deadlines(cx);
        Poll::Pending
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.shared.close(self.broken);
    }
}
