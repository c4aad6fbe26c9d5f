//! Who waits for a key to change, and how it is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::select;
use futures_util::{StreamExt, stream};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_postgres::{AsyncMessage, NoTls};

use super::{PostgresConfig, sql};

/// A notification tells of a change in one of so many groups of keys. Waiters of other keys in the
/// group look in vain, and a batch of any size has no more notifications than this.
pub(super) const BUCKETS: u64 = 256;

/// Between two tries to connect, and two looks at the value meanwhile.
pub(super) const POLL: Duration = Duration::from_millis(50);

/// How often what has expired is cleared away.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Changes {
    buckets: Vec<Notify>,
    listening: AtomicBool,
}

impl Changes {
    pub(super) fn new() -> Self {
        let buckets = (0..BUCKETS).map(|_| Notify::new()).collect();
        Self { buckets, listening: AtomicBool::new(false) }
    }

    pub(super) fn of(&self, bucket: u64) -> &Notify {
        &self.buckets[usize::try_from(bucket % BUCKETS).unwrap_or_default()]
    }

    /// Whether changes are heard of now. Ask it after the waiter is registered: should that end
    /// afterwards, the waiter is woken.
    pub(super) fn are_heard(&self) -> bool {
        self.listening.load(Ordering::SeqCst)
    }

    fn set_heard(&self, heard: bool) {
        self.listening.store(heard, Ordering::SeqCst);
        self.buckets.iter().for_each(Notify::notify_waiters);
    }

    fn tell(&self, message: &AsyncMessage) {
        if let AsyncMessage::Notification(notification) = message {
            match notification.payload().parse() {
                Ok(bucket) => self.of(bucket).notify_waiters(),
                // Not one of ours, and no reason to sleep through anything.
                Err(_) => self.buckets.iter().for_each(Notify::notify_waiters),
            }
        }
    }

    /// Listens on a connection of its own and sweeps over it, for ever. A lost connection wakes all
    /// waiters, and is opened again.
    pub(super) async fn follow(self: Arc<Self>, config: PostgresConfig) {
        loop {
            let connected = timeout(config.op_timeout, config.server.connect(NoTls)).await;
            if let Ok(Ok((client, mut connection))) = connected {
                let messages = stream::poll_fn(move |cx| connection.poll_message(cx));
                let heard = messages
                    .take_while(|message| std::future::ready(message.is_ok()))
                    .for_each(|message| {
                        message.iter().for_each(|message| self.tell(message));
                        std::future::ready(())
                    });
                let work = async {
                    client.batch_execute(sql::SESSION).await?;
                    client.batch_execute(sql::LISTEN).await?;
                    self.set_heard(true);
                    loop {
                        sleep(SWEEP_EVERY).await;
                        // One that fails for a reason of its own is tried again.
                        let swept = timeout(config.op_timeout, client.execute(sql::SWEEP, &[]));
                        if swept.await.is_err() || client.is_closed() {
                            return Ok::<_, tokio_postgres::Error>(());
                        }
                    }
                };
                select(Box::pin(heard), Box::pin(work)).await;
                self.set_heard(false);
            }
            sleep(POLL).await;
        }
    }
}
