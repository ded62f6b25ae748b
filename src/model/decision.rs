//! The one decision per node and pass: in sync, in flight, act, or hold with a typed reason.
//!
//! The CLI table, the JSON, the metric, the status page and the test expectation are this same value.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::journal::{Cause, Outcome, PinEnd, SwitchId};
use super::name::NodeName;
use super::node::Goal;
use super::store_path::StorePath;

/// What to do about every node of the fleet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// One decision for each node of the release.
    pub decisions: BTreeMap<NodeName, Decision>,
    /// The next time at which this plan could differ without anything else changing (a backoff or a pin ends).
    pub look_again_at: Option<Timestamp>,
}

/// What to do about one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "decision")]
pub enum Decision {
    /// The node is what Git says.
    InSync,
    /// Something of this controller is running on it.
    InFlight,
    /// Do this now.
    Act {
        /// What.
        action: Action,
    },
    /// Nothing now, and why.
    Hold {
        /// Why.
        hold: Hold,
    },
}

impl Decision {
    /// The word of its kind: a hold's is the hold's own.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::InSync => "in-sync",
            Self::InFlight => "in-flight",
            Self::Act { .. } => "act",
            Self::Hold { hold } => hold.as_str(),
        }
    }
}

impl From<Hold> for Decision {
    fn from(hold: Hold) -> Self {
        Self::Hold { hold }
    }
}

impl From<Action> for Decision {
    fn from(action: Action) -> Self {
        Self::Act { action }
    }
}

/// What an executor does, with no choice left to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "action")]
pub enum Action {
    /// Copy the closure and switch.
    Deploy {
        /// What to install.
        toplevel: StorePath,
        /// What the node must still run when the switch starts (compare and set).
        expected: StorePath,
        /// How.
        goal: Goal,
    },
    /// Watch a switch that an earlier controller started, and give its verdict.
    Attach {
        /// The switch.
        id: SwitchId,
        /// What it installs.
        toplevel: StorePath,
    },
}

impl Action {
    /// The system that it is about.
    pub fn toplevel(&self) -> &StorePath {
        match self {
            Self::Deploy { toplevel, .. } | Self::Attach { toplevel, .. } => toplevel,
        }
    }
}

/// Why a node is not acted on now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Hold {
    /// `host = null`: declared, never deployed.
    NoHost,
    /// Nothing is known of it yet.
    NotObserved,
    /// It does not answer.
    Unreachable {
        /// Since when.
        since: Timestamp,
        /// The last error.
        error: String,
    },
    /// It is not the machine that the deployment names.
    WrongMachine {
        /// `machineId` of the deployment.
        expected: String,
        /// `/etc/machine-id` of the node.
        found: String,
    },
    /// Suspended, in Git or by a person.
    Suspended {
        /// Why.
        reason: String,
    },
    /// A person deployed or rolled back by hand.
    Pinned {
        /// Who.
        by: String,
        /// Why.
        reason: String,
        /// Until when.
        until: PinEnd,
    },
    /// It has hooks, and this controller may not run any.
    HooksRefused {
        /// Their names.
        hooks: Vec<String>,
    },
    /// Its system is being evaluated.
    Evaluating,
    /// Its system does not evaluate.
    NotEvaluated {
        /// Nix's message.
        error: String,
    },
    /// Its system is being built.
    Building,
    /// Its system does not build.
    NotBuilt {
        /// Tail of the build log.
        error: String,
    },
    /// `rollout.requireAll`: another node's system is missing.
    ReleaseIncomplete {
        /// The first such node.
        node: NodeName,
    },
    /// This toplevel failed here in a way that would repeat itself.
    GivenUp {
        /// The switch that failed.
        id: SwitchId,
        /// How it ended.
        outcome: Outcome,
        /// Why.
        cause: Option<Cause>,
        /// Detail from the node.
        detail: String,
    },
    /// An attempt failed in a way that may pass.
    Backoff {
        /// When it is tried again.
        until: Timestamp,
        /// How often it failed in a row.
        failures: u32,
        /// The last error.
        error: String,
    },
    /// A switch that is not ours is running on the node.
    Busy {
        /// That switch.
        id: SwitchId,
        /// Who asked for it.
        asker: String,
    },
    /// Drifted, and `onDrift = "report"`.
    ReportOnly,
    /// The node left the system that was installed last, which only a person does; it is healed after `healAfter`.
    HealDelay {
        /// When.
        until: Timestamp,
    },
    /// Enough nodes are switching already.
    InFlightLimit {
        /// `rollout.maxInFlight`.
        limit: u32,
    },
    /// Right system, but it answers only where it was declared before.
    Elsewhere {
        /// Where.
        at: String,
        /// Why not where it is declared.
        error: String,
    },
    /// The next boot starts the right system, once: it becomes the default when it has proven itself then.
    AwaitingReboot,
    /// Right system, but a hook after its switch failed.
    HookFailed {
        /// Which, and what it said.
        error: String,
    },
    /// Right system, but only a reboot starts it or its kernel.
    RebootRequired,
    /// Right system, but units have failed.
    Degraded {
        /// Which.
        units: Vec<String>,
    },
}

impl Hold {
    /// Every reason's word, for metrics that must exist at 0.
    pub const REASONS: [&'static str; 23] = [
        "no-host",
        "not-observed",
        "unreachable",
        "wrong-machine",
        "suspended",
        "pinned",
        "hooks-refused",
        "evaluating",
        "not-evaluated",
        "building",
        "not-built",
        "release-incomplete",
        "given-up",
        "backoff",
        "busy",
        "report-only",
        "heal-delay",
        "in-flight-limit",
        "elsewhere",
        "awaiting-reboot",
        "hook-failed",
        "reboot-required",
        "degraded",
    ];
}

impl Hold {
    /// The word of the JSON and the metric label.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::NoHost => "no-host",
            Self::NotObserved => "not-observed",
            Self::Unreachable { .. } => "unreachable",
            Self::WrongMachine { .. } => "wrong-machine",
            Self::Suspended { .. } => "suspended",
            Self::Pinned { .. } => "pinned",
            Self::HooksRefused { .. } => "hooks-refused",
            Self::Evaluating => "evaluating",
            Self::NotEvaluated { .. } => "not-evaluated",
            Self::Building => "building",
            Self::NotBuilt { .. } => "not-built",
            Self::ReleaseIncomplete { .. } => "release-incomplete",
            Self::GivenUp { .. } => "given-up",
            Self::Backoff { .. } => "backoff",
            Self::Busy { .. } => "busy",
            Self::ReportOnly => "report-only",
            Self::HealDelay { .. } => "heal-delay",
            Self::InFlightLimit { .. } => "in-flight-limit",
            Self::Elsewhere { .. } => "elsewhere",
            Self::AwaitingReboot => "awaiting-reboot",
            Self::HookFailed { .. } => "hook-failed",
            Self::RebootRequired => "reboot-required",
            Self::Degraded { .. } => "degraded",
        }
    }
}
