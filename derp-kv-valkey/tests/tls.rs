//! TLS: what connects, and what each mistake says. Needs a server that was built with TLS.

mod common;

use std::error::Error as _;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use common::recovers;
use derp_kv_core::{ErrorKind, KvStore};
use derp_kv_valkey::test_server::{Certificates, Server, ServerCertificate, ServerCertificate::*};
use derp_kv_valkey::{ValkeyConfig, ValkeyStore};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{HandshakeKind, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

async fn server(certificates: &Certificates, shown: ServerCertificate, clients: &str) -> Server {
    let builder = Server::builder().option("tls-auth-clients", clients);
    builder.tls(certificates, shown).start().await.unwrap()
}

fn config(server: &Server, ca: PathBuf) -> ValkeyConfig {
    ValkeyConfig::default().addresses([server.address()]).use_tls(true).ca_file(ca)
}

/// TLS in front of a server without it, which tells what kind of handshake each connection made.
struct Terminator {
    port: u16,
    shows: watch::Sender<Arc<ServerConfig>>,
    cuts: watch::Sender<()>,
    handshakes: watch::Receiver<Vec<HandshakeKind>>,
    _serving: JoinSet<()>,
}

impl Terminator {
    async fn start(upstream: u16, shown: Arc<ServerConfig>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (shows, showing) = watch::channel(shown);
        let (cuts, cut) = watch::channel(());
        let (seen, handshakes) = watch::channel(Vec::new());
        let (seen, mut serving) = (Arc::new(seen), JoinSet::new());
        serving.spawn(async move {
            let mut clients = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let acceptor = TlsAcceptor::from(Arc::clone(&showing.borrow()));
                let (seen, mut cut) = (Arc::clone(&seen), cut.clone());
                cut.mark_unchanged();
                clients.spawn(async move {
                    let carry = async {
                        let mut client = acceptor.accept(client).await?;
                        let kind = client.get_ref().1.handshake_kind().expect("it is done");
                        seen.send_modify(|seen| seen.push(kind));
                        let mut server =
                            TcpStream::connect((Ipv4Addr::LOCALHOST, upstream)).await?;
                        tokio::io::copy_bidirectional(&mut client, &mut server).await
                    };
                    tokio::select! { _ = carry => {}, _ = cut.changed() => {} }
                });
            }
        });
        Self { port, shows, cuts, handshakes, _serving: serving }
    }

    fn config(&self, ca: PathBuf) -> ValkeyConfig {
        ValkeyConfig::default().addresses([("localhost", self.port)]).use_tls(true).ca_file(ca)
    }
}

/// The server's side of TLS with a certificate of this name.
fn showing(certificates: &Certificates, name: &str) -> Arc<ServerConfig> {
    let file = |ending| certificates.dir().join(format!("{name}.{ending}"));
    let chain = vec![CertificateDer::from_pem_file(file("pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(file("key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    Arc::new(builder.with_single_cert(chain, key).unwrap())
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
        (WrongHost, certificates.ca(), "not valid for name \"127.0.0.1\""),
        (WrongHost, certificates.ca(), "tls_server_name"),
    ] {
        let server = server(&certificates, shown, "no").await;
        let error = fails(config(&server, ca), ErrorKind::Unavailable).await;
        assert!(error.contains(word), "{shown:?}: {error}");
        assert!(!error.contains("TLS port"), "{shown:?}: {error}");
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
async fn sessions_are_resumed() {
    let certificates = Certificates::generate().unwrap();
    let server = Server::start().await.unwrap();
    let tls = Terminator::start(server.port(), showing(&certificates, "valid")).await;
    let kv = ValkeyStore::connect(tls.config(certificates.ca())).await.unwrap();
    kv.set(b"k", b"v", None).await.unwrap();
    for count in 2..5 {
        tls.cuts.send_replace(());
        recovers(async || kv.get(b"k").await).await;
        let handshakes = tls.handshakes.borrow().clone();
        assert_eq!(handshakes.first(), Some(&HandshakeKind::Full));
        assert!(handshakes.len() >= count, "{handshakes:?}");
        assert!(
            handshakes[1..].iter().all(|kind| *kind == HandshakeKind::Resumed),
            "{handshakes:?}"
        );
    }
}

#[tokio::test]
async fn a_renewed_file_needs_no_restart() {
    let certificates = Certificates::generate().unwrap();
    let server = Server::start().await.unwrap();
    let tls = Terminator::start(server.port(), showing(&certificates, "valid")).await;
    let trusted = certificates.dir().join("trusted.pem");
    std::fs::copy(certificates.ca(), &trusted).unwrap();
    let kv = ValkeyStore::connect(tls.config(trusted.clone())).await.unwrap();
    kv.set(b"k", b"v", None).await.unwrap();

    std::fs::copy(certificates.other_ca(), &trusted).unwrap();
    tls.shows.send_replace(showing(&certificates, "other"));
    tls.cuts.send_replace(());
    let (value, _) = recovers(async || kv.get(b"k").await).await;
    assert_eq!(value.as_deref(), Some(&b"v"[..]));

    // What the file no longer holds is no longer trusted, not even in a session to resume.
    std::fs::copy(certificates.ca(), &trusted).unwrap();
    tls.cuts.send_replace(());
    let error = recovers(async || match kv.get(b"k").await {
        Err(error) if format!("{error:?}").contains("UnknownIssuer") => Ok(error),
        Err(error) => Err(error),
        Ok(_) => Err(derp_kv_core::Error::new(ErrorKind::Backend, "it is still trusted")),
    });
    let (error, _) = error.await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_certificate_for_another_name_than_the_host() {
    let certificates = Certificates::generate().unwrap();
    let server = server(&certificates, WrongHost, "no").await;
    let config = config(&server, certificates.ca());
    works(config.clone().tls_server_name("elsewhere.invalid")).await;
    let config = config.tls_server_name("somewhere.invalid");
    let error = fails(config, ErrorKind::Unavailable).await;
    assert!(error.contains("not valid for name \"somewhere.invalid\""), "{error}");
}

#[tokio::test]
async fn what_a_file_is_and_what_would_be_right() {
    let certificates = Certificates::generate().unwrap();
    let file = |name: &str| certificates.dir().join(name);
    let read = |name: &str| std::fs::read_to_string(file(name)).unwrap();
    let (ca, key) = (read("ca.pem"), read("client.key"));
    let der = CertificateDer::from_pem_file(certificates.ca()).unwrap().to_vec();
    let key_der = PrivateKeyDer::from_pem_file(file("client.key")).unwrap().secret_der().to_vec();
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let utf16: Vec<u8> =
        "\u{feff}".encode_utf16().chain(ca.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    let old_form = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n";
    let config = ValkeyConfig::default().use_tls(true);
    let mistakes: [(&str, Vec<u8>, &str); _] = [
        ("ca_file", "".into(), "-----BEGIN CERTIFICATE-----"),
        ("ca_file", "garbage".into(), "-----BEGIN CERTIFICATE-----"),
        ("ca_file", broken.into(), "holds no usable certificate"),
        ("ca_file", ca[..ca.len() / 2].into(), "holds no usable certificate"),
        ("ca_file", der.clone(), "openssl x509 -inform der"),
        ("ca_file", format!("\u{feff}{ca}").into(), "byte order mark"),
        ("ca_file", utf16, "byte order mark"),
        ("ca_file", ca.replace(" CERT", " TRUSTED CERT").into(), "TRUSTED CERTIFICATE"),
        ("ca_file", key.clone().into(), "no PEM section CERTIFICATE; its first is PRIVATE KEY"),
        ("client_cert_file", der, "openssl x509 -inform der"),
        ("client_cert_file", broken.into(), "no X.509 certificate"),
        ("client_cert_file", read("client.pem")[..100].into(), "cut off"),
        ("client_cert_file", format!("{}{}", read("client.pem"), &ca[..100]).into(), "cut off"),
        ("client_cert_file", format!("\u{feff}{ca}").into(), "byte order mark"),
        ("client_key_file", key_der, "openssl pkey -inform der"),
        ("client_key_file", key.replace(" PRIV", " ENCRYPTED PRIV").into(), "decrypts it"),
        ("client_key_file", old_form.into(), "decrypts it"),
        ("client_key_file", key[..60].into(), "cut off"),
        (
            "client_key_file",
            key.replace(" PRIV", " OPENSSH PRIV").into(),
            "first is OPENSSH PRIVATE KEY",
        ),
        ("client_key_file", read("other-client.key").into(), "does not belong to"),
        ("client_key_file", format!("\u{feff}{key}").into(), "byte order mark"),
    ];
    for (name, content, word) in mistakes {
        let path = file("given");
        std::fs::write(&path, content).unwrap();
        let config = match name {
            "ca_file" => config.clone().ca_file(&path),
            "client_cert_file" => config.clone().client_cert(&path, file("client.key")),
            _ => config.clone().client_cert(file("client.pem"), &path),
        };
        let error = fails(config.clone(), ErrorKind::InvalidArgument).await;
        assert!(error.contains(name) && error.contains("given") && error.contains(word), "{error}");
    }
    let missing = config.clone().ca_file(file("missing.pem"));
    let error = fails(missing, ErrorKind::InvalidArgument).await;
    assert!(error.contains("ca_file") && error.contains("cannot read"), "{error}");

    // One authority of a bundle may be broken, cut off or of another kind.
    let server = server(&certificates, Valid, "no").await;
    let trusted = ca.replace(" CERT", " TRUSTED CERT");
    for before in [broken, &ca[..ca.len() / 2], &trusted, "# M\u{fc}nchen\n", &key] {
        std::fs::write(file("given"), format!("{before}\n{ca}")).unwrap();
        works(self::config(&server, file("given"))).await;
    }
}

#[tokio::test]
async fn a_port_without_tls() {
    let certificates = Certificates::generate().unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let _http = tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let _ = client.read(&mut [0; 1024]).await;
            let _ = client.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let config = ValkeyConfig::default().use_tls(true).ca_file(certificates.ca());
    let error = fails(config.addresses([("localhost", port)]), ErrorKind::Unavailable).await;
    assert!(error.contains("is it a TLS port?"), "{error}");
}

#[tokio::test]
async fn plain_text_meets_a_tls_port() {
    let certificates = Certificates::generate().unwrap();
    let server = server(&certificates, Valid, "no").await;
    let config = ValkeyConfig::default().addresses([server.address()]);
    let error = fails(config, ErrorKind::Unavailable).await;
    assert!(error.contains("does it want TLS"), "{error}");
}
