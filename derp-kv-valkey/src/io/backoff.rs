//! Waiting a little longer after each failure.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use crate::io::Io;

/// Doubling pauses from 5 ms to a bound, each shortened at random by up to a half, so that many
/// callers do not come back at the same moment.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    pub(crate) fn up_to(longest: Duration) -> Self {
        Self { next: Duration::from_millis(5), longest }
    }

    pub(crate) fn pause(&mut self) -> Duration {
        let pause = self.next.min(self.longest);
        self.next = (self.next * 2).min(self.longest);
        jittered(pause)
    }

    /// Pauses on the clock of the I/O thread, and not beyond `until`.
    pub(crate) async fn sleep_until(&mut self, io: &Io, until: Instant) {
        io.sleep_until(until.min(Instant::now() + self.pause())).await;
    }
}

/// `pause`, shortened at random by up to a half.
pub(crate) fn jittered(pause: Duration) -> Duration {
    // A fresh hasher is the standard library's source of randomness.
    let random = RandomState::new().hash_one(0_u8) as u32;
    pause.mul_f64(0.5 + 0.5 * f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_bound_and_never_reach_zero() {
        let mut backoff = Backoff::up_to(Duration::from_millis(960));
        for nominal in [5, 10, 20, 40, 80, 160, 320, 640, 960, 960] {
            let pause = backoff.pause();
            let nominal = Duration::from_millis(nominal);
            assert!(pause >= nominal / 2 && pause <= nominal, "{pause:?} for {nominal:?}");
        }
    }
}
