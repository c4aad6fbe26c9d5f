use std::time::Duration;

use bytes::Bytes;

/// A value, and where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Got<T = Bytes> {
    /// The value.
    pub value: T,
    /// Whether its TTL has passed.
    pub freshness: Freshness,
    /// Who had it.
    pub source: Source,
}

impl<T> Got<T> {
    pub(crate) fn fresh(value: T, source: Source) -> Self {
        Self { value, freshness: Freshness::Fresh, source }
    }

    pub(crate) fn with_value<U>(self, value: U) -> Got<U> {
        Got { value, freshness: self.freshness, source: self.source }
    }
}

/// Whether the TTL of a value has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Freshness {
    /// It has not.
    Fresh,
    /// It has, and the options allow stale data.
    #[non_exhaustive]
    Stale {
        /// For how long.
        past: Duration,
        /// Why there is nothing newer.
        cause: StaleCause,
    },
}

/// Why a caller gets a stale value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StaleCause {
    /// A refresh has begun, here or in another process. Of one in another process nobody here knows
    /// whether it goes on, or has failed and is not to be tried again yet.
    Refreshing,
    /// The last refresh in this process failed, or could not begin because the store failed.
    Failed,
    /// The refresh took longer than [`soft_timeout`](crate::GuardedGet::soft_timeout), and goes on.
    TimedOut,
}

/// Who had a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Source {
    /// It was in the store.
    Store,
    /// The caller's own computation.
    Computed,
    /// Another caller in this process, which was waited for.
    Joined,
}

/// What is left of a value at which it becomes stale, or is refreshed early.
///
/// The value stays under its key for its TTL and the stale time after it, so what the store says is
/// left of the key tells the age of the value, on the store's own clock and whatever TTL it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    /// For how long a value is served beyond its TTL.
    pub(crate) stale: Duration,
    /// For how long before the end of its TTL it is refreshed.
    pub(crate) early: Duration,
}

/// How old a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Age {
    Fresh,
    /// Fresh, and so near its end that it is to be refreshed.
    Early,
    /// Its TTL ended so long ago.
    Stale {
        past: Duration,
    },
}

impl Window {
    /// The age of a value. `left` is what the store says is left of its key; `None` means that it never
    /// expires.
    pub(crate) fn age(self, left: Option<Duration>) -> Age {
        let Some(left) = left else { return Age::Fresh };
        match left.checked_sub(self.stale) {
            None => Age::Stale { past: self.stale - left },
            Some(fresh) if fresh.is_zero() && !self.stale.is_zero() => {
                Age::Stale { past: Duration::ZERO }
            }
            Some(fresh) if fresh <= self.early => Age::Early,
            Some(_) => Age::Fresh,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn duration() -> impl Strategy<Value = Duration> {
        let millis = prop_oneof![Just(0), 0..5_000_u64, any::<u32>().prop_map(u64::from)];
        millis.prop_map(Duration::from_millis)
    }

    fn rank(age: Age) -> u32 {
        match age {
            Age::Fresh => 0,
            Age::Early => 1,
            Age::Stale { .. } => 2,
        }
    }

    proptest! {
        /// Whatever TTL a value was given, it is stale from the end of that on, by as much as has
        /// passed since.
        #[test]
        fn it_is_fresh_for_its_ttl(
            ttl in duration(), stale in duration(), early in duration(), passed in duration(),
        ) {
            prop_assume!(!stale.is_zero());
            let left = (ttl + stale).checked_sub(passed);
            prop_assume!(left.is_some());
            let age = Window { stale, early }.age(left);
            match passed.checked_sub(ttl) {
                Some(past) => prop_assert_eq!(age, Age::Stale { past }),
                None if ttl - passed <= early => prop_assert_eq!(age, Age::Early),
                None => prop_assert_eq!(age, Age::Fresh),
            }
        }

        #[test]
        fn it_never_gets_younger(
            stale in duration(), early in duration(), left in duration(), passed in duration(),
        ) {
            let window = Window { stale, early };
            let [before, after] = [left, left.saturating_sub(passed)].map(|left| window.age(Some(left)));
            prop_assert!(rank(before) <= rank(after), "{before:?} and then {after:?}");
        }

        #[test]
        fn without_a_window_it_is_always_fresh(left in duration()) {
            let window = Window { stale: Duration::ZERO, early: Duration::ZERO };
            prop_assume!(!left.is_zero());
            prop_assert_eq!(window.age(Some(left)), Age::Fresh);
        }
    }

    #[test]
    fn a_value_that_stays_is_fresh() {
        let window = Window { stale: Duration::MAX, early: Duration::MAX };
        assert_eq!(window.age(None), Age::Fresh);
    }
}
