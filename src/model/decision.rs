//! The one decision per node and pass: in sync, in flight, act, or hold with a typed reason.
//!
//! The CLI table, the JSON, the metric, the status page and the test expectation are this same value.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::intent::PlanHash;
use super::journal::{Cause, Outcome, PinEnd, SwitchId};
use super::name::NodeName;
use super::progress::WaveView;

pub use super::action::{Action, Purpose};

/// What to do about every node of the fleet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// One decision for each node of the release.
    pub decisions: BTreeMap<NodeName, Decision>,
    /// How far the release is, wave by wave.
    #[serde(default)]
    pub waves: Vec<WaveView>,
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
        /// Who said so.
        by: String,
        /// Why.
        reason: String,
        /// Until when; `None`: until somebody says so.
        until: Option<Timestamp>,
    },
    /// A person must say that it may go on.
    Approval {
        /// With what, for people, for example `wave 2 of 3f9c2e1`.
        what: String,
        /// With exactly what.
        hash: PlanHash,
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
    /// Its wave has not begun: one before it is not done.
    Wave {
        /// Its own, counted from 1.
        wave: usize,
        /// The one it waits for.
        waits_for: usize,
        /// The first node there that is not done.
        node: NodeName,
    },
    /// Its wave begins when the one before it has been well for long enough.
    Soak {
        /// The one before it, counted from 1.
        wave: usize,
        /// When.
        until: Timestamp,
    },
    /// The release failed on too many nodes.
    Halted {
        /// In which wave, counted from 1.
        wave: usize,
        /// The first of them.
        node: NodeName,
        /// What became of it.
        why: String,
    },
    /// A node on which the release may have failed was not looked at yet, since the controller started.
    Unseen {
        /// Which.
        node: NodeName,
    },
    /// A calendar says not now.
    Window {
        /// Which window.
        by: String,
        /// When that changes.
        until: Option<Timestamp>,
    },
    /// `after`: another node goes first.
    After {
        /// Which.
        node: NodeName,
    },
    /// `maxUnavailable`: enough nodes of its wave are worked on, silent or not well.
    Unavailable {
        /// Its wave, counted from 1.
        wave: usize,
        /// So many may be.
        limit: usize,
    },
    /// `maxInFlight` of its wave.
    WaveLimit {
        /// Its wave, counted from 1.
        wave: usize,
        /// So many may be worked on.
        limit: u32,
    },
    /// It was told to reboot, and has until then to come back.
    Rebooting {
        /// When it is overdue.
        until: Timestamp,
    },
    /// It was told to reboot and has not come back.
    RebootOverdue {
        /// Since when it should be back.
        since: Timestamp,
        /// The last error.
        error: String,
    },
    /// It was told to reboot, and came to nothing; not tried again before a person says so or there is a new system.
    RebootFailed {
        /// What came of it.
        error: String,
    },
    /// Another node of its wave reboots.
    RebootTurn {
        /// Which.
        node: NodeName,
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
    /// Right system, but units have failed since its switch, or health checks fail.
    Degraded {
        /// Which units.
        units: Vec<String>,
        /// Which checks: kind and name.
        #[serde(default)]
        checks: Vec<String>,
    },
}

impl Hold {
    /// Every reason's word, for metrics that must exist at 0.
    pub const REASONS: [&'static str; 36] = [
        "no-host",
        "not-observed",
        "unreachable",
        "wrong-machine",
        "suspended",
        "approval",
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
        "wave",
        "soak",
        "halted",
        "unseen",
        "window",
        "after",
        "unavailable",
        "wave-limit",
        "rebooting",
        "reboot-overdue",
        "reboot-failed",
        "reboot-turn",
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
            Self::Approval { .. } => "approval",
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
            Self::Wave { .. } => "wave",
            Self::Soak { .. } => "soak",
            Self::Halted { .. } => "halted",
            Self::Unseen { .. } => "unseen",
            Self::Window { .. } => "window",
            Self::After { .. } => "after",
            Self::Unavailable { .. } => "unavailable",
            Self::WaveLimit { .. } => "wave-limit",
            Self::Rebooting { .. } => "rebooting",
            Self::RebootOverdue { .. } => "reboot-overdue",
            Self::RebootFailed { .. } => "reboot-failed",
            Self::RebootTurn { .. } => "reboot-turn",
            Self::InFlightLimit { .. } => "in-flight-limit",
            Self::Elsewhere { .. } => "elsewhere",
            Self::AwaitingReboot => "awaiting-reboot",
            Self::HookFailed { .. } => "hook-failed",
            Self::RebootRequired => "reboot-required",
            Self::Degraded { .. } => "degraded",
        }
    }
}
