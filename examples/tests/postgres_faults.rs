//! The backend on PostgreSQL where something fails: lost connections and answers, a silent network,
//! a server that ends, and what its refusals become.

mod postgres;

use std::future::poll_fn;
use std::net::TcpListener;
use std::pin::pin;
use std::time::{Duration, Instant};

use derp_kv_conformance::shared_runtime;
use derp_kv_core::{ErrorKind, KvStore, Operation};
use derp_kv_examples::postgres_store::{PostgresConfig, PostgresStore};
use derp_kv_valkey::test_server::{Fault, Proxy, Traffic};
use futures_util::future::join_all;
use postgres::{LONG, Server, operator, shared, until_locked, value, with};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lost_connection_had_sent_never_lands_behind_a_later_write() {
    let (config, runtime) = shared().await.unwrap();
    let proxy = Proxy::start(config.server.get_ports()[0]).await.unwrap();
    let mut over_proxy = PostgresConfig { connections: 1, ..config.clone() };
    over_proxy.server = postgres::server_config(proxy.port());
    over_proxy.server.application_name("lost");
    let kv = PostgresStore::connect(over_proxy, runtime).await.unwrap();
    kv.mset(&[(b"lost:a", b"1"), (b"lost:z", b"1")], None).await.unwrap();

    let mut operator = operator(&config).await;
    let locked = operator.transaction().await.unwrap();
    let lock = "SELECT FROM derp_kv WHERE key = 'lost:a' FOR UPDATE";
    locked.execute(lock, &[]).await.unwrap();
    let sent = tokio::spawn({
        let kv = kv.clone();
        async move { kv.mset(&[(b"lost:a", b"old"), (b"lost:z", b"old")], None).await }
    });
    until_locked(locked.client(), "lost", 1).await;
    proxy.cut_all();
    let error = sent.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.may_have_applied() && error.is_transient());

    // The server has not noticed, and still waits to write the old value.
    kv.set(b"lost:z", b"new", None).await.unwrap();
    locked.commit().await.unwrap();
    kv.set(b"lost:a", b"new", None).await.unwrap();
    for _ in 0..50 {
        assert_eq!(value(&kv, b"lost:z").await.as_deref(), Some(&b"new"[..]));
        assert_eq!(value(&kv, b"lost:a").await.as_deref(), Some(&b"new"[..]));
        sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_lost_answer_is_told_as_unknown() {
    let (config, runtime) = shared().await.unwrap();
    let proxy = Proxy::start(config.server.get_ports()[0]).await.unwrap();
    let over_proxy = PostgresConfig { server: postgres::server_config(proxy.port()), ..config };
    let kv = PostgresStore::connect(over_proxy, runtime).await.unwrap();
    kv.set(b"answer", b"0", None).await.unwrap();
    for (fault, applied) in [(Fault::CutAfter, b"1"), (Fault::CutBefore, b"1")] {
        let armed = proxy.arm(b"answer", fault);
        let error = kv.incr(b"answer", 1, None).await.unwrap_err();
        armed.fired().await.unwrap();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.may_have_applied(), "{error}");
        // It was not sent again, and the next call has a connection.
        assert_eq!(value(&kv, b"answer").await.as_deref(), Some(&applied[..]));
    }
    let armed = proxy.arm(b"answer", Fault::CutAfter);
    let error = kv.get(b"answer").await.unwrap_err();
    armed.fired().await.unwrap();
    assert!(!error.may_have_applied(), "a read applies nothing: {error}");
}

#[tokio::test]
async fn a_silent_network_is_given_up_and_used_again() {
    let (config, runtime) = shared().await.unwrap();
    let proxy = Proxy::start(config.server.get_ports()[0]).await.unwrap();
    let server = postgres::server_config(proxy.port());
    let op_timeout = Duration::from_secs(2);
    let over_proxy = PostgresConfig { server, connections: 1, op_timeout };
    let kv = PostgresStore::connect(over_proxy, runtime).await.unwrap();
    kv.set(b"silent", b"1", None).await.unwrap();
    proxy.set(Traffic::HoleReplies);
    let error = kv.incr(b"silent", 1, None).await.unwrap_err();
    assert_eq!((error.kind(), error.may_have_applied()), (ErrorKind::Timeout, true));
    // Of a connection that could not be opened nothing was sent; and callers wait side by side.
    let began = Instant::now();
    let calls = join_all((0..30).map(|_| kv.incr(b"silent", 1, None))).await;
    assert!(began.elapsed() < op_timeout * 15, "they waited one after the other");
    for call in calls {
        let error = call.unwrap_err();
        assert_eq!((error.kind(), error.may_have_applied()), (ErrorKind::Timeout, false));
    }
    proxy.set(Traffic::Pass);
    assert_eq!(value(&kv, b"silent").await.as_deref(), Some(&b"2"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_behind_a_slow_one_costs_nobody_else_the_connection() {
    let (kv, config) = with(|config| {
        config.server.application_name("queue");
        config.connections = 1;
        config.op_timeout = Duration::from_secs(4);
    })
    .await;
    kv.set(b"queue:locked", b"1", None).await.unwrap();
    let mut operator = operator(&config).await;
    let locked = operator.transaction().await.unwrap();
    let sessions = "SELECT pid FROM pg_stat_activity WHERE application_name = 'queue' ORDER BY 1";
    let sessions = async || {
        locked.execute("SELECT pg_stat_clear_snapshot()", &[]).await.unwrap();
        let rows = locked.query(sessions, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect::<Vec<i32>>()
    };
    let before = sessions().await;
    let lock = "SELECT FROM derp_kv WHERE key = 'queue:locked' FOR UPDATE";
    locked.execute(lock, &[]).await.unwrap();

    let mut second = pin!(kv.incr(b"queue:locked", 6, None));
    let first = {
        let first = kv.set(b"queue:locked", b"2", None);
        // The order in which they are polled first is that in which they are sent.
        let mut first = pin!(first);
        poll_fn(|cx| {
            let polled = first.as_mut().poll(cx);
            assert!(second.as_mut().poll(cx).is_pending(), "it stands behind the first one");
            polled
        })
        .await
    };
    let error = first.unwrap_err();
    assert_eq!((error.kind(), error.may_have_applied()), (ErrorKind::Timeout, false));
    // The server has come to the second one only now, and the time of its caller ends before the
    // server's does. The third stands behind it.
    let third = tokio::spawn({
        let kv = kv.clone();
        async move { kv.set(b"queue:innocent", b"v", None).await }
    });
    let error = second.await.unwrap_err();
    assert_eq!((error.kind(), error.may_have_applied()), (ErrorKind::Timeout, true));
    assert_eq!(sessions().await, before, "the connection is as it was");
    locked.commit().await.unwrap();
    third.await.unwrap().unwrap();
    assert_eq!(value(&kv, b"queue:innocent").await.as_deref(), Some(&b"v"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_finds_nobody_tries_less_and_less_often() {
    let (config, runtime) = shared().await.unwrap();
    let proxy = Proxy::start(config.server.get_ports()[0]).await.unwrap();
    let server = postgres::server_config(proxy.port());
    let kv = PostgresStore::connect(PostgresConfig { server, connections: 1, ..config }, runtime);
    let kv = kv.await.unwrap();
    // One connection for the keys and one that listens.
    timeout(LONG, proxy.wait_for_connections(2)).await.expect("it listens");
    let port = proxy.port();
    drop(proxy);
    let free = async {
        loop {
            match tokio::net::TcpListener::bind(("127.0.0.1", port)).await {
                Ok(listener) => return listener,
                Err(_) => sleep(Duration::from_millis(1)).await,
            }
        }
    };
    let listener = timeout(LONG, free).await.expect("the proxy ends");
    // It hangs up on each that comes: at 50 ms between them these would be over in one second.
    let began = Instant::now();
    for _ in 0..8 {
        drop(timeout(LONG, listener.accept()).await.expect("it tries again").unwrap());
    }
    assert!(began.elapsed() > Duration::from_secs(2), "{:?}", began.elapsed());
    drop(kv);
}

/// A server that greets one client with these messages, says nothing else, and ends when the client
/// is gone.
async fn greeting(messages: &'static [u8]) -> (tokio_postgres::Config, JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut read = [0; 4096];
        assert!(client.read(&mut read).await.unwrap() > 0, "it begins");
        client.write_all(messages).await.unwrap();
        // A connection that is closed while it has something to read is reset.
        while client.read(&mut read).await.is_ok_and(|read| read > 0) {}
    });
    (postgres::server_config(port), serving)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opening_that_is_given_up_leaves_no_connection() {
    // `AuthenticationOk` and `ReadyForQuery`: it is connected, and its first statement hangs.
    let (server, serving) = greeting(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").await;
    let config = PostgresConfig { server, connections: 1, op_timeout: Duration::from_secs(2) };
    let error = PostgresStore::connect(config, shared_runtime()).await.unwrap_err();
    assert_eq!((error.kind(), error.may_have_applied()), (ErrorKind::Timeout, false));
    timeout(LONG, serving).await.expect("the connection ends").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_comes_back_is_used_again() {
    let mut server = Server::start().await.unwrap();
    let (_, runtime) = shared().await.unwrap();
    let kv = PostgresStore::connect(server.config(), runtime).await.unwrap();
    kv.set(b"kept", b"v", None).await.unwrap();
    server.stop();
    let began = Instant::now();
    // The connections notice by themselves that they are closed.
    while kv.get(b"kept").await.is_ok() {
        assert!(began.elapsed() < LONG, "a stopped server answers");
    }
    for _ in 0..5 {
        let error = kv.set(b"kept", b"w", None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
    // The first call after the end finds each connection closed, if it did not notice before.
    let keys: Vec<_> = (0..40).map(|n| format!("down:{n}").into_bytes()).collect();
    let items: Vec<(&[u8], &[u8])> = keys.iter().map(|key| (&key[..], &b"v"[..])).collect();
    kv.mset(&items, None).await.unwrap_err();
    let error = kv.mset(&items, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(!error.may_have_applied(), "nothing was sent: {error}");
    // Nothing tells of a change now: a waiter looks again and again.
    kv.wait_for_change(b"kept", Some(b"v"), Duration::MAX).await;

    server.start_again().await;
    assert_eq!(value(&kv, b"kept").await.as_deref(), Some(&b"v"[..]));
    let waiter = async {
        while value(&kv, b"kept").await.as_deref() == Some(b"v") {
            kv.wait_for_change(b"kept", Some(b"v"), Duration::MAX).await;
        }
    };
    let writer = async {
        sleep(Duration::from_millis(100)).await;
        kv.set(b"kept", b"w", None).await.unwrap();
    };
    timeout(LONG, async { tokio::join!(waiter, writer) }).await.expect("it hears of the change");
}

#[tokio::test]
async fn a_server_starts_where_the_first_port_is_taken() {
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let mut ports = vec![postgres::free_port(), Ok(taken.local_addr().unwrap().port())];
    let server = Server::start_on(|| ports.pop().unwrap()).await.unwrap();
    let kv = PostgresStore::connect(server.config(), shared_runtime()).await.unwrap();
    kv.set(b"k", b"v", None).await.unwrap();
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused() {
    use ErrorKind::{AccessDenied, InvalidArgument, Unsupported};
    let (config, runtime) = shared().await.unwrap();
    let timeout = |op_timeout| PostgresConfig { op_timeout, ..config.clone() };
    let server = |server| PostgresConfig { server, connections: 1, ..config.clone() };
    let mut tls = config.server.clone();
    tls.ssl_mode(tokio_postgres::config::SslMode::Require);
    // `AuthenticationCleartextPassword`.
    let (asks, _asking) = greeting(b"R\0\0\0\x08\0\0\0\x03").await;
    let days = |days: u64| Duration::from_secs(days * 24 * 3600);
    let cases = [
        (PostgresConfig { connections: 0, ..config.clone() }, InvalidArgument, "connections"),
        (timeout(Duration::ZERO), InvalidArgument, "op_timeout"),
        (timeout(Duration::from_micros(9_999)), InvalidArgument, "op_timeout"),
        (timeout(days(24) + Duration::from_nanos(1)), InvalidArgument, "op_timeout"),
        (timeout(Duration::MAX), InvalidArgument, "op_timeout"),
        (server(tokio_postgres::Config::new()), InvalidArgument, "host"),
        (server(tls), Unsupported, "TLS"),
        (server(asks), AccessDenied, "password"),
    ];
    for (config, kind, what) in cases {
        let shown = format!("{config:?}");
        let error = PostgresStore::connect(config, runtime.clone()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{shown}: {error}");
        assert_eq!(error.operation(), Some(Operation::Connect), "{error}");
        assert!(!error.may_have_applied() && error.to_string().contains(what), "{error}");
    }
    let kv = PostgresStore::connect(timeout(days(24)), runtime).await.unwrap();
    kv.set(b"settings", b"v", None).await.unwrap();
}

#[tokio::test]
async fn an_error_of_the_server_says_whether_the_write_is_undone() {
    use ErrorKind::{AccessDenied, Backend, Full, InvalidArgument, ReadOnly, Timeout, Unavailable};
    let (kv, config) = with(|_| ()).await;
    // The server fails with the code that is to be written.
    operator(&config)
        .await
        .batch_execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 RAISE EXCEPTION USING ERRCODE = convert_from(NEW.value, 'UTF8');
             END $$;
             CREATE TRIGGER refuse BEFORE INSERT ON derp_kv FOR EACH ROW
                 WHEN (NEW.key = 'refuse') EXECUTE FUNCTION refuse()",
        )
        .await
        .unwrap();
    for (code, kind, unknown) in [
        ("57P01", Unavailable, true),
        ("57P02", Unavailable, true),
        ("57P03", Unavailable, false),
        ("57P04", Unavailable, true),
        ("57P05", Unavailable, true),
        ("57014", Timeout, false),
        ("55P03", Timeout, false),
        ("40001", Unavailable, false),
        ("40P01", Unavailable, false),
        ("08006", Unavailable, true),
        ("53100", Full, false),
        ("53200", Unavailable, false),
        ("53300", Unavailable, false),
        ("25006", ReadOnly, false),
        ("28P01", AccessDenied, false),
        ("42501", AccessDenied, false),
        ("54000", InvalidArgument, false),
        ("22023", Backend, false),
    ] {
        let error = kv.set(b"refuse", code.as_bytes(), None).await.unwrap_err();
        assert_eq!((error.kind(), error.may_have_applied()), (kind, unknown), "{error}");
        assert!(error.to_string().contains(code), "{error}");
    }
}

#[tokio::test]
async fn a_batch_says_whether_any_of_it_may_have_been_applied() {
    let keys: Vec<_> = (0..40).map(|n| format!("fold:{n}").into_bytes()).collect();
    let items: Vec<(&[u8], &[u8])> = keys.iter().map(|key| (&key[..], &b"w"[..])).collect();
    let (kv, config) = with(|config| {
        config.connections = 2;
        config.op_timeout = Duration::from_secs(2);
    })
    .await;
    kv.set(&keys[0], b"v", None).await.unwrap();
    let mut operator = operator(&config).await;
    let locked = operator.transaction().await.unwrap();
    let lock = "SELECT FROM derp_kv WHERE key = 'fold:0' FOR UPDATE";
    locked.execute(lock, &[]).await.unwrap();
    // The server undoes the one half, and has done the other one.
    let error = kv.mset(&items, None).await.unwrap_err();
    assert_eq!((error.kind(), error.may_have_applied()), (ErrorKind::Timeout, true));
    let error = kv.mset(&items[..1], None).await.unwrap_err();
    assert_eq!((error.kind(), error.may_have_applied()), (ErrorKind::Timeout, false));
    locked.commit().await.unwrap();
    assert_eq!(value(&kv, &keys[0]).await.as_deref(), Some(&b"v"[..]));
    let keys: Vec<_> = keys.iter().map(|key| &key[..]).collect();
    let found = kv.mget(&keys).await.unwrap().into_iter().flatten();
    let applied = found.filter(|value| *value == "w").count();
    assert!(applied > 0 && applied < keys.len(), "{applied} of them");
}

#[tokio::test]
async fn errors_say_what_failed_and_show_no_secret() {
    let (kv, config) = with(|_| ()).await;
    let operator = operator(&config).await;
    operator
        .batch_execute(
            "CREATE ROLE reader LOGIN; GRANT SELECT ON derp_kv TO reader;
             CREATE ROLE asleep LOGIN; ALTER ROLE asleep SET default_transaction_read_only = on;
             GRANT ALL ON derp_kv TO asleep",
        )
        .await
        .unwrap();
    let mut errors = Vec::new();
    let (reader, _) = with(|config| {
        config.server.user("reader").password("hunter2");
    })
    .await;
    errors.push((reader.set(b"errors", b"secret", None).await, ErrorKind::AccessDenied));
    assert_eq!(value(&reader, b"errors").await, None);
    let (asleep, _) = with(|config| {
        config.server.user("asleep");
    })
    .await;
    errors.push((asleep.set(b"errors", b"secret", None).await, ErrorKind::ReadOnly));

    let (_, runtime) = shared().await.unwrap();
    let nobody = |change: &dyn Fn(&mut PostgresConfig)| {
        let mut config = config.clone();
        change(&mut config);
        let connecting = PostgresStore::connect(config, runtime.clone());
        async { connecting.await.map(drop) }
    };
    let unknown = nobody(&|config| {
        config.server.user("nobody").password("hunter2");
    })
    .await;
    errors.push((unknown, ErrorKind::AccessDenied));
    let absent = nobody(&|config| config.server = postgres::server_config(9)).await;
    errors.push((absent, ErrorKind::Unavailable));

    // The server gives a statement up, and says so.
    let (hasty, _) = with(|config| config.op_timeout = Duration::from_secs(2)).await;
    kv.set(b"errors:locked", b"v", None).await.unwrap();
    operator
        .batch_execute("BEGIN; SELECT FROM derp_kv WHERE key = 'errors:locked' FOR UPDATE")
        .await
        .unwrap();
    errors.push((hasty.set(b"errors:locked", b"secret", None).await, ErrorKind::Timeout));
    operator.batch_execute("COMMIT").await.unwrap();
    assert_eq!(value(&kv, b"errors:locked").await.as_deref(), Some(&b"v"[..]));

    // A check of the table quotes the whole row in its words. It is on another table: who changes one
    // lets everybody wait who uses it.
    operator.batch_execute("CREATE DATABASE checked").await.unwrap();
    let (checked, config_of_checked) = with(|config| {
        config.server.dbname("checked");
    })
    .await;
    let check = "ALTER TABLE derp_kv ADD CONSTRAINT no_secret CHECK (value <> 'secret')";
    postgres::operator(&config_of_checked).await.batch_execute(check).await.unwrap();
    errors.push((checked.set(b"errors", b"secret", None).await, ErrorKind::Backend));

    for (result, kind) in errors {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(!error.may_have_applied(), "{error:?}");
        let printed = format!("{error} {error:?}");
        for secret in ["secret", "736563726574", "hunter2"] {
            assert!(!printed.contains(secret), "{printed}");
        }
    }
    let mut config = config;
    config.server.password("hunter2");
    assert!(!format!("{config:?} {kv:?}").contains("hunter2"));
}
