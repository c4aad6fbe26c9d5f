//! Who waits for a key to change, and how it is told.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::select;
use futures_util::{StreamExt, stream};
use tokio::sync::Notify;
use tokio::time::{interval, sleep, timeout};
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, NoTls};

use super::{PostgresConfig, sql};

/// A notification tells of a change in one of so many groups of keys. Waiters of other keys in the
/// group look in vain, and a batch of any size has no more notifications than this.
pub(super) const BUCKETS: u64 = 256;

/// Between two looks at a value while changes are not heard of.
pub(super) const POLL: Duration = Duration::from_millis(50);

/// Between the first two tries to connect; each further pause is twice as long, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How often what has expired is cleared away.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// What this process knows of changes, its own and those of others.
///
/// A change of our own wakes our waiters at once, and is told to other processes over the
/// connection on which we hear of theirs: all that gathered since the last time in one statement.
/// Should this process end between a write and its telling, the others see it a second later.
pub(super) struct Changes {
    buckets: Vec<Notify>,
    listening: AtomicBool,
    untold: Mutex<BTreeSet<u64>>,
    to_tell: Notify,
}

impl Changes {
    pub(super) fn new() -> Self {
        let buckets = (0..BUCKETS).map(|_| Notify::new()).collect();
        let (untold, to_tell) = (Mutex::default(), Notify::new());
        Self { buckets, listening: AtomicBool::new(false), untold, to_tell }
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

    /// Tells everybody that keys in these groups have changed, or may have.
    pub(super) fn tell(&self, buckets: Vec<u64>) {
        if !buckets.is_empty() {
            buckets.iter().for_each(|bucket| self.of(*bucket).notify_waiters());
            self.untold.lock().unwrap_or_else(PoisonError::into_inner).extend(buckets);
            self.to_tell.notify_one();
        }
    }

    fn hear(&self, message: &AsyncMessage, own: i32) {
        if let AsyncMessage::Notification(told) = message
            && told.process_id() != own
            && let Ok(bucket) = told.payload().parse()
        {
            self.of(bucket).notify_waiters();
        }
    }

    /// Listens on a connection of its own for ever, and tells and sweeps over it. A lost connection
    /// wakes all waiters, and is opened again.
    pub(super) async fn follow(self: Arc<Self>, config: PostgresConfig) {
        let mut pause = FIRST_PAUSE;
        loop {
            let connected = timeout(config.op_timeout, config.server.connect(NoTls)).await;
            if let Ok(Ok((client, mut connection))) = connected {
                let own = AtomicI32::new(0);
                let hear = stream::poll_fn(move |cx| connection.poll_message(cx))
                    .take_while(|message| std::future::ready(message.is_ok()))
                    .for_each(async |message| {
                        message
                            .iter()
                            .for_each(|message| self.hear(message, own.load(Ordering::SeqCst)));
                    });
                let work = self.work(&config, &client, &own);
                select(pin!(hear), pin!(work)).await;
                if self.are_heard() {
                    pause = FIRST_PAUSE;
                }
                self.set_heard(false);
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Ends with the connection.
    async fn work(&self, config: &PostgresConfig, client: &Client, own: &AtomicI32) -> Option<()> {
        let begin = async {
            client.batch_execute(sql::SESSION).await?;
            let me = client.query_one(sql::LISTENER, &[]).await?;
            own.store(me.get(0), Ordering::SeqCst);
            client.batch_execute(sql::LISTEN).await?;
            Ok::<_, tokio_postgres::Error>((
                client.prepare(sql::TELL).await?,
                client.prepare(sql::SWEEP).await?,
            ))
        };
        let (tell, sweep) = timeout(config.op_timeout, begin).await.ok()?.ok()?;
        self.set_heard(true);
        // Changes that the connection before this one has not told are told now.
        self.to_tell.notify_one();
        let mut sweeps = interval(SWEEP_EVERY);
        while !client.is_closed() {
            tokio::select! {
                () = self.to_tell.notified() => {
                    let untold = || self.untold.lock().unwrap_or_else(PoisonError::into_inner);
                    let buckets = std::mem::take(&mut *untold());
                    let names: Vec<_> = buckets.iter().map(u64::to_string).collect();
                    let params: [&(dyn ToSql + Sync); 1] = [&names];
                    let telling = client.execute(&tell, &params);
                    if !matches!(timeout(config.op_timeout, telling).await, Ok(Ok(_))) {
                        untold().extend(buckets);
                        return None;
                    }
                }
                // One that fails, for want of a right to delete say, is tried again.
                _ = sweeps.tick() => {
                    let swept = timeout(config.op_timeout, client.execute(&sweep, &[])).await.ok()?;
                    // There may be more behind a full page, and it is not put off.
                    if matches!(swept, Ok(sql::SWEPT)) {
                        sweeps.reset_immediately();
                    }
                }
            }
        }
        None
    }
}
