use std::time::{Duration, SystemTime};

use super::refusal::Refusal;

/// How far the time of a signature may be from now, in either direction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tolerance(pub(super) Duration);

impl Tolerance {
    /// Five minutes, which Stripe and the libraries of Standard Webhooks use.
    pub(super) const USUAL: Self = Self(Duration::from_secs(5 * 60));

    /// Checks the seconds since 1970 that stand as `text` in the header `name`.
    pub(super) fn check(
        self,
        name: &'static str,
        text: &str,
        now: SystemTime,
    ) -> Result<(), Refusal> {
        // A number can be parsed with a sign, which no sender writes.
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let seconds = text.parse().ok().filter(|_| digits).map(Duration::from_secs);
        let signed = seconds.and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(seconds));
        match now.duration_since(signed.ok_or(Refusal::Malformed(name))?) {
            Ok(age) if age > self.0 => Err(Refusal::TooOld),
            Err(ahead) if ahead.duration() > self.0 => Err(Refusal::TooNew),
            _ => Ok(()),
        }
    }
}
