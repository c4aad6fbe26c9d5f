//! The laws of derp-kv's store trait as a test suite for every backend.
