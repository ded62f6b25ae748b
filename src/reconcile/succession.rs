//! How one release becomes the next: what a node keeps, and what is still to be done.

use std::sync::Arc;

use crate::model::manifest::Names;
use crate::model::name::NodeName;
use crate::model::node::NodeSpec;
use crate::model::release::{NodeRelease, Progress, Release};
use crate::model::revision::Revision;
use crate::model::store_path::StorePath;

/// The release of a revision whose nodes are only known by name: each keeps what it had until its new system is built.
/// `rooted` is what an earlier controller built for a node last.
pub fn begin(
    previous: Option<Release>,
    revision: Revision,
    names: &Names,
    rooted: impl Fn(&NodeName) -> Option<StorePath>,
) -> Release {
    // The same revision once more (a restart, a second try): what is known of it stays until it is known better.
    let again = previous.as_ref().and_then(|release| release.revision.as_ref()) == Some(&revision);
    let mut before = previous.map(|release| release.nodes).unwrap_or_default();
    let nodes = names
        .nodes
        .iter()
        .map(|name| {
            let (spec, last_good) = match before.remove(name) {
                Some(node) if again => return (name.clone(), node),
                Some(node) => (node.spec.clone(), node.desired().cloned()),
                None => (None, rooted(name)),
            };
            (name.clone(), NodeRelease { spec, progress: Progress::Evaluating, last_good })
        })
        .collect();
    Release { revision: Some(revision), nodes, rollout: names.rollout.clone() }
}

/// Takes in a node's declaration, or why it does not evaluate. `None`: the node is disabled.
pub fn evaluated(release: &mut Release, name: &NodeName, outcome: Result<Option<Arc<NodeSpec>>, String>) {
    match outcome {
        Ok(None) => {
            release.nodes.remove(name);
        }
        Ok(Some(spec)) => {
            if let Some(node) = release.nodes.get_mut(name) {
                let same = node.spec.as_ref() == Some(&spec) && matches!(node.progress, Progress::Built);
                node.spec = Some(spec);
                if !same {
                    node.progress = Progress::Building;
                }
            }
        }
        Err(error) => {
            if let Some(node) = release.nodes.get_mut(name) {
                node.progress = Progress::NotEvaluated { error };
            }
        }
    }
}

/// Takes in that a node's system is built, or why not.
pub fn built(release: &mut Release, name: &NodeName, outcome: Result<(), String>) {
    let Some(node) = release.nodes.get_mut(name) else { return };
    // What its declaration says cannot be meant: the system that belongs to it is not wanted.
    if matches!(node.progress, Progress::NotEvaluated { .. }) {
        return;
    }
    match outcome {
        Ok(()) => {
            node.progress = Progress::Built;
            node.last_good = node.spec.as_ref().map(|spec| spec.toplevel.clone());
        }
        Err(error) => node.progress = Progress::NotBuilt { error },
    }
}

/// The revision of a release that a newer commit interrupted half-way, if that newer one, `instead`, comes to nothing.
pub fn unfinished(release: &Release, instead: &Revision) -> Option<Revision> {
    let waits = release.nodes.values().any(|node| match node.progress {
        Progress::Evaluating | Progress::Building => true,
        Progress::NotEvaluated { .. } | Progress::NotBuilt { .. } | Progress::Built => false,
    });
    release.revision.clone().filter(|revision| waits && revision != instead)
}

/// Whether a node's system of this release is missing for good, as far as is known.
pub fn is_broken(node: &NodeRelease) -> bool {
    match node.progress {
        Progress::NotEvaluated { .. } | Progress::NotBuilt { .. } => true,
        Progress::Evaluating | Progress::Building | Progress::Built => false,
    }
}
