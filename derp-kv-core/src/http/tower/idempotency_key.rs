use ::http::HeaderMap;
use ::http::header::HeaderName;

use crate::http::problem::Problem;

/// The header of draft-ietf-httpapi-idempotency-key-header-06, and of Stripe.
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Where the header is explained, which makes it the type of its problems.
const TYPE_URI: &str =
    "https://docs.rs/derp-kv-core/latest/derp_kv_core/struct.IdempotencyLayer.html";

/// The longest key, in bytes: Stripe's.
const MAX: usize = 255;

/// The key that a client sent, without quotes. None where there is no such header.
///
/// The draft has a structured string (RFC 9651, section 3.3.3): in quotes, `\` before quotes and before
/// itself. Stripe and most clients send the key as it is. Both are taken, and name the same key.
///
/// # Errors
///
/// A problem with status code 400 where the key is empty, has more than 255 bytes, control characters or
/// bytes that are no UTF-8, where its quotes do not match, or where there is more than one key.
pub(crate) fn key_of(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut lines = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(line) = lines.next() else { return Ok(None) };
    if lines.next().is_some() {
        return Err(malformed("The request has more than one Idempotency-Key header."));
    }
    let line = std::str::from_utf8(line.as_bytes()).unwrap_or_default().trim_matches([' ', '\t']);
    let key = match line.strip_prefix('"') {
        Some(rest) => unquoted(rest),
        None => is_printable(line).then(|| line.to_owned()),
    };
    match key {
        Some(key) if (1..=MAX).contains(&key.len()) => Ok(Some(key)),
        _ => Err(malformed(
            "An Idempotency-Key has 1 to 255 bytes of visible text in UTF-8, with or without quotes.",
        )),
    }
}

/// What stands before the closing quote. Parameters may follow it, and do not count.
fn unquoted(text: &str) -> Option<String> {
    let mut key = String::new();
    let mut characters = text.chars();
    loop {
        match characters.next()? {
            '"' => break,
            '\\' => key.push(characters.next().filter(|escaped| matches!(escaped, '"' | '\\'))?),
            character => key.push(character),
        }
    }
    let rest = characters.as_str();
    // A comma begins another key.
    let ends = rest.is_empty() || rest.starts_with(';') && !rest.contains(',');
    (ends && is_printable(&key) && is_printable(rest)).then_some(key)
}

fn is_printable(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

/// The answer to a request that must have a key and has none.
pub(crate) fn missing() -> Problem {
    Problem::new(400, "Idempotency-Key is missing")
        .with_type_uri(TYPE_URI)
        .with_detail("A request with this method must have an Idempotency-Key header.")
}

fn malformed(detail: &'static str) -> Problem {
    Problem::new(400, "Idempotency-Key is malformed").with_type_uri(TYPE_URI).with_detail(detail)
}

#[cfg(test)]
mod tests {
    use ::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn key(line: &[u8]) -> Result<Option<String>, Problem> {
        let value = HeaderValue::from_bytes(line).unwrap();
        key_of(&HeaderMap::from_iter([(IDEMPOTENCY_KEY, value)]))
    }

    #[test]
    fn a_key_is_the_same_with_quotes_and_without() {
        let same: [(&str, &[&str]); 6] = [
            ("caf\u{e9}", &["caf\u{e9}", "\"caf\u{e9}\""]),
            (
                "8e03978e-40d5-43e8-bc93-6894a57f9324",
                &[
                    "8e03978e-40d5-43e8-bc93-6894a57f9324",
                    r#""8e03978e-40d5-43e8-bc93-6894a57f9324""#,
                    r#" "8e03978e-40d5-43e8-bc93-6894a57f9324" "#,
                    r#""8e03978e-40d5-43e8-bc93-6894a57f9324";v=1;w="x""#,
                ],
            ),
            ("a:b/c@d+e=", &["a:b/c@d+e=", r#""a:b/c@d+e=""#]),
            (r#"say "\""#, &[r#"say "\""#, r#""say \"\\\"""#]),
            ("k;v=1", &["k;v=1", r#""k;v=1""#]),
            (" ", &[r#"" ""#]),
        ];
        for (expected, lines) in same {
            for line in lines {
                assert_eq!(key(line.as_bytes()).unwrap().as_deref(), Some(expected), "{line}");
            }
        }
        for length in [1, MAX] {
            let (plain, quoted) = ("k".repeat(length), format!("{:?}", "k".repeat(length)));
            assert_eq!(key(plain.as_bytes()).unwrap(), Some(plain.clone()));
            assert_eq!(key(quoted.as_bytes()).unwrap(), Some(plain));
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let long = "k".repeat(MAX + 1);
        let lines: [&[u8]; 13] = [
            b"",
            b"   ",
            br#""""#,
            br#"""#,
            br#""open"#,
            br#""a"b"#,
            br#""a", "b""#,
            br#""a\b""#,
            b"a\tb",
            b"caf\xc3",
            br#""a";v=1, "b""#,
            b"\xff",
            long.as_bytes(),
        ];
        for line in lines {
            assert_eq!(key(line).unwrap_err().status_code(), 400, "{line:?}");
        }
        let mut twice = HeaderMap::new();
        twice.append(IDEMPOTENCY_KEY, HeaderValue::from_static("k"));
        twice.append(IDEMPOTENCY_KEY, HeaderValue::from_static("k"));
        assert_eq!(key_of(&twice).unwrap_err().status_code(), 400);
        assert_eq!(key_of(&HeaderMap::new()), Ok(None));
    }

    proptest! {
        #[test]
        fn no_line_panics_and_every_key_can_be_quoted(
            line in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'"'), Just(b'\\')], 0..300),
        ) {
            if let Ok(value) = HeaderValue::from_bytes(&line) {
                let headers = HeaderMap::from_iter([(IDEMPOTENCY_KEY, value)]);
                if let Ok(Some(found)) = key_of(&headers) {
                    prop_assert!((1..=MAX).contains(&found.len()));
                    let quoted = found.replace('\\', "\\\\").replace('"', "\\\"");
                    prop_assert_eq!(key(format!("\"{quoted}\"").as_bytes()), Ok(Some(found)));
                }
            }
        }
    }
}
