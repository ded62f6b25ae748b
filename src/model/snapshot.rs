//! The immutable picture of one pass, which every window reads: status page, metrics, JSON, the command line.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::decision::{Decision, Hold};
use super::drift::DriftKind;
use super::intent::{Intent, NodeSuspension, SuspensionMark};
use super::name::NodeName;
use super::node::NodeSpec;
use super::observed::{InFlight, Observation};
use super::packages::PackageDiff;
use super::progress::WaveView;
use super::release::Progress;
use super::revision::Revision;
use super::store_path::StorePath;

/// The world as one pass of the controller saw it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// Version of the document.
    pub version: u32,
    /// When the pass ended.
    pub at: Timestamp,
    /// Passes since the controller started.
    pub passes: u64,
    /// Whether each node was looked at and the source fetched at least once since the controller started.
    pub ready: Ready,
    /// The source.
    pub source: SourceView,
    /// What people want beyond what Git says.
    #[serde(default)]
    pub intent: Arc<Intent>,
    /// Every node of the release. Shared between the loop and all who look: publishing copies none.
    pub nodes: BTreeMap<NodeName, Arc<NodeView>>,
    /// How far the release is, wave by wave.
    #[serde(default)]
    pub waves: Vec<WaveView>,
}

/// Whether the first full pass is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ready {
    /// Still looking for the first time.
    Starting,
    /// The first full pass is over.
    Ready,
}

/// The source as the controller sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceView {
    /// URL or path, without credentials.
    pub url: String,
    /// The branch that is followed.
    pub branch: String,
    /// Newest commit seen.
    pub head: Option<Revision>,
    /// Newest commit that evaluated.
    pub last_good: Option<Revision>,
    /// Why `head` is not in force.
    pub blocked: Option<Blocked>,
    /// Last successful fetch.
    pub fetched_at: Option<Timestamp>,
    /// The error of the last fetch, if it failed.
    pub fetch_error: Option<String>,
    /// Why what was built last could not be signed or pushed to the binary cache.
    #[serde(default)]
    pub publish_error: Option<String>,
    /// When the last evaluation ended.
    pub evaluated_at: Option<Timestamp>,
    /// Committer's times of the commits that nodes run or should run, by the short id the nodes are shown with, as far
    /// as the clone knows them.
    #[serde(default)]
    pub commit_times: BTreeMap<String, Timestamp>,
}

impl SourceView {
    /// Of a source that was not asked yet.
    pub fn unasked(url: String, branch: String) -> Self {
        Self {
            url,
            branch,
            head: None,
            last_good: None,
            blocked: None,
            fetched_at: None,
            fetch_error: None,
            publish_error: None,
            evaluated_at: None,
            commit_times: BTreeMap::new(),
        }
    }
}

/// Why the newest commit is not in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Blocked {
    /// The kind.
    pub reason: BlockedReason,
    /// What the program said.
    pub message: String,
}

impl Blocked {
    /// Whether the branch was rewritten: then the newest commit itself is in question, not only what is in it.
    pub fn is_rewrite(&self) -> bool {
        match self.reason {
            BlockedReason::NonFastForward => true,
            BlockedReason::InvalidFile
            | BlockedReason::EvalFailed
            | BlockedReason::Misdeclared
            | BlockedReason::MassRemoval => false,
        }
    }
}

/// Kinds of reasons for which the newest commit is not in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockedReason {
    /// The deployment file is not there.
    InvalidFile,
    /// The deployment does not evaluate as a whole.
    EvalFailed,
    /// It evaluates, but says what cannot be meant.
    Misdeclared,
    /// The branch was rewritten: the new head does not descend from the last good one.
    NonFastForward,
    /// Most of the nodes that are deployed to would be no more.
    MassRemoval,
}

impl BlockedReason {
    /// Every reason.
    pub const ALL: [Self; 5] =
        [Self::InvalidFile, Self::EvalFailed, Self::Misdeclared, Self::NonFastForward, Self::MassRemoval];

    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidFile => "invalid_file",
            Self::EvalFailed => "eval_failed",
            Self::Misdeclared => "misdeclared",
            Self::NonFastForward => "non_fast_forward",
            Self::MassRemoval => "mass_removal",
        }
    }
}

/// One node in a snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeView {
    /// The one decision.
    pub decision: Decision,
    /// The word in the STATE column.
    pub state: State,
    /// Since when the decision has been of this kind.
    pub since: Timestamp,
    /// The reason, in one sentence.
    pub why: String,
    /// What the deployment declares.
    pub spec: Option<Arc<NodeSpec>>,
    /// How far this release's system of the node is.
    pub progress: Progress,
    /// The toplevel the node should run.
    pub desired: Option<StorePath>,
    /// The commit of `desired` (short), where known.
    pub desired_revision: Option<String>,
    /// The commit of the running toplevel (short): `desired_revision` where that is what runs, else from the journal.
    pub running_revision: Option<String>,
    /// Differences.
    pub drift: BTreeSet<DriftKind>,
    /// Packages, from what the node runs to `desired`; `None` while they are equal or either closure is not known.
    #[serde(default)]
    pub packages: Option<PackageDiff>,
    /// What was seen.
    pub observation: Option<Arc<Observation>>,
    /// What is being done.
    pub in_flight: Option<InFlight>,
    /// Why it is left alone, where it is, whatever its state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended: Option<NodeSuspension>,
}

impl NodeView {
    /// Suspensions that are written on it.
    pub fn marks(&self) -> &[SuspensionMark] {
        let state = self.observation.as_ref().and_then(|seen| seen.state.as_ref());
        state.map(|state| state.suspended.as_slice()).unwrap_or_default()
    }

    /// What is said beside the state: that people want the node left alone, where that is not what holds it.
    pub fn note(&self) -> &'static str {
        let told = matches!(&self.decision, Decision::Hold { hold: Hold::Suspended { .. } });
        if self.suspended.is_some() && !told { " (suspended)" } else { "" }
    }
}

/// The word for a node's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The node is what Git says.
    InSync,
    /// A deployment is running.
    Switching,
    /// Waits for something; nothing is wrong.
    Held,
    /// Differs, and is not being acted on.
    Drift,
    /// This release's system failed here and the node went back.
    RolledBack,
    /// Needs a person: failed in another way.
    Failed,
    /// Does not answer.
    Unreachable,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::InSync,
        Self::Switching,
        Self::Held,
        Self::Drift,
        Self::RolledBack,
        Self::Failed,
        Self::Unreachable,
    ];

    /// The words in the STATE column.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InSync => "in sync",
            Self::Switching => "switching",
            Self::Held => "held",
            Self::Drift => "drift",
            Self::RolledBack => "rolled back",
            Self::Failed => "failed",
            Self::Unreachable => "unreachable",
        }
    }
}
