//! Steps of this host's clock. A first NTP sync or a person may move it by years; what happened a minute ago happened a
//! minute ago all the same. So that no wait ends early or lasts for years, the times that are remembered are moved along.

use std::time::Instant;

use jiff::{SignedDuration, Timestamp};

/// Clocks that are slewed differ by less between two passes; more is a step. (A host that was suspended looks the same.)
const STEP: SignedDuration = SignedDuration::from_secs(5);

/// What both clocks show at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The clock on the wall, which people and the nodes' clocks may step.
    pub wall: Timestamp,
    /// The one that only ever goes on.
    pub steady: Instant,
}

impl Moment {
    /// By how much the wall clock was stepped since a moment before.
    pub fn step_since(self, before: Self) -> Option<SignedDuration> {
        let shown = self.wall.duration_since(before.wall);
        let passed = SignedDuration::try_from(self.steady - before.steady).unwrap_or(SignedDuration::MAX);
        Some(shown.saturating_sub(passed)).filter(|step| step.abs() > STEP)
    }
}

/// A remembered time by the clock as it is now.
pub fn moved(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.saturating_add(by).unwrap_or(at)
}
