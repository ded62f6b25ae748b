//! What a node should run now, and what it waits for beyond that.
//!
//! A release that is not ready keeps the last good one in force: it is healed to, it is never replaced by nothing.

use crate::model::decision::Hold;
use crate::model::name::NodeName;
use crate::model::release::{NodeRelease, Progress, Release};
use crate::model::store_path::StorePath;

/// What one node should run now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target<'a> {
    /// The system; `None` when none was ever built.
    pub toplevel: Option<&'a StorePath>,
    /// Why this is not the revision's own system, where it is not.
    pub waits: Option<Hold>,
}

/// The first node that holds the whole release because `rollout.requireAll` is set and its system is missing.
pub fn incomplete(release: &Release) -> Option<&NodeName> {
    if !release.rollout.require_all {
        return None;
    }
    release.nodes.iter().find(|(_, node)| progress_hold(&node.progress).is_some()).map(|(name, _)| name)
}

/// What this node should run now. `incomplete` is the answer of [`incomplete`] for its release.
pub fn target<'a>(node: &'a NodeRelease, incomplete: Option<&NodeName>) -> Target<'a> {
    let waits = progress_hold(&node.progress).or_else(|| {
        let unchanged = node.last_good.is_some() && node.desired() == node.last_good.as_ref();
        incomplete.filter(|_| !unchanged).map(|node| Hold::ReleaseIncomplete { node: node.clone() })
    });
    let toplevel = match waits {
        Some(_) => node.last_good.as_ref(),
        None => node.desired(),
    };
    Target { toplevel, waits }
}

fn progress_hold(progress: &Progress) -> Option<Hold> {
    match progress {
        Progress::Evaluating => Some(Hold::Evaluating),
        Progress::NotEvaluated { error } => Some(Hold::NotEvaluated { error: error.clone() }),
        Progress::Building => Some(Hold::Building),
        Progress::NotBuilt { error } => Some(Hold::NotBuilt { error: error.clone() }),
        Progress::Built => None,
    }
}
