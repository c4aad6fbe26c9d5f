//! What the suite offers to the harness of a store behind a server.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use derp_kv_conformance::{BoxError, ChildServer, Cut, Proxy, Shared, shared_runtime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// By these variables this test binary is told to be something else in another process.
const ECHO: &str = "DERP_KV_ECHO_PORT";
const OWNER: &str = "DERP_KV_OWNER_FILE";

/// This binary once more, as the one test that acts for another process.
fn this_binary(variable: &str, value: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this binary has a path"));
    command.args(["--exact", "acts_for_another_process", "--nocapture"]).env(variable, value);
    command
}

fn echo_server(port: u16, _: &Path) -> Command {
    this_binary(ECHO, port.to_string())
}

/// Sends back what it is sent.
fn echo(port: u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("the port is free");
    for client in listener.incoming() {
        std::thread::spawn(move || {
            let mut client = client.expect("a client");
            let mut bytes = [0; 1024];
            while let Ok(read @ 1..) = client.read(&mut bytes) {
                client.write_all(&bytes[..read]).expect("the client is there");
            }
        });
    }
}

/// Owns a server until it is killed.
fn own(file: PathBuf) {
    let server = shared_runtime().block_on(ChildServer::start(echo_server)).expect("a server");
    let told = format!("{} {}", server.port(), server.directory().display());
    std::fs::write(file.with_extension("part"), told).expect("the file can be written");
    std::fs::rename(file.with_extension("part"), file).expect("the file can be renamed");
    std::thread::park();
}

#[test]
fn acts_for_another_process() {
    let variable = |name| std::env::var(name).ok();
    match (variable(ECHO), variable(OWNER)) {
        (Some(port), _) => echo(port.parse().expect("a port")),
        (None, Some(file)) => own(file.into()),
        (None, None) => {
            assert!(Path::new(&this_binary(ECHO, "0").get_program()).is_file());
        }
    }
}

fn listens(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn within(patience: Duration, what: &str, done: impl Fn() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < patience, "{what}: not within {patience:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_child_server_listens_and_goes_with_its_owner() {
    let server = shared_runtime().block_on(ChildServer::start(echo_server)).expect("a server");
    let (port, directory) = (server.port(), server.directory().to_owned());
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("it listens");
    client.write_all(b"hello").expect("it reads");
    let mut answer = [0; 5];
    client.read_exact(&mut answer).expect("it answers");
    assert_eq!(&answer, b"hello");
    assert!(directory.join("log").is_file());
    drop(server);
    assert!(!listens(port), "it lives on");
    assert!(!directory.exists(), "its directory stays");
}

#[test]
fn a_child_server_ends_with_a_test_process_that_is_killed() {
    let file = std::env::temp_dir().join(format!("derp-kv-owner-{}", std::process::id()));
    let mut owner = this_binary(OWNER, &file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("this binary runs");
    within(PATIENCE, "a server in another process", || file.exists());
    let told = std::fs::read_to_string(&file).expect("the file is text");
    std::fs::remove_file(&file).expect("the file goes");
    let (port, directory) = told.split_once(' ').expect("a port and a directory");
    let port = port.parse().expect("a port");
    assert!(listens(port));
    owner.kill().expect("the owner lives");
    owner.wait().expect("the owner has ended");
    within(PATIENCE, "the end of a server without owner", || !listens(port));
    within(PATIENCE, "the end of its directory", || !Path::new(directory).exists());
}

#[test]
fn a_server_that_cannot_start_says_why() {
    let fails = |command: fn(u16, &Path) -> Command| {
        let started = shared_runtime().block_on(ChildServer::start(command));
        started.expect_err("it cannot start").to_string()
    };
    let missing = fails(|_, _| Command::new("acme-server-that-nobody-has"));
    assert!(missing.starts_with("the server ended before it listened: "), "{missing}");
    assert!(missing.contains("acme-server-that-nobody-has"), "{missing}");
    let broken = fails(|_, _| {
        let mut command = Command::new("sh");
        command.args(["-c", "echo the disk is gone >&2; exit 3"]);
        command
    });
    assert!(broken.ends_with(": the disk is gone"), "{broken}");
}

/// What a connection through the proxy got, and what the server had been sent by then.
async fn through(cut: Option<Cut>, pieces: &[&[u8]]) -> Result<(Vec<u8>, Vec<u8>), BoxError> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let proxy = Proxy::start(listener.local_addr()?).await?;
    if let Some(cut) = cut {
        proxy.sever(b"key:7", cut);
    }
    let server = tokio::spawn(async move {
        let (mut client, _) = listener.accept().await?;
        let (mut all, mut bytes) = (Vec::new(), [0; 64]);
        loop {
            let read = client.read(&mut bytes).await?;
            if read == 0 || client.write_all(b"answer").await.is_err() {
                return Ok::<_, std::io::Error>(all);
            }
            all.extend_from_slice(&bytes[..read]);
        }
    });
    let mut client = tokio::net::TcpStream::connect(proxy.address()).await?;
    let mut got = Vec::new();
    for piece in pieces {
        let mut answer = [0; 6];
        // A piece that is no whole request is answered as well, so that pieces do not melt together.
        if client.write_all(piece).await.is_err() || client.read_exact(&mut answer).await.is_err() {
            break;
        }
        got.extend_from_slice(&answer);
    }
    drop(client);
    Ok((got, server.await??))
}

#[tokio::test]
async fn a_proxy_cuts_the_connection_that_carries_the_key() -> Result<(), BoxError> {
    let request: &[&[u8]] = &[b"GET key:6", b"GET key:7", b"GET key:8"];
    let all = request.concat();
    let (got, sent) = through(None, request).await?;
    assert_eq!((&got[..], &sent[..]), (&b"answeransweranswer"[..], &all[..]));
    let (got, sent) = through(Some(Cut::Before), request).await?;
    assert_eq!((&got[..], &sent[..]), (&b"answer"[..], &all[..9]));
    let (got, sent) = through(Some(Cut::After), request).await?;
    assert_eq!((&got[..], &sent[..]), (&b"answer"[..], &all[..18]));
    // Also where the key comes in two pieces.
    let (got, sent) = through(Some(Cut::Before), &[b"GET ke", b"y:7"]).await?;
    assert_eq!((&got[..], &sent[..]), (&b"answer"[..], &b"GET ke"[..]));
    Ok(())
}

#[test]
fn what_is_shared_is_made_once_and_outlives_each_runtime() -> Result<(), BoxError> {
    static MADE: AtomicU32 = AtomicU32::new(0);
    static ECHO: Shared<(u16, tokio::task::JoinHandle<()>)> = Shared::new();
    let echo = || async {
        MADE.fetch_add(1, Ordering::SeqCst);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        // A task of a law's runtime would end with the law.
        let task = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut bytes = [0; 5];
                let read = client.read_exact(&mut bytes).await;
                assert!(read.is_ok() && client.write_all(&bytes).await.is_ok());
            }
        });
        Ok((port, task))
    };
    for _ in 0..3 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let (port, task) = ECHO.get(echo).await?;
            assert!(!task.is_finished());
            let mut client = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).await?;
            client.write_all(b"hello").await?;
            let mut answer = [0; 5];
            client.read_exact(&mut answer).await?;
            assert_eq!(&answer, b"hello");
            Ok::<_, BoxError>(())
        })?;
    }
    assert_eq!(MADE.load(Ordering::SeqCst), 1);
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_made_is_tried_once() {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    static NEVER: Shared<()> = Shared::new();
    for _ in 0..2 {
        let made = NEVER.get(|| async {
            TRIED.fetch_add(1, Ordering::SeqCst);
            Err("there is no `acme-server`".into())
        });
        let error = made.await.expect_err("it cannot be made").to_string();
        assert_eq!(error, "there is no `acme-server`");
    }
    assert_eq!(TRIED.load(Ordering::SeqCst), 1);
}
