//! Nothing that the program shows an operator holds a key, a value, a user or a secret.

mod common;

use std::net::SocketAddr;

use common::program::Program;
use common::{Answer, get, order, put, scratch, send};
use derp_kv_valkey::test_server::{Reply, Server};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// All that must not show has this word in it, or is the number.
const SECRET: &str = "s3ntinel";
const PRODUCT: u32 = 731_731;
const ORDER: &str = r#"{"product_id":42,"quantity":2}"#;

/// A webhook that is signed with this secret.
async fn webhook(at: SocketAddr, secret: &str, id: &str, body: &str) -> Answer {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    let bytes = mac.finalize().into_bytes();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let signature = format!("sha256={hex}");
    let headers = [("X-Hub-Signature-256", &*signature), ("X-GitHub-Delivery", id)];
    send(at, "POST", "/webhooks/code", &headers, body).await
}

/// Every route, with secrets wherever a client can put one.
async fn all_routes(at: SocketAddr, shown: &mut String) -> Vec<u16> {
    let name = format!(r#"{{"name":"{SECRET} kettle","price_cents":1}}"#);
    let user = format!("{SECRET}-user");
    let headers = [
        ("Idempotency-Key", "s3ntinel-key"),
        ("X-User", &*user),
        ("Authorization", "Bearer s3ntinel-token"),
        ("Cookie", "session=s3ntinel"),
        ("User-Agent", "s3ntinel-agent"),
        ("X-Forwarded-For", "s3ntinel-address"),
        ("X-Request-Id", "s3ntinel-id"),
    ];
    let path = format!("/products/{PRODUCT}?token={SECRET}");
    let event = |kind: &str| format!(r#"{{"type":"{kind}","amount_cents":1,"of":"{SECRET}"}}"#);
    let (payment, notice, poison) =
        (event("payment.succeeded"), event("page.viewed"), r#"{"type":"payment.succeeded"}"#);
    let secret = format!("{SECRET}-hmac");
    let mut statuses = Vec::new();
    for answer in [
        put(at, "/products/42", &name).await,
        get(at, "/products/42").await,
        get(at, "/products/42").await,
        get(at, &path).await,
        get(at, "/products/s3ntinel").await,
        send(at, "DELETE", "/products/731731/cached", &headers, "").await,
        put(at, "/products/42", SECRET).await,
        send(at, "POST", "/orders", &headers, ORDER).await,
        send(at, "POST", "/orders", &headers, ORDER).await,
        send(at, "POST", "/orders", &headers, r#"{"product_id":42,"quantity":3}"#).await,
        send(at, "POST", "/orders", &headers, SECRET).await,
        send(at, "POST", "/s3ntinel?s3ntinel", &headers, SECRET).await,
        webhook(at, &secret, "s3ntinel-event", &payment).await,
        webhook(at, &secret, "s3ntinel-event", &payment).await,
        webhook(at, &secret, "s3ntinel-notice", &notice).await,
        webhook(at, &secret, "s3ntinel-poison", poison).await,
        webhook(at, "another-secret", "s3ntinel-forged", &payment).await,
        send(at, "POST", "/webhooks/s3ntinel", &headers, &payment).await,
    ] {
        statuses.push(answer.status);
    }
    for path in ["/health", "/health/live", "/metrics", "/stats"] {
        let answer = get(at, path).await;
        statuses.push(answer.status);
        *shown += &format!("{answer:?}\n");
    }
    statuses
}

/// Runs the program with everything in its log, on a server that works, breaks and comes back.
async fn shown(form: &str) -> String {
    let password = format!("{SECRET}-password");
    let mut server = Server::builder().password(&password).start().await.unwrap();
    let config = scratch(&format!("secrets-{form}.toml"));
    let text = format!(
        "[kv.valkey]\naddresses = [[\"127.0.0.1\", {}]]\npassword = \"{password}\"\nop_timeout_ms = 1000\n\
         [webhooks.code]\nsigned_by = \"github\"\nsecrets = [\"{SECRET}-hmac\"]\n",
        server.port()
    );
    std::fs::write(&config, text).unwrap();
    let mut program = Program::start_under(
        &["--config".as_ref(), config.as_os_str(), "--log".as_ref(), form.as_ref()],
        &[("RUST_LOG", "trace")],
    );
    let at = program.at();
    let mut shown = String::new();
    let works = all_routes(at, &mut shown).await;
    let expected = [
        200, 200, 200, 404, 400, 204, 400, 201, 201, 422, 400, 404, 200, 200, 200, 400, 403, 404,
        200, 200, 200, 200,
    ];
    assert_eq!(works, expected);

    // Records that are not the helpers': the value stands beside the error.
    let keys = server.command(&["KEYS", "*"]).await.unwrap();
    let Reply::Array(keys) = keys else { panic!("a list: {keys:?}") };
    assert!(keys.len() >= 4, "{keys:?}");
    for key in keys {
        let key = key.text().unwrap().to_owned();
        server.command(&["SET", &key, "s3ntinel-value"]).await.unwrap();
    }
    assert_eq!(get(at, "/products/42").await.status, 200);
    let headers = [("Idempotency-Key", "s3ntinel-key"), ("X-User", "s3ntinel-user")];
    assert_eq!(send(at, "POST", "/orders", &headers, ORDER).await.status, 500);

    server.kill9();
    let broken = all_routes(at, &mut shown).await;
    assert!(broken.iter().filter(|status| **status == 503).count() >= 8, "{broken:?}");
    server.restart().await.unwrap();
    while order(at, "s3ntinel-later", ORDER).await.status != 201 {
        tokio::task::yield_now().await;
    }

    program.terminate();
    let (status, log, output) = tokio::task::spawn_blocking(move || program.ended()).await.unwrap();
    assert!(status.success());
    for told in ["the store failed a request", "answered", "corrupt", "could not be decoded"] {
        assert!(log.iter().any(|line| line.contains(told)), "{told}: {log:#?}");
    }
    shown += &output;
    shown + &log.join("\n")
}

fn assert_no_secret(shown: &str) {
    assert!(shown.len() > 10_000, "there is something: {shown}");
    let number = PRODUCT.to_string();
    for line in shown.lines() {
        let line = line.to_lowercase();
        assert!(!line.contains(SECRET) && !line.contains(&number), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_shows_in_text() {
    assert_no_secret(&shown("text").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_shows_in_json() {
    assert_no_secret(&shown("json").await);
}
