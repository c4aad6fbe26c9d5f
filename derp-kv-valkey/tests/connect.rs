//! Connecting fails at once and says why; the last handle leaves nothing behind.

mod fake;

use std::error::Error as _;
use std::net::Ipv4Addr;
use std::time::Duration;

use derp_kv_core::{Error, ErrorKind, KvStore, Operation};
use derp_kv_valkey::test_server::{Cluster, Server};
use derp_kv_valkey::{Mode, ValkeyConfig, ValkeyStore};
use fake::Fake;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

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

/// Something that says `words` to everybody and closes, without having listened.
async fn turning_away(words: &'static str) -> (ValkeyConfig, tokio::task::JoinSet<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut serving = tokio::task::JoinSet::new();
    serving.spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let _ = client.write_all(words.as_bytes()).await;
        }
    });
    (ValkeyConfig::default().addresses([("127.0.0.1", port)]).password("hunter2"), serving)
}

#[tokio::test]
async fn the_server_says_why_it_turns_a_client_away() {
    use ErrorKind::{AccessDenied, Backend, InvalidArgument, Unavailable, Unsupported};
    for (words, kind, shown) in [
        ("-ERR max number of clients reached\r\n", Unavailable, "maxclients"),
        ("-DENIED Valkey is running in protected mode ..\r\n", AccessDenied, "protected mode"),
        ("-NOPROTO unsupported protocol version\r\n", Unsupported, "6 or newer"),
        (
            "-ERR unknown command `HELLO`, with args beginning with: `3` `AUTH` `hunter2`\r\n",
            Unsupported,
            "RESP3 (HELLO)",
        ),
        ("-WRONGPASS invalid username-password pair\r\n", AccessDenied, "username and password"),
        ("-NOAUTH HELLO must be called ..\r\n", AccessDenied, "wants a password"),
        ("-NOPERM User app may not run 'hello'\r\n", AccessDenied, "User app may not"),
        ("-LOADING Valkey is loading the dataset\r\n", Unavailable, "LOADING"),
        ("-BUSY Valkey is busy running a script.\r\n", Unavailable, "BUSY"),
        ("-MASTERDOWN Link with MASTER is down\r\n", Unavailable, "MASTERDOWN"),
        ("-ERR no upstream host\r\n", Backend, "no upstream host"),
        ("-ERR odd option default:hunter2\r\n", Backend, "ERR to the greeting"),
        ("HTTP/1.1 400 Bad Request\r\n\r\n", InvalidArgument, "HTTP server"),
        ("SSH-2.0-OpenSSH_9.2\r\n", InvalidArgument, "not a Valkey server"),
        ("\x15\x03\x03\0\x02\x02\x46", InvalidArgument, "use_tls = true"),
        ("+OK\r\n+OK\r\n", InvalidArgument, "not a Valkey server"),
        ("%0\r\n", Unavailable, "closed the connection"),
        ("", Unavailable, "closed the connection"),
    ] {
        let (config, _serving) = turning_away(words).await;
        // What it said is read although its end of the connection is gone, whichever was first.
        for _ in 0..10 {
            let error = refused(config.clone()).await;
            assert_says(&error, kind, &[shown, "127.0.0.1:"]);
            assert_eq!(error.is_transient(), kind == Unavailable);
            assert!(!format!("{error} {error:?}").contains("hunter2"));
        }
    }
}

#[tokio::test]
async fn a_server_of_another_kind_is_refused() {
    use Mode::{Cluster, Standalone};
    for (mode, told, role, kind, shown) in [
        (Standalone, "standalone", "replica", ErrorKind::ReadOnly, "its primary"),
        (Standalone, "standalone", "slave", ErrorKind::ReadOnly, "its primary"),
        (Standalone, "cluster", "replica", ErrorKind::InvalidArgument, "\"cluster\""),
        (Standalone, "sentinel", "", ErrorKind::InvalidArgument, "GET-MASTER-ADDR"),
        (Cluster, "standalone", "master", ErrorKind::InvalidArgument, "\"standalone\""),
        (Cluster, "sentinel", "", ErrorKind::InvalidArgument, "GET-MASTER-ADDR"),
    ] {
        let fake = Fake::start(move |request| async move {
            match request[0].as_str() {
                "HELLO" => format!("%2\r\n+mode\r\n+{told}\r\n+role\r\n+{role}\r\n"),
                // What nobody asked for is no answer.
                _ => ">2\r\n+news\r\n+none\r\n+OK\r\n".to_owned(),
            }
        })
        .await;
        let config = ValkeyConfig::default().addresses([fake.address()]).mode(mode);
        assert_says(&refused(config).await, kind, &[shown]);
    }
}

#[tokio::test]
async fn an_echo_repeats_the_password_and_the_error_does_not() {
    let echo = Fake::start(|request| async move {
        let words: String =
            request.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
        format!("*{}\r\n{words}", request.len())
    })
    .await;
    let error =
        refused(ValkeyConfig::default().addresses([echo.address()]).password("hunter2")).await;
    assert_says(&error, ErrorKind::InvalidArgument, &["not a Valkey server"]);
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}

#[tokio::test]
async fn the_server_has_all_the_clients_it_admits() {
    let server = Server::builder().option("maxclients", "10").start().await.unwrap();
    let mut others = Vec::new();
    for _ in 0..12 {
        others.push(TcpStream::connect(server.address()).await.unwrap());
    }
    let error = refused(config(&server)).await;
    assert_says(&error, ErrorKind::Unavailable, &["maxclients"]);
    drop(others);
    let admitted = async {
        while let Err(error) = ValkeyStore::connect(config(&server)).await {
            assert_says(&error, ErrorKind::Unavailable, &["maxclients"]);
        }
    };
    tokio::time::timeout(Duration::from_secs(30), admitted).await.expect("admitted at last");
}

#[tokio::test]
async fn the_server_does_not_know_hello() {
    let server = Server::builder().option("rename-command", "HELLO \"\"").start().await.unwrap();
    let error = refused(config(&server).password("hunter2")).await;
    assert_says(&error, ErrorKind::Unsupported, &["RESP3 (HELLO)", "6 or newer"]);
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}

#[tokio::test]
async fn a_sentinel_answers() {
    let server = Server::start().await.unwrap();
    let port = {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        listener.local_addr().unwrap().port()
    };
    let file = server.dir().join("sentinel.conf");
    let monitored = format!("sentinel monitor main 127.0.0.1 {} 1", server.port());
    std::fs::write(&file, format!("port {port}\nbind 127.0.0.1\n{monitored}\n")).unwrap();
    let binary = std::env::var_os("VALKEY_SERVER").unwrap_or("valkey-server".into());
    let mut sentinel = tokio::process::Command::new(binary)
        .arg(file)
        .arg("--sentinel")
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let here = ValkeyConfig::default().addresses([("127.0.0.1", port)]);
    for mode in [Mode::Standalone, Mode::Cluster] {
        let error = loop {
            let error = refused(here.clone().mode(mode)).await;
            // It does not listen yet.
            if error.kind() != ErrorKind::Unavailable {
                break error;
            }
            assert!(sentinel.try_wait().unwrap().is_none(), "the sentinel has ended: {error}");
        };
        assert_says(&error, ErrorKind::InvalidArgument, &["Sentinel", "GET-MASTER-ADDR-BY-NAME"]);
    }
    sentinel.kill().await.unwrap();
}

#[tokio::test]
async fn a_replica_is_no_standalone_server() {
    let (primary, replica) = (Server::start().await.unwrap(), Server::start().await.unwrap());
    let port = primary.port().to_string();
    replica.command(&["REPLICAOF", "127.0.0.1", &port]).await.unwrap();
    let error = refused(config(&replica)).await;
    assert_says(&error, ErrorKind::ReadOnly, &["is a replica", "its primary"]);
    replica.command(&["REPLICAOF", "NO", "ONE"]).await.unwrap();
    let kv = ValkeyStore::connect(config(&replica)).await.unwrap();
    kv.set(b"k", b"v", None).await.unwrap();
}

#[tokio::test]
async fn a_replica_of_a_cluster_is_a_seed() {
    let cluster = Cluster::start(1, 1).await.unwrap();
    let replica = config(cluster.node(1)).mode(Mode::Cluster);
    let kv = ValkeyStore::connect(replica).await.unwrap();
    kv.set(b"k", b"v", None).await.unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn a_unix_socket() {
    let server = Server::builder().password("right one").start().await.unwrap();
    let path = server.dir().join("socket").display().to_string();
    let config = ValkeyConfig::default().unix_socket(path);
    let kv = ValkeyStore::connect(config.clone().password("right one")).await.unwrap();
    kv.set(b"k", b"v", None).await.unwrap();
    assert_eq!(kv.get(b"k").await.unwrap().as_deref(), Some(&b"v"[..]));
    let error = refused(config).await;
    assert_says(&error, ErrorKind::AccessDenied, &["wants a password", "socket"]);
    let error = refused(ValkeyConfig::default().unix_socket("/nonexistent/socket")).await;
    assert_says(&error, ErrorKind::Unavailable, &["/nonexistent/socket", "cannot connect"]);
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
async fn a_value_that_is_too_long_is_refused_before_it_harms_the_connection() {
    let server = Server::builder().option("proto-max-bulk-len", "1mb").start().await.unwrap();
    let kv = ValkeyStore::connect(config(&server).max_bulk_bytes(1 << 20)).await.unwrap();
    let value = vec![0; (1 << 20) + 1];
    let error = kv.set(b"k", &value, None).await.unwrap_err();
    assert_says(&error, ErrorKind::InvalidArgument, &["1048576 bytes"]);
    kv.set(b"k", &value[1..], None).await.unwrap();
    // Of this client there was one connection all along; the test's own is through a socket file.
    let clients = server.command(&["CLIENT", "LIST", "TYPE", "NORMAL"]).await.unwrap();
    let clients = clients.text().unwrap().lines().filter(|line| line.contains("addr=127.")).count();
    assert_eq!(clients, 1);
}
