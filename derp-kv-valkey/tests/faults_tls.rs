//! TLS that goes wrong. Needs a `valkey-server` built with TLS.

mod common;

use std::time::{Duration, Instant};

use common::{config, ends, recovers, report_row};
use derp_kv_core::{Error, ErrorKind, KvStore};
use derp_kv_valkey::test_server::{Certificates, Server, ServerCertificate};
use derp_kv_valkey::{ValkeyConfig, ValkeyStore};

async fn shows(certificates: &Certificates, shown: ServerCertificate) -> Server {
    let server = Server::builder().tls(certificates, shown).start().await;
    server.expect("a server with TLS (install a valkey-server that was built with it)")
}

fn trusting(server: &Server, certificates: &Certificates) -> ValkeyConfig {
    config(server.address()).use_tls(true).ca_file(certificates.ca())
}

async fn connect_error(config: ValkeyConfig) -> Error {
    ends("connect", ValkeyStore::connect(config)).await.expect_err("refused")
}

/// The words of the error and of all its causes.
fn words(error: &Error) -> String {
    let mut words = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        words = format!("{words}: {next}");
        cause = next.source();
    }
    words.to_lowercase()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_that_must_be_refused() {
    let made = Certificates::generate().expect("certificates");
    let start = Instant::now();
    for (shown, word) in [
        (ServerCertificate::OtherCa, "unknownissuer"),
        (ServerCertificate::Expired, "expired"),
        (ServerCertificate::WrongHost, "name"),
    ] {
        let server = shows(&made, shown).await;
        let error = connect_error(trusting(&server, &made)).await;
        assert!(words(&error).contains(word), "{shown:?}: {}", words(&error));
        assert!(!error.may_have_applied());
    }
    let server = shows(&made, ServerCertificate::Valid).await;
    let error =
        connect_error(config(server.address()).use_tls(true).ca_file(made.other_ca())).await;
    assert!(words(&error).contains("unknownissuer"), "{}", words(&error));
    // No authority given: those of the system do not know this one.
    connect_error(config(server.address()).use_tls(true)).await;
    report_row(
        "21",
        "wrong CA, host, expiry",
        "refused at connect, cause named",
        start.elapsed(),
        "nothing",
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_are_no_certificates() {
    let made = Certificates::generate().expect("certificates");
    let server = shows(&made, ServerCertificate::Valid).await;
    let start = Instant::now();
    let (garbage, empty) = (made.dir().join("garbage.pem"), made.dir().join("empty.pem"));
    std::fs::write(&garbage, "not a certificate").expect("write");
    std::fs::write(&empty, "").expect("write");
    for file in [garbage, empty, made.dir().join("absent.pem")] {
        let name = file.display().to_string();
        let error = connect_error(config(server.address()).use_tls(true).ca_file(&file)).await;
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error:?}");
        assert!(error.to_string().contains(&name), "{error}");
    }
    // A key that belongs to another certificate.
    let config = trusting(&server, &made).client_cert(made.client().0, made.other_client().1);
    assert_eq!(connect_error(config).await.kind(), ErrorKind::InvalidArgument);
    report_row(
        "21",
        "garbage, empty, absent CA file; foreign key",
        "InvalidArgument, file named",
        start.elapsed(),
        "nothing",
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_must_show_a_certificate() {
    let made = Certificates::generate().expect("certificates");
    let builder = Server::builder().option("tls-auth-clients", "yes");
    let builder = builder.tls(&made, ServerCertificate::Valid).user("app", "pw", "~app:* +@all");
    let server = builder.start().await.expect("a server with TLS");
    let config = trusting(&server, &made).username("app").password("pw");
    let start = Instant::now();
    connect_error(config.clone()).await;
    connect_error(config.clone().client_cert(made.other_client().0, made.other_client().1)).await;
    let config = config.client_cert(made.client().0, made.client().1);
    let store = ends("connect", ValkeyStore::connect(config)).await.expect("connect");
    store.set(b"app:k", b"v", None).await.expect("set");
    let error = store.set(b"foreign", b"v", None).await.expect_err("not this user's");
    assert_eq!(error.kind(), ErrorKind::AccessDenied);
    report_row(
        "21",
        "missing or foreign client certificate",
        "refused at connect",
        start.elapsed(),
        "nothing",
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_on_one_side_only() {
    let made = Certificates::generate().expect("certificates");
    let (plain, tls) =
        (Server::start().await.expect("server"), shows(&made, ServerCertificate::Valid).await);
    let start = Instant::now();
    let error = connect_error(trusting(&plain, &made)).await;
    assert!(words(&error).contains("tls"), "{}", words(&error));
    connect_error(config(tls.address())).await;
    report_row(
        "21",
        "TLS on one side only",
        format!("{:?} at connect", error.kind()),
        start.elapsed(),
        "nothing",
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_swapped_for_a_bad_one_and_back() {
    let made = Certificates::generate().expect("certificates");
    let mut server = shows(&made, ServerCertificate::Valid).await;
    let store = ValkeyStore::connect(trusting(&server, &made)).await.expect("connect");
    store.set(b"k", b"v", None).await.expect("set");
    let file = |name: &str| made.dir().join(name).display().to_string();
    server.set_option("tls-cert-file", file("expired.pem"));
    server.set_option("tls-key-file", file("expired.key"));
    server.restart().await.expect("restart");
    let error = ends("set", store.set(b"k", b"v", None)).await.expect_err("expired");
    assert!(words(&error).contains("expired"), "{}", words(&error));
    assert!(!error.may_have_applied());
    server.set_option("tls-cert-file", file("valid.pem"));
    server.set_option("tls-key-file", file("valid.key"));
    server.restart().await.expect("restart");
    let (_, back): (_, Duration) = recovers(async || store.set(b"k", b"v", None).await).await;
    report_row(
        "9",
        "TLS certificate swapped, then mended",
        format!("{:?}, cause named", error.kind()),
        back,
        "nothing",
    );
}
