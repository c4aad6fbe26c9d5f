//! Families of keys that stores are known to take for one another.

use std::collections::BTreeSet;

use crate::input::{Blob, noise};

const TEXTS: &[&[&[u8]]] = &[
    // Percent-encoding, and forms.
    &[b"a/b", b"a%2Fb", b"a%2fb", b"a%252Fb", b"A", b"%41", b"%2541", b"%", b"%25", b"%2", b"%zz"],
    &[b"a b", b"a+b", b"a%20b", b"a%2Bb", b"a%2bb", b"a\xc2\xa0b", b"a_b", b"a-b"],
    &[b"a=b&c", b"a=b;c", b"a=b&amp;c", b"<a>", b"&lt;a&gt;", b"&#60;a&#62;", b"a#b", b"a?b"],
    // Paths.
    &[b"p/q", b"p//q", b"p/q/", b"p/q//", b"/p/q", b"//p/q", b"p/./q", b"./p/q", b"p\\q", b"p:q"],
    &[
        b"", b"null", b"\0", b"/", b"//", b".", b"..", b"./", b"../", b"/..", b"p/..", b"p/../p",
        b"p", b"p.",
    ],
    &[b"con", b"con.txt", b"nul", b"file", b"file.", b"file ", b"file.tmp", b"~file", b"file~"],
    // Unicode: composed and not, look-alikes, a byte-order mark, encodings of one character.
    &["é".as_bytes(), "e\u{301}".as_bytes(), b"e", b"\xe9", b"E", "É".as_bytes(), "è".as_bytes()],
    &["ﬁ".as_bytes(), b"fi", "ｆｉ".as_bytes(), "²".as_bytes(), b"2", "２".as_bytes(), b"FI"],
    &[b"bom", b"\xef\xbb\xbfbom", b"\xff\xfebom", b"\xfe\xffbom", "bo\u{200b}m".as_bytes()],
    &[b"\xff", b"\xfe", b"\xef\xbf\xbd", b"?", b"\xff\xff", b"\xc3\xbf", b"\xc0\x80", b"\x80"],
    &[b"x\xff", b"x\xfe", b"x\xef\xbf\xbd", b"x?", b"x", b"x\xc3", b"x\xc3\x28", b"x\\xff"],
    &[
        "ß".as_bytes(),
        b"ss",
        "ẞ".as_bytes(),
        b"SS",
        "ſs".as_bytes(),
        "Ω".as_bytes(),
        "Ω".as_bytes(),
    ],
    &[b"i", b"I", "ı".as_bytes(), "İ".as_bytes(), "i\u{307}".as_bytes(), "K".as_bytes(), b"k"],
    &["\u{10ffff}".as_bytes(), "\u{ffff}".as_bytes(), b"\xed\xa0\x80", "\u{1f600}".as_bytes()],
    // What is trimmed, padded or ends a text.
    &[
        b"t", b"t ", b"t  ", b" t", b"t\n", b"t\r\n", b"t\r", b"t\t", b"t\0", b"t\0\0", b"\0t",
        b"\nt",
    ],
    &[b" ", b"  ", b"\0", b"\0\0", b"\n", b"\t", b"''", b"\"\"", b"null", b"NULL", b"None", b"nil"],
    &[b"n\0a", b"n\0b", b"n", b"n\x01", b"n\x1a", b"n\x1b[0m", b"n\x7f", b"n\x08", b"na", b"n\\0a"],
    // Numbers.
    &[
        b"1",
        b"01",
        b"001",
        b"1.0",
        b"1.",
        b"+1",
        b"1e0",
        b"0x1",
        b"-1",
        b"1_",
        b"\x01",
        b"\x31\x00",
    ],
    &[b"0", b"-0", b"00", b"+0", b"0.0", b"0x0", b"false", b"10", b"1e1", b"0xA", b"0xa", b"true"],
    &[b"9007199254740993", b"9007199254740992", b"9007199254740992.0", b"9.007199254740992e15"],
    &[b"18446744073709551616", b"18446744073709551617", b"1.8446744073709552e19", b"NaN", b"nan"],
    // Quotes and escapes.
    &[b"q\n", b"q\\n", b"q\\\\n", b"q\\", b"q\\\\", b"q'", b"q''", b"'q'", b"\"q\"", b"`q`", b"q"],
    &[
        b"q\\u0041",
        b"qA",
        b"q\\x41",
        b"q\\101",
        b"q\\A",
        b"q\"",
        b"q\\\"",
        b"q\"\"",
        b"q$1",
        b"q\\1",
    ],
    &[
        b"{\"k\":1}",
        b"{\"k\": 1}",
        b"{k:1}",
        b"{k}",
        b"k1",
        b"[107]",
        b"[\"k\"]",
        b"b'k'",
        b"b\"k\"",
    ],
    &[
        b"{t}1", b"{t}2", b"{t}", b"t{t}", b"{}t", b"{{t}}", b"%s", b"%d", b"$k", b"${k}", b"@k",
        b"k*",
    ],
    // Another key's text in hex, base64 and the like.
    &[b"aa", b"6161", b"YWE=", b"YWE", b"\\x6161", b"0x6161", b"x'6161'", b"616100", b"[97, 97]"],
    &[b"\xab\xcd", b"abcd", b"ABCD", b"q80=", b"q80", b"\\xabcd", b"ab cd", b"ab:cd", b"AbCd"],
    &[b"a>b?c", b"YT5iP2M", b"YT5iP2M=", b"a-b_c", b"a+b/c", b"a,b", b"a, b", b"a;b", b"a|b"],
    // Upper and lower case.
    &[b"User:Ada", b"user:ada", b"USER:ADA", b"User:ada", b"user\x1aada", b"user[ada", b"user{ada"],
    &[b"@", b"`", b"[", b"{", b"\\", b"|", b"]", b"}", b"^", b"_", b"\x5f\x00", b"\x1f"],
    // What a store may keep its own data under, beside the key or for all.
    &[b"own", b"own:ttl", b"own:expiry", b"own:expires_at", b"own:exp", b"own:lock", b"own:value"],
    &[
        b"own\0ttl",
        b"own\0",
        b"own\0\0",
        b"own\xffttl",
        b"own.ttl",
        b"own/ttl",
        b"own_ttl",
        b"own#ttl",
    ],
    &[
        b"ttl:own",
        b"_expiry:own",
        b"expiry:own",
        b"expires:own",
        b"exp:own",
        b"e:own",
        b"v:own",
        b"d:own",
    ],
    &[
        b"own:version",
        b"own:meta",
        b"own:v",
        b"own:t",
        b"own:e",
        b"own:counter",
        b"own:waiters",
        b"own:0",
    ],
    &[
        b"__meta",
        b"__meta__",
        b"_meta",
        b"meta",
        b"__ttl",
        b"__expiry",
        b"__keys",
        b"_keys",
        b"keys",
    ],
    &[
        b"__version",
        b"version",
        b"_index",
        b"index",
        b"lock",
        b"_lock",
        b"expiry",
        b"data",
        b"_data",
    ],
    &[b"__proto__", b"constructor", b"toString", b"_id", b"id", b"key", b"value", b"*", b"default"],
    &[b"\xffmeta", b"\0meta", b"\xff\xff\xffmeta", b"own.lock", b"own.tmp", b"own.bak", b"own~"],
    // What is joined with a separator.
    &[
        b"a:b:c", b"a::b:c", b"a:b::c", b"a:b\\:c", b":a:b:c", b"a:b:c:", b"a\0b:c", b"a.b.c",
        b"a\x1fb",
    ],
    // What a hash of 32 bits takes for one: CRC-32, that of Java's strings, djb2, FNV-1a and FNV-1.
    &[b"plumless", b"buckeroo", b"codding", b"gnu", b"exhibiters", b"schlager"],
    &[b"Aa", b"BB", b"AaAa", b"BBBB", b"AaBB", b"BBAa"],
    &[b"hetairas", b"mentioner", b"heliotropes", b"neurospora", b"stylist", b"subgenera"],
    &[b"costarring", b"liquid", b"declinate", b"macallums", b"altarage", b"zinke"],
    &[b"creamwove", b"quists"],
    // The first 32 bits of MD5, SHA-1 and SHA-256, Murmur3, and Adler-32.
    &[b"key96339", b"key103901", b"key67400", b"key112136", b"key7556", b"key42372"],
    &[b"key29902", b"key140299", b"key26380", b"key146642", b"key76851", b"key103954"],
    &[b"key76424", b"key215300", b"key42901", b"key216963"],
    &[b"hfhe", b"iegf", b"beif", b"cfdi"],
    // Half of the SipHash that Rust has without a key.
    &[b"key45931", b"key52042", b"key23365", b"key62561"],
    &[b"key59687", b"key64102", b"key41788", b"key54423"],
];

/// Lengths at which keys are cut: column widths, buffers, a length kept in a byte.
const CUTS: &[usize] = &[
    8, 16, 20, 24, 31, 32, 40, 50, 63, 64, 100, 127, 128, 160, 191, 200, 250, 254, 255, 256, 300,
    500, 511, 512, 640, 767, 768, 900, 1_000, 1_023, 1_024,
];

/// The families, of keys that are all different and that every store takes.
pub(super) fn families() -> Vec<Vec<Blob>> {
    let mut families: Vec<Vec<Blob>> =
        TEXTS.iter().map(|family| family.iter().map(|key| Blob::from(*key)).collect()).collect();
    let noise = noise(1_280);
    // Each begins the next: where keys are cut, all that are longer are one.
    families.push(CUTS.iter().map(|cut| Blob::from(&noise[..*cut])).collect());
    // They differ in one place of many, or in the order of their bytes.
    let differing = [0, 1, 7, 99, 100, 150, 191, 198, 199].map(|at| {
        let mut key = noise[..200].to_vec();
        key[at] ^= 0x20;
        Blob(key)
    });
    let reversed = Blob(noise[..200].iter().rev().copied().collect());
    families.push(differing.into_iter().chain([reversed]).collect());
    // As text, which has another case.
    let text: Vec<u8> = noise[..180].iter().map(|byte| b'a' + byte % 26).collect();
    let cased = |from: usize| Blob([&text[..from], &text[from..].to_ascii_uppercase()].concat());
    families.push([0, 1, 63, 64, 127, 128, 150, 179, 180].map(cased).to_vec());
    // Runs of one byte, whose lengths a byte cannot tell apart.
    families
        .push([1, 2, 255, 256, 257, 258, 511, 512, 513].map(|len| Blob(vec![b'r'; len])).to_vec());
    families.push([1, 3, 4, 5, 255, 256, 259].map(|len| Blob(vec![0xff; len])).to_vec());
    families.push([3, 4, 5, 255, 256, 259].map(|len| Blob(vec![0; len])).to_vec());
    // Control characters, and bytes at the edges of encodings.
    let edges = [0x7f, 0x80, 0x85, 0xa0, 0xad, 0xc0, 0xc2, 0xc9, 0xe9, 0xf5, 0xfe, 0xff];
    families.push((0..=0x21).chain(edges).map(|byte| Blob(vec![b'z', byte])).collect());
    let mut known = BTreeSet::new();
    for family in &mut families {
        family.retain(|key| known.insert(key.clone()));
    }
    families
}
