//! Connecting fails at once and says why; the last handle leaves nothing behind.

use std::error::Error as _;
use std::time::Duration;

use derp_kv_core::{Error, ErrorKind, KvStore, Operation};
use derp_kv_valkey::test_server::{Cluster, Server};
use derp_kv_valkey::{Mode, ValkeyConfig, ValkeyStore};

fn config(server: &Server) -> ValkeyConfig {
    ValkeyConfig::default().addresses([server.address()])
}

async fn refused(config: ValkeyConfig) -> Error {
    let error = ValkeyStore::connect(config).await.unwrap_err();
    assert_eq!(error.operation(), Some(Operation::Connect));
    assert!(!error.may_have_applied());
    error
}

fn assert_says(error: &Error, kind: ErrorKind, words: &[&str]) {
    assert_eq!(error.kind(), kind, "{error}");
    let source = error.source().map(ToString::to_string).unwrap_or_default();
    for word in words {
        assert!(
            format!("{error} {source}").contains(word),
            "`{word}` is missing: {error} {source}"
        );
    }
}

#[tokio::test]
async fn nobody_listens() {
    let mut server = Server::start().await.unwrap();
    server.kill9();
    let error = refused(config(&server)).await;
    assert_says(&error, ErrorKind::Unavailable, &[&server.port().to_string(), "refused"]);
}

#[tokio::test]
async fn the_name_does_not_resolve() {
    let error = refused(ValkeyConfig::default().addresses([("no-such-host.invalid", 6379)])).await;
    assert_says(&error, ErrorKind::Unavailable, &["no-such-host.invalid", "resolve"]);
}

#[tokio::test]
async fn the_password_is_wrong_or_missing() {
    let server = Server::builder().password("right one").start().await.unwrap();
    let error = refused(config(&server).password("hunter2")).await;
    assert_says(&error, ErrorKind::AccessDenied, &["username and password"]);
    assert!(!format!("{error} {error:?}").contains("hunter2"));
    let error = refused(config(&server)).await;
    assert_says(&error, ErrorKind::AccessDenied, &["wants a password"]);

    let kv = ValkeyStore::connect(config(&server).password("right one")).await.unwrap();
    kv.set(b"k", b"v", None).await.unwrap();
    assert!(!format!("{kv:?}").contains("right one"));
}

#[tokio::test]
async fn tls_meets_a_plain_port() {
    let server = Server::start().await.unwrap();
    let ca = server.dir().join("ca.pem");
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(&ca, certificate.pem()).unwrap();
    let config = config(&server).use_tls(true).ca_file(ca);
    let error = refused(config.connect_timeout(Duration::from_millis(500))).await;
    assert!(error.to_string().contains("TLS port"), "{error}");
}

#[tokio::test]
async fn the_mode_is_wrong_either_way() {
    let server = Server::start().await.unwrap();
    let error = refused(config(&server).mode(Mode::Cluster)).await;
    assert_says(&error, ErrorKind::InvalidArgument, &["mode = \"standalone\""]);

    let cluster = Cluster::start(1, 0).await.unwrap();
    let error = refused(config(cluster.node(0))).await;
    assert_says(&error, ErrorKind::InvalidArgument, &["mode = \"cluster\""]);
}

#[tokio::test]
async fn the_cluster_has_no_slots() {
    let server = Server::builder().option("cluster-enabled", "yes").start().await.unwrap();
    let error = refused(config(&server).mode(Mode::Cluster)).await;
    assert_says(&error, ErrorKind::Unavailable, &["no slots"]);
}

#[tokio::test]
async fn a_cluster_is_found_through_any_seed() {
    let cluster = Cluster::start(3, 0).await.unwrap();
    let mut gone = Server::start().await.unwrap();
    gone.kill9();
    let seeds = [gone.address(), cluster.node(2).address()];
    let config = ValkeyConfig::default().addresses(seeds).mode(Mode::Cluster);
    let kv = ValkeyStore::connect(config).await.unwrap();
    for number in 0..3 {
        let key = cluster.key_owned_by(number).await.unwrap();
        kv.set(key.as_ref(), b"v", None).await.unwrap();
        assert!(kv.exists(key.as_ref()).await.unwrap());
    }
}

#[tokio::test]
async fn the_last_handle_leaves_no_task_behind() {
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let server = Server::start().await.unwrap();
    let cluster = Cluster::start(3, 0).await.unwrap();
    let before = alive();
    for config in [config(&server), config(cluster.node(0)).mode(Mode::Cluster)] {
        let kv = ValkeyStore::connect(config).await.unwrap();
        let other = kv.clone();
        drop(kv);
        other.set(b"k", b"v", None).await.unwrap();
        assert!(alive() > before);
        drop(other);
        while alive() > before {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_value_that_is_too_long_is_refused_before_it_harms_the_connection() {
    let server = Server::builder().option("proto-max-bulk-len", "1mb").start().await.unwrap();
    let kv = ValkeyStore::connect(config(&server).max_bulk_bytes(1 << 20)).await.unwrap();
    let value = vec![0; (1 << 20) + 1];
    let error = kv.set(b"k", &value, None).await.unwrap_err();
    assert_says(&error, ErrorKind::InvalidArgument, &["1048576 bytes"]);
    kv.set(b"k", &value[1..], None).await.unwrap();
    // Of this client there was one connection all along.
    let clients = server.command(&["CLIENT", "LIST", "TYPE", "NORMAL"]).await.unwrap();
    let clients = clients.text().unwrap().lines().filter(|line| line.contains("resp=3")).count();
    assert_eq!(clients, 1);
}
