//! The fields of `[kv.valkey]`, from TOML or any other format of serde.

use std::fmt;
use std::time::Duration;

use derp_kv_core::Result;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use toml::{Table, Value};

use super::password::Password;
use super::{Mode, ValkeyConfig, field, invalid};
use crate::address::Address;

const FIELDS: &str = "addresses, unix_socket, mode, address_map, username, password, database, \
    use_tls, tls_server_name, ca_file, client_cert_file, client_key_file, client_name, \
    op_timeout_ms, connect_timeout_ms, connections, io_threads, max_in_flight, max_bulk_bytes";

/// Reads `[kv.valkey]` of a TOML text.
pub(super) fn parse(text: &str) -> Result<ValkeyConfig> {
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
    read(table)
}

/// The fields, the files that they name included.
///
/// The table is taken apart by hand: a derived decoder quotes the offending value in its errors,
/// and the value may be the password.
fn read(table: &Table) -> Result<ValkeyConfig> {
    if let Some(unknown) = table.keys().find(|key| !FIELDS.split(", ").any(|name| name == *key)) {
        return Err(field(unknown, format_args!("no such field; known: {FIELDS}")));
    }
    let fields = Fields { table };
    let defaults = ValkeyConfig::default();
    let config = ValkeyConfig {
        addresses: fields.addresses()?.unwrap_or(defaults.addresses),
        mode: fields.mode()?.unwrap_or(defaults.mode),
        address_map: fields.address_map()?.unwrap_or(defaults.address_map),
        username: fields.string("username")?,
        password: fields.string("password")?.map(Password::Fixed),
        database: fields.number("database")?.unwrap_or(defaults.database),
        use_tls: fields.boolean("use_tls")?.unwrap_or(defaults.use_tls),
        tls_server_name: fields.string("tls_server_name")?,
        ca_file: fields.string("ca_file")?.map(Into::into),
        client_cert_file: fields.string("client_cert_file")?.map(Into::into),
        client_key_file: fields.string("client_key_file")?.map(Into::into),
        client_name: fields.string("client_name")?,
        op_timeout: fields.millis("op_timeout_ms")?.unwrap_or(defaults.op_timeout),
        connect_timeout: fields.millis("connect_timeout_ms")?.unwrap_or(defaults.connect_timeout),
        connections: fields.number("connections")?.unwrap_or(defaults.connections),
        io_threads: fields.number("io_threads")?.unwrap_or(defaults.io_threads),
        max_in_flight: fields.number("max_in_flight")?.unwrap_or(defaults.max_in_flight),
        max_bulk_bytes: fields.number("max_bulk_bytes")?.unwrap_or(defaults.max_bulk_bytes),
        tls: defaults.tls,
        watcher: defaults.watcher,
    };
    config.check()?;
    Ok(config)
}

/// The fields of the `[kv.valkey]` table, under any name and in any format.
///
/// Its own errors name the field and never quote a value. The format may add the place: the TOML
/// crate shows the line where the table begins, so a password in an inline table is better written
/// as `"$NAME"`.
impl<'de> Deserialize<'de> for ValkeyConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Asked for a map alone, some formats answer a text with an error that quotes it.
        let table = deserializer.deserialize_any(TableVisitor)?;
        read(&table).map_err(de::Error::custom)
    }
}

struct TableVisitor;

impl<'de> Visitor<'de> for TableVisitor {
    type Value = Table;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the fields of [kv.valkey]")
    }

    /// The standard answer would quote the text, and a URL may hold a password.
    fn visit_str<E: de::Error>(self, _: &str) -> Result<Table, E> {
        Err(E::custom("[kv.valkey] must be a table of fields; ValkeyConfig::from_url reads a URL"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Table, A::Error> {
        let mut table = Table::new();
        while let Some(name) = map.next_key::<String>()? {
            // JSON's null is as good as no field.
            let Some(value) = map.next_value::<Option<Value>>()? else { continue };
            if table.contains_key(&name) {
                return Err(de::Error::custom(field(&name, "is given twice")));
            }
            table.insert(name, value);
        }
        Ok(table)
    }
}

struct Fields<'a> {
    table: &'a Table,
}

impl Fields<'_> {
    fn string(&self, name: &str) -> Result<Option<String>> {
        match self.table.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => expand(name, text).map(Some),
            Some(_) => Err(field(name, "must be a string")),
        }
    }

    fn boolean(&self, name: &str) -> Result<Option<bool>> {
        match self.table.get(name) {
            None => Ok(None),
            Some(Value::Boolean(value)) => Ok(Some(*value)),
            Some(_) => Err(field(name, "must be true or false")),
        }
    }

    fn number<T: TryFrom<i64>>(&self, name: &str) -> Result<Option<T>> {
        match self.table.get(name) {
            None => Ok(None),
            Some(Value::Integer(value)) if *value < 0 => Err(field(name, "must not be negative")),
            Some(Value::Integer(value)) => {
                T::try_from(*value).map(Some).map_err(|_| field(name, "is too large"))
            }
            Some(_) => Err(field(name, "must be a whole number")),
        }
    }

    fn millis(&self, name: &str) -> Result<Option<Duration>> {
        Ok(self.number(name)?.map(Duration::from_millis))
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
        let pairs = self.rows("addresses", "[\"host\", port] pairs", |pair| match pair {
            [host, port] => Some(address("addresses", host, port)),
            _ => None,
        })?;
        match (pairs, self.string("unix_socket")?) {
            (Some(_), Some(_)) => Err(field("unix_socket", "takes the place of addresses")),
            (None, Some(path)) => Ok(Some(vec![Address::Unix(path.into())])),
            (pairs, None) => Ok(pairs),
        }
    }

    fn address_map(&self) -> Result<Option<Vec<(Address, Address)>>> {
        const NAME: &str = "address_map";
        let shape = "[\"announced host\", port, \"reached host\", port] rows";
        self.rows(NAME, shape, |row| match row {
            [host, port, to_host, to_port] => Some(
                address(NAME, host, port)
                    .and_then(|announced| Ok((announced, address(NAME, to_host, to_port)?))),
            ),
            _ => None,
        })
    }

    /// A list of lists; `read` gives `None` for a row of another length.
    fn rows<T>(
        &self,
        name: &str,
        shape: &str,
        read: impl Fn(&[Value]) -> Option<Result<T>>,
    ) -> Result<Option<Vec<T>>> {
        let Some(value) = self.table.get(name) else { return Ok(None) };
        let wrong = || field(name, format_args!("must be a list of {shape}"));
        let row = |row: &Value| row.as_array().and_then(|row| read(row)).ok_or_else(wrong)?;
        value.as_array().ok_or_else(wrong)?.iter().map(row).collect::<Result<_>>().map(Some)
    }
}

fn address(name: &str, host: &Value, port: &Value) -> Result<Address> {
    let (Value::String(host), Value::Integer(port)) = (host, port) else {
        return Err(field(name, "a host must be a string and its port a whole number"));
    };
    let port = u16::try_from(*port)
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| field(name, format_args!("the port {port} is not between 1 and 65535")))?;
    Ok(Address::new(expand(name, host)?, port))
}

/// The environment variable that `"$NAME"` means, or the text itself.
fn expand(name: &str, text: &str) -> Result<String> {
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
    std::env::var(variable).map_err(|_| {
        // A name of another form may be a password that begins with a dollar sign.
        let is_usual = !variable.bytes().any(|byte| byte.is_ascii_lowercase());
        let shown = if is_usual { variable } else { "that it names" };
        field(
            name,
            format_args!("the environment variable {shown} is not set (or not UTF-8); write `$$` for a dollar sign"),
        )
    })
}
