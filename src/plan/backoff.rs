//! When a failure that may pass is tried again: 30 s, doubled by each further failure, at most 1 h.
//!
//! Counted from the node's journal and from the attempts that did not get as far as the journal. Keeps no count itself.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{history, later};
use crate::model::journal::Entry;
use crate::model::observed::{Attempt, NodeState};
use crate::model::store_path::StorePath;

/// The wait after the first failure.
pub const FIRST: Duration = Duration::from_secs(30);
/// No wait is longer.
pub const LONGEST: Duration = Duration::from_secs(3600);
/// The failures in a row of one toplevel on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failures {
    /// How many; never 0.
    pub count: u32,
    /// The newest one, by the controller's clock.
    pub last: Timestamp,
    /// What went wrong then, one sentence.
    pub error: String,
}

impl Failures {
    /// Both in a row; the later one has the last word.
    fn and(self, other: Self) -> Self {
        let count = self.count.saturating_add(other.count);
        let latest = if other.last > self.last { other } else { self };
        Self { count, ..latest }
    }

    /// The first moment at which it may be tried again.
    pub fn retry_at(&self) -> Timestamp {
        later(self.last, delay(self.count))
    }
}

/// The wait after so many failures in a row.
pub fn delay(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(31);
    FIRST.saturating_mul(1 << doublings).min(LONGEST)
}

/// The failures in a row of `toplevel`: those of the node's journal as read at `seen_at` ([`history::failures`]), and the
/// attempts from here.
pub fn failures(
    toplevel: &StorePath,
    journal: &[&Entry],
    state: &NodeState,
    seen_at: Timestamp,
    attempt: Option<&Attempt>,
) -> Option<Failures> {
    let ours = |entry: &Entry| history::ended(entry, state, seen_at);
    // An entry that somebody has to finish for a dead watcher may end after a newer one.
    let switch = journal
        .iter()
        .filter(|entry| !entry.is_final_failure())
        .map(|entry| Failures { count: 1, last: ours(entry), error: sentence(entry) })
        .reduce(|newer, older| newer.and(older));
    let superseded = |attempt: &&Attempt| {
        history::newest_success(toplevel, state).is_some_and(|entry| ours(entry) >= attempt.last)
    };
    let attempt = attempt
        .filter(|attempt| attempt.toplevel == *toplevel && attempt.failures > 0)
        .filter(|attempt| !superseded(attempt))
        .map(|attempt| Failures {
            count: attempt.failures,
            last: attempt.last,
            error: attempt.error.clone(),
        });
    match (switch, attempt) {
        (Some(switch), Some(attempt)) => Some(switch.and(attempt)),
        (switch, attempt) => switch.or(attempt),
    }
}

/// Two controllers, or a person's script, that want different systems on one node would switch it to and fro for ever. A
/// system that was installed twice within this time and replaced each time is not installed at once for the third time.
const MEMORY: SignedDuration = SignedDuration::from_hours(6);

/// The wait that follows, where `toplevel` was installed and replaced by other switches of ours again and again.
pub fn contested(
    toplevel: &StorePath,
    state: &NodeState,
    seen_at: Timestamp,
    now: Timestamp,
) -> Option<Failures> {
    let last = history::last_success(state).filter(|entry| entry.system != *toplevel)?;
    let recent = |entry: &&Entry| now.duration_since(history::ended(entry, state, seen_at)) < MEMORY;
    // One that only made it the boot default again brought nothing that could be replaced.
    let brought = |entry: &&Entry| entry.previous != entry.system;
    let installed = history::successes(toplevel, state).filter(recent).filter(brought).count();
    let count = u32::try_from(installed).unwrap_or(u32::MAX).checked_sub(1).filter(|count| *count > 0)?;
    let error = "installed more than once, and another switch replaced it each time; does another controller have this \
                 node, or does the branch go to and fro?";
    Some(Failures { count, last: history::ended(last, state, seen_at), error: error.into() })
}

fn sentence(entry: &Entry) -> String {
    match (entry.cause, entry.detail.as_str()) {
        (Some(cause), "") => cause.sentence().to_owned(),
        (Some(cause), detail) => format!("{}: {detail}", cause.sentence()),
        (None, "") => "the switch did not succeed".to_owned(),
        (None, detail) => detail.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_an_hour() {
        let waits: Vec<u64> =
            [0, 1, 2, 3, 7, 8, 9, 40, u32::MAX].into_iter().map(|n| delay(n).as_secs()).collect();
        assert_eq!(waits, [30, 30, 60, 120, 1920, 3600, 3600, 3600, 3600]);
    }
}
