//! The documented rights suffice, and no right beyond them is used.

use std::time::{Duration, Instant};

use derp_kv_core::{ErrorKind, KvStore};
use derp_kv_valkey::test_server::{Cluster, Server};
use derp_kv_valkey::{Mode, ValkeyConfig, ValkeyStore};
use futures_util::TryStreamExt;

const PASSWORD: &str = "p@ss:w/rd#?%";
const MINUTE: Option<Duration> = Some(Duration::from_secs(60));

/// The rules of the documented lines: for one server, and for a cluster.
fn documented() -> [&'static str; 2] {
    let lines: Vec<_> = include_str!("../README.md")
        .lines()
        .filter_map(|line| line.strip_prefix("user app on >password "))
        .collect();
    lines.try_into().expect("the README has one line for a server and one for a cluster")
}

fn with_user(config: ValkeyConfig) -> ValkeyConfig {
    config.username("app").password(PASSWORD)
}

async fn use_everything(kv: &ValkeyStore) {
    let (a, b) = (&b"app:a"[..], &b"app:b"[..]);
    kv.set(a, b"1", MINUTE).await.unwrap();
    assert!(kv.get(a).await.unwrap().is_some() && kv.exists(a).await.unwrap());
    assert!(kv.get_with_ttl(a).await.unwrap().is_some() && kv.ttl(a).await.unwrap().is_some());
    assert_eq!(kv.incr(a, 2, None).await.unwrap().value, 3);
    assert!(kv.expire(a, Duration::from_secs(9)).await.unwrap());
    assert!(kv.set_nx(b, b"x", None).await.unwrap());
    assert!(kv.compare_and_set(b, b"x", b"y", MINUTE).await.unwrap());
    assert!(kv.compare_and_delete(b, b"y").await.unwrap());
    kv.mset(&[(a, b"1"), (b, b"2")], MINUTE).await.unwrap();
    assert_eq!(kv.mget(&[a, b]).await.unwrap().iter().flatten().count(), 2);
    let keys: Vec<_> = kv.scan(b"app:").try_collect().await.unwrap();
    assert_eq!(keys.len(), 2);

    let waiting = Instant::now();
    let change = async {
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            kv.set(a, b"2", None).await.unwrap();
        }
    };
    tokio::select! {
        () = kv.wait_for_change(a, Some(b"1"), Duration::from_secs(60)) => {}
        () = change => {}
    }
    assert!(waiting.elapsed() < Duration::from_secs(60));
    assert_eq!(kv.delete_many(&[a, b]).await.unwrap(), 2);
    assert!(!kv.delete(a).await.unwrap());

    let error = kv.get(b"other:a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AccessDenied, "{error}");
    let error = kv.incr(b"other:a", 1, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AccessDenied, "{error}");
}

#[tokio::test]
async fn one_server() {
    let [rules, _] = documented();
    let server = Server::builder().user("app", PASSWORD, rules).start().await.unwrap();
    let config = with_user(ValkeyConfig::default().addresses([server.address()]));
    use_everything(&ValkeyStore::connect(config).await.unwrap()).await;
}

#[tokio::test]
async fn a_cluster() {
    let [_, rules] = documented();
    let cluster = Cluster::start(3, 0).await.unwrap();
    for number in 0..3 {
        let mut command = vec!["ACL".to_owned(), "SETUSER".into(), "app".into(), "on".into()];
        command.push(format!(">{PASSWORD}"));
        command.extend(rules.split(' ').map(str::to_owned));
        cluster.node(number).command(&command).await.unwrap();
    }
    let config = ValkeyConfig::default().addresses([cluster.node(0).address()]).mode(Mode::Cluster);
    use_everything(&ValkeyStore::connect(with_user(config)).await.unwrap()).await;
}

#[tokio::test]
async fn without_the_right_to_track_waiting_polls() {
    let [rules, _] = documented();
    let rules = rules.replace(" +client|tracking +client|caching", "");
    let server = Server::builder().user("app", PASSWORD, &rules).start().await.unwrap();
    let config = with_user(ValkeyConfig::default().addresses([server.address()]));
    let kv = ValkeyStore::connect(config).await.unwrap();
    let waiting = Instant::now();
    kv.wait_for_change(b"app:a", None, Duration::from_secs(3600)).await;
    assert!(waiting.elapsed() >= Duration::from_millis(50));
    assert!(waiting.elapsed() < Duration::from_secs(600));
}
