//! Prefixes that stores are known to take for something else than bytes.

use std::collections::BTreeSet;

use crate::input::{Blob, noise};

/// Keys of which each is a prefix, too: what a pattern, a text comparison or a range takes wrongly.
const KEYS: &[&[u8]] = &[
    // Wildcards of globs, of SQL's LIKE and SIMILAR TO, and their escapes.
    b"a%b",
    b"a_b",
    b"axb",
    b"axxb",
    b"ab",
    b"a%",
    b"a_",
    b"%",
    b"_",
    b"%b",
    b"a\\%b",
    b"a\\_b",
    b"a\\b",
    b"a\\",
    b"\\",
    b"a*b",
    b"a?b",
    b"a[x]b",
    b"a[b",
    b"a[^y]b",
    b"a{x,y}b",
    b"a!b",
    b"a#b",
    // Regular expressions.
    b"a.b",
    b"a.*b",
    b"a+b",
    b"aab",
    b"^a",
    b"a$",
    b"a|b",
    b"(a)",
    b"(a",
    b"a)b",
    b"\\d",
    b"\\Qa\\E",
    b"a\\.b",
    b".",
    b".*",
    b"$",
    b"^",
    b"|",
    b"5",
    // Quotes.
    b"a'b",
    b"a''b",
    b"a\"b",
    b"a`b",
    b"a;b",
    b"a--b",
    b"a/b",
    b"a%2Fb",
    b"a b",
    b"a+b+",
    // Case and collation.
    b"User:1",
    b"user:1",
    b"USER:1",
    b"User",
    b"user",
    b"uSER:2",
    b"Zz",
    b"zZ",
    b"a",
    b"B",
    b"b",
    b"A",
    b"user-1",
    b"user 1",
    b"user",
    b"user:",
    b"user;",
    b"user9",
    b"user:\0",
    b"user:\xff",
    b"user:10",
    "é".as_bytes(),
    "e\u{301}".as_bytes(),
    "É".as_bytes(),
    "éa".as_bytes(),
    b"e",
    b"E",
    b"ea",
    b"f",
    "ß".as_bytes(),
    b"ss",
    b"ssa",
    "æ".as_bytes(),
    b"ae",
    "ı".as_bytes(),
    b"i",
    b"I",
    // A prefix may end within a character, and be no text at all.
    b"\xc3",
    b"\xc3\xa9x",
    b"\xc3\x28",
    b"\xe2\x82",
    b"\xe2\x82\xac",
    b"\xe2",
    b"\xef\xbf\xbd",
    b"\xef",
    b"\x80",
    b"\xfe",
    b"\xfe\xff",
    b"\xfe\xffa",
    "\u{10ffff}".as_bytes(),
    "a\u{10ffff}a".as_bytes(),
    "a\u{ffff}a".as_bytes(),
    // The end of a range: what follows a prefix is not the prefix with its last byte plus one.
    b"\xff",
    b"\xff\xff",
    b"\xff\xff\xff",
    b"\xff\0",
    b"\xff\xfe",
    b"\xffa",
    b"\xff\xff\xffa",
    b"a\xff",
    b"a\xff\xff",
    b"a\xff\0",
    b"a\xff\xffa",
    b"a\xfe",
    b"a\xfe\xff",
    b"a\0",
    b"a\0\0",
    b"b\0",
    b"ab\xff",
    b"ab\xff\xff",
    b"ac",
    b"ac\0",
    b"k\x7f",
    b"k\x80",
    b"k\x7fz",
    b"k\x80a",
    b"k",
    b"k~",
    b"k~~",
    // NUL ends no prefix.
    b"n",
    b"n\0",
    b"n\0a",
    b"n\0b",
    b"n\0\0",
    b"n\x01",
    b"\0",
    b"\0\0",
    b"\0a",
    b"\0\xff",
    b"\x01",
    // White space, numbers, separators.
    b" ",
    b"  ",
    b" a",
    b"t ",
    b"t",
    b"t  a",
    b"t\n",
    b"t\t",
    b"\n",
    b"\r\n",
    b"1",
    b"10",
    b"1.0",
    b"01",
    b"-1",
    b"0",
    b"00",
    b"{t}",
    b"{t}a",
    b"{",
    b"}",
    b"{}",
    b"x:y",
    b"x:y:z",
    b"x",
    b"x:",
    b":",
    b"::",
    b"",
];

/// Keys, all different, and prefixes to be looked for among them.
pub(super) fn keys_and_prefixes() -> (BTreeSet<Blob>, BTreeSet<Blob>) {
    let noise = noise(1_280);
    let mut prefixes: BTreeSet<_> = KEYS.iter().map(|key| Blob::from(*key)).collect();
    // Longer than a column, a buffer, or a length kept in a byte.
    for length in [63, 64, 65, 127, 128, 254, 255, 256, 257, 300, 512, 600] {
        prefixes.insert(Blob::from(&noise[..length]));
        prefixes.insert(Blob([&noise[..length], b"\xff"].concat()));
    }
    let mut keys = prefixes.clone();
    // Any byte may follow a prefix, and any number of the highest.
    keys.extend((0..=255).map(|byte| Blob([&b"p"[..], &[byte]].concat())));
    for length in [4, 8, 16, 32, 64, 100, 128, 256, 512, 1_024] {
        keys.insert(Blob([&b"p"[..], &vec![0xff; length]].concat()));
        keys.insert(Blob(vec![0xff; length]));
    }
    // Beside the prefixes: some lead to no key but have neighbours on either side.
    for beside in
        [&b"p"[..], b"o", b"q", b"P", b"p\xff", b"p\xff\xff", b"p\xfe", b"p\x7f", b"p\x80"]
    {
        prefixes.insert(Blob::from(beside));
    }
    for absent in ["a%c", "a__b", "nobody", "user:1%", "USER:", "uSER", "zz", "t\0", "p\u{fffd}"] {
        prefixes.insert(Blob::from(absent.as_bytes()));
    }
    prefixes.insert(Blob(vec![0xff; 40]));
    prefixes.insert(Blob(vec![0xff; 1_025]));
    (keys, prefixes)
}
