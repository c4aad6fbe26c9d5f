//! A cluster through TLS, as a user with no more than the documented rights. Needs a server that
//! was built with TLS.

mod common;

use std::collections::HashSet;
use std::time::Duration;

use common::recovers;
use derp_kv_core::{Error, ErrorKind, KvStore};
use derp_kv_valkey::test_server::{
    Certificates, Cluster, ClusterBuilder, ServerCertificate, slot_of,
};
use derp_kv_valkey::{Mode, ValkeyConfig, ValkeyStore};
use futures_util::TryStreamExt;

const PASSWORD: &str = "p@ss:w/rd#?%";

async fn start(certificates: &Certificates, replicas: usize) -> Cluster {
    build(certificates, replicas).start().await.expect("a cluster")
}

fn build(certificates: &Certificates, replicas: usize) -> ClusterBuilder {
    let rules = include_str!("../README.md")
        .lines()
        .filter_map(|line| line.strip_prefix("user app on >password "))
        .nth(1)
        .expect("the README has a line for a cluster");
    let cluster = Cluster::builder(3, replicas).tls(certificates, ServerCertificate::Valid);
    cluster.user("app", PASSWORD, rules)
}

fn config(cluster: &Cluster, certificates: &Certificates) -> ValkeyConfig {
    // One seed: the other nodes are found, and their certificates checked, by what it tells.
    ValkeyConfig::default()
        .addresses([cluster.node(0).address()])
        .mode(Mode::Cluster)
        .username("app")
        .password(PASSWORD)
        .use_tls(true)
        .ca_file(certificates.ca())
        .op_timeout(Duration::from_secs(20))
}

#[tokio::test]
async fn every_slot_is_reached() {
    let certificates = Certificates::generate().unwrap();
    let cluster = start(&certificates, 0).await;
    let kv = ValkeyStore::connect(config(&cluster, &certificates)).await.unwrap();

    let keys: Vec<_> = (0..1000).map(|number| format!("app:{number}")).collect();
    let items: Vec<_> = keys.iter().map(|key| (key.as_bytes(), key.as_bytes())).collect();
    kv.mset(&items, Some(Duration::from_secs(600))).await.unwrap();
    let names: Vec<_> = keys.iter().map(String::as_bytes).collect();
    let values = kv.mget(&names).await.unwrap();
    assert!(values.iter().zip(&names).all(|(value, name)| value.as_deref() == Some(*name)));
    let found: HashSet<_> = kv.scan(b"app:").try_collect().await.unwrap();
    assert_eq!(found.len(), keys.len());
    for number in 0..3 {
        let size = cluster.node(number).command(&["DBSIZE"]).await.unwrap().int().unwrap();
        assert!(size > 0, "node {number} holds nothing");
    }

    let slot = slot_of(b"app:7");
    let to = (cluster.owner_of(slot).await.unwrap() + 1) % 3;
    cluster.move_slot(slot, to).await.unwrap();
    assert_eq!(kv.incr(b"app:{app:7}", 1, None).await.unwrap().value, 1);
    assert_eq!(kv.get(b"app:7").await.unwrap().as_deref(), Some(&b"app:7"[..]));
}

#[tokio::test]
async fn a_primary_that_dies() {
    let certificates = Certificates::generate().unwrap();
    let mut cluster = start(&certificates, 1).await;
    let kv = ValkeyStore::connect(config(&cluster, &certificates)).await.unwrap();
    let slot = slot_of(b"app:counter");
    assert_eq!(kv.incr(b"app:counter", 1, None).await.unwrap().value, 1);
    let dying = cluster.owner_of(slot).await.unwrap();
    // `WAIT` would not do: it waits for what its own connection has written.
    let replicated = async || {
        let size = cluster.node(dying + 3).command(&["DBSIZE"]).await.unwrap().int().unwrap();
        if size == 1 { Ok(()) } else { Err(Error::new(ErrorKind::Backend, "not replicated")) }
    };
    recovers(replicated).await;

    cluster.node_mut(dying).kill9();
    let (value, _) = recovers(async || kv.get(b"app:counter").await).await;
    assert_eq!(value.as_deref(), Some(&b"1"[..]), "the replica's value");
}

#[tokio::test]
async fn an_authority_that_did_not_sign() {
    let certificates = Certificates::generate().unwrap();
    let cluster = start(&certificates, 0).await;
    let config = config(&cluster, &certificates).ca_file(certificates.other_ca());
    let error = ValkeyStore::connect(config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let text = format!("{error}: {:?}", std::error::Error::source(&error).map(|s| s.to_string()));
    assert!(text.contains("UnknownIssuer"), "{text}");
}

#[tokio::test]
async fn nodes_announce_addresses_that_their_certificates_do_not_hold() {
    let certificates = Certificates::generate().unwrap();
    let cluster = build(&certificates, 0)
        .option("bind", "127.0.0.1 127.0.0.2")
        .option("cluster-announce-ip", "127.0.0.2");
    let cluster = cluster.start().await.expect("a cluster");
    let config = config(&cluster, &certificates);

    let kv = ValkeyStore::connect(config.clone().op_timeout(Duration::from_secs(2))).await.unwrap();
    let error = kv.get(b"app:k").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let cause = std::error::Error::source(&error).expect("a cause").to_string();
    assert!(cause.contains("not valid for name \"127.0.0.2\""), "{error}: {cause}");
    assert!(error.to_string().contains("tls_server_name"), "{error}");

    let kv = ValkeyStore::connect(config.tls_server_name("localhost")).await.unwrap();
    for number in 0..3 {
        let key = format!("app:{{{}}}", cluster.key_owned_by(number).await.unwrap());
        kv.set(key.as_bytes(), b"v", None).await.unwrap();
    }
}
