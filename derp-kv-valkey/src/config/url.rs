//! `valkey://user:password@host:port/database`.

use std::borrow::Cow;

use derp_kv_core::{Error, Result};

use super::password::Password;
use super::{ValkeyConfig, invalid};
use crate::address::{Address, parse_port};

const ENCODE: &str = "user and password must be percent-encoded: `/` is %2F, `#` %23, `?` %3F, `@` %40, `%` %25, a space %20";

pub(super) fn parse(url: &str) -> Result<ValkeyConfig> {
    let is_blank = |char: char| char.is_whitespace() || char.is_control();
    if url.starts_with(is_blank) || url.ends_with(is_blank) {
        return Err(part("it begins or ends with a space or a line break, which must go"));
    }
    if url.contains(is_blank) {
        return Err(part(format!("it holds a space or a control character; {ENCODE}")));
    }
    let (scheme, rest) =
        url.split_once("://").ok_or_else(|| part("it needs a scheme, such as valkey://"))?;
    let (is_unix, use_tls) = match scheme.to_ascii_lowercase().as_str() {
        "valkey" | "redis" => (false, false),
        "valkeys" | "rediss" => (false, true),
        "unix" | "valkey+unix" | "redis+unix" => (true, false),
        _ => {
            return Err(part(
                "the scheme must be valkey, valkeys, redis or rediss, or unix for the path of a socket",
            ));
        }
    };
    let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    // The last `@` ends the login: what stands before it is a password that ended too early.
    if tail.contains('@') {
        return Err(part(format!("there is an `@` behind `/`, `?` or `#`; {ENCODE}")));
    }
    if tail.contains(['?', '#']) {
        return Err(part("it takes no query and no fragment; use the setters"));
    }
    let (login, server) = match authority.rsplit_once('@') {
        Some((login, server)) => (Some(login), server),
        None => (None, authority),
    };
    let mut config = ValkeyConfig { use_tls, ..Default::default() };
    let address = if is_unix {
        if !server.is_empty() || matches!(tail, "" | "/") {
            return Err(part("a socket's path begins with a third slash: unix:///run/valkey.sock"));
        }
        Address::Unix(decode(tail)?.into())
    } else {
        config.database = database(tail.strip_prefix('/').unwrap_or(tail))?;
        address(server)?
    };
    if let Some(problem) = address.problem() {
        return Err(part(problem));
    }
    config.addresses = vec![address];
    if let Some(login) = login {
        let (user, password) = login
            .split_once(':')
            .ok_or_else(|| part("before the @ it needs user:password, or :password"))?;
        if !user.is_empty() {
            config.username = Some(decode(user)?);
        }
        config.password = Some(Password::Fixed(decode(password)?));
    }
    config.check()?;
    Ok(config)
}

fn database(path: &str) -> Result<u32> {
    if path.is_empty() {
        return Ok(0);
    }
    let digits = path.bytes().all(|byte| byte.is_ascii_digit());
    let wrong = "the path must be the number of a database, such as /0";
    path.parse().ok().filter(|_| digits).ok_or_else(|| part(wrong))
}

fn address(server: &str) -> Result<Address> {
    if server.contains(',') {
        return Err(part("it holds one host; use the setter `addresses` for several"));
    }
    let (host, port) = match server.strip_prefix('[') {
        Some(rest) => {
            let (host, after) =
                rest.split_once(']').ok_or_else(|| part("the IPv6 address lacks its `]`"))?;
            // As it stands in the URL, `%` begins an escape: that of the zone's `%` is `%25`.
            let zone = host.split_once('%').map(|(_, zone)| zone);
            if zone.is_some_and(|zone| !zone.starts_with("25")) {
                return Err(part("a zone follows %25: [fe80::1%25eth0]"));
            }
            if !matches!(after.as_bytes(), [] | [b':', ..]) {
                return Err(part("behind the `]` there must be nothing, or a `:` and the port"));
            }
            (format!("[{}]", decode(host)?), after.strip_prefix(':'))
        }
        None => match server.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err(part("an IPv6 address needs brackets, [::1], and a host has one port"));
            }
            Some((host, port)) => (decode(host)?, Some(port)),
            None => (decode(server)?, None),
        },
    };
    let wrong = "the port must be between 1 and 65535, in digits; without one leave its `:` out";
    let port = port.map_or(Some(6379), parse_port).ok_or_else(|| part(wrong))?;
    Ok(Address::new(host, port))
}

fn decode(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
        match (digit(), digit()) {
            (Some(high), Some(low)) => bytes.push((high * 16 + low) as u8),
            _ => {
                return Err(part(
                    "a `%` must begin an escape of two hexadecimal digits; `%` itself is %25",
                ));
            }
        }
    }
    String::from_utf8(bytes).map_err(|_| part("what is percent-encoded must be UTF-8"))
}

fn part(problem: impl Into<Cow<'static, str>>) -> Error {
    invalid(format!("the URL is not valid: {}", problem.into()))
}
