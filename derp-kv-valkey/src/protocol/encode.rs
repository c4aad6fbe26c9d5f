//! How commands are written.

/// Appends a command and its arguments, as an array of bulk strings.
pub(crate) fn encode(out: &mut Vec<u8>, args: &[&[u8]]) {
    out.reserve(encoded_len(args));
    header(out, b'*', args.len());
    for arg in args {
        header(out, b'$', arg.len());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}

/// How many bytes [`encode`] appends.
pub(crate) fn encoded_len(args: &[&[u8]]) -> usize {
    let header = |count: usize| "*\r\n".len() + 1 + count.checked_ilog10().unwrap_or(0) as usize;
    let strings = args.iter().map(|arg| header(arg.len()) + arg.len() + "\r\n".len());
    header(args.len()) + strings.sum::<usize>()
}

fn header(out: &mut Vec<u8>, kind: u8, count: usize) {
    out.push(kind);
    let digits = count.checked_ilog10().unwrap_or(0);
    let digit = |place| b'0' + (count / 10_usize.pow(place) % 10) as u8;
    out.extend((0..=digits).rev().map(digit));
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_is_exact() {
        for length in [0, 1, 9, 10, 98, 99, 12_345] {
            let argument = vec![b'x'; length];
            let args = vec![argument.as_slice(); 1 + length.min(99)];
            let mut out = Vec::new();
            encode(&mut out, &args);
            assert_eq!(out.len(), encoded_len(&args), "{length}");
            let mut cmd = redis::Cmd::new();
            args.iter().for_each(|arg| _ = cmd.arg(*arg));
            assert_eq!(out, cmd.get_packed_command(), "{length}");
        }
    }
}
