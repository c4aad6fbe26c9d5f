//! Webhooks, as real senders send them.

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use common::{Answer, send, serve, settings, stat, webhook};
use derp_kv_core::KvStore;
use derp_kv_examples::app::Settings;
use derp_kv_examples::webhooks::senders::Senders;
use derp_kv_memory::MemoryStore;
use derp_kv_valkey::test_server::Server;
use derp_kv_valkey::{ValkeyConfig, ValkeyStore};
use futures_util::future::join_all;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

fn memory() -> Arc<dyn KvStore> {
    Arc::new(MemoryStore::builder().max_bytes(64 * 1024 * 1024).build().unwrap())
}

async fn from(at: SocketAddr, sender: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    send(at, "POST", &format!("/webhooks/{sender}"), headers, body).await
}

/// Whatever is not 2xx is delivered again for days, although it will never be of any use.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_another_type_is_acknowledged() {
    let at = serve(memory(), settings()).await;
    let nested = "[".repeat(100_000);
    for (headers, body) in [
        (&[][..], r#"{"id":"evt_1","type":"customer.created"}"#),
        (&[], r#"{"update_id":10000,"message":{"text":"/start"}}"#),
        (&[], r#"{"type":["payment.succeeded"]}"#),
        (&[("X-GitHub-Event", "ping"), ("X-GitHub-Delivery", "72d3162e")], r#"{"zen":"."}"#),
        (&[("Content-Type", "application/x-www-form-urlencoded")], "payload=%7B%7D"),
        (&[], "\u{0}\u{7f}"),
        (&[], &nested),
        (&[], ""),
    ] {
        for _ in 0..2 {
            let answer = from(at, "shop", headers, body).await;
            assert_eq!((answer.status, &*answer.body), (200, r#"{"ignored":true}"#), "{body:.60}");
        }
    }
    assert_eq!((stat(at, "payments").await, stat(at, "notices").await), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_invoice_is_taken() {
    let at = serve(memory(), settings()).await;
    for (id, length) in [("short", 25 * 1024), ("long", 1024 * 1024)] {
        let event = |lines: &str| {
            format!(
                r#"{{"id":"{id}","type":"payment.succeeded","amount_cents":1,"lines":"{lines}"}}"#
            )
        };
        let body = event(&"x".repeat(length - event("").len()));
        let answer = webhook(at, &body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let longer = webhook(at, &"x".repeat(1024 * 1024 + 1)).await;
    assert!(longer.refused(413).contains("too long"));
    assert_eq!(stat(at, "payments").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_senders_ids_are_taken_and_none_is_taken_for_another() {
    let at = serve(memory(), settings()).await;
    let body = |more: &str| format!(r#"{{"type":"payment.succeeded","amount_cents":1{more}}}"#);
    type Headers = &'static [(&'static str, &'static str)];
    let events: [(&str, Headers, String); 18] = [
        ("standard", &[("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek")], body("")),
        ("svix", &[("svix-id", "msg_p5jXN8AQM9LWM0D4loKWxJek")], body("")),
        ("github", &[("X-GitHub-Delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958")], body("")),
        // What the event is about is no name for it: an order is updated more than once.
        ("shopify", &[("X-Shopify-Event-Id", "98880550")], body(r#","id":820982911946154508"#)),
        ("shopify", &[("X-Shopify-Event-Id", "98880551")], body(r#","id":820982911946154508"#)),
        ("shopify", &[], body(r#","id":820982911946154508"#)),
        ("telegram", &[], body(r#","update_id":10000"#)),
        ("telegram", &[], body(r#","update_id":10001"#)),
        ("kafka", &[], body(r#","id":"orders:3:1042""#)),
        ("kafka", &[], body(r#","id":"orders:3:104","specversion":"1.0","source":"2""#)),
        ("cloud", &[("ce-id", "1"), ("ce-source", "/a/b@c?d=e+f")], body("")),
        ("cloud", &[("ce-id", "1"), ("ce-source", "/a/b@c?d=e")], body("")),
        ("cloud", &[("ce-id", "+f/1"), ("ce-source", "/a/b@c?d=e")], body("")),
        ("shop", &[], body(r#","id":"a b%2F\u00e9\u0000:lock""#)),
        ("shop", &[], body(r#","id":"a:lock""#)),
        ("shop", &[], body(r#","id":-1.5"#)),
        ("a%2Fb", &[], body(r#","id":"c""#)),
        ("a", &[], body(r#","id":"b/c""#)),
    ];
    for (sender, headers, body) in &events {
        let first = from(at, sender, headers, body).await;
        assert_eq!((first.status, &*first.body), (200, r#"{"duplicate":false}"#), "{body}");
        let again = from(at, sender, headers, body).await;
        assert_eq!((again.status, &*again.body), (200, r#"{"duplicate":true}"#), "{body}");
    }
    assert_eq!(stat(at, "payments").await, 18);

    for id in ["", r#","id":"""#, r#","id":null"#, r#","id":{}"#] {
        assert_eq!(webhook(at, &body(id)).await.refused(400), "the event has no id");
    }
    let long = format!(r#","id":"{}""#, "x".repeat(2_000));
    webhook(at, &body(&long)).await.refused(400);
    assert_eq!(from(at, "%ff", &[], &body("")).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_always_fails_is_given_up() {
    let at = serve(memory(), settings()).await;
    let poison = r#"{"id":"evt_1","type":"payment.succeeded","amount_cents":"many"}"#;
    for _ in 0..8 {
        assert!(webhook(at, poison).await.refused(400).contains("expected u64"));
    }
    for _ in 0..2 {
        assert_eq!(webhook(at, poison).await.status, 200);
    }
    assert_eq!(stat(at, "payments").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_at_once_book_one_payment() {
    let at = serve(memory(), settings()).await;
    let event = r#"{"id":"evt_1","type":"payment.succeeded","amount_cents":9900}"#;
    let answers = join_all((0..20).map(|_| webhook(at, event))).await;
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        answer.refused(409);
        assert!(answer.header("retry-after").is_some());
    }
    let done = answers.iter().filter(|answer| answer.body == r#"{"duplicate":false}"#);
    assert_eq!(done.count(), 1, "{answers:?}");
    assert_eq!((stat(at, "payments").await, stat(at, "paid_cents").await), (1, 9_900));
}

const SENDERS: &str = "
    [webhooks.pay]
    signed_by = \"stripe\"
    secrets = [\"old\", \"new\"]
    [webhooks.code]
    signed_by = \"github\"
    secrets = [\"code\"]
";

fn hmac(secret: &str, signed: &str) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    let bytes = mac.chain_update(signed).finalize().into_bytes();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn stripe(secret: &str, body: &str) -> String {
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    format!("t={time},v1={}", hmac(secret, &format!("{time}.{body}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_secret_nobody_else_is_believed() {
    let senders = Senders::from_toml_str(SENDERS).unwrap();
    let at = serve(memory(), Settings { senders, ..settings() }).await;
    let event = r#"{"id":"evt_1","type":"payment.succeeded","amount_cents":1}"#;
    let stripe = async |secret: &str| {
        from(at, "pay", &[("Stripe-Signature", &stripe(secret, event))], event).await
    };

    assert!(from(at, "pay", &[], event).await.refused(403).contains("stripe-signature is missing"));
    assert!(stripe("guessed").await.refused(403).contains("no signature is right"));
    assert!(webhook(at, event).await.refused(404).contains("nobody of this name"));
    let unknown = r#"{"id":"evt_1","type":"customer.created"}"#;
    from(at, "pay", &[], unknown).await.refused(403);
    assert_eq!(stat(at, "payments").await, 0);

    assert_eq!(stripe("new").await.body, r#"{"duplicate":false}"#);
    assert_eq!(stripe("old").await.body, r#"{"duplicate":true}"#);
    let signature = format!("sha256={}", hmac("code", event));
    let headers = [("X-Hub-Signature-256", &*signature), ("X-GitHub-Delivery", "evt_1")];
    assert_eq!(from(at, "code", &headers, event).await.body, r#"{"duplicate":false}"#);
    assert_eq!(stat(at, "payments").await, 2, "one of each sender");
}

/// The signature covers the body, and no header that says the same.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_signed_decides_what_happened_and_which_event_it_is() {
    let senders = Senders::from_toml_str(SENDERS).unwrap();
    let at = serve(memory(), Settings { senders, ..settings() }).await;
    let viewed = r#"{"id":"evt_1","type":"page.viewed","amount_cents":1}"#;
    let signature = stripe("new", viewed);
    for (id, duplicate) in [("evt_2", false), ("evt_3", true)] {
        let headers = [
            ("Stripe-Signature", &*signature),
            ("ce-type", "payment.succeeded"),
            ("webhook-id", id),
            ("ce-source", id),
        ];
        let answer = from(at, "pay", &headers, viewed).await;
        assert_eq!(answer.json()["duplicate"], duplicate, "{answer:?}");
    }
    assert_eq!((stat(at, "payments").await, stat(at, "notices").await), (0, 1));
}

/// No store is needed for what is not handled.
#[tokio::test(flavor = "multi_thread")]
async fn while_the_store_is_down_only_what_needs_it_comes_again() {
    let mut server = Server::start().await.unwrap();
    let config = ValkeyConfig::default().addresses([server.address()]);
    let at = serve(Arc::new(ValkeyStore::connect(config).await.unwrap()), settings()).await;
    server.kill9();
    for event in [
        r#"{"id":"evt_1","type":"payment.succeeded","amount_cents":1}"#,
        r#"{"id":"evt_2","type":"page.viewed"}"#,
    ] {
        let answer = webhook(at, event).await;
        answer.refused(503);
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
    }
    assert_eq!(webhook(at, r#"{"type":"customer.created"}"#).await.status, 200);
    assert_eq!((stat(at, "payments").await, stat(at, "notices").await), (0, 0));
}
