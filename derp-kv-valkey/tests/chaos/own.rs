//! Values that name their key, and the keys that one caller alone writes.

use bytes::Bytes;

use crate::desk::{Answer, Caller};
use crate::register::{Register, Seen};
use crate::report::Place;

/// A key of one caller, with what it may hold.
#[derive(Debug)]
pub(crate) struct Own {
    what: String,
    pub(crate) place: Place,
    last: u64,
    pub(crate) register: Register,
}

impl Own {
    pub(crate) fn new(what: String, group: usize) -> Self {
        let place = Place { group, era: 0 };
        Self { what, place, last: 0, register: Register::default() }
    }

    pub(crate) fn enter(&mut self, place: Place) {
        if self.place != place {
            *self = Self { place, ..Self::new(std::mem::take(&mut self.what), place.group) };
        }
    }

    pub(crate) fn key(&self) -> Vec<u8> {
        self.place.key(&self.what).into_bytes()
    }

    /// A value that was never written before, and names its key.
    pub(crate) fn next(&mut self) -> (u64, Vec<u8>) {
        self.last += 1;
        (self.last, value(&self.key(), self.last))
    }

    pub(crate) fn read(&mut self, caller: &Caller, operation: &str, found: Option<&Bytes>) {
        let number = found.map(|found| number(&self.key(), found));
        let (what, last) = (&self.what, self.last);
        let wrong = match number {
            Some(None) => "another key's value, or a broken one",
            Some(Some(number)) if number > last => "a value that was never written",
            _ => "",
        };
        if !wrong.is_empty() {
            let what = || format!("{operation} of {what} by {}: {wrong}", caller.name);
            return caller.desk.report().callers.add(1, what);
        }
        let number = number.flatten();
        match self.register.read(number) {
            Seen::Right => {}
            Seen::Stale => caller.stale(vec![self.place], || {
                format!("{operation} of {what} gave {number:?} while {last} was the last write")
            }),
            Seen::Denied => caller.desk.report().denied.add(1, || {
                format!("{operation} of {what}: {number:?} was promised not to be applied")
            }),
        }
    }
}

/// `key|number|xxx…`, now and then of some length.
pub(crate) fn value(key: &[u8], number: u64) -> Vec<u8> {
    let length =
        if number.is_multiple_of(16) { 9000 } else { usize::try_from(number % 50).unwrap_or(0) };
    [key, format!("|{number}|").as_bytes(), &vec![b'x'; length]].concat()
}

/// The number in a value, where the value is one of that key, and whole.
fn number(key: &[u8], found: &[u8]) -> Option<u64> {
    let digits = found.strip_prefix(key)?.strip_prefix(b"|")?.split(|byte| *byte == b'|').next()?;
    let number = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (value(key, number) == found).then_some(number)
}

/// A deletion must have found what was there.
pub(crate) fn deleted<T: Copy>(
    caller: &Caller,
    owns: &[Own],
    operation: &str,
    answer: &Answer<T>,
    count: impl Fn(T) -> u64,
) {
    let Answer::Is(found) = answer else { return };
    let there: Option<u64> = owns.iter().map(|own| own.register.is_there().map(u64::from)).sum();
    let Some(there) = there else { return };
    let found = count(*found);
    if found != there {
        let places = owns.iter().map(|own| own.place).collect();
        caller.stale(places, || format!("{operation} found {found} keys of {there}"));
    }
}

/// The value of a key that others write.
pub(crate) fn check(caller: &Caller, key: &[u8], found: Option<&Bytes>) {
    if found.is_some_and(|found| number(key, found).is_none()) {
        let what = || format!("{} was given another key's value, or a broken one", caller.name);
        caller.desk.report().callers.add(1, what);
    }
}
