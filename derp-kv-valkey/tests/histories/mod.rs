//! Random limits, and random values for what they find.

use std::time::Duration;

use derp_kv_core::{Ask, RateLimit, Step, StrictLimit};

/// A generator of its own, so that a history is named by its seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::try_from(self.below(choices.len() as u64)).unwrap()]
    }

    /// A number of any size, small ones and edges more often.
    pub(crate) fn number(&mut self, bits: u32) -> u64 {
        let most = u64::MAX >> (64 - bits);
        let number = match self.below(4) {
            0 => self.below(4),
            1 => most - self.below(3),
            2 => self.of(&[999_999, 1_000_000, 18_446_744_073_709]) + self.below(3) - 1,
            _ => self.next() >> self.below(64),
        };
        number & most
    }
}

/// Which limits one key has.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    strict: bool,
    limits: Vec<RateLimit>,
}

impl Limits {
    pub(crate) fn new(random: &mut Random) -> Self {
        let mut new = Self { strict: random.once_in(2), limits: Vec::new() };
        let count = random.of(&[1, 1, 1, 2, 3, 8]);
        while new.limits.len() < count {
            let limit = new.limit(random);
            new.limits.push(limit);
        }
        new
    }

    /// Some limit is another one, is gone, or is new.
    pub(crate) fn change(&mut self, random: &mut Random) {
        let place = usize::try_from(random.below(8)).unwrap();
        let limit = self.limit(random);
        if place >= self.limits.len() {
            self.limits.push(limit);
        } else if self.limits.len() > 1 && random.once_in(3) {
            drop(self.limits.remove(place));
        } else {
            self.limits[place] = limit;
        }
    }

    /// One that a step takes.
    fn limit(&self, random: &mut Random) -> RateLimit {
        loop {
            let limit = if self.strict { strict(random) } else { smooth(random) };
            if limit.step(Ask::Admit).is_ok() {
                return limit;
            }
        }
    }

    pub(crate) fn step(&self, random: &mut Random, ask: Ask) -> Step {
        let all = RateLimit::all(self.limits.iter().cloned());
        if ask == Ask::Refund && random.once_in(4) {
            let cost = random.number(64).max(1);
            return all.cost(cost).step(ask).unwrap();
        }
        all.step(ask).unwrap()
    }

    /// How far the clock may go on for something to change.
    pub(crate) fn stride(&self, random: &mut Random) -> u64 {
        let step = self.step(random, Ask::Peek);
        let unit = match &step {
            Step::Smooth(step) => step.limits()[0].increment(),
            Step::Strict(step) => step.limits()[0].sub_window(),
            _ => unreachable!("no other kind"),
        };
        let unit = u64::try_from(unit.as_millis()).unwrap().max(1);
        unit * random.of(&[0, 0, 1, 1, 2, 7, 61, 100]) + random.of(&[0, 1, unit / 2, unit - 1])
    }

    /// As a caller of strict limits leaves it who has called in each sub-window of all, and what is left.
    pub(crate) fn full(&self, random: &mut Random) -> Option<(Vec<u8>, u64)> {
        let Step::Strict(step) = self.step(random, Ask::Peek) else { return None };
        let lasts = |limit: &StrictLimit| {
            u64::try_from((limit.window() + limit.sub_window()).as_millis()).unwrap()
        };
        let left = step.limits().iter().map(lasts).max()?;
        let mut value = [b"W", &random.next().to_be_bytes()[..], &left.to_be_bytes()[2..]].concat();
        for limit in step.limits() {
            let width = limit.sub_window().as_millis().to_be_bytes();
            value.extend_from_slice(&width[10..]);
            value.extend_from_slice(&[0; 9]);
            value.extend_from_slice(&[0, 0, 0, 61, 61]);
            value.extend_from_slice(&[0, 0, 0, 1].repeat(61));
        }
        Some((value, left))
    }

    /// What such limits may have written, or another process that knows no better, and what is left
    /// of its TTL in milliseconds.
    pub(crate) fn hostile(&self, random: &mut Random) -> (Vec<u8>, u64) {
        let peek = self.step(random, Ask::Peek);
        let ttl = random.number(48);
        // No more nanoseconds than these milliseconds are counted.
        let near = ttl.min(18_446_744_073_709).saturating_sub(self.stride(random)).max(100);
        let left = if random.once_in(3) { random.number(62).max(100) } else { near };
        let mut value = vec![if self.strict { b'W' } else { b'G' }];
        let mut push = |number: u64, bytes: usize| {
            value.extend_from_slice(&number.to_be_bytes()[8 - bytes..]);
        };
        push(random.next(), 8);
        push(ttl, 6);
        let odd = [random.number(48), 1000, 2, 1, 0];
        for place in 0..self.limits.len() + usize::from(random.once_in(3)) {
            let strict = match &peek {
                Step::Strict(step) => step.limits().get(place).copied(),
                _ => None,
            };
            let own =
                strict.map_or(1, |limit| u64::try_from(limit.sub_window().as_millis()).unwrap());
            if self.strict {
                push(if random.once_in(3) { random.of(&odd) } else { own }, 6);
            }
            let age = if random.once_in(2) { random.below(61 * own) } else { random.number(48) };
            push(age, 6);
            push(if random.once_in(2) { random.below(1_000_000) } else { random.number(24) }, 3);
            if self.strict {
                let most = strict.map_or(1, |limit| limit.limit().into());
                push(if random.once_in(2) { random.below(most) } else { random.number(32) }, 4);
                let count = random.of(&[0, 1, 2, 60, 61, 255]);
                push(count, 1);
                for _ in 0..count {
                    push(if random.once_in(2) { random.below(9) } else { random.number(32) }, 4);
                }
            }
        }
        (value, left)
    }
}

fn smooth(random: &mut Random) -> RateLimit {
    let limit = random.of(&[1, 2, 3, 7, 60, 1000, 999_983, 3_000_000_000]);
    let nanos = random.of(&[1, 1_000_000, 1_000_000_007, 60_000_000_000, 86_400_000_000_000]);
    let period = Duration::from_nanos(nanos * random.of(&[1, 1, 2, 365]));
    let burst = 1 + random.below(limit.min(100));
    let cost = 1 + random.below(burst);
    let cost = random.of(&[1, cost]);
    let limit = RateLimit::smooth(limit, period).cost(cost);
    if random.once_in(2) { limit.burst(burst) } else { limit }
}

fn strict(random: &mut Random) -> RateLimit {
    let limit = random.of(&[1, 2, 7, 60, 1000, 999_983, u32::MAX.into()]);
    let millis = random.of(&[1, 7, 59, 60, 61, 1234, 60_000, 86_400_000, 3_000_000_000_000]);
    let cost = 1 + random.below(limit);
    RateLimit::strict(limit, Duration::from_millis(millis)).cost(random.of(&[1, 1, cost]))
}

/// The same value, cut or with some other byte.
pub(crate) fn damaged(random: &mut Random, mut value: Vec<u8>) -> Vec<u8> {
    match usize::try_from(random.below(value.len() as u64 + 1)).unwrap() {
        end if random.once_in(2) => value.truncate(end),
        at => {
            let byte = random.next().to_be_bytes()[0];
            match value.get_mut(at) {
                Some(place) => *place = byte,
                None => value.push(byte),
            }
        }
    }
    value
}
