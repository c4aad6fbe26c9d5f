//! The spans and events that a subscriber of `tracing` gets, with every one of their fields.

mod captured;
mod common;

use std::time::Duration;

use captured::{Fields, Told, hear, listen, take};
use common::{config, ends, recovers};
use derp_kv_core::{GuardedGet, KvStore, KvStoreExt, Operation, RateLimit};
use derp_kv_valkey::test_server::{Cluster, Server, slot_of};
use derp_kv_valkey::{Repeat, ValkeyConfig, ValkeyStore};
use futures_util::TryStreamExt;

const COMMAND: &str = "derp_kv_valkey DEBUG derpkv.command";
const MINUTE: Duration = Duration::from_secs(60);

/// One server, the store on it, and what is told of them.
struct Stage {
    server: Server,
    kv: ValkeyStore,
    port: String,
}

impl Stage {
    async fn start() -> Self {
        Self::with(|config| config).await
    }

    async fn with(settings: impl FnOnce(ValkeyConfig) -> ValkeyConfig) -> Self {
        listen();
        let server = Server::start().await.expect("server");
        let kv = ValkeyStore::connect(settings(config(server.address()))).await.expect("connect");
        let port = server.port().to_string();
        Self { server, kv, port }
    }

    /// Takes what was told of the server's port.
    fn take(&self, what: &str) -> Vec<Told> {
        let is_mine = |told: &Told| told.fields.get("server.port") == Some(&self.port);
        take(|told| is_mine(told) && told.what == what)
    }

    /// The one span that was just made.
    fn span(&self) -> Told {
        let told = self.take(COMMAND);
        let [span] = &told[..] else { panic!("{told:#?}") };
        span.clone()
    }

    /// What every span has that was answered by the server.
    fn usual(&self, name: &str) -> Fields {
        Fields::from([
            ("otel.kind", "client".to_owned()),
            ("otel.name", name.to_owned()),
            ("db.system.name", "redis".to_owned()),
            ("db.operation.name", name.to_owned()),
            ("db.namespace", "0".to_owned()),
            ("server.address", "127.0.0.1".to_owned()),
            ("server.port", self.port.clone()),
            ("network.peer.address", "127.0.0.1".to_owned()),
            ("network.peer.port", self.port.clone()),
        ])
    }

    /// Asserts that one span was just made, with the usual fields and these.
    #[track_caller]
    fn assert_span<const N: usize>(&self, name: &str, more: [(&'static str, &str); N]) {
        let mut expected = self.usual(name);
        expected.extend(more.map(|(field, value)| (field, value.to_owned())));
        let span = self.span();
        assert_eq!(span.fields, expected);
        assert_eq!(span.within, None);
    }

    #[track_caller]
    fn assert_script(&self, name: &str) {
        self.assert_span("EVALSHA", [("db.stored_procedure.name", name)]);
    }

    #[track_caller]
    fn assert_refused(&self, name: &str, code: &str, kind: &str) {
        let (code, kind) = (("db.response.status_code", code), ("error.type", kind));
        self.assert_span(name, [code, kind, ("otel.status_code", "ERROR")]);
    }
}

#[tokio::test]
async fn every_primitive_is_one_command() {
    let stage = Stage::start().await;
    let kv = &stage.kv;
    kv.set(b"k", b"1", Some(MINUTE)).await.unwrap();
    stage.assert_span("SET", []);
    kv.get(b"k").await.unwrap();
    stage.assert_span("GET", []);
    kv.exists(b"k").await.unwrap();
    stage.assert_span("EXISTS", []);
    kv.ttl(b"k").await.unwrap();
    stage.assert_span("PTTL", []);
    kv.expire(b"k", MINUTE).await.unwrap();
    stage.assert_span("PEXPIRE", []);
    kv.set_nx(b"k", b"2", None).await.unwrap();
    stage.assert_span("SET", []);
    kv.delete(b"k").await.unwrap();
    stage.assert_span("DEL", []);
    assert_eq!(kv.scan(b"none:").try_collect::<Vec<_>>().await.unwrap().len(), 0);
    stage.assert_span("SCAN", []);

    // Twice: with its text, where the server does not have it yet, and by its digest alone.
    for _ in 0..2 {
        kv.get_with_ttl(b"k").await.unwrap();
        stage.assert_script("get_with_ttl");
        kv.incr(b"n", 1, None).await.unwrap();
        stage.assert_script("incr");
        kv.rate_limit("r", &RateLimit::smooth(9, MINUTE)).await.unwrap();
        let of_a_helper = stage.span();
        assert_eq!(of_a_helper.within.as_deref(), Some("derpkv.call"));
        assert_eq!(of_a_helper.fields["db.stored_procedure.name"], "smooth");
    }
    let version = stage.server.version().await.expect("version");
    let has = |command: &str| version >= if command == "SET" { (8, 1, 0) } else { (9, 0, 0) };
    kv.compare_and_set(b"k", b"1", b"2", None).await.unwrap();
    match has("SET") {
        true => stage.assert_span("SET", []),
        false => stage.assert_script("compare_and_set"),
    }
    kv.compare_and_delete(b"k", b"1").await.unwrap();
    match has("DELIFEQ") {
        true => stage.assert_span("DELIFEQ", []),
        false => stage.assert_script("compare_and_delete"),
    }
}

#[tokio::test]
async fn batches_are_one_command_or_one_pipeline() {
    let stage = Stage::start().await;
    let kv = &stage.kv;
    kv.mset(&[(b"a", b"1"), (b"b", b"2"), (b"c", b"3")], None).await.unwrap();
    stage.assert_span("PIPELINE SET", [("db.operation.batch.size", "3")]);
    kv.mset(&[(b"a", b"1")], None).await.unwrap();
    stage.assert_span("SET", []);
    kv.mget(&[b"a", b"b", b"c"]).await.unwrap();
    stage.assert_span("MGET", []);
    kv.delete_many(&[b"b", b"c"]).await.unwrap();
    stage.assert_span("DEL", []);
    for (seen, commands) in [(None, "2"), (Some(&b"2"[..]), "3")] {
        kv.wait_for_change(b"a", seen, MINUTE).await;
        stage.assert_span("PIPELINE", [("db.operation.batch.size", commands)]);
    }

    // More than one message holds: a span for each.
    let keys: Vec<_> = (0..1_000).map(|id| format!("k:{id}")).collect();
    let keys: Vec<_> = keys.iter().map(String::as_bytes).collect();
    kv.mget(&keys).await.unwrap();
    let spans = stage.take(COMMAND);
    assert_eq!(spans.len(), 2);
    assert!(spans.iter().all(|span| span.fields == stage.usual("MGET")), "{spans:#?}");

    // One key of three holds something else.
    kv.command(b"b", &[b"HSET", b"b", b"field", b"1"], Repeat::Once).await.unwrap();
    stage.assert_span("HSET", []);
    stage.server.command(&["CONFIG", "SET", "maxmemory", "1"]).await.expect("config");
    kv.mset(&[(b"a", b"1"), (b"b", b"2")], None).await.unwrap_err();
    stage.assert_span(
        "PIPELINE SET",
        [
            ("db.operation.batch.size", "2"),
            ("db.response.status_code", "OOM"),
            ("error.type", "full"),
            ("otel.status_code", "ERROR"),
        ],
    );
}

#[tokio::test]
async fn a_command_shows_its_first_word_where_it_is_one() {
    let stage = Stage::start().await;
    stage.kv.command(b"", &[b"lastsave"], Repeat::Safe).await.unwrap();
    stage.assert_span("lastsave", []);
    for odd in [&b"user:7"[..], b"two words", b"hunter2", &[b'x'; 33]] {
        stage.kv.command(b"", &[odd, b"argument"], Repeat::Safe).await.unwrap_err();
        stage.assert_refused("OTHER", "ERR", "unsupported");
    }
    // A script of the caller's own may answer whatever it was given.
    let script = b"return redis.error_reply(ARGV[1])";
    let args: &[&[u8]] = &[b"EVAL", script, b"0", b"user:7 is unknown"];
    stage.kv.command(b"", args, Repeat::Safe).await.unwrap_err();
    stage.assert_refused("EVAL", "OTHER", "backend");
}

#[tokio::test]
async fn a_failure_is_told_by_its_kind_and_by_the_servers_code() {
    let mut stage = Stage::with(|config| config.op_timeout(Duration::from_millis(600))).await;
    stage.kv.command(b"h", &[b"HSET", b"h", b"f", b"1"], Repeat::Once).await.unwrap();
    stage.assert_span("HSET", []);
    stage.kv.get(b"h").await.unwrap_err();
    stage.assert_refused("GET", "WRONGTYPE", "backend");

    // It had a connection, and has no answer.
    stage.server.freeze().expect("freeze");
    ends("set", stage.kv.set(b"k", b"v", None)).await.unwrap_err();
    let timeout = [("error.type", "timeout"), ("otel.status_code", "ERROR")];
    stage.assert_span("SET", timeout);
    let lost = |told: &Told| {
        told.fields.get("derpkv.link.state").is_some_and(|state| state == "failing_fast")
            && told.fields.get("server.port") == Some(&stage.port)
    };
    ends("failing fast", hear(lost)).await;
    // It was not sent to anybody.
    ends("get", stage.kv.get(b"k")).await.unwrap_err();
    let span = stage.span();
    let mut expected = stage.usual("GET");
    expected.retain(|field, _| !field.starts_with("network.peer"));
    expected.extend([
        ("error.type", "unavailable".to_owned()),
        ("otel.status_code", "ERROR".to_owned()),
    ]);
    assert_eq!(span.fields, expected);
    stage.server.thaw().expect("thaw");
}

#[tokio::test]
async fn a_command_that_is_sent_again_is_one_span() {
    let stage = Stage::start().await;
    stage.kv.set(b"k", b"v", None).await.unwrap();
    stage.assert_span("SET", []);
    let peer = |told: &Told| told.fields.get("network.peer.port") == Some(&stage.port);
    let again = |told: &Told| told.what == "derp_kv_valkey DEBUG" && peer(told);
    let limit = stage.server.command(&["CONFIG", "SET", "lua-time-limit", "50"]).await;
    limit.expect("config");
    let endless = stage.server.command(&["EVAL", "while true do end", "0"]);
    let kill = async {
        while stage.server.command(&["PING"]).await.is_ok() {}
        // A call during the script is answered BUSY until the script is killed.
        let got = stage.kv.get(b"k");
        let killed = async {
            let busy = ends("BUSY", hear(again)).await;
            stage.server.command(&["SCRIPT", "KILL"]).await.expect("killed");
            busy
        };
        let (got, busy) = tokio::join!(got, killed);
        got.expect("answered in the end");
        busy
    };
    let (_, busy) = tokio::join!(endless, kill);
    let expected = Fields::from([
        ("message", "a command is sent again".to_owned()),
        ("network.peer.address", "127.0.0.1".to_owned()),
        ("network.peer.port", stage.port.clone()),
        ("db.response.status_code", "BUSY".to_owned()),
    ]);
    assert_eq!((busy.fields, busy.within.as_deref()), (expected, Some("derpkv.command")));
    stage.assert_span("GET", []);
    take(again);
}

#[tokio::test]
async fn a_command_is_within_the_call_of_its_helper() {
    const PAGES: GuardedGet = GuardedGet::new(MINUTE);
    let stage = Stage::start().await;
    stage.kv.set(b"page", b"v", None).await.unwrap();
    stage.take(COMMAND);
    stage.kv.guarded_get("page", &PAGES, || async { anyhow::Ok("page") }).await.unwrap();
    let span = stage.span();
    assert_eq!((span.within.as_deref(), span.fields), (Some("derpkv.call"), stage.usual("GET")));
    let call = |told: &Told| {
        told.what == "derp_kv_core INFO derpkv.call"
            && told.fields["otel.name"] == Operation::GuardedGet.name()
    };
    assert_eq!(ends("the call", hear(call)).await.fields["derpkv.outcome"], "hit");
}

#[tokio::test]
async fn a_database_and_a_socket_are_told() {
    listen();
    let server = Server::start().await.expect("server");
    let path = server.dir().join("socket").to_str().expect("text").to_owned();
    let config = ValkeyConfig::default().unix_socket(&path).database(3);
    let kv = ValkeyStore::connect(config).await.expect("connect");
    kv.get(b"k").await.unwrap();
    let spans = take(|told| told.fields.get("server.address") == Some(&path));
    let span = spans.iter().find(|told| told.what == COMMAND).expect("a span");
    let expected = Fields::from([
        ("otel.kind", "client".to_owned()),
        ("otel.name", "GET".to_owned()),
        ("db.system.name", "redis".to_owned()),
        ("db.operation.name", "GET".to_owned()),
        ("db.namespace", "3".to_owned()),
        ("server.address", path.clone()),
        ("network.peer.address", path),
    ]);
    assert_eq!(span.fields, expected);
}

#[tokio::test]
async fn links_are_told() {
    let mut stage = Stage::with(|config| config.op_timeout(Duration::from_millis(600))).await;
    let mut told = Vec::new();
    let of_link = |state: &str| {
        let (state, port) = (state.to_owned(), stage.port.clone());
        move |told: &Told| {
            told.fields.get("derpkv.link.state") == Some(&state)
                && told.fields.get("server.port") == Some(&port)
        }
    };
    let (connected, lost) = (of_link("connected"), of_link("lost"));
    let (failing, back) = (of_link("failing_fast"), of_link("back"));
    told.push(ends("connected", hear(connected)).await);
    stage.server.kill9();
    told.push(ends("lost", hear(lost)).await);
    told.push(ends("failing fast", hear(failing)).await);
    stage.server.restart().await.expect("restart");
    let mut last = ends("back", hear(back)).await;
    let down = last.fields.remove("derpkv.link.down_for").expect("for how long");
    assert!(down.parse::<f64>().expect("seconds") >= 0.6, "{down}");
    told.push(last);
    let expected = [
        ("INFO", "connected", "a node is connected"),
        ("WARN", "lost", "the link to a node was lost"),
        ("WARN", "failing_fast", "calls for a node fail at once from now on"),
        ("INFO", "back", "the link to a node is back"),
    ];
    for (told, (level, state, message)) in told.iter().zip(expected) {
        assert_eq!((&told.what, &told.within), (&format!("derp_kv_core {level}"), &None));
        let fields = Fields::from([
            ("message", message.to_owned()),
            ("server.address", "127.0.0.1".to_owned()),
            ("server.port", stage.port.clone()),
            ("derpkv.link.state", state.to_owned()),
        ]);
        assert_eq!(told.fields, fields);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_one_server_with_many_peers() {
    listen();
    let cluster = Cluster::start(3, 0).await.expect("cluster");
    let kv = common::connect_cluster(cluster.addresses(), Duration::from_secs(10)).await;
    let mut endpoints: Vec<_> =
        cluster.addresses().iter().map(|(host, port)| format!("{host}:{port}")).collect();
    endpoints.sort_unstable();
    let address = endpoints.join(",");
    let spans =
        || take(|told| told.what == COMMAND && told.fields.get("server.address") == Some(&address));
    let usual = |name: &str, node: usize| {
        Fields::from([
            ("otel.kind", "client".to_owned()),
            ("otel.name", name.to_owned()),
            ("db.system.name", "redis".to_owned()),
            ("db.operation.name", name.to_owned()),
            ("db.namespace", "0".to_owned()),
            ("server.address", address.clone()),
            ("network.peer.address", "127.0.0.1".to_owned()),
            ("network.peer.port", cluster.node(node).port().to_string()),
        ])
    };
    let mut keys = Vec::new();
    for number in 0..3 {
        keys.push(cluster.key_owned_by(number).await.expect("key"));
        recovers(async || kv.set(keys[number].as_bytes(), b"v", None).await).await;
    }
    spans();

    // A message for each node, and its span.
    let more = format!("{{{}}}:more", keys[0]);
    let batch = [&keys[0], &more, &keys[1], &keys[2]].map(|key| key.as_bytes());
    kv.mget(&batch).await.unwrap();
    let mut told: Vec<_> = spans().into_iter().map(|span| span.fields).collect();
    told.sort_by_key(|fields| fields["network.peer.port"].clone());
    let mut pipeline = usual("PIPELINE GET", 0);
    pipeline.insert("db.operation.batch.size", "2".to_owned());
    let mut expected = vec![pipeline, usual("GET", 1), usual("GET", 2)];
    expected.sort_by_key(|fields| fields["network.peer.port"].clone());
    assert_eq!(told, expected);

    // The slot moves: the redirect is told within the span of the call that met it.
    let again = |told: &Told| {
        let port = cluster.node(1).port().to_string();
        told.what == "derp_kv_valkey DEBUG" && told.fields.get("network.peer.port") == Some(&port)
    };
    let changed = |told: &Told| {
        told.fields.get("message").is_some_and(|message| message == "the topology has changed")
    };
    cluster.move_slot(slot_of(keys[1].as_bytes()), 2).await.expect("moved");
    kv.get(keys[1].as_bytes()).await.unwrap();
    let told = spans();
    assert_eq!(told.iter().map(|span| &span.fields).collect::<Vec<_>>(), [&usual("GET", 2)]);
    let moved = take(again);
    let [moved] = &moved[..] else { panic!("{moved:#?}") };
    let expected = Fields::from([
        ("message", "a command is sent again".to_owned()),
        ("network.peer.address", "127.0.0.1".to_owned()),
        ("network.peer.port", cluster.node(1).port().to_string()),
        ("db.response.status_code", "MOVED".to_owned()),
    ]);
    assert_eq!((&moved.fields, moved.within.as_deref()), (&expected, Some("derpkv.command")));
    let topology = ends("the topology", hear(changed)).await;
    assert_eq!((&*topology.what, topology.within), ("derp_kv_core INFO", None));
    let fields = [("message", "the topology has changed"), ("derpkv.primaries", "3")];
    let expected: Fields = fields.map(|(field, value)| (field, value.to_owned())).into();
    assert_eq!(topology.fields, expected);
}
