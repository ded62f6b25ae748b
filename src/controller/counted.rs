//! Which closed word of the metrics an outcome is counted under.

use crate::model::journal::{Entry, Outcome};
use crate::node::{NodeError, Rebooted};
use crate::serve::metrics::{DeploymentResult, FetchResult, RebootResult};
use crate::source::SourceError;

/// How a fetch is counted that failed.
pub fn fetch(error: &SourceError) -> FetchResult {
    match error {
        SourceError::Refused { .. } => FetchResult::Auth,
        SourceError::Deadline { .. } => FetchResult::Timeout,
        SourceError::Fetch { .. } => FetchResult::Network,
        SourceError::BranchName { .. }
        | SourceError::NoGit { .. }
        | SourceError::NoRepository { .. }
        | SourceError::Empty { .. }
        | SourceError::NoBranch { .. }
        | SourceError::Clone { .. }
        | SourceError::Create { .. }
        | SourceError::Unknown { .. }
        | SourceError::Ambiguous { .. }
        | SourceError::Write { .. }
        | SourceError::Entry { .. }
        | SourceError::Watch { .. }
        | SourceError::Interrupted { .. } => FetchResult::Other,
    }
}

/// How a reboot is counted.
pub fn reboot(outcome: &Result<Rebooted, NodeError>) -> RebootResult {
    match outcome {
        Ok(Rebooted::Back) => RebootResult::Back,
        Ok(Rebooted::NotBack) => RebootResult::NotBack,
        Err(_) => RebootResult::NotTold,
    }
}

/// How a deployment is counted.
pub fn deployment(outcome: &Result<Entry, NodeError>) -> DeploymentResult {
    match outcome {
        Ok(entry) => DeploymentResult::Ended(entry.outcome.unwrap_or(Outcome::Interrupted)),
        Err(NodeError::Copy { .. }) => DeploymentResult::CopyFailed,
        Err(NodeError::Build { .. }) => DeploymentResult::BuildFailed,
        Err(NodeError::Hook { .. }) => DeploymentResult::HookFailed,
        Err(NodeError::Refused { .. }) => DeploymentResult::Refused,
        Err(NodeError::LostTouch { .. }) => DeploymentResult::Lost,
        Err(
            NodeError::Connect { .. }
            | NodeError::Command { .. }
            | NodeError::Disconnected { .. }
            | NodeError::Deadline { .. }
            | NodeError::Frame { .. }
            | NodeError::NoRoot { .. }
            | NodeError::Protocol { .. }
            | NodeError::NotNixos { .. }
            | NodeError::Script { .. }
            | NodeError::NoSpace { .. }
            | NodeError::Secret { .. }
            | NodeError::Runtime { .. },
        ) => DeploymentResult::NotStarted,
    }
}
