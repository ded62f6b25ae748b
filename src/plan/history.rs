//! What a node's journal says about a toplevel. The journal is the node's own; nothing is remembered elsewhere.

use jiff::{SignedDuration, Timestamp};

use crate::model::journal::{Entry, Forgiven, Outcome, Phase};
use crate::model::observed::NodeState;
use crate::model::store_path::StorePath;

/// A node's clock this close to ours is taken as right: two reads of it differ by the way to the node, and a time that
/// moved with every read would be news in every pass.
const TOLERATED_SKEW: SignedDuration = SignedDuration::from_secs(30);

/// The newest successful switch, to whatever system.
///
/// If it installed the wanted one and the node is not it, somebody took the node away: drift. If it installed another
/// one, the wanted one is new here, also when a revert makes it wanted for the second time.
pub fn last_success(state: &NodeState) -> Option<&Entry> {
    state.journal.iter().rev().find(|entry| succeeded(entry))
}

/// Whether some switch of ours installed this toplevel.
pub fn was_installed(toplevel: &StorePath, state: &NodeState) -> bool {
    newest_success(toplevel, state).is_some()
}

/// Whether this toplevel is what was installed last: where the node is not it, somebody took it away.
pub fn had(toplevel: &StorePath, state: &NodeState) -> bool {
    last_success(state).is_some_and(|entry| entry.system == *toplevel)
}

/// The newest switch that installed this toplevel.
pub fn newest_success<'a>(toplevel: &'a StorePath, state: &'a NodeState) -> Option<&'a Entry> {
    successes(toplevel, state).next()
}

/// The switches that installed this toplevel, newest first.
pub fn successes<'a>(toplevel: &'a StorePath, state: &'a NodeState) -> impl Iterator<Item = &'a Entry> {
    state.journal.iter().rev().filter(move |entry| succeeded(entry) && entry.system == *toplevel)
}

/// The commit for which a toplevel was last switched to, where the node knows.
pub fn revision<'a>(toplevel: &StorePath, state: &'a NodeState) -> Option<&'a str> {
    let entry = state.journal.iter().rev().find(|entry| entry.system == *toplevel)?;
    Some(entry.revision.as_str()).filter(|revision| *revision != "-")
}

/// The failure because of which a toplevel with these [`failures`] is not tried again here, if there is one.
pub fn given_up<'a>(failures: &[&'a Entry]) -> Option<&'a Entry> {
    failures.first().copied().filter(|entry| entry.is_final_failure())
}

/// The failed switches to this toplevel since it last succeeded or was forgiven, newest first.
pub fn failures<'a>(toplevel: &StorePath, state: &'a NodeState) -> Vec<&'a Entry> {
    state
        .journal
        .iter()
        .rev()
        .filter(|entry| entry.system == *toplevel && entry.outcome.is_some())
        .take_while(|entry| !succeeded(entry) && !staged(entry) && entry.forgiven == Forgiven::No)
        .collect()
}

/// Whether the node runs this toplevel because it was booted once, and nothing has come of that yet.
pub fn is_to_be_proven(toplevel: &StorePath, state: &NodeState) -> bool {
    let ended = |entry: &&Entry| staged(entry) || succeeded(entry) || entry.is_final_failure();
    let mut tries = state.journal.iter().rev().filter(|entry| entry.system == *toplevel);
    state.running == *toplevel && state.staged.is_none() && tries.find(ended).is_some_and(staged)
}

fn staged(entry: &Entry) -> bool {
    entry.outcome == Some(Outcome::Staged)
}

/// Whether the newest switch was interrupted while profile and boot loader changed, and nobody has mended that yet.
pub fn is_half_committed(state: &NodeState) -> bool {
    let newest = state.journal.last();
    newest
        .is_some_and(|entry| entry.outcome == Some(Outcome::Interrupted) && entry.phase == Phase::Committing)
}

fn succeeded(entry: &Entry) -> bool {
    entry.outcome == Some(Outcome::Succeeded)
}

/// When a switch ended (began, where that is not known), by the controller's clock.
pub fn ended(entry: &Entry, state: &NodeState, seen_at: Timestamp) -> Timestamp {
    our_time(entry.finished.unwrap_or(entry.started), state.clock, seen_at)
}

/// A time of the node's clock as a time of ours.
pub fn our_time(time: Timestamp, clock: Option<Timestamp>, seen_at: Timestamp) -> Timestamp {
    let Some(clock) = clock else { return time };
    let ahead = clock.duration_since(seen_at);
    if ahead.abs() <= TOLERATED_SKEW {
        return time;
    }
    time.checked_sub(ahead).unwrap_or(seen_at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_whose_clock_is_years_off_is_retried_as_any_other() {
        let seen: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        for clock in ["1970-01-01T00:10:00Z", "2044-01-01T00:10:00Z"] {
            let clock: Timestamp = clock.parse().unwrap();
            let finished = clock - SignedDuration::from_secs(90);
            assert_eq!(our_time(finished, Some(clock), seen), seen - SignedDuration::from_secs(90));
        }
    }
}
