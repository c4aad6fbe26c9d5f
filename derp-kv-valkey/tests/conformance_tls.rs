//! The whole suite through TLS, as a user with no more than the documented rights. Needs a
//! server that was built with TLS.

mod suite;

use async_trait::async_trait;
use derp_kv_conformance::{BoxError, Shared, conformance_tests};
use derp_kv_valkey::ValkeyConfig;
use derp_kv_valkey::test_server::{Certificates, Server, ServerCertificate};
use suite::{OnValkey, Place};

const PASSWORD: &str = "p@ss:w/rd#?%";

struct Encrypted;

async fn start() -> Result<(Certificates, Server), BoxError> {
    let rules = include_str!("../README.md")
        .lines()
        .find_map(|line| line.strip_prefix("user app on >password "))
        .ok_or("the README has no line for one server")?;
    let certificates = Certificates::generate()?;
    let server = Server::builder()
        .tls(&certificates, ServerCertificate::Valid)
        .option("tls-auth-clients", "no")
        .user("app", PASSWORD, rules)
        .start();
    let server = server.await?;
    Ok((certificates, server))
}

#[async_trait]
impl Place for Encrypted {
    const PREFIX: &'static str = "app:";

    async fn config() -> Result<ValkeyConfig, BoxError> {
        static SERVER: Shared<(Certificates, Server)> = Shared::new();
        let (certificates, server) = SERVER.get(start).await?;
        Ok(ValkeyConfig::default()
            .addresses([server.address()])
            .username("app")
            .password(PASSWORD)
            .use_tls(true)
            .ca_file(certificates.ca()))
    }
}

conformance_tests!(OnValkey::<Encrypted>::NEW);
