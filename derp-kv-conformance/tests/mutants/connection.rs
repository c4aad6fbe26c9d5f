use super::broken::{Mutant, lying};
use super::line::Lie;

/// A lie, named as it is written, and the law that must notice it.
macro_rules! lies {
    ($($lie:ident: $law:literal, $wrong:literal;)*) => {
        vec![$(lying(Lie::$lie, stringify!($lie), concat!("connection::", $law), $wrong)),*]
    };
}

pub(super) fn mutants() -> Vec<Mutant> {
    lies! {
        NeverDoubts: "tells_what_was_applied", "a write without an answer is called not applied";
        DoubtsNoDeletion: "tells_what_was_applied", "a deletion without an answer is called not applied";
        DoubtsNoBatch: "tells_what_was_applied", "a batch without an answer is called not applied";
        DoubtsNoScript: "tells_what_was_applied", "a script without an answer is called not applied";
        BelievesInSending: "tells_what_was_applied", "a `set` that was handed to the connection is `Ok`";
        GivesUp: "tells_what_was_applied", "a broken connection is an error for good";
        ForgetsParts: "tells_what_was_applied", "a large batch without an answer is called not applied, and was in part";
        SkipsParts: "tells_what_was_applied", "a large batch a part of which was lost is `Ok`";
        DoubtsNobodyElse: "applies_once", "an `incr` is called not applied where the connection broke under another call";
        Resends: "applies_once", "a write without an answer is sent again";
        ResendsCounters: "applies_once", "an `incr` without an answer is sent again";
        ResendsConditions: "applies_once", "a deletion or a swap without an answer is sent again";
        ResendsInFlight: "applies_once", "an `incr` is sent again where the connection broke under another call";
        MissesOnTrouble: "reads_are_right_or_fail", "a read without an answer finds nothing";
        EndsScans: "reads_are_right_or_fail", "a scan whose connection breaks ends without an error";
        DoubtsReads: "reads_are_right_or_fail", "a read without an answer may have been applied";
        StaysBroken: "heals", "a store whose connection broke never finds another";
        Shifts: "heals", "from a break on each read gets the answer of the one before";
        LosesTheNext: "heals", "the write after a break is `Ok` and lost";
    }
}
