//! A revision with its manifest and the outcome of each node's evaluation and build: the desired state.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::name::NodeName;
use super::node::NodeSpec;
use super::revision::Revision;
use super::rollout::RolloutSpec;
use super::store_path::StorePath;

/// The desired state of the fleet. While nodes still evaluate or build it is already a release: the ready ones go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    /// The commit; `None` for a release made from a file, not from Git.
    pub revision: Option<Revision>,
    /// Every enabled node of the deployment.
    pub nodes: BTreeMap<NodeName, NodeRelease>,
    /// Fleet-wide settings.
    pub rollout: RolloutSpec,
}

impl Release {
    /// The commit that a node's desired system is from; `-` where that is not known any more.
    pub fn revision_of(&self, name: &NodeName) -> String {
        let current = self.nodes.get(name).is_some_and(|node| matches!(node.progress, Progress::Built));
        match &self.revision {
            Some(revision) if current => revision.commit.to_string(),
            Some(_) | None => "-".into(),
        }
    }
}

/// One node in a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeRelease {
    /// The declaration: of this revision, or the last good one where this revision's does not evaluate.
    /// `None` while it evaluates for the first time or never did. Shared with every view: a pass copies none of it.
    pub spec: Option<Arc<NodeSpec>>,
    /// How far this revision's system of the node is.
    pub progress: Progress,
    /// The newest toplevel of this node that was built by an earlier release, kept in force while this one is not ready.
    pub last_good: Option<StorePath>,
}

/// How far one node's system is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Progress {
    /// Being evaluated.
    Evaluating,
    /// Does not evaluate; the message is Nix's own.
    NotEvaluated {
        /// Last lines of Nix's error.
        error: String,
    },
    /// Evaluated, being built.
    Building,
    /// Does not build; the message holds the tail of the build log.
    NotBuilt {
        /// Last lines of the build log.
        error: String,
    },
    /// Built and rooted, or evaluated where the node builds it itself.
    Built,
}

impl NodeRelease {
    /// The toplevel that the node should run now, if there is one that is built.
    pub fn desired(&self) -> Option<&StorePath> {
        match self.progress {
            Progress::Built => self.spec.as_ref().map(|spec| &spec.toplevel),
            Progress::Evaluating
            | Progress::NotEvaluated { .. }
            | Progress::Building
            | Progress::NotBuilt { .. } => self.last_good.as_ref(),
        }
    }
}
