//! What proxies say of the client in `X-Forwarded-For`.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ::http::HeaderMap;

const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// The address in the `nth` entry from the right of all `X-Forwarded-For` lines together, counted from 1.
///
/// Each proxy appends the address that it was called from, so with `nth` trusted proxies that entry was
/// written by the outermost of them. What is left of it came from the client. None where there are fewer
/// entries, or there is no address in it.
pub(crate) fn nth_from_the_right(headers: &HeaderMap, nth: usize) -> Option<IpAddr> {
    let lines = headers.get_all(X_FORWARDED_FOR).iter().rev();
    let entries = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    let mut entries = entries.skip(nth.checked_sub(1)?);
    address(entries.next()?)
}

/// An address as proxies write it: bare, in brackets, with a port, or both.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let entry = str::from_utf8(entry).ok()?.trim_matches([' ', '\t']);
    let bare = || entry.parse::<IpAddr>().ok();
    let with_port = || entry.parse().ok().map(|address: SocketAddr| address.ip());
    let bracketed = || {
        let inside = entry.strip_prefix('[')?.strip_suffix(']')?;
        inside.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
    };
    bare().or_else(with_port).or_else(bracketed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &[&str], nth: usize) -> Option<String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(X_FORWARDED_FOR, line.parse().unwrap());
        }
        nth_from_the_right(&headers, nth).map(|address| address.to_string())
    }

    #[test]
    fn entries_are_counted_over_all_lines_from_the_right() {
        let lines = ["9.9.9.9, 1.1.1.1", "2.2.2.2,\t3.3.3.3 "];
        for (nth, expected) in [
            (0, None),
            (1, Some("3.3.3.3")),
            (2, Some("2.2.2.2")),
            (3, Some("1.1.1.1")),
            (4, Some("9.9.9.9")),
            (5, None),
            (usize::MAX, None),
        ] {
            assert_eq!(of(&lines, nth).as_deref(), expected, "{nth}");
        }
        assert_eq!(of(&[], 1), None);
    }

    #[test]
    fn an_entry_is_an_address_or_nothing() {
        for (entry, expected) in [
            ("192.0.2.7", Some("192.0.2.7")),
            ("192.0.2.7:4711", Some("192.0.2.7")),
            ("2001:db8::7", Some("2001:db8::7")),
            ("[2001:db8::7]", Some("2001:db8::7")),
            ("[2001:db8::7]:4711", Some("2001:db8::7")),
            ("", None),
            ("unknown", None),
            ("_hidden", None),
            ("192.0.2", None),
            ("192.0.2.07", None),
            ("192.0.2.7:", None),
            ("192.0.2.7:99999", None),
            ("[192.0.2.7]", None),
            ("[2001:db8::7", None),
            ("2001:db8::7]", None),
            ("\"[2001:db8::7]\"", None),
            ("192.0.2.7 192.0.2.8", None),
        ] {
            assert_eq!(of(&[entry], 1).as_deref(), expected, "{entry}");
        }
    }
}
