//! Prefixes as patterns.

/// How much of a prefix goes into its pattern, which the server reads with every page and compares
/// with every key.
const LONGEST: usize = 256;

/// A pattern that matches the keys that begin with `prefix`, or with its first [`LONGEST`] bytes:
/// the caller looks at the rest.
pub(crate) fn pattern(prefix: &[u8]) -> Vec<u8> {
    let prefix = &prefix[..prefix.len().min(LONGEST)];
    let mut pattern = Vec::with_capacity(2 * prefix.len() + 1);
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

    #[test]
    fn a_pattern_stays_short_however_long_the_prefix() {
        assert_eq!(pattern(&[b'*'; 1 << 20]), [&b"\\*".repeat(LONGEST)[..], b"*"].concat());
    }
}
