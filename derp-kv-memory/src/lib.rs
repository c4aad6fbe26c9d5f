//! The embedded in-memory backend of derp-kv.
