//! What happens when.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::connections::CONNECTIONS;

/// A steady load on one hot key, while the database works, is down, and works again. All times are
/// shares of the outage, so that a short one shows the same.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) outage: Duration,
    pub(crate) processes: u32,
    /// A number that no other run has: its keys are cold.
    pub(crate) run: u64,
}

impl Plan {
    /// When the outage begins, and for how long after it the load goes on.
    pub(crate) fn before(&self) -> Duration {
        self.outage * 3 / 10
    }

    pub(crate) fn after(&self) -> Duration {
        self.outage / 2
    }

    pub(crate) fn total(&self) -> Duration {
        self.before() + self.outage + self.after()
    }

    /// Between two callers of one process.
    pub(crate) fn every(&self) -> Duration {
        self.outage / 1_000 * self.processes
    }

    /// Between two looks at the connections in use.
    pub(crate) fn sample(&self) -> Duration {
        self.outage / 200
    }

    /// After so long a caller gives up.
    pub(crate) fn patience(&self) -> Duration {
        self.outage / 2
    }

    /// How long a value is fresh.
    pub(crate) fn ttl(&self) -> Duration {
        self.outage / 10
    }

    /// How long a query takes that succeeds.
    pub(crate) fn query(&self) -> Duration {
        self.outage / 200
    }

    /// How long a query takes that fails.
    pub(crate) fn query_timeout(&self) -> Duration {
        self.outage / 5
    }

    /// Connections of one process.
    pub(crate) fn connections(&self) -> u32 {
        CONNECTIONS / self.processes
    }

    /// Whether a caller comes during the outage who comes at `at` seconds.
    pub(crate) fn is_down_at(&self, at: f64) -> bool {
        let begins = self.before().as_secs_f64();
        (begins..begins + self.outage.as_secs_f64()).contains(&at)
    }
}
