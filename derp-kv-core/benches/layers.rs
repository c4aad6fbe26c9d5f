//! What the HTTP layers cost without the store: a layered service, less the bare service and the call of
//! the store's helper alone, in nanoseconds of processor time a request.
//!
//! `cargo bench -p derp-kv-core --features tower --bench layers`. Each figure is the median of interleaved
//! rounds; above the budget of 5,000 ns it fails. `-- --short` shows only that it still works.

use std::convert::Infallible;
use std::hint::black_box;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use derp_kv_core::{
    ByHeader, ByPeer, ClientId, Error, Idempotency, IdempotencyLayer, KvStore, KvStoreExt,
    RateLimit, RateLimitLayer, RateLimiter, Reply,
};
use derp_kv_memory::MemoryStore;
use http::request::Parts;
use http::{HeaderName, Request, Response};
use http_body_util::Full;
use tower::{Layer, Service, ServiceExt, service_fn};

/// How many rounds of how many calls.
const LONG: (usize, u32) = (21, 20_000);
const SHORT: (usize, u32) = (1, 100);
const BUDGET: u128 = 5_000;

/// More than all calls together, so that none is denied.
const LIMIT: RateLimit = RateLimit::new(u32::MAX as u64, Duration::from_secs(3600));
/// Nearly all calls are denied.
const ONE: RateLimit = RateLimit::new(1, Duration::from_secs(3600));

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    println!("| layer | request | bare service | store's helper | layer without both |");
    println!("|---|---|---|---|---|");
    runtime.block_on(async {
        rate_limit("by peer, behind a proxy", LIMIT, ByPeer::new(peer).trusted_proxies(1)).await?;
        let key = HeaderName::from_static("x-api-key");
        rate_limit("by a hashed header", LIMIT, ByHeader::new(key)).await?;
        rate_limit("by peer, denied", ONE, ByPeer::new(peer)).await?;
        idempotency("first call", "POST", false).await?;
        idempotency("replay", "POST", true).await?;
        idempotency("another method, which passes", "GET", true).await
    })
}

fn peer(_: &Parts) -> Option<SocketAddr> {
    Some(([192, 0, 2, 7], 4711).into())
}

fn request() -> Request<Full<Bytes>> {
    let request = Request::post("/orders").header("host", "shop.example");
    let request = request.header("x-forwarded-for", "198.51.100.2");
    let request = request.header("x-api-key", "0123456789abcdef0123456789abcdef");
    request.body(Full::from("{}")).expect("it is a good request")
}

async fn bare<B>(_: Request<B>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::from("done")))
}

async fn rate_limit(name: &str, limit: RateLimit, client: impl ClientId) -> Result<()> {
    let kv = MemoryStore::new();
    let limiter = RateLimiter::new(kv.clone(), limit.clone());
    let mut layered = RateLimitLayer::new(kv, "default", limit, client).layer(service_fn(bare));
    let mut bare = service_fn(bare);
    let mut figures = [const { Vec::new() }; 3];
    for _ in 0..size().0 {
        figures[0].push(time(async || drop(black_box(call(&mut bare, request()).await))).await);
        let check = async || drop(black_box(limiter.check("default/ip:192.0.2.7/").await));
        figures[1].push(time(check).await);
        figures[2].push(time(async || drop(black_box(call(&mut layered, request()).await))).await);
    }
    row("RateLimitLayer", name, figures)
}

/// What requests have for a key: the same, or each another.
fn keys(same: bool) -> impl FnMut() -> String {
    let mut number = 0_u32;
    move || {
        number += u32::from(!same);
        format!("8e03978e-40d5-43e8-bc93-{number:012}")
    }
}

fn keyed(method: &'static str, key: &str) -> Request<Full<Bytes>> {
    let mut request = request();
    *request.method_mut() = method.parse().expect("it is a method");
    request.headers_mut().insert("idempotency-key", key.parse().expect("it is ASCII"));
    request
}

async fn idempotency(name: &str, method: &'static str, same: bool) -> Result<()> {
    let kv = MemoryStore::new();
    let id = |key: &str| format!("ip:192.0.2.7/POST/%2Forders/{key}/");
    let forget = async |key: &str| {
        let record = format!("derp:idempotency:{}", id(key));
        kv.delete(record.as_bytes()).await.expect("the store is in memory");
    };
    let mut layered = IdempotencyLayer::new(kv.clone(), ByPeer::new(peer)).layer(service_fn(bare));
    let mut bare_service = service_fn(bare);
    let options = Idempotency::default().fingerprint([7; 32]);
    let mut figures = [const { Vec::new() }; 3];
    for _ in 0..size().0 {
        let mut next = keys(same);
        let call_bare =
            async || drop(black_box(call(&mut bare_service, keyed(method, &next())).await));
        figures[0].push(time(call_bare).await);
        let mut next = keys(same);
        let execute = async || {
            if method == "GET" {
                return;
            }
            let key = next();
            let work = async || Ok::<_, Error>(Reply::new(200, "done"));
            drop(black_box(kv.idempotent_execute(id(&key), &options, work).await));
            // A store that grows would make each call dearer than the one before.
            if !same {
                forget(&key).await;
            }
        };
        figures[1].push(time(execute).await);
        forget(&keys(same)()).await;
        let mut next = keys(same);
        let call_layered = async || {
            let key = next();
            drop(black_box(call(&mut layered, keyed(method, &key)).await));
            if !same {
                forget(&key).await;
            }
        };
        figures[2].push(time(call_layered).await);
        forget(&keys(same)()).await;
    }
    row("IdempotencyLayer", name, figures)
}

/// One request to a service that is polled ready, as servers call it.
async fn call<S: Service<Request<Full<Bytes>>>>(
    service: &mut S,
    request: Request<Full<Bytes>>,
) -> Result<S::Response, S::Error> {
    service.ready().await?.call(black_box(request)).await
}

/// Nanoseconds a call.
async fn time(mut call: impl AsyncFnMut()) -> u128 {
    let calls = size().1;
    let (began, clock) = (spent(), Instant::now());
    for _ in 0..calls {
        call().await;
    }
    let spent = spent().zip(began).map(|(now, then)| now - then);
    spent.unwrap_or_else(|| clock.elapsed().as_nanos()) / u128::from(calls)
}

/// The processor time of this thread in nanoseconds, where the system tells it: all the work is done here,
/// and what else the machine does hardly counts.
fn spent() -> Option<u128> {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    statistics.split(' ').next()?.parse().ok()
}

fn is_short() -> bool {
    std::env::args().any(|argument| argument == "--short")
}

fn size() -> (usize, u32) {
    if is_short() { SHORT } else { LONG }
}

/// Prints the medians of the bare service, of the store's helper and of the layered service.
fn row(layer: &str, request: &str, figures: [Vec<u128>; 3]) -> Result<()> {
    let [bare, helper, layered] = figures.map(|mut rounds| {
        rounds.sort_unstable();
        rounds[rounds.len() / 2]
    });
    let own = layered.saturating_sub(bare + helper);
    println!("| `{layer}` | {request} | {bare} | {helper} | {own} |");
    ensure!(own <= BUDGET || is_short(), "`{layer}` takes more than {BUDGET} ns");
    Ok(())
}
