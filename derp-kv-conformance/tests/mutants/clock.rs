//! Stores that read, compare or convert time wrongly.

use derp_kv_conformance::Operation;

use super::broken::{Mutant, mutant};
use super::odd::{DAY, HOUR, MILLI, Odd, Quirk, SECOND};

/// Makes a quirk of each line: which method is wrong, and how.
macro_rules! quirks {
    ($($name:ident $method:ident($by:ident, $a:ident $(, $b:ident)?) -> $output:ty { $body:expr })*) => {$(
        #[derive(Debug, Default)]
        struct $name;

        impl Quirk for $name {
            fn $method(&self, $by: Operation, $a: u128 $(, $b: u128)?) -> $output {
                $body
            }
        }
    )*};
}

/// Makes quirks of single calls out of one that all calls could have.
macro_rules! single {
    ($($name:ident $operation:ident: $method:ident($a:ident $(, $b:ident)?) -> $output:ty
        { $wrong:expr } else { $right:expr })*) => {
        quirks! {$(
            $name $method(by, $a $(, $b)?) -> $output {
                if by == Operation::$operation { $wrong } else { $right }
            }
        )*}
    };
}

fn cut(time: u128, unit: u128) -> u128 {
    time / unit * unit
}

fn nearest(time: u128, unit: u128) -> u128 {
    cut(time + unit / 2, unit)
}

fn up(time: u128, unit: u128) -> u128 {
    time.div_ceil(unit) * unit
}

/// As kept in a float of 32 bits, in seconds.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]
fn in_f32(time: u128) -> u128 {
    (f64::from(time as f32 / 1e9) * 1e9) as u128
}

#[derive(Debug, Default)]
struct LivesAMonth;

impl Quirk for LivesAMonth {
    fn lifetime(&self, _by: Operation, now: u128) -> Option<u128> {
        Some(now + 30 * DAY)
    }
}

#[derive(Debug, Default)]
struct NeverIsMaxTtl;

impl Quirk for NeverIsMaxTtl {
    fn lifetime(&self, by: Operation, now: u128) -> Option<u128> {
        (by == Operation::Mset).then_some(now + 100 * 365 * DAY)
    }
}

#[derive(Debug, Default)]
struct CountersLiveAYear;

impl Quirk for CountersLiveAYear {
    fn lifetime(&self, by: Operation, now: u128) -> Option<u128> {
        (by == Operation::Incr).then_some(now + 365 * DAY)
    }
}

/// How much longer a call shows what has expired.
const MOMENT: u128 = MILLI * 2 / 5;

quirks! {
    CutsNow deadline(_by, now, ttl) -> u128 { cut(now, MILLI) + ttl }
    NearestDeadline deadline(_by, now, ttl) -> u128 { nearest(now + ttl, MILLI) }
    LateDeadline deadline(_by, now, ttl) -> u128 { up(now + ttl, MILLI) }
    WholeMillis sees(_by, now, deadline) -> bool { cut(now, MILLI) < cut(deadline, MILLI) }
    NotYetPassed sees(_by, now, deadline) -> bool { now <= deadline }
    CompareCutNow sees(_by, now, deadline) -> bool { cut(now, MILLI) < deadline }
    CapsAtHour deadline(_by, now, ttl) -> u128 { now + ttl.min(HOUR) }
    CapsAtDay deadline(_by, now, ttl) -> u128 { now + ttl.min(DAY) }
    CapsAtYear deadline(_by, now, ttl) -> u128 { now + ttl.min(365 * DAY) }
    MinutesForHours deadline(_by, now, ttl) -> u128 {
        now + if ttl >= HOUR { ttl / HOUR * 60 * SECOND } else { ttl }
    }
    SignedMillis deadline(_by, now, ttl) -> u128 { now + ttl.min(i32::MAX as u128 * MILLI) }
    UnsignedMillis deadline(_by, now, ttl) -> u128 {
        now + (ttl / MILLI % (1 << 32)).max(1) * MILLI
    }
    ShortSeconds deadline(_by, now, ttl) -> u128 { now + (ttl % (SECOND << 16)).max(MILLI) }
    SignedSeconds deadline(_by, now, ttl) -> u128 { now + ttl.min(i32::MAX as u128 * SECOND) }
    FloatSeconds deadline(_by, now, ttl) -> u128 { now + in_f32(ttl) }
    SecondsAboveHour deadline(_by, now, ttl) -> u128 {
        now + if ttl > HOUR { up(ttl, SECOND) } else { ttl }
    }
    MicrosWrap deadline(_by, now, ttl) -> u128 {
        now + (ttl / 1_000 % (1 << 32)).max(1) * 1_000
    }
    DayAgain deadline(_by, now, ttl) -> u128 { now + if ttl > DAY { ttl % DAY + MILLI } else { ttl } }
    WheelWraps deadline(_by, now, ttl) -> u128 { now + (ttl % (MILLI << 36)).max(MILLI) }
    MonthIsADate deadline(_by, now, ttl) -> u128 { if ttl > 30 * DAY { now } else { now + ttl } }
    SweepsEachMinute sees(_by, now, deadline) -> bool { cut(now, 60 * SECOND) < deadline }
    AlmostNever sees(_by, now, deadline) -> bool { now < deadline || deadline > 365 * 50 * DAY }
    ReportsFloats left(_by, left) -> u128 { in_f32(left) }
    ReportsAWeek left(_by, left) -> u128 { left.min(7 * DAY) }
    ReportsSignedSeconds left(_by, left) -> u128 { left.min(i32::MAX as u128 * SECOND) }
}

single! {
    SetCutsNow Set: deadline(now, ttl) -> u128 { cut(now, MILLI) + ttl } else { now + ttl }
    MsetCutsNow Mset: deadline(now, ttl) -> u128 { cut(now, MILLI) + ttl } else { now + ttl }
    SetNxCutsNow SetNx: deadline(now, ttl) -> u128 { cut(now, MILLI) + ttl } else { now + ttl }
    IncrCutsNow Incr: deadline(now, ttl) -> u128 { cut(now, MILLI) + ttl } else { now + ttl }
    SwapCutsNow CompareAndSet: deadline(now, ttl) -> u128 {
        cut(now, MILLI) + ttl
    } else { now + ttl }
    ExpireCutsNow Expire: deadline(now, ttl) -> u128 { cut(now, MILLI) + ttl } else { now + ttl }
    IncrCutsTtl Incr: deadline(now, ttl) -> u128 { now + cut(ttl, SECOND).max(MILLI) } else { now + ttl }
    GetLate Get: sees(now, deadline) -> bool { now < deadline + MOMENT } else { now < deadline }
    DatedLate GetWithTtl: sees(now, deadline) -> bool {
        now < deadline + MOMENT
    } else { now < deadline }
    ExistsLate Exists: sees(now, deadline) -> bool {
        now < deadline + MOMENT
    } else { now < deadline }
    TtlLate Ttl: sees(now, deadline) -> bool { now < deadline + MOMENT } else { now < deadline }
    MgetLate Mget: sees(now, deadline) -> bool { now < deadline + MOMENT } else { now < deadline }
    ScanLate Scan: sees(now, deadline) -> bool { now < deadline + MOMENT } else { now < deadline }
    DeleteLate Delete: sees(now, deadline) -> bool {
        now < deadline + MOMENT
    } else { now < deadline }
    DeleteManyLate DeleteMany: sees(now, deadline) -> bool {
        now < deadline + MOMENT
    } else { now < deadline }
    ExpireLate Expire: sees(now, deadline) -> bool {
        now < deadline + MOMENT
    } else { now < deadline }
    SetNxLate SetNx: sees(now, deadline) -> bool { now < deadline + MOMENT } else { now < deadline }
    IncrLate Incr: sees(now, deadline) -> bool { now < deadline + MOMENT } else { now < deadline }
    SwapLate CompareAndSet: sees(now, deadline) -> bool {
        now < deadline + MOMENT
    } else { now < deadline }
    CompareDeleteLate CompareAndDelete: sees(now, deadline) -> bool {
        now < deadline + MOMENT
    } else { now < deadline }
    ScanEarly Scan: sees(now, deadline) -> bool { now + MOMENT < deadline } else { now < deadline }
    ExpireInclusive Expire: sees(now, deadline) -> bool { now <= deadline } else { now < deadline }
    MsetWraps Mset: deadline(now, ttl) -> u128 {
        now + (ttl / MILLI % (1 << 32)).max(1) * MILLI
    } else { now + ttl }
    SetNxCaps SetNx: deadline(now, ttl) -> u128 { now + ttl.min(10 * 365 * DAY) } else { now + ttl }
    IncrReportsCut Incr: left(left) -> u128 { cut(left, SECOND) } else { left }
}

/// Mutants of one law, named by their quirks.
macro_rules! of {
    ($law:literal: $($quirk:ident $wrong:literal,)*) => {
        [$(mutant::<Odd<$quirk>>($law, $wrong)),*]
    };
}

pub(super) fn mutants() -> Vec<Mutant> {
    let moments = of! { "expiry::ends_on_time":
        CutsNow "a deadline is computed from a time that is cut to milliseconds",
        NearestDeadline "a deadline is rounded to the nearest millisecond",
        LateDeadline "a deadline is rounded up to the next millisecond of the clock",
        WholeMillis "time and deadline are compared in whole milliseconds",
        NotYetPassed "a key is there at the very moment at which its TTL ends",
        CompareCutNow "a deadline is compared with a time that is cut to milliseconds",
        SetCutsNow "`set` cuts the time to milliseconds",
        MsetCutsNow "`mset` cuts the time to milliseconds",
        SetNxCutsNow "`set_nx` cuts the time to milliseconds",
        IncrCutsNow "`incr` cuts the time to milliseconds",
        SwapCutsNow "`compare_and_set` cuts the time to milliseconds",
        ExpireCutsNow "`expire` cuts the time to milliseconds",
        IncrCutsTtl "`incr` cuts a TTL to whole seconds",
        GetLate "`get` finds what has expired for a moment longer",
        DatedLate "`get_with_ttl` finds what has expired for a moment longer",
        ExistsLate "`exists` finds what has expired for a moment longer",
        TtlLate "`ttl` finds what has expired for a moment longer",
        MgetLate "`mget` finds what has expired for a moment longer",
        ScanLate "`scan` finds what has expired for a moment longer",
        DeleteLate "`delete` finds what has expired for a moment longer",
        DeleteManyLate "`delete_many` finds what has expired for a moment longer",
        ExpireLate "`expire` finds what has expired for a moment longer",
        SetNxLate "`set_nx` finds what has expired for a moment longer",
        IncrLate "`incr` finds what has expired for a moment longer",
        SwapLate "`compare_and_set` finds what has expired for a moment longer",
        CompareDeleteLate "`compare_and_delete` finds what has expired for a moment longer",
        ScanEarly "`scan` leaves a key out that is about to expire",
        ExpireInclusive "`expire` revives a key at the very moment at which it ends",
    };
    let lengths = of! { "expiry::any_length":
        CapsAtHour "a TTL is an hour at most",
        CapsAtDay "a TTL is a day at most",
        CapsAtYear "a TTL is a year at most",
        MinutesForHours "hours are taken for minutes",
        SignedMillis "a TTL in milliseconds is cut to what a signed 32-bit integer holds",
        UnsignedMillis "a TTL in milliseconds wraps around in an unsigned 32-bit integer",
        ShortSeconds "a TTL wraps around after 65,536 seconds",
        SignedSeconds "a TTL in seconds is cut to what a signed 32-bit integer holds",
        FloatSeconds "a TTL is kept in a float of 32 bits",
        SecondsAboveHour "a TTL of more than an hour is rounded up to seconds",
        MicrosWrap "a TTL in microseconds wraps around in an unsigned 32-bit integer",
        DayAgain "of a TTL above a day only the time of day counts",
        WheelWraps "the timer wheel wraps around after two years",
        MonthIsADate "a TTL of more than thirty days is taken for a date",
        SweepsEachMinute "what has expired is there until a sweep that runs each minute",
        AlmostNever "what is to end in more than fifty years never ends",
        ReportsFloats "what is left is reported by a float of 32 bits",
        ReportsAWeek "what is left is reported as a week at most",
        ReportsSignedSeconds "what is left is reported in a signed 32-bit integer of seconds",
        MsetWraps "`mset` has its TTL in an unsigned 32-bit integer",
        SetNxCaps "`set_nx` takes ten years at most",
        LivesAMonth "what has no TTL lives for thirty days, and `ttl` says `Never`",
        NeverIsMaxTtl "`mset` without a TTL gives the longest one, and `ttl` says `Never`",
        CountersLiveAYear "a counter without a TTL lives for a year, and `ttl` says `Never`",
        IncrReportsCut "`incr` reports what is left in whole seconds, cut off",
    };
    moments.into_iter().chain(lengths).collect()
}
