//! How far a release is, wave by wave: for people, and worked out with the decisions.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::intent::PlanHash;
use super::name::NodeName;
use super::selector::Selector;

/// One wave of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WaveView {
    /// Which nodes it declares.
    pub on: Selector,
    /// So many nodes it has.
    pub nodes: usize,
    /// So many of them have the release.
    pub done: usize,
    /// Those on which it failed.
    pub failed: Vec<NodeName>,
    /// Where it stands.
    pub phase: WavePhase,
}

/// Where a wave stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "phase")]
pub enum WavePhase {
    /// One before it is not done.
    Waiting,
    /// A person must approve it.
    Approval {
        /// What exactly; `None` while its systems are not known yet.
        hash: Option<PlanHash>,
    },
    /// Its nodes get the release.
    Running,
    /// Its nodes have the release, and must be well for a while.
    Soaking {
        /// Until then.
        until: Timestamp,
    },
    /// Its nodes have the release, as far as they can.
    Done,
    /// The release failed on too many of its nodes.
    Halted,
}

impl WavePhase {
    /// Every phase's word, for metrics that must exist at 0.
    pub const WORDS: [&'static str; 6] = ["waiting", "approval", "running", "soaking", "done", "halted"];

    /// The word of the JSON and the metric label.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Approval { .. } => "approval",
            Self::Running => "running",
            Self::Soaking { .. } => "soaking",
            Self::Done => "done",
            Self::Halted => "halted",
        }
    }
}
