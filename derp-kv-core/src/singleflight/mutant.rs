/// A way to get flights, or the cache on top of them, wrong, for the proof that the conformance suite
/// notices.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// The oldest waiter gets what falls free.
    OldestFirst,
    /// A failed computation leaves the lead to the next caller.
    HandsFailuresOver,
    /// A caller that has waited for long goes to the end of the queue.
    QueuesAnew,
    /// Nobody looks at the store while a caller of this process computes.
    NeverWatches,
    /// The place beside is given to one caller, until that one has ended.
    KeepsThePlace,
    /// A holder whose lock was renewed once, since it was first seen, is alive.
    TakesARenewalForLife,
    /// A lock that came too late is taken for another caller's.
    TakesLateForHeld,
    /// Whoever meets a stale value refreshes it.
    RefreshesForEverybody,
    /// Nobody refreshes a value before it is gone.
    NeverRefreshes,
    /// A failed refresh stores the stale value anew.
    WritesStaleBack,
    /// The caller whose refresh fails gets the error in the place of the stale value.
    FailsWithTheRefresh,
    /// A failure frees the lock at once.
    FreesOnFailure,
    /// A cool-down is counted from the beginning of the computation.
    CoolsDownFromTheStart,
    /// An invalidation leaves a cool-down in place.
    LeavesCoolDowns,
    /// Each lock is taken for a cool-down.
    TakesLocksForCoolDowns,
    /// After a failed refresh the old value is served although it is gone.
    ServesPastTheWindow,
    /// A value is kept for its TTL alone, without the stale time.
    DropsTheStaleTime,
    /// A value is kept although its computation said otherwise.
    KeepsUnstored,
    /// Jitter makes TTLs longer.
    JittersUpwards,
    /// Jitter does nothing.
    IgnoresJitter,
    /// No value is refreshed before its TTL ends.
    IgnoresEarly,
    /// An invalidation does not reach a refresh of its own process.
    OutdatesNoRefresh,
    /// A value that was stored without the lock is not taken back.
    NeverTakesBack,
    /// A computation ends with its caller.
    EndsWithItsCaller,
    /// A computation that panics leaves its lock in the store.
    KeepsThePanicsLock,
    /// The caller that begins a refresh waits for it.
    WaitsForTheRefresh,
    /// A value that cannot be decoded is an error.
    FailsOnUndecodable,
    /// Missing keys are computed one by one.
    ComputesKeyByKey,
}
