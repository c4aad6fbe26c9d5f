//! TLS in a process that has chosen no crypto provider. A target of its own: the choice is one
//! for the whole process. Needs a server that was built with TLS.

use derp_kv_core::KvStore;
use derp_kv_valkey::test_server::{Certificates, Server, ServerCertificate};
use derp_kv_valkey::{ValkeyConfig, ValkeyStore};
use rustls::crypto::CryptoProvider;

#[tokio::test]
async fn tls_needs_no_provider_of_the_process_and_sets_none() {
    assert!(CryptoProvider::get_default().is_none());
    let certificates = Certificates::generate().unwrap();
    let server = Server::builder().tls(&certificates, ServerCertificate::Valid);
    let server = server.start().await.unwrap();
    let config = ValkeyConfig::default()
        .addresses([server.address()])
        .use_tls(true)
        .ca_file(certificates.ca());
    let kv = ValkeyStore::connect(config).await.unwrap();
    kv.set(b"k", b"v", None).await.unwrap();
    assert_eq!(kv.get(b"k").await.unwrap().as_deref(), Some(&b"v"[..]));
    assert!(CryptoProvider::get_default().is_none(), "the choice is the application's");
}
