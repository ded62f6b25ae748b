//! When something that was begun on a node has ended well: it answers, the release has not failed on it, and it has been up
//! for a while. Until then its silence counts against the release.

use std::time::Duration;

use jiff::Timestamp;

use super::{history, later};
use crate::model::observed::{Begun, Observation};

/// A node that falls silent within this time after its switch has fallen silent because of it, as far as anyone can tell.
pub const PROBATION: Duration = Duration::from_secs(600);

/// Whether nothing that was begun is at stake any more. The node is not being worked on.
pub fn is_settled(begun: &Begun, seen: Option<&Observation>, now: Timestamp) -> bool {
    let Some(seen) = seen.filter(|seen| seen.contact.is_reachable()) else { return false };
    let Some(state) = &seen.state else { return false };
    if state.live_switch().is_some() {
        return false;
    }
    // Silent later, it could not tell any more that the release failed on it.
    if history::given_up(&history::failures(&begun.toplevel, state)).is_some() {
        return false;
    }
    state.running != begun.toplevel || now >= later(begun.at, PROBATION)
}
