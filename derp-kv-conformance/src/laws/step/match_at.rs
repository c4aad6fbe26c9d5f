//! At which remaining TTL the core's function comes to what a store did, if at any.

use std::cmp::Ordering;
use std::time::Duration;

use derp_kv_core::{Change, Expiry, Result, Step, Stepped};

use super::times::{MILLI, Times};

/// What a store did: what it answered, and what the key holds then.
pub(super) struct Did<'a> {
    pub(super) stepped: Stepped,
    /// None where the key is absent.
    pub(super) left: Option<&'a [u8]>,
}

/// A step, and the value that it met.
pub(super) struct Met<'a> {
    pub(super) step: &'a Step,
    pub(super) value: &'a [u8],
}

impl Met<'_> {
    fn at(&self, left: u64) -> Result<(Change, Stepped)> {
        self.step.apply(Some((self.value, Expiry::In(Duration::from_nanos(left)))))
    }

    /// Whether the step comes to what was done where so many nanoseconds are left.
    fn comes_to(&self, did: &Did<'_>, left: u64) -> bool {
        self.at(left).is_ok_and(|(change, stepped)| {
            let value = match &change {
                Change::Keep => Some(self.value),
                Change::Set { value, .. } => Some(&**value),
                _ => None,
            };
            stepped == did.stepped && value == did.left
        })
    }

    /// Whether it does for any number of nanoseconds from `least` to `most`.
    pub(super) fn comes_to_within(&self, did: &Did<'_>, least: u64, most: u64) -> bool {
        if [least, most].into_iter().any(|left| self.comes_to(did, left)) {
            return true;
        }
        match self.step {
            Step::Smooth(_) => self.smooth(did, least, most),
            _ => self.strict(did, least, most),
        }
    }

    /// Whether the step admits as was done, for any number of nanoseconds from `least` to `most`: it
    /// does from some number down.
    pub(super) fn admits_within(&self, admitted: bool, least: u64, most: u64) -> bool {
        let at = |left| self.at(left).is_ok_and(|(_, stepped)| stepped.admitted() == admitted);
        at(least) || at(most)
    }

    /// All that a smooth limit tells goes one way as the time that is left grows, as long as it admits
    /// all or none: so it can be found by halves, to the nanosecond.
    fn smooth(&self, did: &Did<'_>, least: u64, most: u64) -> bool {
        let admits = |left| self.at(left).is_ok_and(|(_, stepped)| stepped.admitted());
        // What is denied from there on.
        let edge = first(least, most, |left| !admits(left));
        let (mut least, mut most) = match did.stepped.admitted() {
            true => (least, edge.saturating_sub(1)),
            false => (edge, most),
        };
        while least <= most {
            let middle = least.midpoint(most);
            match self.compared(did, middle) {
                Some(Ordering::Equal) => return self.comes_to(did, middle),
                Some(Ordering::Less) => least = middle + 1,
                Some(Ordering::Greater) => most = middle - 1,
                None => return false,
            }
        }
        false
    }

    /// How the step would do with so much left, compared with what was done. None where one part is
    /// less and another more: no time explains both.
    fn compared(&self, did: &Did<'_>, left: u64) -> Option<Ordering> {
        let (change, stepped) = self.at(left).ok()?;
        let value = match &change {
            Change::Keep => Some(self.value),
            Change::Set { value, .. } => Some(&**value),
            _ => None,
        };
        let mut all = value.cmp(&did.left);
        for (would, was) in stepped.standings().iter().zip(did.stepped.standings()) {
            for order in [
                was.fits.cmp(&would.fits),
                (would.count, would.next_after).cmp(&(was.count, was.next_after)),
                would.retry_after.cmp(&was.retry_after),
                would.reset_after.cmp(&was.reset_after),
            ] {
                match (all, order) {
                    (_, Ordering::Equal) => {}
                    (Ordering::Equal, order) => all = order,
                    (all, order) if all == order => {}
                    _ => return None,
                }
            }
        }
        Some(all)
    }

    /// A strict limit changes where a whole number of milliseconds has gone by since its newest
    /// sub-window began, and what it writes tells when that was.
    fn strict(&self, did: &Did<'_>, least: u64, most: u64) -> bool {
        let before = Times::read(self.value);
        let after = did.left.map(Times::read).unwrap_or_default();
        let told =
            before.ages.iter().zip(&after.ages).filter(|(a, b)| a.sub_window == b.sub_window);
        for (before_age, after_age) in told {
            let whole = before.ttl + before_age.age;
            let Some(latest) = whole.checked_sub(after_age.age) else { continue };
            let sub_window = before_age.sub_window.max(MILLI);
            let skipped = latest.saturating_sub(most).div_ceil(sub_window);
            let mut left = latest.saturating_sub(skipped * sub_window);
            while left >= least {
                if left <= most && self.comes_to(did, left) {
                    return true;
                }
                let Some(earlier) = left.checked_sub(sub_window) else { break };
                left = earlier;
            }
        }
        let fractions = before.ages.iter().map(|age| age.age % MILLI).chain([0]);
        let mut edges = fractions.flat_map(|fraction| {
            (least / MILLI..=most / MILLI).map(move |milli| milli * MILLI + fraction)
        });
        edges.any(|edge| {
            [edge.saturating_sub(1), edge, edge + 1]
                .into_iter()
                .any(|left| (least..=most).contains(&left) && self.comes_to(did, left))
        })
    }
}

/// The first number for which `holds`, which then does for all that follow; one more than the last
/// where it does for none.
fn first(least: u64, most: u64, holds: impl Fn(u64) -> bool) -> u64 {
    let (mut from, mut to) = (least, most + 1);
    while from < to {
        let middle = from.midpoint(to);
        if holds(middle) { to = middle } else { from = middle + 1 }
    }
    from
}
