use crate::error::{Error, ErrorKind, Result};

/// A random token of 128 bits, in hexadecimal digits.
pub(crate) fn token() -> Result<String> {
    Ok(hex(&random::<16>()?))
}

/// Random bytes of the operating system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| {
        Error::new(ErrorKind::Backend, "the operating system gave no random bytes")
            .with_source(error)
    })?;
    Ok(bytes)
}

/// Lower-case hexadecimal digits. Formatting each byte would be a third of all instructions of a
/// cache miss.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_32_hexadecimal_digits_and_never_the_same() {
        assert_eq!(hex(&[0x00, 0x0f, 0xa5, 0xff]), "000fa5ff");
        let tokens = [token().unwrap(), token().unwrap()];
        for token in &tokens {
            assert!(token.len() == 32 && token.bytes().all(|digit| digit.is_ascii_hexdigit()));
        }
        assert_ne!(tokens[0], tokens[1]);
    }
}
