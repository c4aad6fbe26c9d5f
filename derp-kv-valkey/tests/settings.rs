//! Settings that show at the server.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use derp_kv_core::{Error, ErrorKind, KvStore};
use derp_kv_valkey::test_server::{Cluster, Server, slot_of};
use derp_kv_valkey::{Mode, ValkeyConfig, ValkeyStore};

#[tokio::test]
async fn the_database_is_chosen_at_each_connect() {
    let mut server = Server::builder().option("save", "3600 1").start().await.unwrap();
    let config = common::config(server.address()).database(3);
    let kv = ValkeyStore::connect(config).await.unwrap();
    kv.set(b"k", b"v", None).await.unwrap();
    let keyspace = server.info("db3").await.unwrap();
    assert!(keyspace.starts_with("keys=1"), "{keyspace}");
    server.command(&["SAVE"]).await.unwrap();
    server.restart().await.unwrap();
    let (value, _) = common::recovers(async || kv.get(b"k").await).await;
    assert_eq!(value.as_deref(), Some(&b"v"[..]));
}

#[tokio::test]
async fn the_password_is_asked_for_at_each_connect() {
    let mut server = Server::builder().password("token-1").start().await.unwrap();
    let asked = Arc::new(AtomicU64::new(0));
    let config = common::config(server.address()).password_from({
        let asked = Arc::clone(&asked);
        move || Ok::<_, ()>(format!("token-{}", asked.fetch_add(1, Ordering::Relaxed) + 1))
    });
    let kv = ValkeyStore::connect(config).await.unwrap();
    kv.set(b"k", b"v", None).await.unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 1);

    asked.store(6, Ordering::Relaxed);
    server.set_option("requirepass", "token-7");
    server.restart().await.unwrap();
    common::recovers(async || kv.get(b"k").await).await;
}

#[tokio::test]
async fn a_callback_that_fails_is_a_denied_access() {
    let server = Server::start().await.unwrap();
    let config = common::config(server.address());
    for config in [
        config.clone().password_from(|| Err::<String, _>("the token hunter2 has expired")),
        config.password_from(|| -> Result<String, ()> { panic!("hunter2") }),
    ] {
        let error = ValkeyStore::connect(config).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AccessDenied, "{error}");
        assert!(error.to_string().contains("password_from"), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}

/// Behind NAT the nodes announce what leads nowhere from here.
#[tokio::test]
async fn announced_addresses_are_mapped_to_where_they_are_reached() {
    let cluster = Cluster::start(3, 0).await.unwrap();
    let announced = |number: usize| 1 + number as u16;
    for number in 0..3 {
        let port = announced(number).to_string();
        let set = ["CONFIG", "SET", "cluster-announce-port", &port];
        cluster.node(number).command(&set).await.unwrap();
    }
    // From here on no node tells where another is reached in truth.
    let heard = async || {
        for (number, other) in (0..3).flat_map(|number| (0..3).map(move |other| (number, other))) {
            let told = cluster.node(number).command(&["CLUSTER", "NODES"]).await.unwrap();
            if told.text().unwrap().contains(&format!(":{}@", cluster.node(other).port())) {
                return Err(Error::new(ErrorKind::Unavailable, "not heard yet"));
            }
        }
        Ok(())
    };
    common::recovers(heard).await;
    let config = ValkeyConfig::default()
        .addresses([cluster.node(0).address()])
        .mode(Mode::Cluster)
        .address_map((0..3).map(|number| {
            let to = ("localhost", cluster.node(number).port());
            (("127.0.0.1", announced(number)), to)
        }))
        .op_timeout(Duration::from_secs(20));
    let kv = ValkeyStore::connect(config).await.unwrap();
    // All of them before any slot moves: a slot that moves twice in a moment can end up with two nodes that
    // each take the other for its owner.
    let mut keys = Vec::new();
    for number in 0..3 {
        keys.push(cluster.key_owned_by(number).await.unwrap());
    }
    for (number, key) in keys.iter().enumerate() {
        kv.set(key.as_bytes(), b"v", None).await.unwrap();
        cluster.move_slot(slot_of(key.as_bytes()), (number + 1) % 3).await.unwrap();
        assert_eq!(kv.get(key.as_bytes()).await.unwrap().as_deref(), Some(&b"v"[..]));
    }
}
