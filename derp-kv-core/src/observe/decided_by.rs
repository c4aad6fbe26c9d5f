/// Who decided a call under a rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DecidedBy {
    /// The store.
    Store,
    /// This process, which remembers that the store denied the id until now:
    /// [`RateLimiter::block_locally`](crate::RateLimiter::block_locally).
    Blocked,
    /// This process alone, because the store failed:
    /// [`WithoutStore::Local`](crate::WithoutStore::Local).
    Local,
    /// Nobody counted: the limit is 0, or the store failed and the answer is
    /// [`WithoutStore::Deny`](crate::WithoutStore::Deny) or
    /// [`WithoutStore::Allow`](crate::WithoutStore::Allow).
    Policy,
}

impl DecidedBy {
    /// Its name as a label, such as `store`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Blocked => "blocked",
            Self::Local => "local",
            Self::Policy => "policy",
        }
    }
}
