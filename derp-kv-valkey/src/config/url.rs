//! `valkey://user:password@host:port`.

use derp_kv_core::{Error, Result};

use super::{ValkeyConfig, invalid};
use crate::address::Address;

pub(super) fn parse(url: &str) -> Result<ValkeyConfig> {
    let (scheme, rest) =
        url.split_once("://").ok_or_else(|| part("it needs a scheme, such as valkey://"))?;
    let use_tls = match scheme {
        "valkey" | "redis" => false,
        "valkeys" | "rediss" => true,
        _ => return Err(part("the scheme must be valkey, valkeys, redis or rediss")),
    };
    if rest.contains(['?', '#']) {
        return Err(part("it takes no query and no fragment; use the setters"));
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if !matches!(path, "" | "0") {
        return Err(part("only database 0 is supported"));
    }
    let (login, server) = match authority.rsplit_once('@') {
        Some((login, server)) => (Some(login), server),
        None => (None, authority),
    };
    let mut config =
        ValkeyConfig { use_tls, addresses: vec![address(server)?], ..Default::default() };
    if let Some(login) = login {
        let (user, password) = login
            .split_once(':')
            .ok_or_else(|| part("before the @ it needs user:password, or :password"))?;
        if !user.is_empty() {
            config.username = Some(decode(user)?);
        }
        config.password = Some(decode(password)?);
    }
    Ok(config)
}

fn address(server: &str) -> Result<Address> {
    let (host, port) = match server.strip_prefix('[') {
        Some(rest) => {
            let (host, port) =
                rest.split_once(']').ok_or_else(|| part("the IPv6 address lacks its `]`"))?;
            (host, port.strip_prefix(':'))
        }
        None => match server.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (server, None),
        },
    };
    if host.is_empty() {
        return Err(part("the host is missing"));
    }
    let port = match port {
        None => 6379,
        Some(port) => port
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(|| part("the port must be between 1 and 65535"))?,
    };
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
            _ => return Err(part("a `%` must begin an escape of two hexadecimal digits")),
        }
    }
    String::from_utf8(bytes).map_err(|_| part("user and password must be UTF-8"))
}

fn part(problem: &'static str) -> Error {
    invalid(format!("the URL is not valid: {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes_ports_and_escapes() {
        let base = ValkeyConfig::default();
        for (url, config) in [
            ("valkey://h", base.clone().addresses([("h", 6379)])),
            ("redis://h:1/", base.clone().addresses([("h", 1)])),
            ("rediss://h:65535/0", base.clone().addresses([("h", 65535)]).use_tls(true)),
            ("valkeys://[::1]:7", base.clone().addresses([("::1", 7)]).use_tls(true)),
            ("valkey://[::1]", base.clone().addresses([("::1", 6379)])),
            ("valkey://:pw@h", base.clone().addresses([("h", 6379)]).password("pw")),
            (
                "valkey://a%3Ab:p@ss:w%2Frd%23%3f%25@h:7",
                base.addresses([("h", 7)]).username("a:b").password("p@ss:w/rd#?%"),
            ),
        ] {
            assert_eq!(parse(url).unwrap(), config, "{url}");
        }
    }

    #[test]
    fn mistakes_are_named_and_nothing_is_shown() {
        for (url, problem) in [
            ("h:6379", "scheme"),
            ("http://h", "scheme"),
            ("valkey://", "host"),
            ("valkey://:hunter2@:1", "host"),
            ("valkey://u:hunter2@h:0", "port"),
            ("valkey://u:hunter2@h:70000", "port"),
            ("valkey://u:hunter2@h:x", "port"),
            ("valkey://hunter2@h", "user:password"),
            ("valkey://u:hunter2%4@h", "hexadecimal"),
            ("valkey://u:hunter2%ff@h", "UTF-8"),
            ("valkey://u:hunter2@h/3", "database 0"),
            ("valkey://u:hunter2@h?x=1", "query"),
            ("valkey://[::1", "]"),
        ] {
            let error = parse(url).unwrap_err().to_string();
            assert!(error.contains(problem), "{url}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
