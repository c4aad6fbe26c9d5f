//! Stores that keep a key under its hash, and do not look at the key itself.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::folds::folds;
use crate::mutants::broken::{Mutant, mutant};

const LAW: &str = "basics::keys_are_told_apart";

pub(super) fn mutants() -> Vec<Mutant> {
    vec![
        mutant::<HashesCrc32>(LAW, "a key is kept under its CRC-32"),
        mutant::<HashesJava>(LAW, "a key is kept under the hash that Java gives a string"),
        mutant::<HashesDjb2>(LAW, "a key is kept under its djb2 hash"),
        mutant::<HashesFnv1a>(LAW, "a key is kept under its FNV-1a hash of 32 bits"),
        mutant::<HashesFnv1>(LAW, "a key is kept under its FNV-1 hash of 32 bits"),
        mutant::<HashesAdler>(LAW, "a key is kept under its Adler-32"),
        mutant::<HashesMurmur>(LAW, "a key is kept under its Murmur3 hash of 32 bits"),
        mutant::<HashesSip>(LAW, "a key is kept under half of its SipHash"),
    ]
}

/// Of each hash function the first key of each hash.
static FIRST: Mutex<BTreeMap<(&str, u32), Vec<u8>>> = Mutex::new(BTreeMap::new());

/// The first key of this hash, which stands for all others: scans yield it as it was written.
fn first(function: &'static str, hash: u32, key: &[u8]) -> Vec<u8> {
    FIRST.lock().unwrap().entry((function, hash)).or_insert_with(|| key.to_vec()).clone()
}

fn crc32(key: &[u8]) -> u32 {
    !key.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

/// Each byte added to the hash so far, `times` as much.
fn polynomial(key: &[u8], from: u32, times: u32) -> u32 {
    key.iter().fold(from, |hash, byte| hash.wrapping_mul(times).wrapping_add(u32::from(*byte)))
}

const FNV: (u32, u32) = (0x811c_9dc5, 0x0100_0193);

fn adler32(key: &[u8]) -> u32 {
    let (a, b) = key.iter().fold((1, 0), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    (b << 16) | a
}

fn murmur3(key: &[u8]) -> u32 {
    let mixed = |part: &[u8]| {
        let word = part.iter().rev().fold(0, |word, byte| (word << 8) | u32::from(*byte));
        word.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593)
    };
    let words = key.chunks_exact(4);
    let rest = mixed(words.remainder());
    let hash = words.fold(0_u32, |hash, word| {
        (hash ^ mixed(word)).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64)
    });
    let hash = hash ^ rest ^ u32::try_from(key.len()).unwrap_or(0);
    let hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    let hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

fn sip(key: &[u8]) -> u32 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish() as u32
}

folds! {
    HashesCrc32: key => first("Crc32", crc32(key), key);
    HashesJava: key => first("Java", polynomial(key, 0, 31), key);
    HashesDjb2: key => first("Djb2", polynomial(key, 5_381, 33), key);
    HashesFnv1a: key => first("Fnv1a", key.iter().fold(FNV.0, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(FNV.1)
    }), key);
    HashesFnv1: key => first("Fnv1", key.iter().fold(FNV.0, |hash, byte| {
        hash.wrapping_mul(FNV.1) ^ u32::from(*byte)
    }), key);
    HashesAdler: key => first("Adler", adler32(key), key);
    HashesMurmur: key => first("Murmur", murmur3(key), key);
    HashesSip: key => first("Sip", sip(key), key);
}
