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

/// How far a rollout is, in one sentence; `None` where there is nothing to tell: one wave, and nothing that holds it up.
pub fn sentence(waves: &[WaveView]) -> Option<String> {
    let all = waves.len();
    let (number, wave) = waves.iter().enumerate().find(|(_, wave)| wave.phase != WavePhase::Done)?;
    let number = number + 1;
    let done = format!("{} of {} nodes have it", wave.done, wave.nodes);
    match &wave.phase {
        WavePhase::Done | WavePhase::Waiting => None,
        WavePhase::Running if all == 1 => None,
        WavePhase::Running => Some(format!("wave {number} of {all}, {done}")),
        // There is nothing behind the last one that would wait for it.
        WavePhase::Soaking { .. } if number == all => None,
        WavePhase::Soaking { until } => {
            Some(format!("wave {number} of {all} must be well until {}", until.strftime("%H:%M:%S UTC")))
        }
        WavePhase::Approval { .. } => Some(format!("wave {number} of {all} waits for `driftless approve`")),
        WavePhase::Halted => {
            let names: Vec<&str> = wave.failed.iter().map(NodeName::as_str).collect();
            Some(format!("halted in wave {number} of {all} by {}", names.join(", ")))
        }
    }
}

/// The word for where a whole rollout stands: that of the first wave that is not done.
pub fn word(waves: &[WaveView]) -> &'static str {
    let phases = waves.iter().map(|wave| &wave.phase);
    phases.into_iter().find(|phase| **phase != WavePhase::Done).unwrap_or(&WavePhase::Done).as_str()
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
