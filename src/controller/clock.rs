//! Steps of this host's clock. A first NTP sync or a person may move it by years; what happened a minute ago happened a
//! minute ago all the same. So that no wait ends early or lasts for years, the times that are remembered are moved along.

use std::time::Instant;

use jiff::{SignedDuration, Timestamp};

/// Clocks that are slewed differ by less between two passes; more is a step. (A host that was suspended looks the same.)
const STEP: SignedDuration = SignedDuration::from_secs(5);

/// The clock on the wall beside one that only ever goes on.
#[derive(Debug)]
pub struct Clock {
    wall: Timestamp,
    steady: Instant,
}

impl Clock {
    /// Both as they are.
    pub fn now() -> Self {
        Self { wall: Timestamp::now(), steady: Instant::now() }
    }

    /// By how much the wall clock was stepped since the last time this was asked.
    pub fn step(&mut self) -> Option<SignedDuration> {
        let now = Self::now();
        let step = now.step_since(self);
        *self = now;
        step
    }

    fn step_since(&self, before: &Self) -> Option<SignedDuration> {
        let shown = self.wall.duration_since(before.wall);
        let passed = SignedDuration::try_from(self.steady - before.steady).unwrap_or(SignedDuration::MAX);
        Some(shown.saturating_sub(passed)).filter(|step| step.abs() > STEP)
    }
}

/// A remembered time by the clock as it is now.
pub fn moved(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.saturating_add(by).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_step_is_told_from_time_that_passes() {
        let before = Clock::now();
        let after = |passed: u64, shown: i64| Clock {
            wall: before.wall + SignedDuration::from_secs(shown),
            steady: before.steady + Duration::from_secs(passed),
        };
        let year = 365 * 24 * 3600;
        assert_eq!(after(10, 10).step_since(&before), None);
        assert_eq!(after(10, 8).step_since(&before), None);
        assert_eq!(after(10, 10 + year).step_since(&before), Some(SignedDuration::from_secs(year)));
        assert_eq!(after(10, 10 - year).step_since(&before), Some(SignedDuration::from_secs(-year)));
    }
}
