use std::fmt;

/// The primitives of the store trait, as the counting and the fault store name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each is the method of its name")]
pub enum Operation {
    Get,
    GetWithTtl,
    Exists,
    Ttl,
    Mget,
    Scan,
    Set,
    Mset,
    Delete,
    DeleteMany,
    Expire,
    SetNx,
    Incr,
    CompareAndSet,
    CompareAndDelete,
    WaitForChange,
}

impl Operation {
    /// All of them, in the order of the trait.
    pub const ALL: [Self; 16] = [
        Self::Get,
        Self::GetWithTtl,
        Self::Exists,
        Self::Ttl,
        Self::Mget,
        Self::Scan,
        Self::Set,
        Self::Mset,
        Self::Delete,
        Self::DeleteMany,
        Self::Expire,
        Self::SetNx,
        Self::Incr,
        Self::CompareAndSet,
        Self::CompareAndDelete,
        Self::WaitForChange,
    ];

    /// The name of the trait's method.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::GetWithTtl => "get_with_ttl",
            Self::Exists => "exists",
            Self::Ttl => "ttl",
            Self::Mget => "mget",
            Self::Scan => "scan",
            Self::Set => "set",
            Self::Mset => "mset",
            Self::Delete => "delete",
            Self::DeleteMany => "delete_many",
            Self::Expire => "expire",
            Self::SetNx => "set_nx",
            Self::Incr => "incr",
            Self::CompareAndSet => "compare_and_set",
            Self::CompareAndDelete => "compare_and_delete",
            Self::WaitForChange => "wait_for_change",
        }
    }

    /// Whether it may write.
    #[must_use]
    pub fn writes(self) -> bool {
        !matches!(
            self,
            Self::Get
                | Self::GetWithTtl
                | Self::Exists
                | Self::Ttl
                | Self::Mget
                | Self::Scan
                | Self::WaitForChange
        )
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
