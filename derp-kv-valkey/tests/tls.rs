//! TLS: what connects, and what each mistake says. Needs a server that was built with TLS.

use std::error::Error as _;
use std::path::PathBuf;

use derp_kv_core::{ErrorKind, KvStore};
use derp_kv_valkey::test_server::{Certificates, Server, ServerCertificate, ServerCertificate::*};
use derp_kv_valkey::{ValkeyConfig, ValkeyStore};

async fn server(certificates: &Certificates, shown: ServerCertificate, clients: &str) -> Server {
    let builder = Server::builder().option("tls-auth-clients", clients);
    builder.tls(certificates, shown).start().await.unwrap()
}

fn config(server: &Server, ca: PathBuf) -> ValkeyConfig {
    ValkeyConfig::default().addresses([server.address()]).use_tls(true).ca_file(ca)
}

async fn works(config: ValkeyConfig) {
    let kv = ValkeyStore::connect(config).await.unwrap();
    kv.set(b"k", b"v", None).await.unwrap();
    assert_eq!(kv.get(b"k").await.unwrap().as_deref(), Some(&b"v"[..]));
}

/// The error, with its source.
async fn fails(config: ValkeyConfig, kind: ErrorKind) -> String {
    let error = ValkeyStore::connect(config).await.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    let source = error.source().map(ToString::to_string).unwrap_or_default();
    format!("{error}: {source}")
}

#[tokio::test]
async fn by_name_and_by_address() {
    let certificates = Certificates::generate().unwrap();
    let server = server(&certificates, Valid, "no").await;
    works(config(&server, certificates.ca())).await;
    works(config(&server, certificates.ca()).addresses([("localhost", server.port())])).await;
}

#[tokio::test]
async fn two_authorities_in_one_file() {
    let certificates = Certificates::generate().unwrap();
    let server = server(&certificates, Valid, "no").await;
    let both = certificates.dir().join("both.pem");
    let read = |path| std::fs::read(path).unwrap();
    std::fs::write(&both, [read(certificates.other_ca()), read(certificates.ca())].concat())
        .unwrap();
    works(config(&server, both)).await;
}

#[tokio::test]
async fn a_certificate_that_cannot_be_trusted() {
    let certificates = Certificates::generate().unwrap();
    for (shown, ca, word) in [
        (Valid, certificates.other_ca(), "UnknownIssuer"),
        (OtherCa, certificates.ca(), "UnknownIssuer"),
        (Expired, certificates.ca(), "xpired"),
        (WrongHost, certificates.ca(), "not valid for name"),
    ] {
        let server = server(&certificates, shown, "no").await;
        let error = fails(config(&server, ca), ErrorKind::Unavailable).await;
        assert!(error.contains(word), "{shown:?}: {error}");
    }
}

#[tokio::test]
async fn the_systems_roots_do_not_know_it() {
    let certificates = Certificates::generate().unwrap();
    let server = server(&certificates, Valid, "no").await;
    let config = ValkeyConfig::default().addresses([server.address()]).use_tls(true);
    let error = ValkeyStore::connect(config).await.unwrap_err();
    // A machine may have no roots at all.
    let kind = error.kind();
    assert!(matches!(kind, ErrorKind::Unavailable | ErrorKind::InvalidArgument), "{error}");
}

#[tokio::test]
async fn client_certificates() {
    let certificates = Certificates::generate().unwrap();
    let server = server(&certificates, Valid, "yes").await;
    let config = config(&server, certificates.ca());
    let (cert, key) = certificates.client();
    works(config.clone().client_cert(&cert, &key)).await;

    fails(config.clone(), ErrorKind::Unavailable).await;
    let (other_cert, other_key) = certificates.other_client();
    fails(config.clone().client_cert(other_cert, &other_key), ErrorKind::Unavailable).await;
    let config = config.client_cert(cert, other_key);
    let error = fails(config, ErrorKind::InvalidArgument).await;
    assert!(error.contains("client_key_file"), "{error}");
}

#[tokio::test]
async fn files_that_hold_nothing() {
    let certificates = Certificates::generate().unwrap();
    let server = server(&certificates, Valid, "no").await;
    let garbage = certificates.dir().join("garbage.pem");
    for text in ["", "garbage", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        std::fs::write(&garbage, text).unwrap();
        let error = fails(config(&server, garbage.clone()), ErrorKind::InvalidArgument).await;
        assert!(error.contains("ca_file") && error.contains("garbage.pem"), "{error}");
    }
    let missing = certificates.dir().join("missing.pem");
    let error = fails(config(&server, missing), ErrorKind::InvalidArgument).await;
    assert!(error.contains("ca_file") && error.contains("cannot read"), "{error}");
}

#[tokio::test]
async fn plain_text_meets_a_tls_port() {
    let certificates = Certificates::generate().unwrap();
    let server = server(&certificates, Valid, "no").await;
    let config = ValkeyConfig::default().addresses([server.address()]);
    let error = fails(config, ErrorKind::Unavailable).await;
    assert!(error.contains("does it want TLS"), "{error}");
}
