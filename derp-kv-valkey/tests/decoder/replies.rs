//! Each type of reply, and each bound.

use derp_kv_valkey::fuzzing::Reply;

use crate::check::check;
use crate::{LIMIT, LONGEST, decode};

fn one(stream: &[u8]) -> Reply {
    check(stream);
    let (mut replies, end) = decode([stream]);
    assert_eq!(end, Ok(false), "{replies:?}");
    assert_eq!(replies.len(), 1, "{replies:?}");
    replies.remove(0)
}

fn broken(stream: &[u8]) -> &'static str {
    check(stream);
    decode([stream]).1.expect_err("a broken stream")
}

fn bulk(text: &str) -> Reply {
    Reply::BulkString(text.to_owned().into())
}

fn simple(text: &str) -> Reply {
    Reply::SimpleString(text.to_owned())
}

/// The code and the details of an error.
fn error(stream: &[u8]) -> (String, Option<String>) {
    match one(stream) {
        Reply::ServerError(error) => {
            (error.code().to_owned(), error.details().map(ToOwned::to_owned))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn strings() {
    assert_eq!(one(b"+OK\r\n"), Reply::Okay);
    assert_eq!(one(b"+PONG\r\n"), simple("PONG"));
    assert_eq!(one(b"+\r\n"), simple(""));
    assert_eq!(one(b"+ok\r\n"), simple("ok"));
    assert_eq!(one(b"+a\rb\nc\r\r\n"), simple("a\rb\nc\r"));
    assert_eq!(one(b"+\xff\r\n"), simple("\u{fffd}"));
    assert_eq!(one(b"$5\r\nhello\r\n"), bulk("hello"));
    assert_eq!(one(b"$0\r\n\r\n"), bulk(""));
    assert_eq!(one(b"$2\r\n\r\n\r\n"), bulk("\r\n"));
    assert_eq!(one(b"$2\r\nOK\r\n"), bulk("OK"));
    let verbatim = |format: &str, text: &str| Reply::VerbatimString {
        format: format.to_owned(),
        text: text.to_owned(),
    };
    assert_eq!(one(b"=15\r\ntxt:Some string\r\n"), verbatim("txt", "Some string"));
    assert_eq!(one(b"=4\r\nmkd:\r\n"), verbatim("mkd", ""));
    for stream in ["=3\r\ntxt\r\n", "=5\r\ntext:\r\n", "$2\r\nabc\r\n", "$-2\r\n", "$+1\r\na\r\n"] {
        broken(stream.as_bytes());
    }
}

#[test]
fn errors() {
    let details = |code: &str, details: &str| (code.to_owned(), Some(details.to_owned()));
    assert_eq!(error(b"-ERR no such key\r\n"), details("ERR", "no such key"));
    assert_eq!(error(b"-MOVED 7 h:1\r\n"), details("MOVED", "7 h:1"));
    assert_eq!(error(b"-ERR\r\n"), ("ERR".to_owned(), None));
    assert_eq!(error(b"-\r\n"), (String::new(), None));
    assert_eq!(error(b"-ERR \xff\r\n"), details("ERR", "\u{fffd}"));
    assert_eq!(error(b"!9\r\nERR a\r\nb \r\n"), details("ERR", "a\r\nb "));
}

#[test]
fn numbers_and_nulls() {
    for number in [0, 1, -1, 42, i64::MAX, i64::MIN] {
        assert_eq!(one(format!(":{number}\r\n").as_bytes()), Reply::Int(number));
    }
    assert_eq!(one(b":+7\r\n"), Reply::Int(7));
    for (text, number) in
        [("1.5", 1.5), ("-2", -2.0), ("1e3", 1e3), ("inf", f64::INFINITY), ("-inf", -f64::INFINITY)]
    {
        assert_eq!(one(format!(",{text}\r\n").as_bytes()), Reply::Double(number));
    }
    assert!(matches!(one(b",nan\r\n"), Reply::Double(number) if number.is_nan()));
    assert_eq!(one(b"#t\r\n"), Reply::Boolean(true));
    assert_eq!(one(b"#f\r\n"), Reply::Boolean(false));
    let big = "-349289032840923850932485094385094382502";
    assert_eq!(one(format!("({big}\r\n").as_bytes()), Reply::BigNumber(big.to_owned()));
    for null in ["_\r\n", "$-1\r\n", "*-1\r\n"] {
        assert_eq!(one(null.as_bytes()), Reply::Nil);
    }
    for stream in [
        ":\r\n",
        ":+\r\n",
        ":1 \r\n",
        ":--1\r\n",
        ":9223372036854775808\r\n",
        ":0x1\r\n",
        ":123456789012345678901234567890\r\n",
        ",\r\n",
        ",1,5\r\n",
        "#\r\n",
        "#true\r\n",
        "_x\r\n",
        "(\r\n",
        "(-\r\n",
        "(1.5\r\n",
        "%-1\r\n",
        "~-1\r\n",
        ">-1\r\n",
        "*-2\r\n",
        "*\r\n",
        "$\r\n",
    ] {
        broken(stream.as_bytes());
    }
}

#[test]
fn aggregates() {
    let array = || Reply::Array(vec![Reply::Int(1), Reply::Array(vec![]), bulk("x")]);
    assert_eq!(one(b"*3\r\n:1\r\n*0\r\n$1\r\nx\r\n"), array());
    assert_eq!(one(b"~3\r\n:1\r\n~0\r\n$1\r\nx\r\n"), array());
    assert_eq!(one(b"%0\r\n"), Reply::Map(vec![]));
    let map = vec![(simple("a"), Reply::Map(vec![])), (array(), Reply::Nil)];
    assert_eq!(one(b"%2\r\n+a\r\n%0\r\n*3\r\n:1\r\n*0\r\n$1\r\nx\r\n_\r\n"), Reply::Map(map));
    // Null arrays and strings are elements as well.
    let nulls = Reply::Array(vec![Reply::Nil, Reply::Nil, Reply::Nil]);
    assert_eq!(one(b"*3\r\n*-1\r\n$-1\r\n_\r\n"), nulls);
}

#[test]
fn pushes_come_between_replies_only() {
    let push = |kind: &str, data| Reply::Push { kind: kind.to_owned(), data };
    let keys = Reply::Array(vec![bulk("k")]);
    assert_eq!(
        one(b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"),
        push("invalidate", vec![keys])
    );
    assert_eq!(one(b">1\r\n+message\r\n"), push("message", vec![]));
    for stream in [
        "*1\r\n>1\r\n+x\r\n",
        "%1\r\n+x\r\n>1\r\n+x\r\n",
        "|1\r\n>1\r\n+x\r\n",
        ">2\r\n+x\r\n>1\r\n",
        ">0\r\n",
        ">1\r\n:1\r\n",
        ">1\r\n_\r\n",
    ] {
        broken(stream.as_bytes());
    }
}

#[test]
fn attributes_are_dropped() {
    assert_eq!(one(b"|1\r\n+ttl\r\n:3600\r\n$1\r\nx\r\n"), bulk("x"));
    assert_eq!(one(b"|0\r\n|1\r\n|1\r\n:1\r\n:2\r\n:3\r\n*1\r\n:4\r\n:5\r\n"), Reply::Int(5));
    assert_eq!(
        one(b"*2\r\n|1\r\n+a\r\n+b\r\n:1\r\n|0\r\n:2\r\n"),
        Reply::Array(vec![Reply::Int(1), Reply::Int(2)])
    );
    assert!(matches!(one(b"|1\r\n:1\r\n:2\r\n>1\r\n+x\r\n"), Reply::Push { .. }));
    assert_eq!(decode([b"|1\r\n:1\r\n:2\r\n".as_slice()]), (vec![], Ok(true)));
}

#[test]
fn what_is_streamed_or_unknown_is_refused() {
    for stream in
        ["$?\r\n;1\r\na\r\n;0\r\n", "*?\r\n:1\r\n.\r\n", "%?\r\n", "?", "\r\n", "HTTP/1.1 400 Bad"]
    {
        broken(stream.as_bytes());
    }
}

#[test]
fn what_is_announced_is_bounded() {
    for stream in [
        "*9223372036854775807\r\n",
        "*18446744073709551615\r\n",
        "*18446744073709551616\r\n",
        "%4611686018427387904\r\n",
        "%18446744073709551615\r\n",
        "|9223372036854775808\r\n",
        "~9999999999\r\n",
        ">9223372036854775807\r\n",
        "$9223372036854775807\r\n",
        "$18446744073709551615\r\n",
        "=18446744073709551614\r\n",
        "!99999999999999999999999\r\n",
    ] {
        broken(stream.as_bytes());
    }
    let longest = format!("${LONGEST}\r\n");
    assert_eq!(decode([longest.as_bytes()]), (vec![], Ok(true)));
    broken(format!("${}\r\n", LONGEST + 1).as_bytes());
    broken(&b"|0\r\n".repeat(LIMIT / 64));
    broken(&b"|1\r\n:1\r\n:1\r\n".repeat(LIMIT / 128));
    // A length is no longer than the largest number is.
    broken(b"$000000000000000000005\r\nhello\r\n");
}

#[test]
fn lines_and_nesting_are_bounded() {
    let line = |length| [b"+".as_slice(), &vec![b'x'; length], b"\r\n"].concat();
    assert_eq!(one(&line(65_533)), simple(&"x".repeat(65_533)));
    assert_eq!(broken(&line(65_536)), "a line is too long");
    // So deep that a reply which came through would overflow the stack when it is dropped.
    for kind in ["*1\r\n", "%1\r\n:1\r\n", "~1\r\n", "|1\r\n"] {
        assert_eq!(broken(kind.repeat(100_000).as_bytes()), "replies are nested too deeply");
    }
    let deepest = ["*1\r\n".repeat(32), ":1\r\n".to_owned()].concat();
    assert!(matches!(one(deepest.as_bytes()), Reply::Array(_)));
    broken(["*1\r\n", &deepest].concat().as_bytes());
}

#[test]
fn the_corpus_of_the_fuzzer_is_decoded() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/decoder");
    let mut streams = 0;
    for entry in std::fs::read_dir(corpus).expect("the corpus") {
        check(&std::fs::read(entry.expect("an entry").path()).expect("a file"));
        streams += 1;
    }
    assert!(streams > 0, "{corpus} is empty");
}
