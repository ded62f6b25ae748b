//! Whether the secrets of a node may be compared, and brought where they are new, while its system stays. Where a person wants
//! it left alone, they may not.

use jiff::Timestamp;

use super::pin;
use crate::model::decision::{Decision, Hold};
use crate::model::observed::Contact;
use crate::model::snapshot::NodeView;

/// Only of a node that has its system: a switch brings its own. A node that is suspended or pinned is in sync, too.
pub fn may_be_brought(view: &NodeView, now: Timestamp) -> bool {
    let (Some(spec), Some(seen)) = (&view.spec, &view.observation) else { return false };
    let (Contact::Reachable { at }, Some(state)) = (&seen.contact, &seen.state) else { return false };
    let pinned =
        state.pin.as_ref().is_some_and(|pin| pin::holds(&pin.until, &spec.toplevel, state, *at, now));
    // What is not well may be so for want of them.
    let installed =
        matches!(view.decision, Decision::InSync | Decision::Hold { hold: Hold::Degraded { .. } });
    installed
        && !spec.secrets.is_empty()
        // One that does not evaluate or build stays with its last good one.
        && view.desired.as_ref() == Some(&spec.toplevel)
        && view.suspended.is_none()
        && !pinned
}
