//! The handle on one rate limit: what it sends, what it remembers, and what it answers without the
//! store.

mod common;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use common::{REFUSAL, drop_after, refusing};
use derp_kv_conformance::{CountingStore, Counts, Fault, FaultStore, Operation};
use derp_kv_core::{
    DecidedBy, ErrorKind, Expiry, KvStore, KvStoreExt, Layer, Layered, RateLimit, RateLimiter,
    Result, WithoutStore,
};
use derp_kv_memory::MemoryStore;
use tokio::time::{Instant, advance};

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);

fn eight(of: fn(u64, Duration) -> RateLimit) -> RateLimit {
    RateLimit::all((2..10).map(|most| of(most, SECOND)))
}

#[tokio::test(start_paused = true)]
async fn every_call_is_one_command() {
    let step = Counts::from([(Operation::Step, 1)]);
    for (limit, command) in [
        (RateLimit::new(2, SECOND), Counts::from([(Operation::Incr, 1)])),
        (RateLimit::smooth(2, SECOND), step),
        (RateLimit::strict(2, SECOND), step),
        (eight(RateLimit::smooth), step),
        (eight(RateLimit::strict), step),
    ] {
        let limiter = RateLimiter::new(CountingStore::new(MemoryStore::new()), limit.clone());
        for allowed in [true, true, false] {
            assert_eq!(limiter.check("ada").await.unwrap().allowed, allowed);
            assert_eq!(limiter.store().take(), command, "{limit:?}");
        }
        limiter.peek("ada").await.unwrap();
        assert_eq!(limiter.store().take(), Counts::from([(Operation::GetWithTtl, 1)]));
        limiter.refund("ada").await.unwrap();
        let counts = limiter.store().take();
        assert_eq!(counts.total(), if command == step { 1 } else { 2 });
        assert!(limiter.check("ada").await.unwrap().allowed || command != step);
        limiter.reset("ada").await.unwrap();
        assert_eq!(limiter.store().take().of(Operation::Delete), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn each_kind_has_keys_of_its_own() {
    let kv = MemoryStore::new();
    for (limit, key) in [
        (RateLimit::new(2, SECOND), "derp:ratelimit:ada"),
        (RateLimit::smooth(2, SECOND), "derp:smooth:ada"),
        (RateLimit::strict(2, SECOND), "derp:strict:ada"),
        (RateLimit::all([RateLimit::strict(2, SECOND)]), "derp:strict:ada"),
        (RateLimit::smooth(2, SECOND).key_prefix("mails"), "mails:ada"),
    ] {
        kv.rate_limit("ada", &limit).await.unwrap();
        assert!(kv.delete(key.as_bytes()).await.unwrap(), "{key}");
    }
    // What one kind keeps is no other kind's, and stays.
    let (smooth, strict) = (RateLimit::smooth(2, SECOND), RateLimit::strict(2, SECOND));
    kv.rate_limit("ada", &smooth.clone().key_prefix("p")).await.unwrap();
    let error = kv.rate_limit("ada", &strict.clone().key_prefix("p")).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Corrupt && error.to_string().contains("key_prefix"));
    let error = kv.rate_limit("ada", &RateLimit::new(2, SECOND).key_prefix("p")).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::NotAnInteger);
    assert_eq!(kv.rate_limit_peek("ada", &smooth.key_prefix("p")).await.unwrap().count, 1);
    for prefix in ["derp:ratelimit", "derp:smooth", "derp:webhook"] {
        let error = kv.rate_limit("ada", &strict.clone().key_prefix(prefix)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_makes_no_sense_is_refused_and_the_error_says_what_is_wrong() {
    let kv = CountingStore::new(MemoryStore::new());
    let (smooth, strict) = (RateLimit::smooth(10, SECOND), RateLimit::strict(10, SECOND));
    let years = |years: u64| Duration::from_secs(years * 366 * 86_400);
    for (limit, names) in [
        (smooth.clone().cost(11), "burst"),
        (smooth.clone().burst(3).cost(4), "burst"),
        (strict.clone().cost(11), "limit"),
        (smooth.clone().cost(0), "cost"),
        (strict.clone().cost(0), "cost"),
        (strict.clone().burst(3), "burst"),
        (RateLimit::new(3, SECOND).burst(3), "burst"),
        (RateLimit::smooth(3, Duration::ZERO), "period"),
        (RateLimit::strict(3, Duration::ZERO), "window"),
        (RateLimit::strict(3, years(101)), "window"),
        (RateLimit::strict(3, derp_kv_core::MAX_TTL), "window"),
        (RateLimit::smooth(3, years(101)), "period"),
        (RateLimit::smooth(1, years(1)).burst(101), "burst"),
        (RateLimit::smooth(1, SECOND).burst(u64::MAX), "burst"),
        (RateLimit::strict(1 << 32, SECOND), "limit"),
        (RateLimit::all([]), "at least one"),
        (RateLimit::all((0..9).map(|_| strict.clone())), "at most 8"),
        (RateLimit::all([smooth.clone(), strict.clone()]), "not both"),
        (RateLimit::all([RateLimit::new(1, SECOND), RateLimit::new(9, years(1))]), "fixed"),
        (RateLimit::all([smooth.clone().key_prefix("mails")]), "key_prefix"),
    ] {
        for result in [
            kv.rate_limit("ada", &limit).await,
            kv.rate_limit_peek("ada", &limit).await,
            RateLimiter::new(kv.clone(), limit.clone())
                .on_store_error(WithoutStore::Allow)
                .check("ada")
                .await,
        ] {
            let error = result.expect_err(names);
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.to_string().contains(names), "{error} does not say `{names}`");
        }
    }
    for share in [0.0, -1.0, 1.1, f64::NAN, f64::INFINITY] {
        let limiter = RateLimiter::new(kv.clone(), smooth.clone());
        let limiter = limiter.on_store_error(WithoutStore::Local { share });
        let error = limiter.check("ada").await.unwrap_err();
        assert!(error.kind() == ErrorKind::InvalidArgument && error.to_string().contains("share"));
    }
    for id in [&b""[..], &[b'x'; 1_025], b"a:lock"] {
        let error = kv.rate_limit(id, &smooth).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }
    assert_eq!(kv.take().total(), 0, "nothing was asked of the store");
}

#[tokio::test(start_paused = true)]
async fn extreme_limits_are_kept() {
    let kv = MemoryStore::new();
    let century = derp_kv_core::MAX_TTL;
    for limit in [
        RateLimit::smooth(u64::MAX, MILLI).burst(7),
        RateLimit::smooth(u64::MAX, MILLI).burst(1 << 61).cost(1 << 61),
        RateLimit::smooth(1, century),
        RateLimit::strict(u32::MAX.into(), century - MILLI).cost(u32::MAX.into()),
        RateLimit::strict(1, MILLI),
    ] {
        let status = kv.rate_limit("ada", &limit).await.unwrap();
        assert!(status.allowed, "{limit:?}: {status:?}");
        kv.rate_limit_reset("ada", &limit).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_nothing_denies_and_asks_nobody() {
    let kv = CountingStore::new(MemoryStore::new());
    let none = RateLimit::strict(0, SECOND);
    for (limit, violated) in [
        (RateLimit::smooth(0, SECOND), 0),
        (RateLimit::smooth(9, SECOND).burst(0), 0),
        (none.clone(), 0),
        (RateLimit::all([RateLimit::strict(1, SECOND), none]), 1),
    ] {
        let limiter = RateLimiter::new(kv.clone(), limit);
        for status in [
            limiter.check("ada").await.unwrap(),
            limiter.peek("ada").await.unwrap(),
            limiter.until_allowed("ada", SECOND).await.unwrap(),
        ] {
            assert_eq!((status.allowed, status.retry_after), (false, None));
            assert_eq!((status.violated, status.source), (Some(violated), DecidedBy::Policy));
        }
    }
    assert_eq!(kv.take().total(), 0);
}

#[tokio::test(start_paused = true)]
async fn of_several_limits_the_answer_names_the_one_that_failed() {
    let kv = MemoryStore::new();
    for of in [RateLimit::smooth, RateLimit::strict] {
        let limit = RateLimit::all([of(5, SECOND), of(2, 60 * SECOND), of(3, 60 * SECOND)]);
        assert_eq!(kv.rate_limit("ada", &limit).await.unwrap().remaining, 1);
        assert_eq!(kv.rate_limit("ada", &limit).await.unwrap().remaining, 0);
        let denied = kv.rate_limit("ada", &limit).await.unwrap();
        assert_eq!((denied.allowed, denied.violated, denied.limit), (false, Some(1), 2));
        assert_eq!(denied.each().len(), 3);
        assert!(denied.each()[0].fits && !denied.each()[1].fits && denied.each()[2].fits);
        assert!(denied.retry_after.unwrap() >= 30 * SECOND);
        // Each keeps its own cost: calls, and the bytes that they send.
        let both = RateLimit::all([of(10, SECOND), of(1_000, SECOND).cost(400)]);
        kv.rate_limit("bob", &both).await.unwrap();
        kv.rate_limit("bob", &both).await.unwrap();
        let denied = kv.rate_limit("bob", &both).await.unwrap();
        assert_eq!((denied.violated, denied.remaining), (Some(1), 200));
        assert_eq!(denied.each()[0].remaining, 8);
    }
}

#[tokio::test(start_paused = true)]
async fn an_id_that_was_denied_asks_nobody_until_it_may_pass() {
    for limit in
        [RateLimit::new(2, SECOND), RateLimit::smooth(2, SECOND), RateLimit::strict(2, SECOND)]
    {
        let kv = CountingStore::new(MemoryStore::new());
        let limiter = RateLimiter::new(kv.clone(), limit).block_locally();
        let clone = limiter.clone();
        while limiter.check("ada").await.unwrap().allowed {}
        let _ = kv.take();
        let left = limiter.peek("ada").await.unwrap().retry_after.unwrap();
        let _ = kv.take();
        advance(left - 3 * MILLI).await;
        let blocked = clone.check("ada").await.unwrap();
        assert_eq!((blocked.allowed, blocked.source), (false, DecidedBy::Blocked));
        assert_eq!(blocked.retry_after, Some(3 * MILLI));
        assert_eq!(blocked.violated, Some(0));
        assert_eq!(kv.take().total(), 0, "nobody was asked");
        assert!(clone.check("bob").await.unwrap().allowed, "another id is not blocked");
        advance(2 * MILLI).await;
        assert_eq!(limiter.check("ada").await.unwrap().source, DecidedBy::Blocked);
        advance(MILLI).await;
        let allowed = limiter.check("ada").await.unwrap();
        assert_eq!((allowed.allowed, allowed.source), (true, DecidedBy::Store));
    }
}

#[tokio::test(start_paused = true)]
async fn a_block_ends_where_something_is_given_back_and_stops_no_smaller_call() {
    for of in [RateLimit::smooth, RateLimit::strict] {
        let limiter = RateLimiter::new(MemoryStore::new(), of(10, SECOND)).block_locally();
        limiter.check_cost("ada", 5).await.unwrap();
        assert!(!limiter.check_cost("ada", 9).await.unwrap().allowed);
        assert_eq!(limiter.check_cost("ada", 9).await.unwrap().source, DecidedBy::Blocked);
        let other = limiter.check_cost("ada", 10).await.unwrap();
        assert!(!other.allowed && other.source == DecidedBy::Store, "it waits for longer");
        assert!(limiter.check_cost("ada", 3).await.unwrap().allowed);

        limiter.refund_cost("ada", 7).await.unwrap();
        assert!(limiter.check_cost("ada", 9).await.unwrap().allowed);
        assert!(!limiter.check_cost("ada", 9).await.unwrap().allowed);
        assert!(limiter.reset("ada").await.unwrap());
        assert!(limiter.check_cost("ada", 9).await.unwrap().allowed);
    }
}

#[tokio::test(start_paused = true)]
async fn of_several_limits_a_block_stops_no_call_that_costs_less_under_one_of_them() {
    for of in [RateLimit::smooth, RateLimit::strict] {
        let both = RateLimit::all([of(10, SECOND).cost(1), of(1_000, SECOND).cost(900)]);
        let limiter = RateLimiter::new(MemoryStore::new(), both).block_locally();
        limiter.check_cost("ada", 5).await.unwrap();
        // The first limit denies eight units, and the second would let them pass.
        assert_eq!(limiter.check_cost("ada", 8).await.unwrap().violated, Some(0));
        assert_eq!(limiter.check_cost("ada", 8).await.unwrap().source, DecidedBy::Blocked);
        assert!(limiter.check("ada").await.unwrap().allowed);
    }
}

#[tokio::test(start_paused = true)]
async fn without_the_store_the_answer_is_what_was_chosen_and_says_so() {
    let down = refusing(&MemoryStore::new(), ErrorKind::Unavailable);
    for limit in [RateLimit::new(2, SECOND), RateLimit::strict(2, SECOND)] {
        let limiter = RateLimiter::new(down.clone(), limit);
        let error = limiter.check("ada").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        for (without_store, allowed) in [(WithoutStore::Deny, false), (WithoutStore::Allow, true)] {
            let limiter = limiter.clone().on_store_error(without_store);
            let began = Instant::now();
            let status = limiter.check("ada").await.unwrap();
            assert_eq!((status.allowed, status.source), (allowed, DecidedBy::Policy));
            assert_eq!(status.violated, None, "no limit was asked");
            assert_eq!(began.elapsed(), REFUSAL, "it waits for the store alone");
            let status = limiter.until_allowed("ada", SECOND).await.unwrap();
            assert_eq!(status.allowed, allowed);
        }
    }
}

/// How many of so many calls at once this process allows by itself.
async fn allowed_locally(limit: &RateLimit, share: f64, calls: u64) -> u64 {
    let down = FaultStore::each(MemoryStore::new(), Operation::Step, Fault::FailBefore);
    let limiter =
        RateLimiter::new(FaultStore::each(down, Operation::Incr, Fault::Lose), limit.clone())
            .on_store_error(WithoutStore::Local { share });
    let mut allowed = 0;
    for _ in 0..calls {
        let status = limiter.check("ada").await.unwrap();
        assert_eq!(status.source, DecidedBy::Local);
        assert!(status.allowed || status.retry_after.is_some());
        allowed += u64::from(status.allowed);
    }
    allowed
}

#[tokio::test(start_paused = true)]
async fn a_process_that_decides_by_itself_uses_its_share_and_no_more() {
    for of in [RateLimit::new, RateLimit::smooth, RateLimit::strict] {
        for (share, most) in [(1.0, 100), (0.5, 50), (0.337, 33), (0.001, 1)] {
            assert_eq!(allowed_locally(&of(100, SECOND), share, 200).await, most);
        }
    }
    // Less than one unit is one in a longer time: a tenth of 2 a second is one in 5 seconds.
    let down = refusing(&MemoryStore::new(), ErrorKind::Unavailable);
    for of in [RateLimit::new, RateLimit::smooth, RateLimit::strict] {
        let limiter = RateLimiter::new(down.clone(), of(2, SECOND))
            .on_store_error(WithoutStore::Local { share: 0.1 });
        let mut allowed = Vec::new();
        let began = Instant::now();
        while began.elapsed() < 20 * SECOND {
            if limiter.check("ada").await.unwrap().allowed {
                allowed.push(began.elapsed().as_secs());
            }
        }
        let apart = allowed.windows(2).all(|pair| pair[1] - pair[0] >= 5);
        assert!(apart && (3..=4).contains(&allowed.len()), "{allowed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_store_decides_again_as_soon_as_it_answers() {
    let kv = FaultStore::nth(MemoryStore::new(), 1, Fault::FailBefore);
    let limiter = RateLimiter::new(kv, RateLimit::strict(2, SECOND))
        .on_store_error(WithoutStore::Local { share: 0.5 });
    let mut sources = Vec::new();
    for _ in 0..3 {
        sources.push(limiter.check("ada").await.unwrap().source);
    }
    assert_eq!(sources, [DecidedBy::Store, DecidedBy::Local, DecidedBy::Store]);
}

#[tokio::test(start_paused = true)]
async fn who_waits_sleeps_exactly_and_asks_twice() {
    for of in [RateLimit::new, RateLimit::smooth, RateLimit::strict] {
        let limiter = RateLimiter::new(CountingStore::new(MemoryStore::new()), of(1, SECOND));
        assert!(limiter.check("ada").await.unwrap().allowed);
        advance(300 * MILLI).await;
        let told = limiter.peek("ada").await.unwrap().retry_after.unwrap();
        let _ = limiter.store().take();
        let began = Instant::now();
        assert!(limiter.until_allowed("ada", 2 * SECOND).await.unwrap().allowed);
        assert_eq!(began.elapsed(), told);
        assert_eq!(limiter.store().take().total(), 2);
        // Where it takes longer than the caller has, it is told at once.
        let began = Instant::now();
        let denied = limiter.until_allowed("ada", SECOND / 2).await.unwrap();
        assert!(!denied.allowed && began.elapsed().is_zero());
        assert!(limiter.until_allowed("ada", Duration::MAX).await.unwrap().allowed);
    }
}

#[tokio::test(start_paused = true)]
async fn of_many_who_wait_each_passes_once_and_none_who_gave_up_is_counted_twice() {
    let limiter = RateLimiter::new(MemoryStore::new(), RateLimit::smooth(10, SECOND).burst(1));
    let began = Instant::now();
    let waiters = (0..20).map(|_| {
        let limiter = limiter.clone();
        tokio::spawn(async move { limiter.until_allowed("ada", 60 * SECOND).await })
    });
    let waiters: Vec<_> = waiters.collect();
    for polls in 0..4 {
        // These give up at one await or another.
        drop_after(polls, limiter.until_allowed("ada", 60 * SECOND)).await;
    }
    for waiter in waiters {
        assert!(waiter.await.unwrap().unwrap().allowed);
    }
    let tenths = began.elapsed().as_millis() / 100;
    assert!((19..=23).contains(&tenths), "24 callers took {tenths} tenths of a second");
}

#[tokio::test(start_paused = true)]
async fn a_fixed_window_gives_back_within_the_window_and_never_below_nothing() {
    let kv = MemoryStore::new();
    let limit = RateLimit::new(3, 60 * SECOND);
    for _ in 0..3 {
        kv.rate_limit("ada", &limit).await.unwrap();
    }
    advance(20 * SECOND).await;
    let status = kv.rate_limit_refund("ada", &limit.clone().cost(2)).await.unwrap();
    assert_eq!((status.allowed, status.count, status.remaining), (true, 1, 2));
    let left = kv.ttl(b"derp:ratelimit:ada").await.unwrap();
    assert_eq!(left, Some(Expiry::In(40 * SECOND)), "the window ends as before");
    let status = kv.rate_limit_refund("ada", &limit.clone().cost(9)).await.unwrap();
    assert_eq!(status.count, 0);
    assert_eq!(kv.get(b"derp:ratelimit:ada").await.unwrap().unwrap(), "0");
    let status = kv.rate_limit_refund("bob", &limit).await.unwrap();
    assert_eq!(status.count, 0);
    assert!(!kv.exists(b"derp:ratelimit:bob").await.unwrap(), "nothing is made by a refund");
    kv.set(b"derp:ratelimit:eve", b"no number", None).await.unwrap();
    let error = kv.rate_limit_refund("eve", &limit).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotAnInteger);
    assert_eq!(error.operation(), Some(Operation::RateLimitRefund));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn refunds_beside_calls_lose_nothing() {
    for of in [RateLimit::new, RateLimit::smooth, RateLimit::strict] {
        let limiter = RateLimiter::new(MemoryStore::new(), of(1_000_000, 3_600_000 * SECOND));
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let limiter = limiter.clone();
                tokio::spawn(async move {
                    for _ in 0..200 {
                        assert!(limiter.check_cost("ada", 3).await.unwrap().allowed);
                        limiter.refund_cost("ada", 2).await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let count = limiter.peek("ada").await.unwrap().count;
        assert!((1_598..=1_600).contains(&count), "{count} of 8 * 200 are left");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_with_the_key_is_no_failure_of_the_store() {
    let kv = MemoryStore::new();
    kv.set(b"derp:smooth:ada", b"somebody else's", None).await.unwrap();
    kv.set(b"derp:ratelimit:ada", b"somebody else's", None).await.unwrap();
    for limit in [RateLimit::smooth(2, SECOND), RateLimit::new(2, SECOND)] {
        for without_store in [WithoutStore::Allow, WithoutStore::Local { share: 1.0 }] {
            let limiter = RateLimiter::new(kv.clone(), limit.clone()).on_store_error(without_store);
            let kind = limiter.check("ada").await.unwrap_err().kind();
            assert!([ErrorKind::Corrupt, ErrorKind::NotAnInteger].contains(&kind));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn in_an_outage_no_good_call_becomes_a_bad_one() {
    let down = refusing(&MemoryStore::new(), ErrorKind::Unavailable);
    let local = |limit: RateLimit| {
        RateLimiter::new(down.clone(), limit).on_store_error(WithoutStore::Local { share: 0.25 })
    };
    // A process's part is two units.
    for of in [RateLimit::new, RateLimit::smooth, RateLimit::strict] {
        assert!(!local(of(10, SECOND)).check_cost("ada", 3).await.unwrap().allowed);
    }
    for limit in [
        RateLimit::new(1 << 40, SECOND),
        RateLimit::new(1, derp_kv_core::MAX_TTL),
        RateLimit::smooth(1, derp_kv_core::MAX_TTL),
    ] {
        assert!(local(limit).check("ada").await.unwrap().allowed);
    }
}

/// A store whose answers are held back once they are there.
#[derive(Clone, Debug)]
struct Held(Arc<tokio::sync::Semaphore>);

impl Layer for Held {
    async fn around<T: Send>(
        &self,
        operation: Operation,
        _: Option<&[u8]>,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let answer = call.await;
        if operation == Operation::Step {
            self.0.acquire().await.expect("it is never closed").forget();
        }
        answer
    }
}

#[tokio::test(start_paused = true)]
async fn a_denial_from_before_a_reset_blocks_nobody() {
    let held = Held(Arc::new(tokio::sync::Semaphore::new(1)));
    let kv = Layered::new(MemoryStore::new(), held.clone());
    let limiter = RateLimiter::new(kv, RateLimit::strict(1, 3_600 * SECOND)).block_locally();
    assert!(limiter.check("ada").await.unwrap().allowed);
    let mut denied = pin!(limiter.check("ada"));
    let is_pending = poll_fn(|context| Poll::Ready(denied.as_mut().poll(context).is_pending()));
    assert!(is_pending.await, "its answer is on the way");
    assert!(limiter.reset("ada").await.unwrap());
    held.0.add_permits(2);
    assert!(!denied.await.unwrap().allowed);
    assert!(limiter.check("ada").await.unwrap().allowed);
}
