//! Who the client of a request is, whatever its headers say.
#![cfg(feature = "tower")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use derp_kv_core::{
    ByExtension, ByHeader, ByPeer, ClientId, KvStore, Problem, RateLimit, RateLimitLayer,
};
use derp_kv_memory::MemoryStore;
use futures_util::FutureExt;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::Empty;
use proptest::prelude::*;
use tower::{Layer, ServiceExt, service_fn};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

fn peer(request: &Parts) -> Option<SocketAddr> {
    request.extensions.get::<SocketAddr>().copied()
}

/// The head of a request from `peer`, with lines of headers.
fn head(peer: &str, lines: &[(HeaderName, Vec<u8>)]) -> Parts {
    let mut request = Request::new(());
    request.extensions_mut().insert::<SocketAddr>(peer.parse().unwrap());
    for (name, value) in lines {
        // What is no header value never gets through a server.
        if let Ok(value) = HeaderValue::from_bytes(value) {
            request.headers_mut().append(name, value);
        }
    }
    request.into_parts().0
}

/// The id that is found without waiting.
fn id(client: &impl ClientId, head: &Parts) -> Result<String, Problem> {
    client.client_id(head).now_or_never().expect("it waits for nothing")
}

fn forwarded(lines: &[&str]) -> Vec<(HeaderName, Vec<u8>)> {
    lines.iter().map(|line| (X_FORWARDED_FOR, line.as_bytes().to_vec())).collect()
}

#[test]
fn a_network_of_ipv6_is_one_client_and_mapped_ipv4_is_ipv4() {
    let by_peer = ByPeer::new(peer);
    for (client, address, expected) in [
        (by_peer, "192.0.2.7:1", "ip:192.0.2.7"),
        (by_peer, "[::ffff:192.0.2.7]:1", "ip:192.0.2.7"),
        (by_peer, "[64:ff9b::192.0.2.7]:1", "ip:192.0.2.7"),
        (by_peer, "[64:ff9b:1::192.0.2.7]:1", "ip:64:ff9b:1::/64"),
        (by_peer, "[2001:db8:1:2:3:4:5:6]:1", "ip:2001:db8:1:2::/64"),
        (by_peer, "[::1]:1", "ip:::/64"),
        (by_peer.ipv6_prefix(48), "[2001:db8:1:2::1]:1", "ip:2001:db8:1::/48"),
        (by_peer.ipv6_prefix(56), "[2001:db8:1:2ff::1]:1", "ip:2001:db8:1:200::/56"),
        (by_peer.ipv6_prefix(128), "[2001:db8::1]:1", "ip:2001:db8::1/128"),
        (by_peer.ipv6_prefix(255), "[2001:db8::1]:1", "ip:2001:db8::1/128"),
        (by_peer.ipv6_prefix(0), "[2001:db8::1]:1", "ip:::/0"),
        (by_peer.ipv6_prefix(0), "[::ffff:192.0.2.7]:1", "ip:192.0.2.7"),
    ] {
        assert_eq!(id(&client, &head(address, &[])).unwrap(), expected, "{client:?}");
    }
}

#[test]
fn as_many_entries_count_as_there_are_trusted_proxies() {
    let lines = ["203.0.113.9", "192.0.2.7:4711, [2001:db8::7]:4711", "198.51.100.2"];
    for (proxies, expected) in [
        (0, "ip:10.0.0.1"),
        (1, "ip:198.51.100.2"),
        (2, "ip:2001:db8::/64"),
        (3, "ip:192.0.2.7"),
        (4, "ip:203.0.113.9"),
        // Fewer entries than proxies: the peer, and nothing that a client wrote.
        (5, "ip:10.0.0.1"),
        (usize::MAX, "ip:10.0.0.1"),
    ] {
        let client = ByPeer::new(peer).trusted_proxies(proxies);
        let head = head("10.0.0.1:1", &forwarded(&lines));
        assert_eq!(id(&client, &head).unwrap(), expected, "{proxies}");
    }
    for malformed in ["", "unknown", "_x", "192.0.2", "192.0.2.7, ", "::1%eth0", "[::1", "1.2.3.4:"]
    {
        let client = ByPeer::new(peer).trusted_proxies(1);
        let head = head("10.0.0.1:1", &forwarded(&["192.0.2.9", malformed]));
        assert_eq!(id(&client, &head).unwrap(), "ip:10.0.0.1", "{malformed}");
    }
}

#[test]
fn a_proxy_on_a_socket_without_an_address_still_names_the_client() {
    let client = ByPeer::new(|_: &Parts| None).trusted_proxies(1);
    let one = head("10.0.0.1:1", &forwarded(&["192.0.2.7"]));
    assert_eq!(id(&client, &one).unwrap(), "ip:192.0.2.7");
    let refused = id(&client, &head("10.0.0.1:1", &[])).unwrap_err();
    assert_eq!(refused.status_code(), 500);
}

#[test]
fn a_key_in_a_header_is_a_secret_that_no_id_shows() {
    let client = ByHeader::new(X_API_KEY);
    let of = |value: &str| id(&client, &head("10.0.0.1:1", &[(X_API_KEY, value.into())]));
    let hash = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
    assert_eq!(of("secret").unwrap(), format!("header:x-api-key:{hash}"));
    assert_ne!(of("secret").unwrap(), of("Secret").unwrap());
    assert_eq!(of("").unwrap_err().status_code(), 400);
}

#[derive(Clone)]
struct User(String);

#[derive(Clone)]
struct Tenant(String);

#[test]
fn ids_of_different_kinds_do_not_join() {
    let mut request = head("192.0.2.7:1", &[]);
    request.extensions.insert(User("192.0.2.7".to_owned()));
    request.extensions.insert(Tenant("192.0.2.7".to_owned()));
    let user = ByExtension::new("user", |user: &User| user.0.clone());
    let tenant = ByExtension::new("tenant", |tenant: &Tenant| tenant.0.clone());
    assert_eq!(id(&user, &request).unwrap(), "user:192.0.2.7");
    assert_eq!(id(&tenant, &request).unwrap(), "tenant:192.0.2.7");
    assert_eq!(id(&ByPeer::new(peer), &request).unwrap(), "ip:192.0.2.7");

    let either = user.or(tenant).or(ByPeer::new(peer));
    assert_eq!(id(&either, &request).unwrap(), "user:192.0.2.7");
    request.extensions.remove::<User>();
    assert_eq!(id(&either, &request).unwrap(), "tenant:192.0.2.7");
    request.extensions.remove::<Tenant>();
    assert_eq!(id(&either, &request).unwrap(), "ip:192.0.2.7");
    let nobody = |status_code| move |_: &Parts| Err(Problem::new(status_code, "Refused"));
    // Only where nobody has authenticated is anybody else asked.
    for (first, second) in [(401, 403), (403, 401), (503, 403), (400, 403)] {
        let refused = id(&nobody(first).or(nobody(second)), &request).unwrap_err();
        assert_eq!(refused.status_code(), if first == 401 { second } else { first });
    }
    request.extensions.insert(User(String::new()));
    let user = ByExtension::new("user", |user: &User| user.0.clone());
    assert_eq!(id(&user, &request).unwrap_err().status_code(), 401);
}

/// Bytes that a client may put into a header, and parts of what a parser looks for.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let parts = prop_oneof![
        any::<[u8; 3]>().prop_map(Vec::from),
        proptest::sample::select(vec![
            &b"192.0.2.7"[..],
            b"2001:db8::7",
            b"[",
            b"]",
            b":",
            b",",
            b", ",
            b"\t",
            b"\xff",
            b"\"",
            b"4711",
            b"unknown",
            b"::ffff:1.2.3.4",
            b"%",
            b"/",
            b":lock",
            b":attempt",
            b"{slot}",
            b"",
        ])
        .prop_map(<[u8]>::to_vec),
        (0..3000_usize).prop_map(|length| vec![b'x'; length]),
    ];
    proptest::collection::vec(parts, 0..8).prop_map(|parts| parts.concat())
}

fn hostile_lines() -> impl Strategy<Value = Vec<(HeaderName, Vec<u8>)>> {
    let names =
        vec![X_FORWARDED_FOR, X_FORWARDED_FOR, X_API_KEY, HeaderName::from_static("forwarded")];
    proptest::collection::vec((proptest::sample::select(names), hostile()), 0..8)
}

/// The status code that a layer answers with.
fn answered(client: impl ClientId, head: &Parts) -> StatusCode {
    let kv: Arc<dyn KvStore> = Arc::new(MemoryStore::new());
    let limit = RateLimit::strict(10, Duration::from_secs(60));
    let inner = service_fn(|_: Request<()>| async {
        Ok::<_, Infallible>(Response::new(Empty::<bytes::Bytes>::new()))
    });
    let service = RateLimitLayer::new(kv, "a name: of {words}", limit, client).layer(inner);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let request = Request::from_parts(head.clone(), ());
    runtime.block_on(service.oneshot(request)).unwrap().status()
}

proptest! {
    #[test]
    fn no_header_makes_a_panic_or_an_error_of_ours(
        lines in hostile_lines(),
        proxies in 0..4_usize,
        bits: u8,
    ) {
        let head = head("10.0.0.1:1", &lines);
        let by_peer = ByPeer::new(peer).trusted_proxies(proxies).ipv6_prefix(bits);
        prop_assert_eq!(answered(by_peer, &head), StatusCode::OK);
        let by_header = answered(ByHeader::new(X_API_KEY), &head);
        prop_assert!(matches!(by_header.as_u16(), 200 | 400 | 401), "{}", by_header);
        // Whatever a closure takes for an id, as it came.
        let as_it_came = |request: &Parts| {
            let key = request.headers.get(X_API_KEY);
            let key = key.map(|key| String::from_utf8_lossy(key.as_bytes()).into_owned());
            Ok(key.unwrap_or_default())
        };
        let as_it_came = answered(as_it_came, &head);
        prop_assert!(matches!(as_it_came.as_u16(), 200 | 400), "{}", as_it_came);
    }

    #[test]
    fn without_trusted_proxies_nothing_that_a_client_writes_changes_its_id(lines in hostile_lines()) {
        let head = head("203.0.113.9:1", &lines);
        prop_assert_eq!(id(&ByPeer::new(peer), &head).unwrap(), "ip:203.0.113.9");
    }

    #[test]
    fn behind_trusted_proxies_nothing_that_a_client_writes_changes_its_id(
        lines in hostile_lines(),
        proxies in 1..4_usize,
        own_lines: bool,
    ) {
        // Each proxy appends who called it: on a line of its own, or at the end of the last line.
        let appended: Vec<_> = ["192.0.2.7", "10.0.0.3:99", "[fd00::2]"][..proxies].to_vec();
        let mut lines: Vec<_> = lines.into_iter().filter(|(_, value)| {
            HeaderValue::from_bytes(value).is_ok()
        }).collect();
        for entry in appended {
            let last = lines.iter_mut().rev().find(|(name, _)| *name == X_FORWARDED_FOR);
            match last {
                Some((_, line)) if !own_lines => {
                    line.extend_from_slice(b", ");
                    line.extend_from_slice(entry.as_bytes());
                }
                _ => lines.push((X_FORWARDED_FOR, entry.as_bytes().to_vec())),
            }
        }
        let head = head("10.0.0.1:1", &lines);
        let client = ByPeer::new(peer).trusted_proxies(proxies);
        prop_assert_eq!(id(&client, &head).unwrap(), "ip:192.0.2.7");
    }

    #[test]
    fn an_id_that_is_counted_is_its_clients_alone(
        one in hostile(), other in hostile(), name in "[a-z/#]{0,3}", other_name in "[a-z/#]{0,3}",
    ) {
        let clients = [&one, &other].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let nobody = |_: &Parts| Err::<String, _>(Problem::new(403, "Forbidden"));
        let limit = RateLimit::new(1, Duration::from_secs(60));
        let ids = [(&name, &clients[0]), (&other_name, &clients[1])].map(|(name, client)| {
            RateLimitLayer::new(MemoryStore::new(), name, limit.clone(), nobody).id(client)
        });
        let equal = name == other_name && clients[0] == clients[1];
        prop_assert_eq!(ids[0] == ids[1], equal);
        for id in ids {
            // A brace would let a client choose the slot of a cluster.
            let chooses_a_slot = id.contains('{');
            prop_assert!(id.len() <= 1024 && id.ends_with('/') && !chooses_a_slot);
        }
    }
}
