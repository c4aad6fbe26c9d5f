//! Any reply, how a server writes it, and whether the decoder made the same of it.

use derp_kv_valkey::fuzzing::Reply;
use proptest::collection::vec;
use proptest::prelude::*;

/// A reply as a test means it.
#[derive(Clone, Debug)]
pub(crate) enum Tree {
    Null(&'static str),
    Int(i64),
    Double(f64),
    Boolean(bool),
    Simple(String),
    Bulk(Vec<u8>),
    Big(String),
    Verbatim(String),
    Error(String),
    BlobError(String),
    Array(Vec<Tree>),
    Set(Vec<Tree>),
    Map(Vec<(Tree, Tree)>),
    Push(String, Vec<Tree>),
    Attributed(Vec<(Tree, Tree)>, Box<Tree>),
}

impl Tree {
    fn write(&self, out: &mut Vec<u8>) {
        let mut line = |text: String| out.extend_from_slice(format!("{text}\r\n").as_bytes());
        match self {
            Self::Null(text) => line((*text).to_owned()),
            Self::Int(number) => line(format!(":{number}")),
            Self::Double(number) => line(format!(",{number}")),
            Self::Boolean(truth) => line(if *truth { "#t" } else { "#f" }.to_owned()),
            Self::Simple(text) => line(format!("+{text}")),
            Self::Bulk(bytes) => {
                line(format!("${}", bytes.len()));
                out.extend_from_slice(bytes);
                out.extend_from_slice(b"\r\n");
            }
            Self::Big(digits) => line(format!("({digits}")),
            Self::Verbatim(text) => line(format!("={}\r\ntxt:{text}", text.len() + 4)),
            Self::Error(text) => line(format!("-{text}")),
            Self::BlobError(text) => line(format!("!{}\r\n{text}", text.len())),
            Self::Array(trees) => {
                line(format!("*{}", trees.len()));
                trees.iter().for_each(|tree| tree.write(out));
            }
            Self::Set(trees) => {
                line(format!("~{}", trees.len()));
                trees.iter().for_each(|tree| tree.write(out));
            }
            Self::Map(pairs) => {
                line(format!("%{}", pairs.len()));
                write_pairs(pairs, out);
            }
            Self::Push(kind, trees) => {
                line(format!(">{}\r\n+{kind}", trees.len() + 1));
                trees.iter().for_each(|tree| tree.write(out));
            }
            Self::Attributed(pairs, tree) => {
                line(format!("|{}", pairs.len()));
                write_pairs(pairs, out);
                tree.write(out);
            }
        }
    }

    fn is(&self, reply: &Reply) -> bool {
        match (self, reply) {
            (Self::Null(_), Reply::Nil) => true,
            (Self::Int(number), Reply::Int(got)) => number == got,
            (Self::Double(number), Reply::Double(got)) => {
                number == got || number.is_nan() && got.is_nan()
            }
            (Self::Boolean(truth), Reply::Boolean(got)) => truth == got,
            (Self::Simple(text), Reply::Okay) => text == "OK",
            (Self::Simple(text), Reply::SimpleString(got)) => text == got && text != "OK",
            (Self::Bulk(bytes), Reply::BulkString(got)) => bytes == got,
            (Self::Big(digits), Reply::BigNumber(got)) => digits == got,
            (Self::Verbatim(text), Reply::VerbatimString { format, text: got }) => {
                format == "txt" && text == got
            }
            (Self::Error(text) | Self::BlobError(text), Reply::ServerError(got)) => {
                let (code, details) = text
                    .split_once(' ')
                    .map_or((text.as_str(), None), |(code, details)| (code, Some(details)));
                got.code() == code && got.details() == details
            }
            (Self::Array(trees) | Self::Set(trees), Reply::Array(got)) => all_are(trees, got),
            (Self::Map(pairs), Reply::Map(got)) => {
                pairs.len() == got.len()
                    && pairs
                        .iter()
                        .zip(got)
                        .all(|(pair, got)| pair.0.is(&got.0) && pair.1.is(&got.1))
            }
            (Self::Push(kind, trees), Reply::Push { kind: got, data }) => {
                kind == got && all_are(trees, data)
            }
            (Self::Attributed(_, tree), reply) => tree.is(reply),
            _ => false,
        }
    }
}

fn write_pairs(pairs: &[(Tree, Tree)], out: &mut Vec<u8>) {
    for (field, value) in pairs {
        field.write(out);
        value.write(out);
    }
}

pub(crate) fn all_are(trees: &[Tree], replies: &[Reply]) -> bool {
    trees.len() == replies.len() && trees.iter().zip(replies).all(|(tree, reply)| tree.is(reply))
}

fn leaf() -> impl Strategy<Value = Tree> {
    let double =
        prop_oneof![any::<f64>(), Just(f64::INFINITY), Just(-f64::INFINITY), Just(f64::NAN)];
    // Around the lengths from which on a string has a buffer of its own, and fills the common one.
    let length = prop_oneof![16_380_usize..16_390, 65_500_usize..65_600, 16_000_usize..150_000];
    prop_oneof![
        3 => prop_oneof![Just("_"), Just("$-1"), Just("*-1")].prop_map(Tree::Null),
        6 => any::<i64>().prop_map(Tree::Int),
        3 => double.prop_map(Tree::Double),
        3 => any::<bool>().prop_map(Tree::Boolean),
        6 => prop_oneof![Just("OK".to_owned()), "[^\r\n]{0,20}"].prop_map(Tree::Simple),
        9 => vec(any::<u8>(), 0..100).prop_map(Tree::Bulk),
        1 => (length, any::<u8>()).prop_map(|(length, byte)| Tree::Bulk(vec![byte; length])),
        3 => "[-+]?[0-9]{1,50}".prop_map(Tree::Big),
        3 => "(?s).{0,20}".prop_map(Tree::Verbatim),
        3 => "[A-Z]{0,10}( [^\r\n]{0,20})?".prop_map(Tree::Error),
        3 => "(?s)[A-Z]{0,10}( .{0,20})?".prop_map(Tree::BlobError),
    ]
}

/// Any reply that is not a push; with attributes where `attributes`.
pub(crate) fn tree(attributes: bool) -> impl Strategy<Value = Tree> {
    leaf().prop_recursive(5, 40, 6, move |inner| {
        let pairs = vec((inner.clone(), inner.clone()), 0..4);
        let plain = prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Tree::Array),
            vec(inner.clone(), 0..6).prop_map(Tree::Set),
            pairs.clone().prop_map(Tree::Map),
        ];
        if !attributes {
            return plain.boxed();
        }
        let attributed =
            (pairs, inner).prop_map(|(pairs, tree)| Tree::Attributed(pairs, Box::new(tree)));
        prop_oneof![3 => plain, 1 => attributed].boxed()
    })
}

pub(crate) fn stream() -> impl Strategy<Value = Vec<Tree>> {
    let push =
        ("[a-z]{1,12}", vec(tree(true), 0..3)).prop_map(|(kind, data)| Tree::Push(kind, data));
    vec(prop_oneof![3 => tree(true), 1 => push], 1..6)
}

pub(crate) fn written(trees: &[Tree]) -> Vec<u8> {
    let mut stream = Vec::new();
    trees.iter().for_each(|tree| tree.write(&mut stream));
    stream
}
