/// Cuts a stream of bytes into whole requests; what is not RESP (TLS) passes as it comes.
#[derive(Debug, Default)]
pub(super) struct Requests {
    buffer: Vec<u8>,
    /// Where the next argument starts.
    at: usize,
    missing: Option<usize>,
}

impl Requests {
    /// Takes what was read and gives the requests that are whole now.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.buffer.extend_from_slice(bytes);
        let mut whole = Vec::new();
        while !self.buffer.is_empty() {
            if self.buffer[0] != b'*' {
                whole.push(std::mem::take(&mut self.buffer));
                break;
            }
            if !self.advance() {
                break;
            }
            let rest = self.buffer.split_off(self.at);
            whole.push(std::mem::replace(&mut self.buffer, rest));
            (self.at, self.missing) = (0, None);
        }
        whole
    }

    /// Steps over arguments; true at the end of a request.
    fn advance(&mut self) -> bool {
        loop {
            if self.missing == Some(0) {
                return true;
            }
            let Some((number, end)) = self.number() else { return false };
            match self.missing {
                None => (self.missing, self.at) = (Some(number), end),
                Some(missing) => {
                    let end = end.saturating_add(number).saturating_add(2);
                    if end > self.buffer.len() {
                        return false;
                    }
                    (self.missing, self.at) = (Some(missing - 1), end);
                }
            }
        }
    }

    /// The number of the line `*3` or `$5` and where the line ends.
    fn number(&self) -> Option<(usize, usize)> {
        let rest = self.buffer.get(self.at..)?;
        let length = rest.iter().position(|byte| *byte == b'\n')?;
        let digits = rest.get(1..length.checked_sub(1)?)?;
        let number = std::str::from_utf8(digits).ok()?.parse().unwrap_or(0);
        Some((number, self.at + length + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::Requests;

    #[test]
    fn requests_come_whole_however_they_are_cut() {
        let stream = b"*1\r\n$4\r\nPING\r\n*2\r\n$3\r\nGET\r\n$2\r\n\r\n\r\n*1\r\n$0\r\n\r\n";
        for size in 1..=stream.len() {
            let mut requests = Requests::default();
            let seen: Vec<_> = stream.chunks(size).flat_map(|chunk| requests.push(chunk)).collect();
            assert_eq!(seen.len(), 3, "in pieces of {size}");
            assert_eq!(seen.concat(), stream);
            assert_eq!(seen[0], b"*1\r\n$4\r\nPING\r\n");
        }
    }

    #[test]
    fn other_bytes_pass() {
        assert_eq!(Requests::default().push(b"\x16\x03\x01"), [b"\x16\x03\x01"]);
    }
}
