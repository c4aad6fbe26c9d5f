//! What a rate limit tells clients in headers: true, in range, and by the grammar.

mod common;
#[path = "common/structured_fields.rs"]
mod structured_fields;

use std::time::Duration;

use common::refusing;
use derp_kv_core::{
    DecidedBy, ErrorKind, KvStore, KvStoreExt, QuotaPolicies, RateLimit, RateLimitStatus,
    RateLimiter, WithoutStore,
};
use derp_kv_memory::MemoryStore;
use proptest::prelude::*;
use structured_fields::{Item, list};
use tokio::time::advance;

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);
const YEAR: Duration = Duration::from_secs(365 * 86_400);
const MAX_INTEGER: u64 = 999_999_999_999_999;

/// A header of a status, if it is there.
fn header(headers: &[(&'static str, String)], name: &str) -> Option<String> {
    let mut found = headers.iter().filter(|(other, _)| *other == name);
    let value = found.next().map(|(_, value)| value.clone());
    assert_eq!(found.next(), None, "`{name}` is there twice");
    value
}

#[test]
fn policies_are_told_in_whole_seconds_and_integers_in_range() {
    let minute = 60 * SECOND;
    for (limit, expected) in [
        (RateLimit::new(5, minute), r#""a";q=5;w=60"#),
        (RateLimit::strict(5, minute), r#""a";q=5;w=60"#),
        (RateLimit::strict(5, 1500 * MILLI), r#""a";q=5;w=2"#),
        (RateLimit::strict(5, SECOND), r#""a";q=5;w=1"#),
        // A second would tell a multiple of the time.
        (RateLimit::strict(5, 999 * MILLI), r#""a";q=5"#),
        (RateLimit::smooth(100, minute), r#""a";q=100;w=60"#),
        (RateLimit::smooth(100, minute).burst(10), r#""a";q=10;w=6"#),
        (RateLimit::smooth(100, SECOND).burst(10), r#""a";q=10"#),
        (RateLimit::smooth(100, SECOND).burst(250), r#""a";q=250;w=3"#),
        // The time of a unit is rounded up to a nanosecond.
        (RateLimit::smooth(3, SECOND), r#""a";q=3;w=2"#),
        (RateLimit::new(0, minute), r#""a";q=0;w=60"#),
        (RateLimit::smooth(0, minute), r#""a";q=0"#),
        (RateLimit::new(u64::MAX, Duration::MAX), r#""a";q=999999999999999;w=999999999999999"#),
        (
            RateLimit::smooth(1, Duration::MAX).burst(u64::MAX),
            r#""a";q=999999999999999;w=999999999999999"#,
        ),
        (
            RateLimit::all([RateLimit::strict(1, SECOND), RateLimit::strict(9, minute)]),
            r#""a-1";q=1;w=1, "a-2";q=9;w=60"#,
        ),
    ] {
        assert_eq!(QuotaPolicies::new(&limit, "a").header(), Some(expected), "{limit:?}");
    }
    assert_eq!(QuotaPolicies::new(&RateLimit::all([]), "a").header(), None);
}

#[tokio::test(start_paused = true)]
async fn a_denied_call_is_told_the_limits_that_it_exceeded() {
    let kv = MemoryStore::new();
    let limit = RateLimit::all([RateLimit::strict(2, SECOND), RateLimit::strict(5, 3600 * SECOND)]);
    let policies = QuotaPolicies::new(&limit, "orders").names(["second", "hour"]);
    let told = |status: RateLimitStatus| {
        let headers = status.headers(&policies);
        (header(&headers, "ratelimit").unwrap(), header(&headers, "retry-after"))
    };
    let call = || async { kv.rate_limit("ada", &limit).await.unwrap() };

    let (remaining, retry_after) = told(call().await);
    let expected = r#""second";r=1;t=2, "hour";r=4;t=3601"#;
    assert_eq!((&*remaining, retry_after), (expected, None));
    call().await;
    // More of the hour's quota comes back later than the client may: that is not told.
    let denied = call().await;
    assert_eq!(told(denied), (r#""second";r=0;t=2"#.into(), Some("2".into())));
    assert_eq!(denied.problem(&policies).violated_policies(), ["second"]);

    for _ in 0..3 {
        advance(2 * SECOND).await;
        call().await;
    }
    call().await;
    let denied = call().await;
    let (remaining, retry_after) = told(denied);
    assert_eq!(remaining, format!(r#""hour";r=0;t={}"#, retry_after.unwrap()));
    assert_eq!(denied.problem(&policies).violated_policies(), ["hour"]);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_knows_is_not_told() {
    let limit = RateLimit::strict(5, 60 * SECOND);
    let policies = QuotaPolicies::new(&limit, "orders");
    for (without_store, status_code) in
        [(WithoutStore::Allow, None), (WithoutStore::Deny, Some(503))]
    {
        let kv = refusing(&MemoryStore::new(), ErrorKind::Unavailable);
        let limiter = RateLimiter::new(kv, limit.clone()).on_store_error(without_store);
        let status = limiter.check("ada").await.unwrap();
        let expected = [("ratelimit-policy", r#""orders";q=5;w=60"#.to_owned())];
        assert_eq!(status.headers(&policies), expected);
        if let Some(status_code) = status_code {
            let problem = status.problem(&policies);
            assert_eq!(problem.status_code(), status_code);
            assert_eq!(problem.retry_after(), Some(5 * SECOND));
            assert_eq!(problem.violated_policies(), [""; 0]);
        }
    }

    // The part of this process lets no call of this cost pass, and the whole limit would.
    let kv = refusing(&MemoryStore::new(), ErrorKind::Unavailable);
    let local =
        RateLimiter::new(kv, limit.cost(5)).on_store_error(WithoutStore::Local { share: 0.5 });
    let status = local.check("ada").await.unwrap();
    assert_eq!(status.headers(&policies).len(), 1);
    let problem = status.problem(&policies);
    assert_eq!((problem.status_code(), problem.violated_policies().len()), (503, 1));

    // That nothing remains of nothing is known without asking.
    let none = RateLimit::strict(0, 60 * SECOND);
    let policies = QuotaPolicies::new(&none, "orders");
    let status = MemoryStore::new().rate_limit("ada", &none).await.unwrap();
    assert_eq!(status.source, DecidedBy::Policy);
    let headers = status.headers(&policies);
    assert_eq!(header(&headers, "ratelimit").unwrap(), r#""orders";r=0"#);
    assert_eq!(header(&headers, "retry-after"), None);
    let problem = status.problem(&policies);
    assert_eq!((problem.status_code(), problem.retry_after()), (429, None));
    assert_eq!(problem.violated_policies(), ["orders"]);
}

/// How a limit is made, and called.
#[derive(Clone, Debug)]
struct Plan {
    limit: RateLimit,
    names: Vec<String>,
    /// What each call costs, and how long to wait after it.
    calls: Vec<(u64, Duration)>,
    handle: Handle,
}

#[derive(Clone, Copy, Debug)]
enum Handle {
    Store,
    Blocking,
    Local(f64),
    Policy(WithoutStore),
}

fn durations(most: Duration) -> impl Strategy<Value = Duration> {
    let most = u64::try_from(most.as_millis()).unwrap();
    prop_oneof![1..2_000_u64, 1_000..100_000_u64, 1..most].prop_map(Duration::from_millis)
}

fn limits() -> impl Strategy<Value = RateLimit> {
    let units = || prop_oneof![0..5_u64, 1..1_000_u64];
    let huge = prop_oneof![Just(u64::MAX), MAX_INTEGER - 2..MAX_INTEGER + 3];
    let one = |kind: fn(u64, Duration) -> RateLimit| {
        (units(), durations(20 * YEAR)).prop_map(move |(limit, window)| kind(limit, window))
    };
    let burst = (1..1_000_u64, durations(3600 * SECOND), units());
    let smooth =
        burst.prop_map(|(limit, period, burst)| RateLimit::smooth(limit, period).burst(burst));
    let several = |kind| proptest::collection::vec(one(kind), 1..=8).prop_map(RateLimit::all);
    prop_oneof![
        one(RateLimit::new),
        (huge, durations(YEAR)).prop_map(|(limit, window)| RateLimit::new(limit, window)),
        one(RateLimit::strict),
        smooth,
        several(RateLimit::smooth),
        several(RateLimit::strict),
    ]
}

fn plans() -> impl Strategy<Value = Plan> {
    let handles = prop_oneof![
        Just(Handle::Store),
        Just(Handle::Blocking),
        (0.01..=1.0).prop_map(Handle::Local),
        Just(Handle::Policy(WithoutStore::Allow)),
        Just(Handle::Policy(WithoutStore::Deny)),
    ];
    let names = proptest::collection::vec(prop_oneof![any::<String>(), "[ -~]{0,9}"], 8);
    let pauses = prop_oneof![Just(Duration::ZERO), durations(60 * SECOND)];
    let calls = proptest::collection::vec((1..4_u64, pauses), 1..12);
    (limits(), names, calls, handles).prop_map(|(limit, names, calls, handle)| Plan {
        limit,
        names,
        calls,
        handle,
    })
}

/// Follows a plan, and checks what each call is told.
async fn follow(plan: &Plan) -> Result<(), TestCaseError> {
    let data = MemoryStore::new();
    match plan.handle {
        Handle::Store => calls(plan, &RateLimiter::new(data, plan.limit.clone())).await,
        Handle::Blocking => {
            calls(plan, &RateLimiter::new(data, plan.limit.clone()).block_locally()).await
        }
        Handle::Local(share) => {
            let kv = refusing(&data, ErrorKind::Unavailable);
            let local = WithoutStore::Local { share };
            calls(plan, &RateLimiter::new(kv, plan.limit.clone()).on_store_error(local)).await
        }
        Handle::Policy(without_store) => {
            let kv = refusing(&data, ErrorKind::Unavailable);
            calls(plan, &RateLimiter::new(kv, plan.limit.clone()).on_store_error(without_store))
                .await
        }
    }
}

async fn calls<S: KvStore>(plan: &Plan, limiter: &RateLimiter<S>) -> Result<(), TestCaseError> {
    let policies = QuotaPolicies::new(&plan.limit, "x").names(&plan.names);
    for (cost, pause) in &plan.calls {
        // A cost above the limit is a mistake of the call.
        let Ok(status) = limiter.check_cost("ada", *cost).await else { continue };
        told_truly(&status, &policies, &plan.names)?;
        if !status.allowed
            && let Some(retry_after) = header(&status.headers(&policies), "retry-after")
        {
            advance(Duration::from_secs(retry_after.parse().unwrap())).await;
            let again = limiter.check_cost("ada", *cost).await.unwrap();
            prop_assert!(again.allowed, "who waits `Retry-After` is allowed: {:?}", again);
        }
        advance(*pause).await;
    }
    Ok(())
}

/// The name that a policy gets, if a header cannot hold the one that it was given.
fn printable(name: &str) -> String {
    name.chars().map(|c| if (' '..='~').contains(&c) { c } else { '_' }).collect()
}

fn told_truly(
    status: &RateLimitStatus,
    policies: &QuotaPolicies,
    names: &[String],
) -> Result<(), TestCaseError> {
    let headers = status.headers(policies);
    let parsed = |name| header(&headers, name).map(|value| list(&value).expect("the grammar"));
    let policy: Vec<Item> = parsed("ratelimit-policy").unwrap();
    prop_assert_eq!(policy.len(), status.each().len());
    for (item, name) in policy.iter().zip(names) {
        prop_assert_eq!(&item.name, &printable(name));
        prop_assert!(item.integer("q").is_some());
        prop_assert!(item.integer("w") != Some(0));
        prop_assert!(item.names() == ["q", "w"] || item.names() == ["q"]);
    }

    let retry_after = header(&headers, "retry-after").map(|value| value.parse().unwrap());
    let retry_after = retry_after.map(Duration::from_secs);
    prop_assert_eq!(retry_after.is_some(), !status.allowed && status.retry_after.is_some());
    if let Some(retry_after) = retry_after {
        prop_assert!(retry_after >= status.retry_after.unwrap(), "it is never early");
        prop_assert!(retry_after < status.retry_after.unwrap() + SECOND);
    }

    let remaining = parsed("ratelimit").unwrap_or_default();
    let known: Vec<_> = status
        .each()
        .iter()
        .zip(&policy)
        .filter(|(standing, policy)| match status.source {
            DecidedBy::Policy => policy.integer("q") == Some(0),
            DecidedBy::Local => false,
            _ => status.allowed || !standing.fits,
        })
        .collect();
    prop_assert_eq!(remaining.len(), known.len());
    for (item, (standing, policy)) in remaining.iter().zip(known) {
        prop_assert_eq!(&item.name, &policy.name);
        let r = item.integer("r").expect("`r` is required");
        prop_assert_eq!(r, standing.remaining.min(MAX_INTEGER));
        prop_assert!(Some(r) <= policy.integer("q"));
        prop_assert_eq!(item.integer("t").is_some(), standing.next_after.is_some());
        if let Some(t) = item.integer("t").map(Duration::from_secs) {
            let next_after = standing.next_after.unwrap();
            prop_assert!(t >= next_after && t < next_after + SECOND);
            prop_assert!(retry_after.is_none_or(|retry_after| retry_after >= t));
        }
    }

    if !status.allowed {
        let problem = status.problem(policies);
        let body: serde_json::Value = serde_json::from_slice(&problem.body()).unwrap();
        prop_assert_eq!(body["status"].as_u64(), Some(problem.status_code().into()));
        if problem.status_code() == 429 {
            prop_assert_eq!(problem.retry_after(), status.retry_after);
            prop_assert!(!problem.violated_policies().is_empty());
        } else {
            prop_assert_eq!((problem.status_code(), status.source), (503, DecidedBy::Policy));
            prop_assert_eq!(problem.retry_after(), Some(5 * SECOND));
        }
        let known: Vec<_> = policy.iter().map(|item| &item.name).collect();
        for name in problem.violated_policies() {
            prop_assert!(known.contains(&name));
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn what_is_told_keeps_to_the_grammar_and_is_true(plan in plans()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(follow(&plan))?;
    }
}
