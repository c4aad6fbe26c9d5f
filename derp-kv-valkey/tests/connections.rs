//! Several connections to a node, other commands, and what a user may not do.

mod common;

use std::time::Duration;

use common::{OP_TIMEOUT, config, ends};
use derp_kv_core::{ErrorKind, KvStore};
use derp_kv_valkey::test_server::{Cluster, Server};
use derp_kv_valkey::{Mode, Repeat, Reply, ValkeyConfig, ValkeyStore};
use futures_util::TryStreamExt;
use tokio::task::JoinSet;

/// How many connections of the store under test the server has.
async fn clients(server: &Server) -> usize {
    let list = server.command(&["CLIENT", "LIST", "TYPE", "NORMAL"]).await.unwrap();
    list.text().unwrap().lines().filter(|line| line.contains("name=lanes")).count()
}

/// A successor or a look at the map may be one more for a moment.
async fn has_clients(server: &Server, count: usize) {
    let settled = async {
        while clients(server).await != count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    ends("settling on the configured connections", settled).await;
}

async fn everything_works(kv: &ValkeyStore) {
    let keys: Vec<String> = (0..300).map(|number| format!("key:{number}")).collect();
    let items: Vec<_> = keys.iter().map(|key| (key.as_bytes(), key.as_bytes())).collect();
    let names: Vec<_> = keys.iter().map(String::as_bytes).collect();
    kv.mset(&items, None).await.unwrap();
    let values = kv.mget(&names).await.unwrap();
    assert!(values.iter().zip(&names).all(|(value, name)| value.as_deref() == Some(*name)));
    let mut calls = JoinSet::new();
    for key in keys.clone() {
        let kv = kv.clone();
        calls.spawn(async move {
            // One after the other over one connection, whoever gives up in between.
            for number in 0..10_u8 {
                let value = [number];
                let write = kv.set(key.as_bytes(), &value, None);
                let _ = tokio::time::timeout(Duration::from_micros(50), write).await;
            }
            kv.set(key.as_bytes(), b"last", None).await.unwrap();
            kv.get(key.as_bytes()).await.unwrap()
        });
    }
    while let Some(value) = calls.join_next().await {
        assert_eq!(value.unwrap().as_deref(), Some(&b"last"[..]), "a write came late");
    }
    assert_eq!(kv.incr(b"n", 1, None).await.unwrap().value, 1);
    assert_eq!(kv.scan(b"key:").try_collect::<Vec<_>>().await.unwrap().len(), 300);
    assert_eq!(kv.delete_many(&names).await.unwrap(), 300);
    assert_eq!(kv.delete_many(&names).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_has_as_many_connections_as_are_asked_for() {
    let server = Server::start().await.unwrap();
    let several = config(server.address()).connections(4).io_threads(2).client_name("lanes");
    let kv = ValkeyStore::connect(several).await.unwrap();
    everything_works(&kv).await;
    has_clients(&server, 4).await;
    drop(kv);

    let cluster = Cluster::start(3, 0).await.unwrap();
    let several = ValkeyConfig::default().addresses([cluster.node(0).address()]);
    let several = several.mode(Mode::Cluster).connections(2).client_name("lanes");
    let kv = ValkeyStore::connect(several).await.unwrap();
    everything_works(&kv).await;
    for number in 0..3 {
        has_clients(cluster.node(number), 2).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_commands() {
    let server = Server::start().await.unwrap();
    let kv = ValkeyStore::connect(config(server.address())).await.unwrap();
    let set = kv.command(b"h", &[b"HSET", b"h", b"field", b"value"], Repeat::Safe).await.unwrap();
    assert_eq!(set, Reply::Int(1));
    let all = kv.command(b"h", &[b"HGETALL", b"h"], Repeat::Safe).await.unwrap();
    let pair = (Reply::BulkString("field".into()), Reply::BulkString("value".into()));
    assert_eq!(all, Reply::Map(vec![pair]));

    // The server's refusals are errors, and say that nothing was done.
    let error = kv.command(b"h", &[b"GET", b"h"], Repeat::Once).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Backend && !error.may_have_applied(), "{error:?}");
    let error = kv.command(b"h", &[b"NOSUCH", b"h"], Repeat::Once).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
    for command in [
        "",
        "subscribe news",
        "MULTI",
        "BLPOP list 0",
        "CLIENT REPLY OFF",
        "REPLCONF GETACK *",
        "SCRIPT DEBUG SYNC",
        "XREADGROUP GROUP streams c BLOCK 0 STREAMS s >",
        "XREAD COUNT 2 BLOCK 0 STREAMS s 0",
    ] {
        let args: Vec<_> = command.split_ascii_whitespace().map(str::as_bytes).collect();
        let error = ends("a refusal", kv.command(b"", &args, Repeat::Safe)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{command}: {error:?}");
    }
    // A stream may be called BLOCK.
    let read: &[&[u8]] = &[b"XREAD", b"COUNT", b"2", b"STREAMS", b"BLOCK", b"0"];
    assert_eq!(kv.command(b"BLOCK", read, Repeat::Safe).await.unwrap(), Reply::Nil);

    let cluster = Cluster::start(3, 0).await.unwrap();
    let seeds = ValkeyConfig::default().addresses([cluster.node(0).address()]).mode(Mode::Cluster);
    let kv = ValkeyStore::connect(seeds).await.unwrap();
    for number in 0..20_u8 {
        let key = [b'k', number];
        let push: &[&[u8]] = &[b"RPUSH", &key, b"a", b"b"];
        assert_eq!(kv.command(&key, push, Repeat::Once).await.unwrap(), Reply::Int(2));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_is_told_of_by_the_kind_of_command() {
    let mut server = Server::start().await.unwrap();
    let brief = config(server.address()).op_timeout(OP_TIMEOUT / 4);
    let kv = ValkeyStore::connect(brief).await.unwrap();
    server.freeze().unwrap();
    let push: &[&[u8]] = &[b"RPUSH", b"l", b"a"];
    let (once, safe) = tokio::join!(
        kv.command(b"l", push, Repeat::Once),
        kv.command(b"l", &[b"LLEN", b"l"], Repeat::Safe),
    );
    assert!(once.unwrap_err().may_have_applied());
    assert!(!safe.unwrap_err().may_have_applied());
    server.thaw().unwrap();
}

/// One key that a user may not reach says nothing of the command.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_out_of_reach_does_not_switch_a_command_off() {
    let server = Server::start().await.unwrap();
    let rights = "on >secret resetkeys ~app:* -@all +set +get +evalsha +eval +delifeq +del +ping";
    let mut user = vec!["ACL", "SETUSER", "app"];
    // Servers without the command do not know the right either.
    let knows = server.knows("DELIFEQ").await.unwrap();
    user.extend(rights.split(' ').filter(|rule| knows || *rule != "+delifeq"));
    server.command(&user).await.unwrap();
    let app = config(server.address()).username("app").password("secret");
    let kv = ValkeyStore::connect(app).await.unwrap();
    kv.set(b"app:k", b"v", None).await.unwrap();
    let error = kv.compare_and_delete(b"other:k", b"v").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AccessDenied, "{error:?}");
    let error = kv.compare_and_set(b"other:k", b"v", b"w", None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AccessDenied, "{error:?}");
    let scripts = async || {
        let stats = server.command(&["INFO", "commandstats"]).await.unwrap();
        let text = stats.text().unwrap().to_owned();
        let evals = text.lines().filter(|line| line.starts_with("cmdstat_eval"));
        evals.map(str::to_owned).collect::<Vec<_>>()
    };
    let before = scripts().await;
    assert!(kv.compare_and_set(b"app:k", b"v", b"w", None).await.unwrap());
    assert!(kv.compare_and_delete(b"app:k", b"w").await.unwrap());
    if knows {
        assert_eq!(scripts().await, before, "the commands of the server are used no longer");
    }
}
