//! The closed words by which events are counted, and the meter that times a deployment's phases.
//!
//! Words only: what happened is decided elsewhere and told to [`Metrics`].

use std::sync::Arc;
use std::time::Instant;

use super::Metrics;
use crate::model::journal::{Outcome, Phase};
use crate::model::node::Goal;
use crate::model::observed::Stage;

/// How a fetch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchResult {
    /// The newest commit is known.
    Success,
    /// The repository's host could not be reached.
    Network,
    /// The repository's host refused us.
    Auth,
    /// It took longer than it may.
    Timeout,
    /// Anything else, for example no such branch.
    Other,
}

impl FetchResult {
    /// Every result.
    pub const ALL: [Self; 5] = [Self::Success, Self::Network, Self::Auth, Self::Timeout, Self::Other];

    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Network => "network",
            Self::Auth => "auth",
            Self::Timeout => "timeout",
            Self::Other => "other",
        }
    }
}

/// How the evaluation of one revision ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvaluationResult {
    /// Every node evaluated.
    Success,
    /// Some nodes did not evaluate; the others go on.
    Partial,
    /// The deployment as a whole does not evaluate.
    Failed,
    /// A newer revision made it pointless.
    Superseded,
}

impl EvaluationResult {
    /// Every result.
    pub const ALL: [Self; 4] = [Self::Success, Self::Partial, Self::Failed, Self::Superseded];

    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Partial => "partial",
            Self::Failed => "failed",
            Self::Superseded => "superseded",
        }
    }
}

/// How the build of one node's system ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuildResult {
    /// It is in the store.
    Success,
    /// It does not build.
    Failed,
    /// A newer revision made it pointless.
    Superseded,
}

impl BuildResult {
    /// Every result.
    pub const ALL: [Self; 3] = [Self::Success, Self::Failed, Self::Superseded];

    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Superseded => "superseded",
        }
    }
}

/// What became of a system that was to be signed or pushed to the binary cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublicationResult {
    /// It is.
    Success,
    /// It is not; it is deployed all the same.
    Failed,
}

impl PublicationResult {
    /// Every result.
    pub const ALL: [Self; 2] = [Self::Success, Self::Failed];

    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failed => "failed",
        }
    }
}

/// What came of telling a node to reboot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RebootResult {
    /// It came back.
    Back,
    /// It did not within its time.
    NotBack,
    /// It could not be told.
    NotTold,
}

impl RebootResult {
    /// Every result.
    pub const ALL: [Self; 3] = [Self::Back, Self::NotBack, Self::NotTold];

    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Back => "back",
            Self::NotBack => "not-back",
            Self::NotTold => "not-told",
        }
    }
}

/// How a deployment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeploymentResult {
    /// The node's switch started and ended so.
    Ended(Outcome),
    /// The node could not be reached, or has no room; nothing was changed.
    NotStarted,
    /// The closure did not get there; nothing was changed.
    CopyFailed,
    /// The node did not build its own system; nothing was changed.
    BuildFailed,
    /// A hook before the switch failed; nothing was changed.
    HookFailed,
    /// The node refused the switch: busy, or it no longer ran what was expected.
    Refused,
    /// The connection was lost while the switch ran; the node decides, and its journal will tell.
    Lost,
}

impl DeploymentResult {
    /// Every result.
    pub fn all() -> impl Iterator<Item = Self> {
        let before = [
            Self::NotStarted,
            Self::CopyFailed,
            Self::BuildFailed,
            Self::HookFailed,
            Self::Refused,
            Self::Lost,
        ];
        Outcome::ALL.into_iter().map(Self::Ended).chain(before)
    }

    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ended(outcome) => outcome.as_str(),
            Self::NotStarted => "not-started",
            Self::CopyFailed => "copy-failed",
            Self::BuildFailed => "build-failed",
            Self::HookFailed => "hook-failed",
            Self::Refused => "refused",
            Self::Lost => "lost",
        }
    }
}

/// Every phase whose time is told, in order.
pub(super) const PHASES: [&str; 11] = [
    "preparing",
    "copying",
    "building",
    "hook",
    Phase::Checking.as_str(),
    Phase::Staging.as_str(),
    Phase::Testing.as_str(),
    Phase::Contact.as_str(),
    Phase::Health.as_str(),
    Phase::Committing.as_str(),
    Phase::RollingBack.as_str(),
];

/// The label of a stage; `None` once the switch is over.
fn label(stage: &Stage) -> Option<&'static str> {
    match stage {
        Stage::Preparing => Some("preparing"),
        Stage::Copying { .. } => Some("copying"),
        Stage::Building { .. } => Some("building"),
        Stage::Hook { .. } => Some("hook"),
        Stage::Rebooting | Stage::Switching { phase: Phase::Finished, .. } => None,
        Stage::Switching { phase, .. } => Some(phase.as_str()),
    }
}

/// Follows one deployment: tell it each stage, then the end. It knows no node.
#[derive(Debug)]
pub struct DeploymentMeter {
    metrics: Arc<Metrics>,
    goal: Goal,
    phase: Option<&'static str>,
    since: Instant,
    copied: u64,
}

impl DeploymentMeter {
    /// A deployment begins with its preparation.
    pub fn start(metrics: Arc<Metrics>, goal: Goal) -> Self {
        let phase = label(&Stage::Preparing);
        Self { metrics, goal, phase, since: Instant::now(), copied: 0 }
    }

    /// It is here now; the same stage again only brings the bytes up to date.
    pub fn stage(&mut self, stage: &Stage) {
        if let Stage::Copying { bytes, total: _ } = stage {
            self.metrics.copied_bytes.inc_by(bytes.saturating_sub(self.copied));
            self.copied = self.copied.max(*bytes);
        }
        let next = label(stage);
        if next != self.phase {
            self.leave();
            self.phase = next;
        }
    }

    /// It is over.
    pub fn ended(mut self, result: DeploymentResult) {
        self.leave();
        self.metrics.deployed(self.goal, result);
    }

    fn leave(&mut self) {
        if let Some(phase) = self.phase.take() {
            let took = self.since.elapsed();
            tracing::debug!(phase, ?took, "left");
            self.metrics.phase_seconds.with_label_values(&[phase]).observe(took.as_secs_f64());
        }
        self.since = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployment_counts_its_bytes_once_and_each_phase_once() {
        let metrics = Arc::new(Metrics::new());
        let mut meter = DeploymentMeter::start(Arc::clone(&metrics), Goal::Switch);
        for bytes in [0, 10, 10, 25] {
            meter.stage(&Stage::Copying { bytes, total: 25 });
        }
        for phase in [Phase::Testing, Phase::Contact, Phase::Finished] {
            meter.stage(&Stage::Switching { phase, detail: String::new() });
        }
        meter.ended(DeploymentResult::Ended(Outcome::Succeeded));
        assert_eq!(metrics.copied_bytes.get(), 25);
        let count = |phase| metrics.phase_seconds.with_label_values(&[phase]).get_sample_count();
        assert_eq!(PHASES.map(count), [1, 1, 0, 0, 0, 0, 1, 1, 0, 0, 0]);
        assert_eq!(metrics.deployments.with_label_values(&["switch", "succeeded"]).get(), 1);
    }
}
