/// The bytes that two hexadecimal digits each stand for.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, []) = text.as_bytes().as_chunks() else { return None };
    pairs.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn digits_come_in_pairs() {
        assert_eq!(decode("00fFa5").as_deref(), Some(&[0x00, 0xff, 0xa5][..]));
        assert_eq!(decode("").as_deref(), Some(&[][..]));
        for wrong in ["0", "0g", "+1", " 0", "é0"] {
            assert_eq!(decode(wrong), None, "{wrong}");
        }
    }
}
