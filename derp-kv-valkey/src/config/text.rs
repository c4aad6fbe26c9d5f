//! `[kv.valkey]` of a TOML text.

use std::time::Duration;

use derp_kv_core::Result;
use toml::{Table, Value};

use super::{Mode, ValkeyConfig, field, invalid};
use crate::address::Address;

const FIELDS: [&str; 13] = [
    "addresses",
    "mode",
    "username",
    "password",
    "use_tls",
    "ca_file",
    "client_cert_file",
    "client_key_file",
    "client_name",
    "op_timeout_ms",
    "connect_timeout_ms",
    "max_in_flight",
    "max_bulk_bytes",
];

/// The table is taken apart by hand: a derived decoder quotes the offending value in its errors,
/// and the value may be the password.
pub(super) fn parse(text: &str, env: impl Fn(&str) -> Option<String>) -> Result<ValkeyConfig> {
    let root: Table = text.parse().map_err(|error: toml::de::Error| {
        // The error's own text quotes the line, which may hold the password.
        let line = error.span().map_or(1, |span| {
            1 + text.bytes().take(span.start).filter(|byte| *byte == b'\n').count()
        });
        invalid(format!("not valid TOML at line {line}"))
    })?;
    let Some(Value::Table(table)) =
        root.get("kv").and_then(Value::as_table).and_then(|kv| kv.get("valkey"))
    else {
        return Err(invalid("there is no [kv.valkey] table; an empty one takes the defaults"));
    };
    if let Some(unknown) = table.keys().find(|key| !FIELDS.contains(&key.as_str())) {
        return Err(field(unknown, format_args!("no such field; known: {}", FIELDS.join(", "))));
    }

    let fields = Fields { table, env: &env };
    let defaults = ValkeyConfig::default();
    Ok(ValkeyConfig {
        addresses: fields.addresses()?.unwrap_or(defaults.addresses),
        mode: fields.mode()?.unwrap_or(defaults.mode),
        username: fields.string("username")?,
        password: fields.string("password")?,
        use_tls: fields.boolean("use_tls")?.unwrap_or(defaults.use_tls),
        ca_file: fields.string("ca_file")?.map(Into::into),
        client_cert_file: fields.string("client_cert_file")?.map(Into::into),
        client_key_file: fields.string("client_key_file")?.map(Into::into),
        client_name: fields.string("client_name")?,
        op_timeout: fields.millis("op_timeout_ms")?.unwrap_or(defaults.op_timeout),
        connect_timeout: fields.millis("connect_timeout_ms")?.unwrap_or(defaults.connect_timeout),
        max_in_flight: fields.count("max_in_flight")?.unwrap_or(defaults.max_in_flight),
        max_bulk_bytes: fields.count("max_bulk_bytes")?.unwrap_or(defaults.max_bulk_bytes),
    })
}

struct Fields<'a, E> {
    table: &'a Table,
    env: &'a E,
}

impl<E: Fn(&str) -> Option<String>> Fields<'_, E> {
    fn string(&self, name: &str) -> Result<Option<String>> {
        match self.table.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => self.expand(name, text).map(Some),
            Some(_) => Err(field(name, "must be a string")),
        }
    }

    fn expand(&self, name: &str, text: &str) -> Result<String> {
        let Some(variable) = text.strip_prefix('$') else { return Ok(text.to_owned()) };
        if let Some(rest) = variable.strip_prefix('$') {
            return Ok(format!("${rest}"));
        }
        let valid = variable.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && !variable.is_empty()
            && !variable.starts_with(|first: char| first.is_ascii_digit());
        if !valid {
            return Err(field(
                name,
                "a text that begins with `$` must be `$NAME`, an environment variable; write `$$` for a dollar sign",
            ));
        }
        (self.env)(variable).ok_or_else(|| {
            field(
                name,
                format_args!("the environment variable {variable} is not set (or not UTF-8)"),
            )
        })
    }

    fn boolean(&self, name: &str) -> Result<Option<bool>> {
        match self.table.get(name) {
            None => Ok(None),
            Some(Value::Boolean(value)) => Ok(Some(*value)),
            Some(_) => Err(field(name, "must be true or false")),
        }
    }

    fn count(&self, name: &str) -> Result<Option<usize>> {
        match self.table.get(name) {
            None => Ok(None),
            Some(Value::Integer(value)) => {
                usize::try_from(*value).map(Some).map_err(|_| field(name, "must not be negative"))
            }
            Some(_) => Err(field(name, "must be a whole number")),
        }
    }

    fn millis(&self, name: &str) -> Result<Option<Duration>> {
        Ok(self.count(name)?.map(|millis| Duration::from_millis(millis as u64)))
    }

    fn mode(&self) -> Result<Option<Mode>> {
        match self.string("mode")?.as_deref() {
            None => Ok(None),
            Some("standalone") => Ok(Some(Mode::Standalone)),
            Some("cluster") => Ok(Some(Mode::Cluster)),
            Some(_) => Err(field("mode", "must be \"standalone\" or \"cluster\"")),
        }
    }

    fn addresses(&self) -> Result<Option<Vec<Address>>> {
        let Some(value) = self.table.get("addresses") else { return Ok(None) };
        let shape = || field("addresses", "must be a list of [\"host\", port] pairs");
        let pairs = value.as_array().ok_or_else(shape)?;
        let address = |pair: &Value| {
            let Some([Value::String(host), Value::Integer(port)]) =
                pair.as_array().map(Vec::as_slice)
            else {
                return Err(shape());
            };
            let port = u16::try_from(*port).ok().filter(|port| *port != 0).ok_or_else(|| {
                field("addresses", format_args!("the port {port} is not between 1 and 65535"))
            })?;
            Ok(Address::new(self.expand("addresses", host)?, port))
        };
        pairs.iter().map(address).collect::<Result<_>>().map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ValkeyConfig> {
        let config = super::parse(text, |name| match name {
            "KV_PASSWORD" => Some("s3cret $ \"x\"\n".to_owned()),
            "KV_HOST" => Some("kv.example".to_owned()),
            _ => None,
        })?;
        config.check()?;
        Ok(config)
    }

    fn table(fields: &str) -> Result<ValkeyConfig> {
        parse(&format!("[other]\nx = 1\n[kv.memory]\nmax_bytes = 1\n[kv.valkey]\n{fields}"))
    }

    #[test]
    fn an_empty_table_takes_the_defaults() {
        assert_eq!(table("").unwrap(), ValkeyConfig::default());
    }

    #[test]
    fn every_field_is_read() {
        let config = table(
            r#"
            addresses = [["$KV_HOST", 7000], ["b", 65535]]
            mode = "cluster"
            username = "app"
            password = "$KV_PASSWORD"
            client_name = "checkout"
            op_timeout_ms = 750
            connect_timeout_ms = 250
            max_in_flight = 7
            max_bulk_bytes = 1024
            "#,
        )
        .unwrap();
        let same = ValkeyConfig::default()
            .addresses([("kv.example", 7000), ("b", 65535)])
            .mode(Mode::Cluster)
            .username("app")
            .password("s3cret $ \"x\"\n")
            .client_name("checkout")
            .op_timeout(Duration::from_millis(750))
            .connect_timeout(Duration::from_millis(250))
            .max_in_flight(7)
            .max_bulk_bytes(1024);
        assert_eq!(config, same);
    }

    #[test]
    fn two_dollar_signs_are_one() {
        assert_eq!(table("password = '$$x'").unwrap().password.as_deref(), Some("$x"));
    }

    #[test]
    fn every_mistake_names_its_field_and_what_would_be_right() {
        for (text, parts) in [
            ("adresses = []", ["adresses", "addresses"]),
            ("addresses = []", ["addresses", "at least one"]),
            ("addresses = 'localhost'", ["addresses", "[\"host\", port]"]),
            ("addresses = [['a']]", ["addresses", "[\"host\", port]"]),
            ("addresses = [['', 1]]", ["addresses", "empty"]),
            ("addresses = [['a', 0]]", ["addresses", "between 1 and 65535"]),
            ("addresses = [['a', 70000]]", ["addresses", "70000"]),
            ("addresses = [['a', 1], ['b', 1]]", ["addresses", "mode = \"cluster\""]),
            ("mode = 'sentinel'", ["mode", "\"standalone\" or \"cluster\""]),
            ("username = 'app'", ["username", "password"]),
            ("password = 17", ["password", "string"]),
            ("password = '$UNSET_ONE'", ["password", "UNSET_ONE"]),
            ("password = '$not-a-name'", ["password", "$$"]),
            ("use_tls = 'yes'", ["use_tls", "true or false"]),
            ("ca_file = '/ca.pem'", ["ca_file", "use_tls = true"]),
            ("use_tls = true\nca_file = '/no/such/ca.pem'", ["ca_file", "/no/such/ca.pem"]),
            ("use_tls = true\nclient_cert_file = 'x'", ["client_cert_file", "client_key_file"]),
            ("client_name = 'a b'", ["client_name", "without spaces"]),
            ("op_timeout_ms = 0", ["op_timeout_ms", "1 ms"]),
            ("op_timeout_ms = -5", ["op_timeout_ms", "negative"]),
            ("connect_timeout_ms = 1.5", ["connect_timeout_ms", "whole number"]),
            ("max_in_flight = 0", ["max_in_flight", "between 1"]),
            ("max_bulk_bytes = 536870913", ["max_bulk_bytes", "512 MiB"]),
        ] {
            let error = table(text).unwrap_err().to_string();
            for part in parts {
                assert!(error.contains(part), "`{text}` should mention `{part}`: {error}");
            }
        }
        assert!(parse("[kv.memory]").unwrap_err().to_string().contains("[kv.valkey]"));
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
}
