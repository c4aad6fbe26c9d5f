//! Settings: what is understood, and what each mistake says.

use std::time::Duration;

use derp_kv_core::ErrorKind;
use derp_kv_valkey::{Mode, ValkeyConfig, ValkeyStore};
use serde::Deserialize;

fn table(fields: &str) -> Result<ValkeyConfig, derp_kv_core::Error> {
    let text = format!("[other]\nx = 1\n[kv.memory]\nmax_bytes = 1\n[kv.valkey]\n{fields}");
    ValkeyConfig::from_toml_str(&text)
}

/// One server.
fn at(host: &str, port: u16) -> ValkeyConfig {
    ValkeyConfig::default().addresses([(host, port)])
}

fn every_field() -> ValkeyConfig {
    ValkeyConfig::default()
        .addresses([(env!("CARGO_PKG_NAME"), 7000), ("fe80::1%eth0", 65535)])
        .mode(Mode::Cluster)
        .address_map([(("10.0.0.1", 7000), ("kv.example", 17000))])
        .username("app")
        .password(env!("CARGO_PKG_NAME"))
        .client_name("checkout")
        .op_timeout(Duration::from_millis(750))
        .connect_timeout(Duration::from_millis(250))
        .connections(4)
        .io_threads(2)
        .max_in_flight(7)
        .max_bulk_bytes(1024)
}

/// A service's own configuration, which holds the table somewhere.
#[derive(Debug, Deserialize)]
struct Service {
    store: ValkeyConfig,
}

#[test]
fn an_empty_table_takes_the_defaults() {
    assert_eq!(table("").unwrap(), ValkeyConfig::default());
    assert_eq!(serde_json::from_str::<ValkeyConfig>("{}").unwrap(), ValkeyConfig::default());
}

#[test]
fn every_field_is_read() {
    let config = table(
        r#"
        addresses = [["$CARGO_PKG_NAME", 7000], ["[fe80::1%eth0]", 65535]]
        mode = "cluster"
        address_map = [["10.0.0.1", 7000, "kv.example", 17000]]
        username = "app"
        password = "$CARGO_PKG_NAME"
        database = 0
        client_name = "checkout"
        op_timeout_ms = 750
        connect_timeout_ms = 250
        connections = 4
        io_threads = 2
        max_in_flight = 7
        max_bulk_bytes = 1024
        "#,
    );
    assert_eq!(config.unwrap(), every_field());
    let socket = table("unix_socket = '/run/valkey.sock'\ndatabase = 3").unwrap();
    assert_eq!(socket, ValkeyConfig::default().unix_socket("/run/valkey.sock").database(3));
    let dollar = table("password = '$$x'").unwrap();
    assert_eq!(dollar, ValkeyConfig::default().password("$x"));
}

#[test]
fn it_nests_in_the_configuration_of_a_service_in_any_format() {
    let json = r#"{"store": {
        "addresses": [["$CARGO_PKG_NAME", 7000], ["fe80::1%eth0", 65535]], "mode": "cluster",
        "address_map": [["10.0.0.1", 7000, "kv.example", 17000]], "username": "app",
        "password": "$CARGO_PKG_NAME", "ca_file": null, "client_name": "checkout",
        "op_timeout_ms": 750, "connect_timeout_ms": 250, "connections": 4, "io_threads": 2,
        "max_in_flight": 7, "max_bulk_bytes": 1024}}"#;
    assert_eq!(serde_json::from_str::<Service>(json).unwrap().store, every_field());
    let value: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!(serde_json::from_value::<Service>(value).unwrap().store, every_field());
    let toml = "[store]\naddresses = [['h', 7]]\npassword = 'pw'";
    assert_eq!(toml::from_str::<Service>(toml).unwrap().store, at("h", 7).password("pw"));

    for (json, word) in [
        (r#"{"store": {"password": "hunter2", "mode": "hunter2"}}"#, "mode"),
        (r#"{"store": {"password": ["hunter2"]}}"#, "password"),
        (r#"{"store": {"hosts": "hunter2"}}"#, "hosts"),
        (r#"{"store": {"password": "hunter2", "addresses": [["h", 6379.5]]}}"#, "addresses"),
        (r#"{"store": {"password": "a", "password": "hunter2"}}"#, "password: is given twice"),
        (r#"{"store": "redis://:hunter2@h"}"#, "from_url"),
    ] {
        let error = serde_json::from_str::<Service>(json).unwrap_err().to_string();
        assert!(error.contains(word) && !error.contains("hunter2"), "{json}: {error}");
    }
    for toml in ["[store]\npassword = 'hunter2'\nmode = 'x'", "store = 'redis://:hunter2@h'"] {
        let error = toml::from_str::<Service>(toml).unwrap_err();
        assert!(!error.message().contains("hunter2"), "{error}");
    }
    let error = toml::from_str::<Service>("[store]\npassword = 'hunter2'\nmode = 'x'").unwrap_err();
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[test]
fn every_mistake_names_its_field_and_what_would_be_right() {
    for (text, parts) in [
        ("adresses = []", ["adresses", "addresses"]),
        ("addresses = []", ["addresses", "at least one"]),
        ("addresses = 'localhost'", ["addresses", "[\"host\", port]"]),
        ("addresses = ['localhost']", ["addresses", "[\"host\", port]"]),
        ("addresses = [['a']]", ["addresses", "[\"host\", port]"]),
        ("addresses = [['a', '1']]", ["addresses", "whole number"]),
        ("addresses = [['', 1]]", ["addresses", "empty"]),
        ("addresses = [['a', 0]]", ["addresses", "between 1 and 65535"]),
        ("addresses = [['a', 70000]]", ["addresses", "70000"]),
        ("addresses = [['a', 1], ['b', 1]]", ["addresses", "mode = \"cluster\""]),
        ("unix_socket = ''", ["unix_socket", "empty"]),
        ("unix_socket = '/s'\naddresses = [['a', 1]]", ["unix_socket", "addresses"]),
        ("unix_socket = '/s'\nmode = 'cluster'", ["unix_socket", "standalone"]),
        ("unix_socket = '/s'\nuse_tls = true", ["unix_socket", "use_tls = false"]),
        ("mode = 'sentinel'", ["mode", "\"standalone\" or \"cluster\""]),
        ("address_map = [['a', 1, 'b', 2]]", ["address_map", "mode = \"cluster\""]),
        ("address_map = [['a', 1, 'b']]", ["address_map", "announced host"]),
        ("mode = 'cluster'\naddress_map = [['a', 1, 'b', 0]]", ["address_map", "65535"]),
        ("mode = 'cluster'\naddress_map = [['a', 1, 'b:2', 2]]", ["address_map", "host"]),
        (
            "mode = 'cluster'\naddress_map = [['a', 1, 'b', 2], ['a', 1, 'c', 2]]",
            ["address_map", "given twice"],
        ),
        ("username = 'app'", ["username", "password"]),
        ("password = 17", ["password", "string"]),
        ("password = '$UNSET_ONE'", ["password", "UNSET_ONE"]),
        ("password = '$not-a-name'", ["password", "$$"]),
        ("database = -1", ["database", "negative"]),
        ("database = 4294967296", ["database", "too large"]),
        ("mode = 'cluster'\ndatabase = 1", ["database", "cluster"]),
        ("use_tls = 'yes'", ["use_tls", "true or false"]),
        ("ca_file = '/ca.pem'", ["ca_file", "use_tls = true"]),
        ("tls_server_name = 'kv'", ["tls_server_name", "use_tls = true"]),
        ("use_tls = true\ntls_server_name = 'a b'", ["tls_server_name", "host name"]),
        ("use_tls = true\nca_file = '/no/such/ca.pem'", ["ca_file", "/no/such/ca.pem"]),
        ("use_tls = true\nclient_cert_file = 'x'", ["client_cert_file", "client_key_file"]),
        ("client_name = 'a b'", ["client_name", "without spaces"]),
        ("op_timeout_ms = 0", ["op_timeout_ms", "1 ms"]),
        ("op_timeout_ms = -5", ["op_timeout_ms", "negative"]),
        ("connect_timeout_ms = 1.5", ["connect_timeout_ms", "whole number"]),
        ("connections = 0", ["connections", "between 1 and 64"]),
        ("io_threads = 65", ["io_threads", "between 1 and 64"]),
        ("max_in_flight = 0", ["max_in_flight", "between 1"]),
        ("max_bulk_bytes = 536870913", ["max_bulk_bytes", "512 MiB"]),
    ] {
        let error = table(text).unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "`{text}` should mention `{part}`: {error}");
        }
    }
    let error = ValkeyConfig::from_toml_str("[kv.memory]").unwrap_err().to_string();
    assert!(error.contains("[kv.valkey]"), "{error}");
}

#[test]
fn no_error_and_no_debug_shows_the_password() {
    for text in ["password = 123454321", "password = 'hunter2", "password = '$hunter2-x'"] {
        let error = table(text).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("hunter2") && !shown.contains("123454321"), "{shown}");
    }
    let config = table("password = 'hunter2'").unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
}

/// The same hosts are refused by every way in: setter, table and URL.
#[tokio::test]
async fn a_host_is_one_name_or_one_address() {
    for (host, word) in [
        ("", "host"),
        ("h1,h2", "one"),
        ("h:6379", "port"),
        ("a b", "space"),
        ("a ", "space"),
        ("a\n", "space"),
        ("a\u{7f}", "ASCII"),
        ("a/b", "ASCII"),
        ("user@h", "ASCII"),
        ("h?", "ASCII"),
        ("bücher.example", "ASCII"),
        ("[::1", "port"),
        ("[h]", "ASCII"),
        ("::1%", "port"),
        ("::1%a b", "port"),
        ("127.0.0.1%lo", "ASCII"),
    ] {
        for error in [
            ValkeyStore::connect(at(host, 6379)).await.unwrap_err(),
            table(&format!("addresses = [[{host:?}, 6379]]").replace("\\u{7f}", "\\u007f"))
                .unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{host}: {error}");
            let error = error.to_string();
            assert!(error.contains("addresses") && error.contains(word), "{host:?}: {error}");
        }
        let escaped: String = host.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let error = ValkeyConfig::from_url(&format!("valkey://{escaped}")).unwrap_err();
        assert!(error.to_string().contains("host"), "{host:?}: {error}");
    }
    for host in
        ["h", "kv-1.example.", "under_score", "127.0.0.1", "::1", "fe80::1%eth0", "::ffff:1.2.3.4"]
    {
        assert_eq!(table(&format!("addresses = [['{host}', 1]]")).unwrap(), at(host, 1));
    }
    assert_eq!(at("[::1]", 1), at("::1", 1));
    assert_eq!(table("addresses = [['[::1]', 1]]").unwrap(), at("::1", 1));
}

#[test]
fn urls() {
    for (url, config) in [
        ("valkey://h", at("h", 6379)),
        ("redis://h:1/", at("h", 1)),
        ("REDIS://h:1", at("h", 1)),
        ("rediss://h:65535/0", at("h", 65535).use_tls(true)),
        ("ValkeyS://h", at("h", 6379).use_tls(true)),
        ("valkey://h/3", at("h", 6379).database(3)),
        ("valkeys://[::1]:7", at("::1", 7).use_tls(true)),
        ("valkey://[::1]", at("::1", 6379)),
        ("valkey://[fe80::1%25lo]:7", at("fe80::1%lo", 7)),
        ("valkey://%68ost", at("host", 6379)),
        ("valkey://:pw@h", at("h", 6379).password("pw")),
        (
            "valkey://a%3Ab:p@ss:w%2Frd%23%3f%25@h:7",
            at("h", 7).username("a:b").password("p@ss:w/rd#?%"),
        ),
        ("unix:///run/valkey.sock", ValkeyConfig::default().unix_socket("/run/valkey.sock")),
        (
            "redis+unix://u:pw@/run/a%20b",
            ValkeyConfig::default().unix_socket("/run/a b").username("u").password("pw"),
        ),
    ] {
        assert_eq!(ValkeyConfig::from_url(url).unwrap(), config, "{url}");
        assert_eq!(url.parse::<ValkeyConfig>().unwrap(), config, "{url}");
    }
}

#[test]
fn mistakes_in_urls_are_named_and_nothing_is_shown() {
    for (url, problem) in [
        ("", "scheme"),
        ("h:6379", "scheme"),
        ("http://u:hunter2@h", "scheme"),
        ("valkey://", "host"),
        ("valkey://:hunter2@:1", "host"),
        ("valkey://u:hunter2@h1,h2", "one host"),
        ("valkey://u:hunter2@h1:1,h2:2", "one host"),
        ("valkey://u:hunter2@h:0", "port"),
        ("valkey://u:hunter2@h:", "port"),
        ("valkey://u:hunter2@h:70000", "port"),
        ("valkey://u:hunter2@h:x", "port"),
        ("valkey://u:hunter2@h:+6379", "port"),
        ("valkey://u:hunter2@h:-1", "port"),
        ("valkey://u:hunter2@h:6379:7", "one port"),
        ("valkey://u:hunter2@::1:6379", "brackets"),
        ("valkey://u:hunter2@[::1", "]"),
        ("redis://[::1]6399", "behind the `]`"),
        ("redis://[::1]junk:6399", "behind the `]`"),
        ("redis://[::1]:", "port"),
        ("redis://[h]:1", "host"),
        ("redis://[fe80::1%lo]", "%25"),
        ("redis://[fe80::1%25]", "host"),
        ("valkey://hunter2@h", "user:password"),
        ("valkey://u:hunter2%4@h", "hexadecimal"),
        ("valkey://u:hunter2%ff@h", "UTF-8"),
        ("valkey://u:hunter2/x@h", "percent-encoded"),
        ("valkey://u:hunter2#x@h:6379/0", "percent-encoded"),
        ("valkey://u:hunter2?x@h", "percent-encoded"),
        ("valkey://u:hunter2@x/y@h", "percent-encoded"),
        ("valkey://u:hunter2 x@h", "percent-encoded"),
        ("valkey://u:hunter2@h\n", "line break"),
        (" valkey://u:hunter2@h", "space"),
        ("valkey://u:hunter2@h ", "space"),
        ("valkey://u:hunter2@h/x", "database"),
        ("valkey://u:hunter2@h/+3", "database"),
        ("valkey://u:hunter2@h/4294967296", "database"),
        ("valkey://u:hunter2@h?db=1", "query"),
        ("valkey://u:hunter2@h/0#x", "fragment"),
        ("unix://run/valkey.sock", "third slash"),
        ("unix://", "third slash"),
    ] {
        let error = ValkeyConfig::from_url(url).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        let error = error.to_string();
        assert!(error.contains(problem), "{url:?}: {error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn callbacks_are_equal_where_they_are_one() {
    let config = ValkeyConfig::default().password_from(|| Ok::<_, ()>("hunter2".to_owned()));
    assert_eq!(config, config.clone());
    assert_ne!(config, ValkeyConfig::default().password_from(|| Ok::<_, ()>(String::new())));
    assert_ne!(config, ValkeyConfig::default().password("hunter2"));
    assert!(!format!("{config:?}").contains("hunter2"));
}
