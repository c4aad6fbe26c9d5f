//! A name with several addresses leads to the same server as long as that works, and to the next
//! one where it does not. A name server that hangs does no harm.

mod common;
mod fake;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use common::ends;
use derp_kv_core::{Error, ErrorKind, KvStore};
use derp_kv_valkey::test_server::{Name, Server};
use derp_kv_valkey::{ValkeyConfig, ValkeyStore};
use fake::Fake;
use futures_util::future::join_all;
use tokio::net::TcpListener;

const GOOD: &str = "%1\r\n+mode\r\n+standalone\r\n";
const REPLICA: &str = "%1\r\n+role\r\n+replica\r\n";
const WRONG_PASSWORD: &str = "-WRONGPASS no\r\n";
/// The server takes connections and says nothing.
const SILENT: &str = "";

async fn fake(hello: &'static str) -> Fake {
    Fake::start(move |request| async move {
        match request[0].as_str() {
            "HELLO" => hello.to_owned(),
            _ => if hello == SILENT { "" } else { "+OK\r\n" }.to_owned(),
        }
    })
    .await
}

fn name(addresses: &[SocketAddr]) -> Name {
    let addresses = addresses.to_vec();
    Name::new(move || Ok(addresses.clone()))
}

fn config(name: &Name) -> ValkeyConfig {
    ValkeyConfig::default().addresses([name.address()]).connect_timeout(Duration::from_secs(30))
}

/// An address where nobody listens.
async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    listener.local_addr().expect("bound")
}

async fn fails(config: ValkeyConfig) -> Error {
    ValkeyStore::connect(config).await.expect_err("no address is good")
}

#[tokio::test]
async fn five_servers_behind_a_name_have_one_owner_of_a_lock() {
    let servers = join_all((0..5).map(|_| Server::start())).await;
    let servers: Vec<_> = servers.into_iter().map(|server| server.expect("server")).collect();
    let name =
        name(&servers.iter().map(|s| (Ipv4Addr::LOCALHOST, s.port()).into()).collect::<Vec<_>>());
    let seen = async || {
        let counts = servers.iter().map(|server| server.info("total_connections_received"));
        let counts = join_all(counts).await.into_iter();
        counts.map(|count| count.expect("info").parse().expect("a count")).collect::<Vec<u64>>()
    };
    // What the asking itself adds.
    let (first, second) = (seen().await, seen().await);
    let lock = async |number: usize| {
        let store = ValkeyStore::connect(config(&name)).await.expect("connect");
        store.set_nx(b"lock", number.to_string().as_bytes(), None).await.expect("set_nx")
    };
    let owners = join_all((0..40).map(lock)).await.into_iter().filter(|owner| *owner).count();
    assert_eq!(owners, 1);
    let third = seen().await;
    let new: Vec<_> = (0..5).map(|i| third[i] - second[i] - (second[i] - first[i])).collect();
    assert_eq!(new, [40, 0, 0, 0, 0]);
}

#[tokio::test]
async fn of_two_servers_at_localhost_it_is_always_the_first_and_the_other_is_left_alone() {
    let answer = |_| async { GOOD.to_owned() };
    let six = Fake::start_at(Ipv6Addr::LOCALHOST.into(), answer).await;
    let four = Fake::start_at(Ipv4Addr::LOCALHOST.into(), answer).await;
    for (first, second) in [(&six, &four), (&four, &six)] {
        let name = name(&[first.socket_address(), second.socket_address()]);
        let before = (first.connections(), second.connections());
        for _ in 0..20 {
            ValkeyStore::connect(config(&name)).await.expect("connect");
        }
        assert_eq!(first.connections() - before.0, 20);
        assert_eq!(second.connections(), before.1);
    }
}

#[tokio::test]
async fn a_bad_address_does_not_hinder_the_next() {
    let good = fake(GOOD).await;
    let connects = async |bad: SocketAddr, config: fn(&Name) -> ValkeyConfig| {
        let name = name(&[bad, good.socket_address()]);
        let before = good.connections();
        let connect = ValkeyStore::connect(config(&name));
        ends("connecting", connect).await.unwrap_or_else(|error| panic!("{bad}: {error}"));
        assert_eq!(good.connections(), before + 1);
    };
    for hello in [
        "HTTP/1.1 400 Bad Request\r\n\r\n",
        WRONG_PASSWORD,
        "-ERR max number of clients reached\r\n",
        "%1\r\n+mode\r\n+sentinel\r\n",
        "%1\r\n+mode\r\n+cluster\r\n",
        REPLICA,
    ] {
        connects(fake(hello).await.socket_address(), config).await;
    }
    connects(nobody().await, config).await;
    // Reserved for documents: it refuses or leads nowhere.
    connects(([198, 51, 100, 1], 6379).into(), config).await;
    connects(fake(SILENT).await.socket_address(), |name| {
        config(name).connect_timeout(Duration::from_secs(2))
    })
    .await;
}

#[tokio::test]
async fn the_error_is_of_the_address_that_tells_most() {
    let (wrong, silent, replica) =
        (fake(WRONG_PASSWORD).await, fake(SILENT).await, fake(REPLICA).await);
    let (wrong, silent) = (wrong.socket_address(), silent.socket_address());
    let nobody = nobody().await;
    for addresses in [[wrong, nobody], [nobody, wrong]] {
        let error = fails(config(&name(&addresses))).await;
        assert_eq!(error.kind(), ErrorKind::AccessDenied, "{error}");
        assert!(error.to_string().contains(":6379 (127.0.0.1): "), "{error}");
    }
    let brief = |name: &Name| config(name).connect_timeout(Duration::from_millis(300));
    for addresses in [[silent, nobody], [nobody, silent]] {
        let error = fails(brief(&name(&addresses))).await;
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        assert!(error.to_string().contains("says nothing"), "{error}");
    }
    let error = fails(brief(&name(&[replica.socket_address(), silent]))).await;
    assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
    let error = fails(config(&name(&[]))).await;
    assert!(error.to_string().contains("has no address"), "{error}");
}

/// A name whose lookups hang until the sender is dropped, and how many there were.
fn hanging() -> (Name, mpsc::Sender<()>, Arc<AtomicUsize>) {
    let (release, hang) = mpsc::channel::<()>();
    let (hang, lookups) = (Mutex::new(hang), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&lookups);
    let name = Name::new(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        let _ = hang.lock().expect("hang").recv();
        Ok(vec![(Ipv4Addr::LOCALHOST, 1).into()])
    });
    (name, release, lookups)
}

#[test]
fn attempts_while_the_name_server_hangs_share_one_lookup_and_nothing_waits_for_it() {
    let (name, release, lookups) = hanging();
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    runtime.block_on(async {
        let brief = || config(&name).connect_timeout(Duration::from_millis(100));
        let mut errors = join_all((0..45).map(|_| fails(brief()))).await;
        for _ in 0..5 {
            errors.push(fails(brief()).await);
        }
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
            assert!(error.to_string().contains("name server"), "{error}");
        }
    });
    // A runtime waits for its own blocked threads: this would never return.
    drop(runtime);
    assert_eq!(lookups.load(Ordering::SeqCst), 1);

    // Once it answers, a new lookup is told what the name means then.
    drop(release);
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    while runtime.block_on(fails(config(&name))).kind() == ErrorKind::Timeout {}
    let before = lookups.load(Ordering::SeqCst);
    assert_eq!(runtime.block_on(fails(config(&name))).kind(), ErrorKind::Unavailable);
    assert_eq!(lookups.load(Ordering::SeqCst), before + 1);
}

#[tokio::test]
async fn a_lookup_that_breaks_off_is_an_error_and_not_the_end() {
    let (server, first) = (fake(GOOD).await, Mutex::new(Some(())));
    let address = server.socket_address();
    let name = Name::new(move || {
        let first = first.lock().map(|mut first| first.take());
        assert!(!matches!(first, Ok(Some(()))), "the first lookup panics");
        Ok(vec![address])
    });
    let error = fails(config(&name)).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    ValkeyStore::connect(config(&name)).await.expect("connect");
}
