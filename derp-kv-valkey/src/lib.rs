//! The Valkey backend of derp-kv.
