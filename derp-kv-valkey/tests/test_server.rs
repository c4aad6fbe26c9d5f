//! The test servers themselves: they start, do what they say, and leave nothing behind.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use derp_kv_valkey::test_server::{
    Certificates, Cluster, Fault, Proxy, Server, ServerCertificate, Traffic, slot_of,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const CHILD: &str = "DERP_KV_TEST_SERVER_CHILD";

fn runs(pid: u32) -> bool {
    // A dead process that nobody has waited for yet is not running.
    let state = Command::new("ps").args(["-o", "stat=", "-p", &pid.to_string()]).output();
    state.is_ok_and(|out| out.status.success() && !out.stdout.starts_with(b"Z"))
}

async fn gone(pid: u32, dir: &Path) {
    let give_up = Instant::now() + Duration::from_secs(60);
    while runs(pid) || dir.exists() {
        assert!(Instant::now() < give_up, "process {pid} or {} is still there", dir.display());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn ask(address: (String, u16), request: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request).await?;
    let mut answer = vec![0; 1024];
    let read = stream.read(&mut answer).await?;
    answer.truncate(read);
    Ok(answer)
}

const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

#[tokio::test]
async fn a_server_answers_and_tells_its_version() -> Result<()> {
    let server = Server::start().await?;
    assert_eq!(ask(server.address(), PING).await?, b"+PONG\r\n");
    assert!(server.version().await?.0 >= 6);
    let refused = server.command(&["NONSENSE"]).await.unwrap_err();
    assert!(refused.to_string().contains("unknown command"), "{refused}");
    Ok(())
}

#[tokio::test]
async fn a_dropped_server_leaves_nothing() -> Result<()> {
    let server = Server::start().await?;
    let (pid, dir) = (server.pid().context("running")?, server.dir().to_owned());
    assert!(runs(pid) && dir.exists());
    drop(server);
    assert!(!runs(pid) && !dir.exists());
    Ok(())
}

#[tokio::test]
async fn a_panic_leaves_nothing_even_of_a_frozen_server() -> Result<()> {
    let mut server = Server::start().await?;
    let (pid, dir) = (server.pid().context("running")?, server.dir().to_owned());
    server.freeze()?;
    let panicked = tokio::spawn(async move {
        let _held = server;
        panic!("on purpose");
    })
    .await;
    assert!(panicked.is_err());
    assert!(!runs(pid) && !dir.exists());
    Ok(())
}

/// The other half of the next test: run by it in a process that is then killed.
#[tokio::test]
async fn child_that_is_killed() -> Result<()> {
    let Ok(report) = std::env::var(CHILD) else { return Ok(()) };
    let server = Server::start().await?;
    let text = format!("{} {}", server.pid().context("running")?, server.dir().display());
    std::fs::write(format!("{report}.new"), text)?;
    std::fs::rename(format!("{report}.new"), report)?;
    std::future::pending::<Result<()>>().await
}

#[tokio::test]
async fn a_killed_test_process_leaves_nothing() -> Result<()> {
    let place = Certificates::generate()?; // any directory that goes away
    let report = place.dir().join("report");
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--exact", "child_that_is_killed"])
        .env(CHILD, &report)
        .stdout(Stdio::null())
        .spawn()?;
    let give_up = Instant::now() + Duration::from_secs(60);
    while !report.exists() {
        assert!(Instant::now() < give_up, "the child did not start its server");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    child.kill()?;
    child.wait()?;
    let text = std::fs::read_to_string(&report)?;
    let (pid, dir) = text.split_once(' ').context("pid and directory")?;
    gone(pid.parse()?, Path::new(dir)).await;
    Ok(())
}

#[tokio::test]
async fn restart_keeps_the_port_and_what_was_saved() -> Result<()> {
    let mut server = Server::start().await?;
    let address = server.address();
    server.command(&["SET", "kept", "1"]).await?;
    server.command(&["SAVE"]).await?;
    server.command(&["SET", "lost", "1"]).await?;
    server.kill9();
    assert!(ask(address.clone(), PING).await.is_err());
    server.set_option("requirepass", "secret");
    server.restart().await?;
    assert_eq!(server.address(), address);
    assert_eq!(server.command(&["EXISTS", "kept", "lost"]).await?.int()?, 1);
    assert!(ask(address, PING).await?.starts_with(b"-NOAUTH"));
    Ok(())
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why() {
    let error = Server::builder().option("no-such-option", "1").start().await.unwrap_err();
    assert!(error.to_string().contains("no-such-option"), "{error}");
}

#[tokio::test]
async fn users_may_do_what_their_rules_say() -> Result<()> {
    let password = "p@ss:w/rd#\"'?%";
    let server = Server::builder().user("app", password, "~app:* +get").start().await?;
    let login = format!(
        "*3\r\n$4\r\nAUTH\r\n$3\r\napp\r\n${}\r\n{password}\r\n*2\r\n$3\r\nGET\r\n$1\r\nx\r\n",
        password.len()
    );
    let mut stream = TcpStream::connect(server.address()).await?;
    stream.write_all(login.as_bytes()).await?;
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await?;
    assert_eq!(answer, b"+OK\r\n-NOPERM");
    Ok(())
}

#[tokio::test]
async fn a_cluster_forms_and_moves_slots() -> Result<()> {
    let cluster = Cluster::start(3, 1).await?;
    assert_eq!(cluster.primaries().await?, [0, 1, 2]);
    assert_eq!(cluster.replicas_of(1).await?, [4]);
    let key = cluster.key_owned_by(0).await?;
    let slot = slot_of(key.as_bytes());
    for n in 0..25 {
        cluster.node(0).command(&["SET", &format!("{{{key}}}{n}"), "x"]).await?;
    }
    cluster.move_slot(slot, 2).await?;
    cluster.wait_until_ok().await?;
    assert_eq!(cluster.owner_of(slot).await?, 2);
    let count = cluster.node(2).command(&["CLUSTER", "COUNTKEYSINSLOT", &slot.to_string()]).await?;
    assert_eq!(count.int()?, 25);
    Ok(())
}

#[tokio::test]
async fn a_dead_primary_is_replaced_by_its_replica() -> Result<()> {
    let mut cluster = Cluster::builder(3, 1).node_timeout(Duration::from_secs(1)).start().await?;
    cluster.node_mut(0).kill9();
    assert_eq!(cluster.wait_for_new_owner(0, 0).await?, 3);
    cluster.node_mut(0).restart().await?;
    cluster.wait_until_ok().await?;
    assert_eq!(cluster.replicas_of(3).await?, [0]);
    Ok(())
}

#[tokio::test]
async fn the_proxy_cuts_after_the_server_has_executed() -> Result<()> {
    let server = Server::start().await?;
    let proxy = Proxy::start(server.port()).await?;
    const INCR: &[u8] = b"*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n";
    for (fault, value) in [(Fault::CutAfter, 1), (Fault::CutBefore, 1), (Fault::CutReply, 2)] {
        let armed = proxy.arm("INCR", fault);
        let answer = ask(proxy.address(), INCR).await.unwrap_or_default();
        assert_eq!(answer.len(), if fault == Fault::CutReply { 2 } else { 0 }, "{fault:?}");
        armed.fired().await?;
        assert_eq!(server.command(&["GET", "n"]).await?.int()?, value, "{fault:?}");
    }
    assert_eq!(ask(proxy.address(), INCR).await?, b":3\r\n");
    assert_eq!((proxy.connections(), proxy.requests()), (4, 4));
    Ok(())
}

#[tokio::test]
async fn a_hole_stays_and_a_refusal_does_not() -> Result<()> {
    let server = Server::start().await?;
    let proxy = Proxy::start(server.port()).await?;
    let mut held = TcpStream::connect(proxy.address()).await?;
    proxy.wait_for_connections(1).await;
    proxy.set(Traffic::HoleReplies);
    held.write_all(b"*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n").await?;
    proxy.wait_for_requests(1).await;
    proxy.set(Traffic::Refuse);
    let give_up = Instant::now() + Duration::from_secs(60);
    while ask(proxy.address(), PING).await.is_ok() {
        assert!(Instant::now() < give_up, "new connections are not refused");
    }
    proxy.set(Traffic::Pass);
    while ask(proxy.address(), PING).await.is_err() {
        assert!(Instant::now() < give_up, "new connections are still refused");
    }
    held.write_all(PING).await?;
    let silent = tokio::time::timeout(Duration::from_millis(200), held.read(&mut [0; 8])).await;
    assert!(silent.is_err(), "a hole let something through: {silent:?}");
    proxy.cut_all();
    assert!(matches!(held.read(&mut [0; 8]).await, Ok(0) | Err(_)));
    Ok(())
}

#[tokio::test]
async fn certificates_name_what_they_are_for() -> Result<()> {
    let made = Certificates::generate()?;
    let builder = Server::builder().tls(&made, ServerCertificate::Valid);
    assert!(format!("{builder:?}").contains("valid"));
    let (cert, key) = made.client();
    assert!(std::fs::read_to_string(cert)?.contains("BEGIN CERTIFICATE"));
    assert!(std::fs::read_to_string(key)?.contains("PRIVATE KEY"));
    Ok(())
}
