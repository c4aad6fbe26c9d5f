//! What holds of any stream of replies and of garbage.

use derp_kv_valkey::fuzzing::{self, Reply};
use proptest::collection::vec;
use proptest::prelude::*;
use redis::Value;

use crate::check::check;
use crate::decode;
use crate::tree::{Tree, all_are, stream, tree, written};

/// Cuts a stream into pieces of these sizes, again and again.
fn cut<'a>(mut stream: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    for size in sizes.iter().cycle() {
        if stream.is_empty() {
            break;
        }
        let (piece, rest) = stream.split_at((*size).min(stream.len()));
        pieces.push(piece);
        stream = rest;
    }
    pieces
}

/// What a stream may be made of when it makes no sense.
fn garbage() -> impl Strategy<Value = Vec<u8>> {
    let number = prop_oneof![
        (-3_i64..40).prop_map(|number| number.to_string()),
        any::<u64>().prop_map(|number| number.to_string()),
        "[0-9?+.e-]{0,30}",
    ];
    let header = ("[-+:$*_,#!=(%~>|;.?]", number)
        .prop_map(|(kind, number)| format!("{kind}{number}\r\n").into_bytes());
    let bytes = vec(any::<u8>(), 0..20);
    let fitting = vec(any::<u8>(), 0..40).prop_map(|bytes| written(&[Tree::Bulk(bytes)]));
    vec(prop_oneof![4 => header, 1 => bytes, 2 => fitting], 0..60).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn any_replies_in_any_reads(trees in stream(), sizes in vec(prop_oneof![1_usize..20, 1_usize..70_000], 1..5)) {
        let stream = written(&trees);
        for sizes in [sizes.as_slice(), &[1], &[usize::MAX]] {
            let (replies, end) = decode(cut(&stream, sizes));
            prop_assert_eq!(end, Ok(false));
            prop_assert!(all_are(&trees, &replies), "{:?}", replies);
        }
    }

    #[test]
    fn a_reply_without_its_last_byte_is_midway(tree in tree(true)) {
        let mut stream = written(&[tree]);
        stream.pop();
        prop_assert_eq!(decode([stream.as_slice()]), (vec![], Ok(true)));
    }

    #[test]
    fn garbage_never_panics(stream in garbage()) {
        check(&stream);
    }

    #[test]
    fn a_changed_byte_never_panics(trees in stream(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut stream = written(&trees);
        let at = at.index(stream.len());
        stream[at] = byte;
        check(&stream);
    }

    #[test]
    fn another_decoder_reads_the_same(tree in tree(false)) {
        let stream = written(&[tree]);
        let theirs = redis::parse_redis_value(&stream).expect("a reply");
        prop_assert!(same(&one_reply(&stream), &theirs), "{:?}", theirs);
    }

    #[test]
    fn commands_are_arrays_of_strings(args in vec(vec(any::<u8>(), 0..200), 1..20)) {
        let slices: Vec<_> = args.iter().map(Vec::as_slice).collect();
        let sent = fuzzing::encode(&slices);
        let mut cmd = redis::Cmd::new();
        args.iter().for_each(|arg| _ = cmd.arg(arg));
        prop_assert_eq!(&sent, &cmd.get_packed_command());
        let strings = args.into_iter().map(|arg| Reply::BulkString(arg.into())).collect();
        prop_assert_eq!(one_reply(&sent), Reply::Array(strings));
    }
}

fn one_reply(stream: &[u8]) -> Reply {
    decode([stream]).0.pop().expect("a reply")
}

fn same(ours: &Reply, theirs: &Value) -> bool {
    let all = |ours: &[Reply], theirs: &[Value]| {
        ours.len() == theirs.len()
            && ours.iter().zip(theirs).all(|(ours, theirs)| same(ours, theirs))
    };
    match (ours, theirs) {
        (Reply::Nil, Value::Nil) | (Reply::Okay, Value::Okay) => true,
        (Reply::Int(ours), Value::Int(theirs)) => ours == theirs,
        (Reply::Double(ours), Value::Double(theirs)) => {
            ours == theirs || ours.is_nan() && theirs.is_nan()
        }
        (Reply::Boolean(ours), Value::Boolean(theirs)) => ours == theirs,
        (Reply::SimpleString(ours), Value::SimpleString(theirs)) => ours == theirs,
        (Reply::BulkString(ours), Value::BulkString(theirs)) => ours == theirs,
        (Reply::BigNumber(ours), Value::BigNumber(theirs)) => ours.as_bytes() == theirs,
        (Reply::VerbatimString { text: ours, .. }, Value::VerbatimString { text: theirs, .. }) => {
            ours == theirs
        }
        (Reply::ServerError(ours), Value::ServerError(theirs)) => {
            ours.code() == theirs.code() && ours.details() == theirs.details()
        }
        (Reply::Array(ours), Value::Array(theirs) | Value::Set(theirs)) => all(ours, theirs),
        (Reply::Map(ours), Value::Map(theirs)) => {
            ours.len() == theirs.len()
                && ours
                    .iter()
                    .zip(theirs)
                    .all(|(ours, theirs)| same(&ours.0, &theirs.0) && same(&ours.1, &theirs.1))
        }
        _ => false,
    }
}
