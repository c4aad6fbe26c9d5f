use std::fmt;

/// Declares the operations: a variant, and the name of the method that it stands for.
macro_rules! operations {
    (
        primitives { $($primitive:ident $primitive_name:literal $writes:literal,)* }
        calls { $($(#[$about:meta])* $call:ident $call_name:literal,)* }
    ) => {
        /// What was called: a primitive of [`KvStore`](crate::KvStore), or a helper on top of it.
        ///
        /// It names the call in an [`Error`](crate::Error::operation), in what a
        /// [`Layer`](crate::Layer) is told, and in the counts and faults of the conformance suite.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Operation {
            $(
                #[doc = concat!("[`KvStore::", $primitive_name, "`](crate::KvStore::", $primitive_name, ")")]
                $primitive,
            )*
            $($(#[$about])* $call,)*
        }

        impl Operation {
            /// The primitives of the trait, in its order; the helpers are made of these.
            pub const PRIMITIVES: [Self; [$(Self::$primitive),*].len()] = [$(Self::$primitive),*];

            /// The name of the method.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$primitive => $primitive_name,)*
                    $(Self::$call => $call_name,)*
                }
            }

            /// Whether the call may write.
            #[must_use]
            pub const fn writes(self) -> bool {
                match self {
                    $(Self::$primitive => $writes,)*
                    Self::Connect | Self::Peek | Self::RateLimitPeek => false,
                    _ => true,
                }
            }
        }
    };
}

operations! {
    primitives {
        Get "get" false,
        GetWithTtl "get_with_ttl" false,
        Exists "exists" false,
        Ttl "ttl" false,
        Mget "mget" false,
        Scan "scan" false,
        Set "set" true,
        Mset "mset" true,
        Delete "delete" true,
        DeleteMany "delete_many" true,
        Expire "expire" true,
        SetNx "set_nx" true,
        Incr "incr" true,
        CompareAndSet "compare_and_set" true,
        CompareAndDelete "compare_and_delete" true,
        WaitForChange "wait_for_change" false,
        Step "step" true,
    }
    calls {
        /// Opening a store.
        Connect "connect",
        /// A command of the backend's own, for which the trait has no method.
        Command "command",
        /// [`KvStoreExt::guarded_get`](crate::KvStoreExt::guarded_get)
        GuardedGet "guarded_get",
        /// [`Cache::peek`](crate::Cache::peek)
        Peek "peek",
        /// [`KvStoreExt::invalidate`](crate::KvStoreExt::invalidate)
        Invalidate "invalidate",
        /// [`KvStoreExt::refresh`](crate::KvStoreExt::refresh)
        Refresh "refresh",
        /// [`KvStoreExt::idempotent_execute`](crate::KvStoreExt::idempotent_execute)
        IdempotentExecute "idempotent_execute",
        /// [`KvStoreExt::idempotent_forget`](crate::KvStoreExt::idempotent_forget)
        IdempotentForget "idempotent_forget",
        /// [`KvStoreExt::already_processed`](crate::KvStoreExt::already_processed)
        AlreadyProcessed "already_processed",
        /// [`KvStoreExt::process_once`](crate::KvStoreExt::process_once)
        ProcessOnce "process_once",
        /// [`KvStoreExt::process_forget`](crate::KvStoreExt::process_forget)
        ProcessForget "process_forget",
        /// [`KvStoreExt::rate_limit`](crate::KvStoreExt::rate_limit)
        RateLimit "rate_limit",
        /// [`KvStoreExt::rate_limit_peek`](crate::KvStoreExt::rate_limit_peek)
        RateLimitPeek "rate_limit_peek",
        /// [`KvStoreExt::rate_limit_reset`](crate::KvStoreExt::rate_limit_reset)
        RateLimitReset "rate_limit_reset",
        /// [`KvStoreExt::rate_limit_refund`](crate::KvStoreExt::rate_limit_refund)
        RateLimitRefund "rate_limit_refund",
        /// [`KvStoreExt::try_lock`](crate::KvStoreExt::try_lock)
        TryLock "try_lock",
        /// [`KvStoreExt::lock`](crate::KvStoreExt::lock)
        Lock "lock",
        /// [`Lease::release`](crate::Lease::release)
        Release "release",
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
