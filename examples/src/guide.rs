//! The user guide (`docs/guide`), whose code runs as documentation tests. `tests/guide.rs` checks the rest of
//! it.

/// Takes each page into the documentation of a type of its own.
macro_rules! pages {
    ($($page:ident $file:literal)*) => {
        $(
            #[doc = include_str!(concat!("../../docs/guide/src/", $file))]
            struct $page;
        )*
    };
}

pages! {
    Introduction "introduction.md"
    Configuration "configuration.md"
    BasicOperations "basic-operations.md"
    Batches "batches.md"
    OtherPrimitives "other-primitives.md"
    Cache "cache.md"
    Idempotency "idempotency.md"
    RateLimits "rate-limits.md"
    Webhooks "webhooks.md"
    Locks "locks.md"
    Errors "errors.md"
    Testing "testing.md"
    Observing "observing.md"
    Production "production.md"
    FromDerpPy "from-derp-py.md"
    WritingABackend "writing-a-backend.md"
}
