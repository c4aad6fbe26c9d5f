//! What a store says and does when its connection breaks under a call.

mod batches;
mod crowd;
mod heals;
mod reads;
mod secrets;
mod writes;

use std::cell::Cell;
use std::time::Duration;

use derp_kv_core::{Error, KvStore, Result};
use tokio::time::{Instant, sleep};

pub(crate) use self::heals::heals;
pub(crate) use self::reads::reads_are_right_or_fail;
pub(crate) use self::writes::{applies_once, tells_what_was_applied};
use crate::Cut;
use crate::bench::{Bench, LawResult};
use crate::violation::{Kind, Violation, ensure, with_sources};

/// After which a store has found a new connection, or never will.
const HEALED: Duration = Duration::from_secs(10);

/// Between two looks at a store that is finding a new connection.
const PAUSE: Duration = Duration::from_millis(5);

const CUTS: [Cut; 2] = [Cut::Before, Cut::After];

/// How often each call meets each cut: a client may meet it in several of its states.
const TRIES: u32 = 3;

/// Whether any call has failed by its cut. A law under which no connection broke has seen nothing.
#[derive(Default)]
struct Cuts {
    met: Cell<bool>,
}

impl Cuts {
    /// Notes what a call said that was to meet a cut.
    fn note<T>(&self, said: &Result<T>) {
        if said.is_err() {
            self.met.set(true);
        }
    }

    /// Lets a write meet cuts that no client can repeat by itself, as it may repeat reads.
    fn probe(&self, bench: &Bench<'_>) -> LawResult {
        bench.severed(async |scene| {
            for number in 0..TRIES {
                let key = format!("probe {number}/").into_bytes();
                scene.sever(&key, Cut::After).await?;
                self.note(&scene.store.incr(&key, 1, None).await);
            }
            Ok(())
        })
    }

    /// The end of a law: it holds only where a connection broke, or where there is none.
    fn proved(&self, bench: &Bench<'_>) -> LawResult {
        if self.met.get() || bench.profile.embedded {
            return Ok(());
        }
        let why = "no call met its cut: `Harness::sever` says that it breaks connections, and each \
                   call that it should have broken succeeded, so nothing is known of a lost answer \
                   (the store may bypass the proxy, or encrypt or encode its keys)";
        Err(Violation::of(Kind::Unproved, why).into())
    }
}

/// Asks again until the store has a connection. Only what passes by itself may be in the way.
async fn healed<T>(ask: impl AsyncFn() -> Result<T>) -> Result<T, Violation> {
    let began = Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) if began.elapsed() < HEALED => passing(&error)?,
            Err(error) => {
                let error = with_sources(&error);
                return Err(Violation::new(format!(
                    "{HEALED:?} after its connection broke, the store still fails: {error}"
                )));
            }
        }
        sleep(PAUSE).await;
    }
}

/// Whether the error says that the same call may succeed later.
fn passing(error: &Error) -> Result<(), Violation> {
    let text = with_sources(error);
    ensure!(error.is_transient(), "a call whose connection broke fails as if for good: {text}");
    Ok(())
}
