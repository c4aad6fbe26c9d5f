//! Calls that are stopped in their middle, so that others come between.
//!
//! tokio gives a task a budget each time it is polled, of which every operation of a store takes
//! a part. A call that has little of it stops where that little ends: between a look and a leap, if
//! the store has both. A machine with two busy cores seldom stops it there by itself.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures_util::future::{join_all, maybe_done};
use tokio::task::coop::{consume_budget, has_budget_remaining, poll_proceed};
use tokio::task::yield_now;

use crate::violation::Violation;

/// How long a call may take beside others that are stopped: it may have to wait for one of them.
const PATIENCE: Duration = Duration::from_millis(4);

pub(crate) type Call<T> = Pin<Box<dyn Future<Output = Result<T, Violation>> + Send>>;

/// The most that a task was seen to be given for one poll.
static WHOLE: AtomicU32 = AtomicU32::new(0);

/// How often a call is begun anew where its poll had less to begin with.
const BEGINNINGS: u32 = 64;

/// How much a task is given for one poll. One that is polled right behind another has the rest of
/// the other's, so the most counts that was ever seen.
async fn budget() -> u32 {
    yield_now().await;
    let mut units = 0;
    while has_budget_remaining() && units < 10_000 {
        consume_budget().await;
        units += 1;
    }
    WHOLE.fetch_max(units, Ordering::SeqCst).max(units)
}

/// Polls the call once, with `units` of the budget left to it.
async fn begin(call: &mut (impl Future + Unpin), units: u32) {
    for _ in 0..BEGINNINGS {
        let whole = budget().await;
        yield_now().await;
        let begun = poll_fn(|cx| {
            for _ in units..whole {
                match poll_proceed(cx) {
                    Poll::Ready(taken) => taken.made_progress(),
                    Poll::Pending => return Poll::Ready(false),
                }
            }
            // What it comes to is kept by the call.
            let _ = Pin::new(&mut *call).poll(cx);
            Poll::Ready(true)
        })
        .await;
        if begun {
            return;
        }
    }
}

/// Begins the calls one inside the other: each but the last is stopped after `units` of its
/// budget, and goes on when the last has ended. Returns what they come to, in their order.
pub(crate) async fn nested<T: Send + 'static>(
    calls: Vec<Call<T>>,
    units: u32,
) -> Result<Vec<T>, Violation> {
    // On a task of its own, which has a budget of its own.
    let played = tokio::spawn(async move {
        let mut calls: Vec<_> = calls.into_iter().map(maybe_done).collect();
        if let Some((last, stopped)) = calls.split_last_mut() {
            for call in stopped {
                begin(call, units).await;
            }
            yield_now().await;
            // One that must wait for those that are stopped ends with them.
            drop(tokio::time::timeout(PATIENCE, last).await);
        }
        join_all(calls.iter_mut().map(Pin::new)).await;
        let missing = || Violation::new("a call has no outcome");
        calls
            .iter_mut()
            .map(|call| Pin::new(call).take_output().ok_or_else(missing)?)
            .collect::<Result<Vec<_>, _>>()
    });
    played.await?
}
