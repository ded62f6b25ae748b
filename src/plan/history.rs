//! What a node's journal says about a toplevel. The journal is the node's own; nothing is remembered elsewhere.

use crate::model::journal::{Entry, Forgiven, Outcome};
use crate::model::observed::NodeState;
use crate::model::store_path::StorePath;

/// The toplevel that the newest successful switch installed.
///
/// If that is the wanted one and the node is not it, somebody took the node away: drift. If it is another one, the
/// wanted one is new here, also when a revert makes it wanted for the second time.
pub fn last_installed(state: &NodeState) -> Option<&StorePath> {
    state.journal.iter().rev().find(|entry| succeeded(entry)).map(|entry| &entry.system)
}

/// Whether some switch of ours installed this toplevel.
pub fn was_installed(toplevel: &StorePath, state: &NodeState) -> bool {
    newest_success(toplevel, state).is_some()
}

/// The newest switch that installed this toplevel.
pub fn newest_success<'a>(toplevel: &StorePath, state: &'a NodeState) -> Option<&'a Entry> {
    state.journal.iter().rev().find(|entry| succeeded(entry) && entry.system == *toplevel)
}

/// The commit for which a toplevel was last switched to, where the node knows.
pub fn revision<'a>(toplevel: &StorePath, state: &'a NodeState) -> Option<&'a str> {
    let entry = state.journal.iter().rev().find(|entry| entry.system == *toplevel)?;
    Some(entry.revision.as_str()).filter(|revision| *revision != "-")
}

/// The failure because of which this toplevel is not tried again here, if there is one.
pub fn given_up<'a>(toplevel: &'a StorePath, state: &'a NodeState) -> Option<&'a Entry> {
    failures(toplevel, state).next().filter(|entry| entry.is_final_failure())
}

/// The failed switches to this toplevel since it last succeeded or was forgiven, newest first.
pub fn failures<'a>(toplevel: &'a StorePath, state: &'a NodeState) -> impl Iterator<Item = &'a Entry> {
    state
        .journal
        .iter()
        .rev()
        .filter(move |entry| entry.system == *toplevel && entry.outcome.is_some())
        .take_while(|entry| !succeeded(entry) && entry.forgiven == Forgiven::No)
}

fn succeeded(entry: &Entry) -> bool {
    entry.outcome == Some(Outcome::Succeeded)
}
