//! When a node is rebooted, and when that has come to nothing. Once for each system: what a reboot did not bring, another
//! one would not bring either.

use jiff::Timestamp;

use super::{history, later};
use crate::model::decision::{Decision, Hold};
use crate::model::journal::Entry;
use crate::model::node::{Goal, NodeSpec, RebootPolicy};
use crate::model::observed::{Begun, BegunWhat, NodeState};
use crate::model::store_path::StorePath;

/// Whether the node may be rebooted at all.
pub fn wanted(spec: &NodeSpec) -> bool {
    match spec.reboot.policy {
        RebootPolicy::Never => false,
        RebootPolicy::WhenRequired | RebootPolicy::Always => true,
    }
}

/// Whether a node that is what it should be is to be rebooted all the same. What `goal = "test"` activates, a reboot would take
/// away.
pub fn is_due(spec: &NodeSpec, required: bool, state: &NodeState) -> bool {
    let due = match spec.reboot.policy {
        RebootPolicy::Never => false,
        RebootPolicy::WhenRequired => required,
        RebootPolicy::Always => required || state.booted.as_ref().is_some_and(|at| *at != state.running),
    };
    due && spec.goal.persists()
}

/// Whether a reboot starts what the node should run: it was made the boot default without being activated, because only a
/// boot can start it.
pub fn starts(spec: &NodeSpec, toplevel: &StorePath, state: &NodeState) -> bool {
    let last = history::last_success(state);
    wanted(spec)
        && spec.goal == Goal::Switch
        && state.staged.is_none()
        && state.boot_default.as_ref() == Some(toplevel)
        && last.is_some_and(|entry| entry.system == *toplevel && entry.previous == state.running)
}

/// Whether an order to reboot may be given: none for this system was given before. The state was read at the second time.
pub fn may_be_ordered(
    spec: &NodeSpec,
    toplevel: &StorePath,
    (state, seen_at): (&NodeState, Timestamp),
    now: Timestamp,
) -> Result<(), Decision> {
    let Some(order) = state.reboot.as_ref().filter(|order| order.toplevel == *toplevel) else {
        return Ok(());
    };
    let at = history::our_time(order.at, state.clock, seen_at);
    if let Some(error) = failed(toplevel, state) {
        return Err(Hold::RebootFailed { error }.into());
    }
    if order.boot != state.boot_id {
        // It came back as it should. What somebody has done to it since says nothing against the release.
        return Err(Hold::RebootRequired.into());
    }
    let until = later(at, spec.reboot.timeout);
    if now < until {
        return Err(Hold::Rebooting { until }.into());
    }
    let error =
        format!("was told to reboot at {}, and has not gone down", at.strftime("%Y-%m-%d %H:%M:%S UTC"));
    Err(Hold::RebootFailed { error }.into())
}

/// Why the order to reboot into this system has failed, if the node came back and it has. The node remembers it, also when it
/// was taken back to another system since.
pub fn failed(toplevel: &StorePath, state: &NodeState) -> Option<String> {
    let order = state.reboot.as_ref().filter(|order| order.toplevel == *toplevel)?;
    let booted = state.booted.as_ref().unwrap_or(&state.running);
    // Then it was somebody who made another one the default.
    let taken_away = history::had(toplevel, state) && state.boot_default.as_ref() != Some(toplevel);
    let came = |entry: &Entry| entry.finished.is_some_and(|at| at > order.at);
    if order.boot == state.boot_id
        || booted == toplevel
        || taken_away
        || history::newest_success(toplevel, state).is_some_and(came)
    {
        return None;
    }
    Some(format!("rebooted, and came back with {} booted", booted.name()))
}

/// What a node that does not answer is held for, where it was told to reboot.
pub fn overdue(begun: Option<(&Begun, &NodeSpec)>, error: &str, now: Timestamp) -> Option<Hold> {
    let (begun, spec) = begun?;
    match begun.what {
        BegunWhat::Switch => None,
        BegunWhat::Reboot { .. } => {
            let until = later(begun.at, spec.reboot.timeout);
            Some(if now < until {
                Hold::Rebooting { until }
            } else {
                Hold::RebootOverdue { since: until, error: error.to_owned() }
            })
        }
    }
}
