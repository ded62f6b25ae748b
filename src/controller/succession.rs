//! How one release becomes the next: what a node keeps, what is still to be done, what nobody needs any more.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::prepare::{Failure, system_root};
use crate::model::manifest::Names;
use crate::model::name::NodeName;
use crate::model::node::NodeSpec;
use crate::model::release::{NodeRelease, Progress, Release};
use crate::model::revision::Revision;
use crate::model::store_path::StorePath;
use crate::nix::Publication;

/// The release of a revision whose nodes are only known by name: each keeps what it had until its new system is built.
pub fn begin(previous: Option<Release>, revision: Revision, names: &Names, roots: &Path) -> Release {
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
                None => (None, rooted(&system_root(roots, name))),
            };
            (name.clone(), NodeRelease { spec, progress: Progress::Evaluating, last_good })
        })
        .collect();
    Release { revision: Some(revision), nodes, rollout: names.rollout.clone() }
}

/// Takes in a node's declaration, or why it does not evaluate. `None`: the node is disabled.
pub fn evaluated(release: &mut Release, name: &NodeName, outcome: Result<Option<Box<NodeSpec>>, Failure>) {
    match outcome {
        Ok(None) => {
            release.nodes.remove(name);
        }
        Ok(Some(spec)) => {
            if let Some(node) = release.nodes.get_mut(name) {
                let same = node.spec.as_deref() == Some(&*spec) && matches!(node.progress, Progress::Built);
                node.spec = Some(Arc::from(spec));
                if !same {
                    node.progress = Progress::Building;
                }
            }
        }
        Err(Failure { said: error, .. }) => {
            if let Some(node) = release.nodes.get_mut(name) {
                node.progress = Progress::NotEvaluated { error };
            }
        }
    }
}

/// Takes in that a node's system is built, or why not.
pub fn built(release: &mut Release, name: &NodeName, outcome: Result<Publication, Failure>) {
    let Some(node) = release.nodes.get_mut(name) else { return };
    // What its declaration says cannot be meant: the system that belongs to it is not wanted.
    if matches!(node.progress, Progress::NotEvaluated { .. }) {
        return;
    }
    match outcome {
        Ok(_) => {
            node.progress = Progress::Built;
            node.last_good = node.spec.as_ref().map(|spec| spec.toplevel.clone());
        }
        Err(Failure { said: error, .. }) => node.progress = Progress::NotBuilt { error },
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

/// Lets the garbage collector have what was built for nodes that are declared no more.
pub fn forget_roots(roots: &Path, release: &Release) {
    for entry in std::fs::read_dir(roots).into_iter().flatten().flatten() {
        let name = entry.file_name().to_str().and_then(|name| name.parse::<NodeName>().ok());
        if name.is_some_and(|name| !release.nodes.contains_key(&name))
            && let Err(error) = std::fs::remove_dir_all(entry.path())
        {
            tracing::warn!(path = %entry.path().display(), %error, "the GC roots of a removed node stay");
        }
    }
}

/// The nodes that are deployed to now: by the release in force or, where nobody remembers one, by what was built for them.
pub fn deployed_to(release: Option<&Release>, roots: &Path) -> BTreeSet<NodeName> {
    let Some(release) = release else { return rooted_nodes(roots).collect() };
    let declared = |node: &NodeRelease| match &node.spec {
        Some(spec) => spec.host.is_some(),
        None => node.last_good.is_some(),
    };
    release.nodes.iter().filter(|(_, node)| declared(node)).map(|(name, _)| name.clone()).collect()
}

fn rooted_nodes(roots: &Path) -> impl Iterator<Item = NodeName> {
    let names = std::fs::read_dir(roots).into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    names.filter(|name| system_root(roots, name).is_symlink())
}

/// What an earlier controller built for a node last: its GC root is the memory.
fn rooted(link: &Path) -> Option<StorePath> {
    let target = std::fs::read_link(link).ok()?;
    target.exists().then_some(())?;
    target.to_str()?.parse().ok()
}

/// Whether a node's system of this release is missing for good, as far as is known.
pub fn is_broken(node: &NodeRelease) -> bool {
    match node.progress {
        Progress::NotEvaluated { .. } | Progress::NotBuilt { .. } => true,
        Progress::Evaluating | Progress::Building | Progress::Built => false,
    }
}
