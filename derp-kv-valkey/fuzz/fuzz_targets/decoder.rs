//! Streams of bytes that a server might send.
#![no_main]
#![allow(dead_code, unused_imports)]

#[path = "../check.rs"]
mod check;
#[path = "../../src/fuzzing.rs"]
mod fuzzing;
// The files of the codec themselves: a dependency on the crate would instrument and build all
// that it needs, in minutes.
#[path = "../../src/protocol"]
mod protocol {
    pub(crate) mod decode;
    pub(crate) mod encode;
    mod parse;
    pub(crate) mod reply;
}

libfuzzer_sys::fuzz_target!(|stream: &[u8]| check::check(stream));
