//! The whole suite through TLS, as a user with no more than the documented rights. Needs a
//! server that was built with TLS.

mod suite;

use std::sync::OnceLock;

use derp_kv_conformance::conformance_tests;
use derp_kv_valkey::ValkeyConfig;
use derp_kv_valkey::test_server::{Certificates, Server, ServerCertificate};
use suite::OnValkey;

const PASSWORD: &str = "p@ss:w/rd#?%";

async fn start() -> (Certificates, Server) {
    let rules = include_str!("../README.md")
        .lines()
        .find_map(|line| line.strip_prefix("user app on >password "))
        .expect("the README has a line for one server");
    let certificates = Certificates::generate().expect("certificates");
    let server = Server::builder()
        .tls(&certificates, ServerCertificate::Valid)
        .option("tls-auth-clients", "no")
        .user("app", PASSWORD, rules)
        .start();
    let server = server.await.expect("a server");
    (certificates, server)
}

fn config() -> ValkeyConfig {
    static SERVER: OnceLock<(tokio::runtime::Runtime, (Certificates, Server))> = OnceLock::new();
    let (_, (certificates, server)) = SERVER.get_or_init(|| suite::shared(start));
    ValkeyConfig::default()
        .addresses([server.address()])
        .username("app")
        .password(PASSWORD)
        .use_tls(true)
        .ca_file(certificates.ca())
}

conformance_tests!(OnValkey { config, prefix: "app:" });
