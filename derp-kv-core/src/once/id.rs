/// One id of several parts, such as the sender of an event and the sender's own id for it. No two lists
/// of parts join to the same one.
///
/// Each part is ended by `/`. What could be taken for that end, or would choose a cluster's slot, and
/// every byte that is no visible ASCII, is written as `%` and two hexadecimal digits. An id ends in `/`,
/// and so never in a suffix that helpers reserve.
///
/// The parts may come from anybody. An id may have 1024 bytes: bound parts that can be longer than that.
///
/// # Examples
///
/// ```
/// use derp_kv_core::id_of;
///
/// assert_eq!(id_of(&["stripe", "evt_1"]), "stripe/evt_1/");
/// assert_eq!(id_of(&["a/b", "c"]), "a%2Fb/c/");
/// assert_ne!(id_of(&["a", "b/c"]), id_of(&["a/b", "c"]));
/// ```
#[must_use]
pub fn id_of<P: AsRef<[u8]>>(parts: &[P]) -> String {
    let parts = parts.iter().map(AsRef::as_ref);
    // Most ids have nothing to escape.
    let mut id = String::with_capacity(parts.clone().map(|part| part.len() + 1).sum());
    for part in parts {
        for byte in part {
            match byte {
                b'/' | b'%' | b'{' | b'}' => escape(&mut id, *byte),
                0x21..=0x7e => id.push(char::from(*byte)),
                _ => escape(&mut id, *byte),
            }
        }
        id.push('/');
    }
    id
}

fn escape(id: &mut String, byte: u8) {
    let digit = |nibble: u8| char::from(b"0123456789ABCDEF"[usize::from(nibble)]);
    id.extend(['%', digit(byte >> 4), digit(byte & 0xf)]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The parts that an id was made of.
    fn parts_of(id: &str) -> Vec<Vec<u8>> {
        let parts = id.strip_suffix('/').map(|id| id.split('/')).into_iter().flatten();
        parts
            .map(|part| {
                let mut pieces = part.split('%');
                let mut bytes = pieces.next().unwrap_or_default().as_bytes().to_vec();
                for piece in pieces {
                    bytes.push(u8::from_str_radix(&piece[..2], 16).unwrap());
                    bytes.extend_from_slice(&piece.as_bytes()[2..]);
                }
                bytes
            })
            .collect()
    }

    proptest! {
        #[test]
        fn the_parts_can_be_read_back(
            parts in proptest::collection::vec(
                proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'/'), Just(b'%')], 0..6),
                0..5,
            ),
        ) {
            let id = id_of(&parts);
            prop_assert_eq!(parts_of(&id), parts.clone());
            let is_plain = id.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'{');
            prop_assert!(is_plain && (parts.is_empty() || id.ends_with('/')));
        }
    }
}
