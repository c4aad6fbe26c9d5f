//! A name whose first address shows a certificate that is refused.

mod common;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use common::ends;
use derp_kv_core::KvStore;
use derp_kv_valkey::test_server::{Certificates, Name, Server, ServerCertificate};
use derp_kv_valkey::{ValkeyConfig, ValkeyStore};

#[tokio::test]
async fn a_bad_certificate_does_not_hinder_the_next() {
    let certificates = Certificates::generate().expect("certificates");
    let start = |shown| Server::builder().tls(&certificates, shown).start();
    let bad = start(ServerCertificate::OtherCa).await.expect("server");
    let good = start(ServerCertificate::Valid).await.expect("server");
    let addresses: [SocketAddr; 2] =
        [&bad, &good].map(|server| (Ipv4Addr::LOCALHOST, server.port()).into());
    let name = Name::new(move || Ok(addresses.to_vec()));
    let config = ValkeyConfig::default().addresses([name.address()]);
    let config = config.connect_timeout(Duration::from_secs(30));
    let config = config.use_tls(true).ca_file(certificates.ca());
    let store = ends("connecting", ValkeyStore::connect(config)).await.expect("connect");
    store.set(b"k", b"v", None).await.expect("set");
    assert_eq!(good.command(&["EXISTS", "k"]).await.expect("exists").int().expect("int"), 1);
}
