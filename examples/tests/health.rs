//! What the service says of its health, while its store dies, hangs and comes back.

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use common::program::{Program, is_access};
use common::{Answer, get, open, scratch, serve, settings};
use derp_kv_conformance::{Fault, FaultStore};
use derp_kv_core::{KvStore, Operation};
use derp_kv_examples::app::Settings;
use derp_kv_memory::MemoryStore;
use derp_kv_valkey::test_server::Server;
use derp_kv_valkey::{ValkeyConfig, ValkeyStore};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

/// The answer, which nobody may keep.
async fn health(at: SocketAddr) -> (u16, Value) {
    let answer = get(at, "/health").await;
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"), "{answer:?}");
    (answer.status, answer.json())
}

/// Asks until the service is healthy or not, and returns what it says then.
async fn until(at: SocketAddr, status: u16) -> Value {
    let asked = async {
        loop {
            let (got, state) = health(at).await;
            if got == status {
                return state;
            }
        }
    };
    timeout(Duration::from_secs(60), asked).await.expect("it becomes so")
}

async fn on(server: &Server) -> SocketAddr {
    let config = ValkeyConfig::default().addresses([server.address()]);
    let kv = ValkeyStore::connect(config).await.expect("the server answers");
    serve(Arc::new(kv), settings()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_ready_while_the_store_answers() {
    let at = serve(Arc::new(MemoryStore::new()), settings()).await;
    let ready = json!({ "status": "ready", "store": { "answers": true, "took_ms": 0 } });
    assert_eq!(health(at).await, (200, ready));
    assert_eq!(get(at, "/health/live").await.body, r#"{"status":"live"}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_not_ready_while_the_server_is_dead() {
    let mut server = Server::start().await.unwrap();
    let at = on(&server).await;
    until(at, 200).await;
    server.kill9();
    let failing = until(at, 503).await;
    assert_eq!(failing["status"], "failing");
    assert_eq!(failing["store"]["answers"], false);
    let port = server.port().to_string();
    for _ in 0..20 {
        let (status, failing) = health(at).await;
        assert_eq!(status, 503);
        let error = failing["store"]["error"].as_str().unwrap();
        assert!(["unavailable", "timeout"].contains(&error), "{failing}");
        assert!(!failing.to_string().contains(&port), "no details: {failing}");
    }
    // A service that is started anew would not be better off.
    assert_eq!(get(at, "/health/live").await.status, 200);
    server.restart().await.unwrap();
    assert_eq!(until(at, 200).await["status"], "ready");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_not_ready_while_the_server_is_frozen_and_says_for_how_long() {
    let mut server = Server::start().await.unwrap();
    let at = on(&server).await;
    until(at, 200).await;
    server.freeze().unwrap();
    let began = Instant::now();
    let first = health(at).await;
    let took = began.elapsed();
    assert_eq!((first.0, &first.1["store"]["error"]), (503, &json!("timeout")), "{first:?}");
    assert_eq!(first.1["store"]["message"], "timed out");
    // The store's own deadline is four times as long.
    assert!((Duration::from_millis(500)..Duration::from_millis(1900)).contains(&took), "{took:?}");
    let (status, later) = health(at).await;
    assert_eq!(status, 503);
    let failing_for = |state: &Value| state["store"]["failing_for_ms"].as_u64().unwrap();
    assert!(failing_for(&first.1) >= 500, "{first:?}");
    assert!(failing_for(&later) > failing_for(&first.1), "{later}");
    server.thaw().unwrap();
    until(at, 200).await;
}

/// Probes come from every machine of a fleet, and a sick store must not get worse by them.
#[tokio::test(flavor = "multi_thread")]
async fn a_herd_of_probes_makes_one_call() {
    let store = FaultStore::each(MemoryStore::new(), Operation::Exists, Fault::Hang);
    let at = serve(Arc::new(store.clone()), settings()).await;
    let began = Instant::now();
    let states = join_all((0..100).map(|_| health(at))).await;
    for (status, state) in &states {
        assert_eq!((*status, &state["store"]["error"]), (503, &json!("timeout")));
    }
    // All of them come within the half second of the first, unless the machine stands still.
    let rounds = began.elapsed().as_millis().div_ceil(500) as u64;
    assert!((1..=rounds).contains(&store.calls()), "{} calls in {rounds}", store.calls());
}

/// What was true a moment ago is not said again.
#[tokio::test(flavor = "multi_thread")]
async fn each_probe_after_another_asks_the_store() {
    let store = FaultStore::nth_of(MemoryStore::new(), Operation::Exists, 1, Fault::FailBefore);
    let at = serve(Arc::new(store.clone()), settings()).await;
    let mut states = Vec::new();
    for _ in 0..3 {
        states.push(health(at).await.0);
    }
    assert_eq!(states, [200, 503, 200]);
    assert_eq!(store.calls(), 3);
}

/// A probe that goes away takes nothing with it that others wait for.
#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_goes_away_leaves_the_others_their_answer() {
    let slow = Fault::Delay(Duration::from_millis(200));
    let store = FaultStore::each(MemoryStore::new(), Operation::Exists, slow);
    let at = serve(Arc::new(store.clone()), settings()).await;
    let first = open(at, "GET", "/health", &[], "").await;
    let called = async {
        while store.injected() == 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(30), called).await.expect("the probe calls the store");
    let (_, (status, _)) = tokio::join!(async { drop(first) }, health(at));
    assert_eq!(status, 200);
}

/// Who sends requests to the service hears at once that it stops, and what is under way is finished.
#[tokio::test(flavor = "multi_thread")]
async fn it_is_not_ready_while_it_stops() {
    let slow = Fault::Delay(Duration::from_millis(400));
    let store: Arc<dyn KvStore> =
        Arc::new(FaultStore::each(MemoryStore::new(), Operation::SetNx, slow));
    let settings = settings();
    let Settings { stopping, .. } = settings.clone();
    let at = serve(store, settings).await;
    assert_eq!(health(at).await.0, 200);
    let page = tokio::spawn(async move { get(at, "/products/42").await });
    let begun = async { while common::stat(at, "queries").await == 0 {} };
    timeout(Duration::from_secs(30), begun).await.expect("the request is under way");
    let stop = tokio::spawn(async move { stopping.begin(Duration::ZERO).await });
    let states = async {
        let mut last = (0, Value::Null);
        while last.0 != 503 {
            last = health(at).await;
        }
        last.1
    };
    let state = timeout(Duration::from_secs(30), states).await.expect("it stops");
    assert_eq!(state, json!({ "status": "stopping" }));
    assert_eq!(page.await.unwrap().status, 200);
    timeout(Duration::from_secs(30), stop).await.expect("nothing is under way").unwrap();
}

/// The user that the guide gives to an application, whose own keys begin with `app:`.
#[tokio::test(flavor = "multi_thread")]
async fn its_key_is_one_that_every_user_may_read() {
    let server = Server::start().await.unwrap();
    let user = "ACL SETUSER app on >password resetkeys ~app:* ~derp:* resetchannels -@all +get +set +del +exists \
                +mget +pttl +pexpire +incrby +scan +eval +evalsha +ping +client|tracking +client|caching";
    server.command(&user.split(' ').collect::<Vec<_>>()).await.unwrap();
    let config = ValkeyConfig::default().addresses([server.address()]);
    let config = config.username("app").password("password");
    let kv = ValkeyStore::connect(config).await.expect("the server answers");
    let at = serve(Arc::new(kv), settings()).await;
    assert_eq!(health(at).await.0, 200);
    assert_eq!(get(at, "/products/42").await.status, 503, "other keys are refused");
}

/// Who asks once in a while hears of the stop too, although there is nothing to wait for.
#[tokio::test(flavor = "multi_thread")]
async fn the_program_answers_probes_although_nothing_is_under_way() {
    let mut program = Program::start(&["--linger".as_ref(), "3".as_ref()]);
    let at = program.at();
    assert_eq!(health(at).await.0, 200);
    let began = Instant::now();
    program.terminate();
    assert_eq!(until(at, 503).await, json!({ "status": "stopping" }));
    let (status, _, output) = tokio::task::spawn_blocking(move || program.ended()).await.unwrap();
    assert!(status.success() && output == "stopped\n");
    assert!(began.elapsed() >= Duration::from_secs(3));
}

/// Who stops it from a terminal does not wait for probes.
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_does_not_linger() {
    let mut program = Program::start(&["--linger".as_ref(), "3600".as_ref()]);
    assert_eq!(health(program.at()).await.0, 200);
    program.signal("INT");
    let ended = tokio::task::spawn_blocking(move || program.ended());
    let (status, ..) = timeout(Duration::from_secs(60), ended).await.expect("it ends").unwrap();
    assert!(status.success());
}

/// The same of the program, which gets a signal.
#[tokio::test(flavor = "multi_thread")]
async fn the_program_answers_probes_until_its_requests_are_answered() {
    let mut server = Server::start().await.unwrap();
    let config = scratch("stopping.toml");
    let text = format!("[kv.valkey]\naddresses = [[\"127.0.0.1\", {}]]\n", server.port());
    std::fs::write(&config, text).unwrap();
    let mut program = Program::start(&["--config".as_ref(), config.as_os_str()]);
    let at = program.at();
    assert_eq!(health(at).await.0, 200);
    // The request waits for the store until that is thawed, which is not before the probe is answered.
    server.freeze().unwrap();
    let page: tokio::task::JoinHandle<Answer> =
        tokio::spawn(async move { get(at, "/products/42").await });
    until(at, 503).await;
    program.terminate();
    let stops = async { while health(at).await.1["status"] != "stopping" {} };
    timeout(Duration::from_secs(30), stops).await.expect("it says that it stops");
    server.thaw().unwrap();
    let page = page.await.unwrap();
    assert!([200, 503].contains(&page.status), "{page:?}");
    let (status, log, output) = program.ended();
    assert!(status.success());
    assert_eq!(output, "stopped\n");
    assert_eq!(log.iter().filter(|line| is_access(line)).count(), 1, "{log:#?}");
    let told = log.iter().filter(|line| line.contains("does not answer a probe"));
    assert_eq!(told.count(), 1, "once, and not at each probe: {log:#?}");
}
