//! What a broken store does to the value of a step, whose layout the core documents.

use std::ops::Range;
use std::time::Duration;

use derp_kv_core::Step;

/// The number of the write, and the TTL that it gave the key.
const NONCE: Range<usize> = 1..9;
const TTL: Range<usize> = 9..15;

const HEAD: usize = 15;

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

fn put(bytes: &mut [u8], number: u64) {
    let from = 8 - bytes.len();
    bytes.copy_from_slice(&number.to_be_bytes()[from..]);
}

/// The TTL that the value says it was written with.
pub(super) fn ttl(value: &[u8]) -> Duration {
    Duration::from_millis(number(&value[TTL]))
}

/// Where each limit begins, and the end of the last one.
fn places(value: &[u8]) -> Vec<usize> {
    let mut places = vec![HEAD];
    let mut at = HEAD;
    while at < value.len() {
        at += if value[0] == b'G' { 9 } else { 20 + 4 * usize::from(value[at + 19]) };
        places.push(at);
    }
    places
}

pub(super) fn forget_nonce(value: &mut [u8]) {
    value[NONCE].fill(0);
}

pub(super) fn change_nonce(value: &mut [u8]) {
    value[NONCE].iter_mut().for_each(|byte| *byte = !*byte);
}

/// Leaves only the first limit.
pub(super) fn lose_limits(value: &mut Vec<u8>) {
    let end = places(value).get(1).copied().unwrap_or(value.len());
    value.truncate(end);
}

/// Leaves all times in whole milliseconds.
pub(super) fn drop_nanos(value: &mut [u8]) {
    let at = if value[0] == b'G' { 6 } else { 12 };
    let mut places = places(value);
    places.pop();
    for place in places {
        value[place + at..place + at + 3].fill(0);
    }
}

/// Forgets the oldest counter of each strict limit.
pub(super) fn forget_oldest(value: &mut [u8]) {
    if value[0] == b'G' {
        return;
    }
    for place in places(value).windows(2).map(|ends| ends[0]..ends[1]) {
        let limit = &mut value[place];
        let counters = limit[19];
        if counters > 1 {
            let at = limit.len() - 4;
            let oldest = number(&limit[at..]);
            let sum = number(&limit[15..19]);
            put(&mut limit[at..], 0);
            put(&mut limit[15..19], sum.saturating_sub(oldest));
        }
    }
}

/// Counts the call against the limits that `counts` names.
pub(super) fn charge(value: &mut [u8], step: &Step, counts: impl Fn(usize) -> bool) {
    let mut places = places(value);
    places.pop();
    for (number_of, place) in places.into_iter().enumerate().filter(|(at, _)| counts(*at)) {
        match step {
            Step::Smooth(step) if value[0] == b'G' => {
                let owed = number(&value[place..place + 6]);
                let limit = step.limits().get(number_of);
                let more = limit.map_or(0, |limit| limit.increment().as_millis());
                put(&mut value[place..place + 6], owed + u64::try_from(more).unwrap_or(0));
            }
            Step::Strict(step) if value[0] == b'W' && value[place + 19] > 0 => {
                let cost = step.limits().get(number_of).map_or(0, |limit| limit.cost().into());
                for field in [place + 15..place + 19, place + 20..place + 24] {
                    let count = number(&value[field.clone()]);
                    put(&mut value[field], count + cost);
                }
            }
            _ => {}
        }
    }
}
