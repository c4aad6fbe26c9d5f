//! Prefixes as patterns.

/// A pattern that matches exactly the keys that begin with `prefix`.
pub(crate) fn pattern(prefix: &[u8]) -> Vec<u8> {
    let mut pattern = Vec::with_capacity(prefix.len() + 8);
    for byte in prefix {
        if matches!(byte, b'*' | b'?' | b'[' | b'\\') {
            pattern.push(b'\\');
        }
        pattern.push(*byte);
    }
    pattern.push(b'*');
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wildcard_is_escaped_and_nothing_else() {
        assert_eq!(pattern(b""), b"*");
        assert_eq!(pattern(b"a*b?c[d]e\\f{g}^-\xff\x00"), b"a\\*b\\?c\\[d]e\\\\f{g}^-\xff\x00*");
        assert_eq!(pattern(b"\\"), b"\\\\*");
    }
}
