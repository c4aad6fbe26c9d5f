/// A way to get flights wrong, for the proof that the conformance suite notices.
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
}
