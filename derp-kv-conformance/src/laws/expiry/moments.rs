use std::time::Duration;

use derp_kv_core::{KvStore, MAX_TTL};

use super::calls::{LOOKERS, READERS, WRITERS, Writer};
use super::in_units;
use super::timetable::{Fate, Look, Moment, Way, keep};
use crate::bench::{Bench, LawResult};
use crate::model::Deadline;
use crate::scene::Scene;
use crate::violation::Violation;

/// Where between two milliseconds a TTL begins, in nanoseconds and in their order.
const FRACTIONS: [u64; 7] = [0, 1, 250_000, 499_999, 500_000, 750_000, 999_999];

/// Each way to write, and each way to look, on a key of their own.
async fn each_way(scene: &Scene<'_>, began: &str, ttls: &[Duration]) -> Result<(), Violation> {
    let mut looks = Vec::new();
    for ttl in ttls {
        for writer in WRITERS {
            for looker in LOOKERS {
                for moment in [Moment::Before, Moment::After] {
                    let key = format!("{began}{writer:?} with {ttl:?}, {moment:?} {looker:?}/");
                    let span = writer.write(&scene.store, key.as_bytes(), *ttl).await?;
                    let deadline = Deadline::new(*ttl, span);
                    let at = moment.of(&deadline, scene);
                    let (way, fate) = (Way::Finds(looker), Fate::Until(deadline));
                    looks.push(Look { at, key, way, fate });
                }
            }
        }
    }
    keep(scene, looks).await
}

pub(crate) fn ends_on_time(bench: &Bench<'_>) -> LawResult {
    bench.single_thread(async |scene| {
        if !scene.is_virtual() {
            return each_way(scene, "", &[Duration::from_millis(250)]).await;
        }
        let ttls = [in_units(MILLI), in_units(MILLI * 3 / 2), in_units(MILLI * 61_007)];
        let mut before = 0;
        for fraction in FRACTIONS {
            // What expired in the round before did so after whole milliseconds.
            scene.elapse(in_units(Duration::from_nanos(fraction - before))).await;
            before = fraction;
            let began = format!("{:?} after a tick, ", in_units(Duration::from_nanos(fraction)));
            each_way(scene, &began, &ttls).await?;
        }
        Ok(())
    })
}

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// TTLs about the ends of units, of integers and of floating-point digits, and about what servers
/// and timer wheels take for the longest.
fn lengths() -> Vec<Duration> {
    vec![
        SECOND * 5 + MILLI * 7,
        SECOND * 59 + MILLI * 999,
        SECOND * 60,
        SECOND * 61,
        millis(u16::MAX as u64),
        millis(u16::MAX as u64 + 1),
        SECOND * 299,
        HOUR - MILLI,
        HOUR,
        HOUR + SECOND,
        millis((1 << 24) + 1),
        SECOND * u32::from(u16::MAX),
        SECOND * (u32::from(u16::MAX) + 1) + MILLI,
        DAY - MILLI,
        DAY,
        HOUR * 25,
        DAY * 7,
        millis(i32::MAX as u64),
        millis(i32::MAX as u64 + 1),
        DAY * 30,
        DAY * 30 + SECOND,
        millis(u32::MAX as u64),
        millis(u32::MAX as u64 + 1),
        DAY * 100,
        SECOND * ((1 << 24) + 1),
        YEAR + MILLI,
        millis((1 << 36) - 1),
        millis(1 << 36),
        YEAR * 10,
        SECOND * (i32::MAX as u32),
        SECOND * (i32::MAX as u32 + 1) + MILLI,
        YEAR * 90 + MILLI * 3,
        MAX_TTL - MILLI,
        MAX_TTL,
    ]
}

/// Keys without a TTL, by each way to write and each way to read. Each is looked at only once, and
/// long after what stores take for "for ever": no look may be what keeps it.
async fn lasting(kv: &impl KvStore) -> Result<Vec<Look>, Violation> {
    let mut looks = Vec::new();
    for writer in WRITERS.into_iter().filter(|writer| *writer != Writer::Expire) {
        for way in READERS.map(Way::Finds).into_iter().chain([Way::Reports]) {
            for after in [DAY * 31, YEAR + DAY, MAX_TTL + DAY] {
                let key = format!("{writer:?} without a TTL, {way:?} after {after:?}/");
                let span = writer.write(kv, key.as_bytes(), None).await?;
                looks.push(Look { at: span.ended + after, key, way, fate: Fate::Forever });
            }
        }
    }
    Ok(looks)
}

pub(crate) fn any_length(bench: &Bench<'_>) -> LawResult {
    bench.single_thread(async |scene| {
        let kv = &scene.store;
        let mut looks = if scene.is_virtual() { lasting(kv).await? } else { Vec::new() };
        for ttl in lengths() {
            for writer in WRITERS {
                let key = format!("{writer:?} with {ttl:?}/");
                let span = writer.write(kv, key.as_bytes(), ttl).await?;
                let deadline = Deadline::new(ttl, span);
                let mut moments = vec![span.ended];
                if scene.is_virtual() {
                    moments.push(span.began + ttl / 2);
                    moments.extend([Moment::Before, Moment::After].map(|m| m.of(&deadline, scene)));
                }
                let (way, fate) = (Way::Reports, Fate::Until(deadline));
                looks.extend(moments.into_iter().map(|at| Look {
                    at,
                    key: key.clone(),
                    way,
                    fate,
                }));
                if !scene.is_virtual() {
                    continue;
                }
                for looker in LOOKERS {
                    let key = format!("{writer:?} with {ttl:?}, {looker:?}/");
                    let span = writer.write(kv, key.as_bytes(), ttl).await?;
                    let deadline = Deadline::new(ttl, span);
                    let at = Moment::After.of(&deadline, scene);
                    let (way, fate) = (Way::Finds(looker), Fate::Until(deadline));
                    looks.push(Look { at, key, way, fate });
                }
            }
        }
        keep(scene, looks).await
    })
}
