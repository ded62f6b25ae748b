//! The drift report: which nodes are not what Git says, how, since when, and what happens next.
//!
//! Made from one snapshot and nothing else: it never touches a node. `text`, `markdown` and `json` only print it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;

use crate::model::decision::{Action, Decision, Hold};
use crate::model::drift::DriftKind;
use crate::model::health::FailingCheck;
use crate::model::intent::DEPLOYMENT;
use crate::model::journal::{Cause, PinEnd};
use crate::model::name::NodeName;
use crate::model::packages::PackageDiff;
use crate::model::revision::Revision;
use crate::model::snapshot::{Blocked, NodeView, Snapshot, State};
pub(crate) use crate::model::spoken::clock;
use crate::model::store_path::StorePath;

pub mod json;
pub mod markdown;
pub mod text;

/// The report over one snapshot.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// When the world looked so.
    pub at: Timestamp,
    /// The commit that is in force; `None` for a deployment from a file.
    pub revision: Option<Revision>,
    /// Why a newer commit is not in force.
    pub blocked: Option<Blocked>,
    /// How many nodes are how.
    pub summary: Summary,
    /// Every node that differs or is not known.
    pub nodes: BTreeMap<NodeName, NodeReport>,
}

/// How many nodes are how.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// All of them.
    pub nodes: usize,
    /// Are what Git says, or are declared never to be deployed.
    pub settled: usize,
    /// Nodes that have each kind of drift; a node can have several.
    pub kinds: BTreeMap<DriftKind, usize>,
    /// Do not answer: what they run is not known.
    pub unreachable: usize,
}

/// One node that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeReport {
    /// The word for its state.
    pub state: State,
    /// The kinds of drift; empty where the node itself is fine and, for example, its new system does not build.
    pub kinds: BTreeSet<DriftKind>,
    /// Since when.
    pub since: Timestamp,
    /// What it should run.
    pub desired: Option<Side>,
    /// What it runs, or ran when it was last seen.
    pub running: Option<Side>,
    /// What a deployment would change: from running to desired.
    pub packages: Option<PackageDiff>,
    /// Units that have failed.
    pub failed_units: Vec<String>,
    /// Health checks that fail, and what they say.
    pub failing_checks: Vec<FailingCheck>,
    /// The reason, one sentence.
    pub why: String,
    /// What happens next, one sentence.
    pub next: String,
}

/// One of the two systems that are compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Side {
    /// The system.
    pub toplevel: StorePath,
    /// Its commit (short), where known.
    pub revision: Option<String>,
}

impl Report {
    /// Reads the report out of a snapshot.
    pub fn of(snapshot: &Snapshot) -> Self {
        let mut summary = Summary { nodes: snapshot.nodes.len(), ..Summary::default() };
        let mut nodes = BTreeMap::new();
        for (name, view) in &snapshot.nodes {
            if is_settled(view) {
                summary.settled += 1;
                continue;
            }
            for kind in &view.drift {
                *summary.kinds.entry(*kind).or_default() += 1;
            }
            if view.state == State::Unreachable {
                summary.unreachable += 1;
            }
            nodes.insert(name.clone(), NodeReport::of(name, view));
        }
        Self {
            at: snapshot.at,
            revision: snapshot.source.last_good.clone(),
            blocked: snapshot.source.blocked.clone(),
            summary,
            nodes,
        }
    }

    /// The report in one sentence.
    pub fn sentence(&self) -> String {
        let summary = &self.summary;
        if summary.nodes == 0 {
            return "The fleet has no nodes.".into();
        }
        if self.nodes.is_empty() {
            return format!("Nothing to report: {} what Git says.", are(summary.nodes));
        }
        let mut counts: Vec<String> =
            summary.kinds.iter().map(|(kind, count)| format!("{count} {}", kind.as_str())).collect();
        if summary.unreachable > 0 {
            counts.push(format!("{} unreachable", summary.unreachable));
        }
        let counts = if counts.is_empty() { String::new() } else { format!(" ({})", counts.join(", ")) };
        format!("{} of {} {} not what Git says{counts}.", self.nodes.len(), plural(summary.nodes), {
            if self.nodes.len() == 1 { "is" } else { "are" }
        })
    }
}

fn plural(nodes: usize) -> String {
    if nodes == 1 { "1 node".into() } else { format!("{nodes} nodes") }
}

fn are(nodes: usize) -> String {
    if nodes == 1 { "the one node is".into() } else { format!("all {nodes} nodes are") }
}

/// Whether a node has nothing to be reported.
fn is_settled(view: &NodeView) -> bool {
    match &view.decision {
        Decision::Hold { hold: Hold::NoHost } => true,
        Decision::InSync => view.drift.is_empty(),
        Decision::InFlight | Decision::Act { .. } | Decision::Hold { .. } => false,
    }
}

impl NodeReport {
    fn of(name: &NodeName, view: &NodeView) -> Self {
        let state = view.observation.as_ref().and_then(|seen| seen.state.as_ref());
        let side = |toplevel: &StorePath, revision: &Option<String>| Side {
            toplevel: toplevel.clone(),
            revision: revision.clone().filter(|revision| revision != "-"),
        };
        // The time at which the node became what it is tells more than the time of the newest decision about it.
        let seen_since = view.observation.as_ref().and_then(|seen| seen.state_since);
        let since = if view.drift.contains(&DriftKind::Diverged) { seen_since } else { None };
        Self {
            state: view.state,
            kinds: view.drift.clone(),
            since: since.unwrap_or(view.since),
            desired: view.desired.as_ref().map(|toplevel| side(toplevel, &view.desired_revision)),
            running: state.map(|state| side(&state.running, &view.running_revision)),
            packages: view.packages.clone(),
            failed_units: state.map(|state| state.failed_units.clone()).unwrap_or_default(),
            failing_checks: view.observation.as_ref().map(|seen| seen.health.clone()).unwrap_or_default(),
            why: view.why.clone(),
            next: next(name, &view.decision),
        }
    }

    /// The packages, in the direction that explains the node, and the words for that direction.
    ///
    /// Where somebody changed the node, the reader asks what they did; otherwise, what a deployment will bring.
    pub fn explained(&self) -> Option<(&'static str, PackageDiff)> {
        let packages = self.packages.as_ref().filter(|diff| !diff.is_empty())?;
        Some(if self.kinds.contains(&DriftKind::Diverged) {
            ("changed on the node", packages.reversed())
        } else {
            ("a deployment changes", packages.clone())
        })
    }

    /// The kinds as words, or the state where the node itself does not differ.
    pub fn kind_words(&self) -> String {
        if self.kinds.is_empty() {
            return self.state.as_str().into();
        }
        self.kinds.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(", ")
    }
}

/// What happens next to a node, one sentence. What a person has to do is named as a command.
fn next(name: &NodeName, decision: &Decision) -> String {
    match decision {
        Decision::InSync => "Nothing: it runs what Git says.".into(),
        Decision::InFlight => "A deployment to it is running.".into(),
        Decision::Act { action: Action::Deploy { .. } } => "It is deployed in the next pass.".into(),
        Decision::Act { action: Action::Attach { .. } } => "Its running switch is judged.".into(),
        Decision::Act { action: Action::Reboot { .. } } => "It is rebooted in the next pass.".into(),
        Decision::Hold { hold } => after_hold(name, hold),
    }
}

fn after_hold(name: &NodeName, hold: &Hold) -> String {
    match hold {
        Hold::NoHost => "Nothing: it has no host.".into(),
        Hold::NotObserved => "It is looked at for the first time.".into(),
        Hold::Unreachable { .. } => "It is tried again at every look and catches up when it answers.".into(),
        Hold::WrongMachine { .. } => "Nothing until `machineId` or `host` in the deployment is right.".into(),
        Hold::Suspended { by, .. } if by == DEPLOYMENT => {
            "Nothing until it is declared without `suspended`.".into()
        }
        Hold::Suspended { until: Some(until), .. } => {
            format!("It goes on at {}, or after `driftless resume {name}`.", clock(*until))
        }
        Hold::Suspended { until: None, .. } => format!("Nothing until `driftless resume {name}`."),
        Hold::Approval { hash, .. } => format!("It goes on after `driftless approve --hash {hash}`."),
        Hold::Pinned { until, .. } => match until {
            PinEnd::At(at) => format!("The controller takes over again at {}.", clock(*at)),
            PinEnd::NextRelease(_) => "The controller takes over again with the next revision.".into(),
        },
        Hold::Evaluating => "It goes on when its system is evaluated.".into(),
        Hold::NotEvaluated { .. } => "It keeps its last good system until a commit evaluates.".into(),
        Hold::Building => "It goes on when its system is built.".into(),
        Hold::NotBuilt { .. } => "It keeps its last good system until a commit builds.".into(),
        Hold::ReleaseIncomplete { node } => {
            format!("It waits for the system of {node} (`rollout.requireAll`).")
        }
        Hold::GivenUp { cause: Some(Cause::NeedsReboot), .. } => {
            format!("`driftless deploy --on {name} --goal boot` and a reboot install it.")
        }
        Hold::GivenUp { cause: Some(Cause::UnprovenBoot), .. } => {
            format!("`driftless deploy --on {name} --goal boot --unproven` installs it without proof.")
        }
        Hold::GivenUp { .. } => format!("It is retried on a new commit or `driftless retry {name}`."),
        Hold::Backoff { until, .. } => format!("It is tried again at {}.", clock(*until)),
        Hold::Busy { .. } => "It goes on when the other switch has ended.".into(),
        Hold::ReportOnly => {
            format!("Nothing (`onDrift = \"report\"`); `driftless deploy --on {name}` brings it back.")
        }
        Hold::HealDelay { until } => format!("It is healed at {}.", clock(*until)),
        Hold::Wave { waits_for, .. } => format!("Its turn comes when wave {waits_for} is done."),
        Hold::Soak { until, .. } => {
            format!("Its turn comes at {}, if the wave before is well until then.", clock(*until))
        }
        Hold::Halted { node, .. } => format!(
            "Nothing until a new commit, `driftless retry {node}`, or `driftless suspend {node}` to go on without it."
        ),
        Hold::Window { until: Some(until), .. } => format!("It is looked at again at {}.", clock(*until)),
        Hold::Window { until: None, .. } => "Nothing while the deployment's windows stay shut.".into(),
        Hold::After { node } => format!("Its turn comes after {node}."),
        Hold::Unseen { node } => format!("It goes on when {node} was looked at."),
        Hold::Unavailable { .. } | Hold::WaveLimit { .. } | Hold::RebootTurn { .. } => {
            "Its turn comes when another node of its wave is done.".into()
        }
        Hold::Rebooting { until } => format!("It is to be back by {}.", clock(*until)),
        Hold::RebootOverdue { .. } => "Somebody has to look at it; it is not rebooted again.".into(),
        Hold::RebootFailed { .. } => {
            format!("It is not rebooted again before a new system or `driftless retry {name}`.")
        }
        Hold::InFlightLimit { .. } => "Its turn comes when another node is done.".into(),
        Hold::Elsewhere { .. } => {
            "Nothing until it answers where it is declared; until then it is worked on where it is.".into()
        }
        Hold::AwaitingReboot => {
            "The next reboot boots it once; it becomes the boot default when it has proven itself.".into()
        }
        Hold::HooksRefused { .. } => format!(
            "Nothing until source.hooks = \"run\" in driftless.toml; `driftless deploy --on {name}` does it by hand."
        ),
        Hold::HookFailed { .. } => {
            format!("Hooks are not run again for the same system; `driftless retry {name}` ends this.")
        }
        Hold::RebootRequired => "It is what Git says after a reboot.".into(),
        Hold::Degraded { .. } => format!("Nothing by itself; see `driftless ssh {name}`."),
    }
}

#[cfg(test)]
mod tests;
