use std::fmt;
use std::ops::Deref;

/// Bytes that are written once and rarely long: up to `N` of them need no allocation.
#[derive(Clone)]
pub(crate) struct Inline<const N: usize>(Place<N>);

// The difference in size is the purpose: the small form is the common one, and lies on the stack.
#[allow(clippy::large_enum_variant)]
#[derive(Clone)]
enum Place<const N: usize> {
    Here { bytes: [u8; N], len: usize },
    Heap(Vec<u8>),
}

impl<const N: usize> Inline<N> {
    pub(crate) const fn new() -> Self {
        Self(Place::Here { bytes: [0; N], len: 0 })
    }

    pub(crate) fn push(&mut self, more: &[u8]) {
        match &mut self.0 {
            Place::Here { bytes, len } => match bytes.get_mut(*len..*len + more.len()) {
                Some(free) => {
                    free.copy_from_slice(more);
                    *len += more.len();
                }
                None => self.0 = Place::Heap([&bytes[..*len], more].concat()),
            },
            Place::Heap(bytes) => bytes.extend_from_slice(more),
        }
    }
}

impl<const N: usize> Deref for Inline<N> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Place::Here { bytes, len } => &bytes[..*len],
            Place::Heap(bytes) => bytes,
        }
    }
}

impl<const N: usize> fmt::Debug for Inline<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_move_to_the_heap_whole_once_they_are_too_many() {
        let mut bytes = Inline::<4>::new();
        for (more, all) in
            [("a", "a"), ("bcd", "abcd"), ("", "abcd"), ("e", "abcde"), ("f", "abcdef")]
        {
            bytes.push(more.as_bytes());
            assert_eq!(&*bytes, all.as_bytes());
        }
    }
}
