//! A decision as people see it: the state word, since when, and why, in one sentence. Decides nothing.
//!
//! Sentences name absolute times only: an unchanged world must give an unchanged picture.

mod why;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::target::{self, Target};
use super::{drift, history, suspended};
use crate::model::decision::{Action, Decision, Hold, Plan};
use crate::model::drift::DriftKind;
use crate::model::intent::Intent;
use crate::model::journal::Outcome;
use crate::model::name::NodeName;
use crate::model::observed::{Contact, NodeState, Observation, Observed};
use crate::model::packages::PackageDiff;
use crate::model::release::{NodeRelease, Release};
use crate::model::revision::CommitId;
use crate::model::snapshot::{NodeView, State};
use crate::model::store_path::StorePath;

/// One pass of the controller: what was known, and what was decided from it.
#[derive(Debug, Clone, Copy)]
pub struct Pass<'a> {
    /// What Git wants.
    pub release: &'a Release,
    /// What the nodes are.
    pub observed: &'a Observed,
    /// What [`super::plan`] made of it.
    pub plan: &'a Plan,
    /// What people want.
    pub intent: &'a Intent,
    /// The time of the pass.
    pub now: Timestamp,
}

/// Every node of the release; `previous` are the views of the pass before.
pub fn node_views(
    pass: Pass<'_>,
    previous: &BTreeMap<NodeName, Arc<NodeView>>,
) -> BTreeMap<NodeName, Arc<NodeView>> {
    let fleet = Fleet::of(pass);
    pass.release
        .nodes
        .iter()
        .filter_map(|(name, node)| {
            let decision = pass.plan.decisions.get(name)?;
            let previous = previous.get(name).map(|view| &**view);
            Some((name.clone(), Arc::new(view(&fleet, name, node, decision, previous))))
        })
        .collect()
}

/// What is found once per pass.
struct Fleet<'a> {
    pass: Pass<'a>,
    incomplete: Option<&'a NodeName>,
    /// Nodes that are switching or about to.
    switching: usize,
}

impl<'a> Fleet<'a> {
    fn of(pass: Pass<'a>) -> Self {
        let acts = pass.plan.decisions.values().filter(|d| matches!(d, Decision::Act { .. })).count();
        Self {
            pass,
            incomplete: target::incomplete(pass.release),
            switching: acts + pass.observed.in_flight.len(),
        }
    }
}

fn view(
    fleet: &Fleet<'_>,
    name: &NodeName,
    node: &NodeRelease,
    decision: &Decision,
    previous: Option<&NodeView>,
) -> NodeView {
    let pass = &fleet.pass;
    let target = target::target(node, fleet.incomplete);
    let desired = target.toplevel;
    let observation = pass.observed.nodes.get(name);
    let state = observation.and_then(|observation| observation.state.as_ref());
    let failing = observation.map_or(&[][..], |observation| &observation.health);
    let drift = observation.and_then(|observation| fresh(observation)).zip(node.spec.as_deref());
    let drift: BTreeSet<DriftKind> =
        drift.map(|(state, spec)| drift::kinds(desired, spec, state, failing)).unwrap_or_default();
    let desired_revision = revision_of(&target, state, pass.release);
    let running_revision = state.and_then(|state| match desired {
        Some(desired) if *desired == state.running => desired_revision.clone(),
        Some(_) | None => history::revision(&state.running, state).map(short),
    });
    let in_flight = pass.observed.in_flight.get(name);
    let marks = state.map(|state| state.suspended.as_slice()).unwrap_or_default();
    let staged = state.and_then(|state| state.staged.as_ref());
    let packages = known_packages(previous, state.map(|state| &state.running), desired);
    let subject = why::Subject {
        name,
        drift: &drift,
        packages,
        in_flight,
        desired,
        staged,
        switching: fleet.switching,
        failing,
    };
    let suspended = suspended::suspended(pass.intent, name, node.spec.as_deref(), marks, pass.now);
    NodeView {
        decision: decision.clone(),
        state: state_word(decision),
        since: since(decision, in_flight.map(|flight| flight.since), previous, pass.now),
        why: match (decision, &suspended) {
            // A node in sync needs no reason, but for this.
            (Decision::InSync, Some(suspension)) => why::suspended(suspension),
            (Decision::InSync | Decision::InFlight | Decision::Act { .. } | Decision::Hold { .. }, _) => {
                why::sentence(decision, &subject)
            }
        },
        spec: node.spec.clone(),
        progress: node.progress.clone(),
        desired: desired.cloned(),
        desired_revision,
        running_revision,
        packages: packages.cloned(),
        drift,
        observation: observation.cloned(),
        in_flight: in_flight.cloned(),
        suspended,
    }
}

/// Package differences are worked out beside the loop; those of the pass before hold while both systems are the same.
fn known_packages<'a>(
    previous: Option<&'a NodeView>,
    running: Option<&StorePath>,
    desired: Option<&StorePath>,
) -> Option<&'a PackageDiff> {
    let previous = previous?;
    let ran = previous.observation.as_ref().and_then(|seen| seen.state.as_ref()).map(|state| &state.running);
    previous.packages.as_ref().filter(|_| ran == running && previous.desired.as_ref() == desired)
}

/// The state, unless it is only remembered: an unreachable node is unreachable, not drifted.
fn fresh(observation: &Observation) -> Option<&NodeState> {
    match observation.contact {
        Contact::Reachable { .. } => observation.state.as_ref(),
        Contact::Unreachable { .. } => None,
    }
}

/// The release's own system is of its commit; an older one is of the commit that the node remembers for it.
fn revision_of(target: &Target<'_>, state: Option<&NodeState>, release: &Release) -> Option<String> {
    let toplevel = target.toplevel?;
    match (&release.revision, &target.waits) {
        (Some(revision), None) => Some(revision.commit.short().to_owned()),
        (Some(_) | None, _) => state.and_then(|state| history::revision(toplevel, state)).map(short),
    }
}

/// Journals hold whole commit ids; what is not one (a person's own word) is kept as it is.
fn short(revision: &str) -> String {
    revision.parse::<CommitId>().map_or_else(|_| revision.to_owned(), |commit| commit.short().to_owned())
}

/// Kept while the decision is of the same kind; where the world knows better than our last pass, from there.
fn since(
    decision: &Decision,
    in_flight: Option<Timestamp>,
    previous: Option<&NodeView>,
    now: Timestamp,
) -> Timestamp {
    match (decision, in_flight) {
        (Decision::InFlight, Some(since)) => since,
        (Decision::Hold { hold: Hold::Unreachable { since, .. } }, _) => *since,
        (
            Decision::InFlight | Decision::InSync | Decision::Act { .. } | Decision::Hold { .. },
            Some(_) | None,
        ) => previous
            .filter(|previous| previous.decision.as_str() == decision.as_str())
            .map_or(now, |previous| previous.since),
    }
}

/// The word in the STATE column.
pub fn state_word(decision: &Decision) -> State {
    match decision {
        Decision::InSync => State::InSync,
        Decision::InFlight
        | Decision::Act { action: Action::Deploy { .. } | Action::Attach { .. } | Action::Reboot { .. } } => {
            State::Switching
        }
        Decision::Hold { hold } => match hold {
            Hold::NoHost
            | Hold::NotObserved
            | Hold::Suspended { .. }
            | Hold::Pinned { .. }
            | Hold::Evaluating
            | Hold::Building
            | Hold::ReleaseIncomplete { .. }
            | Hold::Backoff { .. }
            | Hold::AwaitingReboot
            | Hold::Wave { .. }
            | Hold::Soak { .. }
            | Hold::Halted { .. }
            | Hold::Approval { .. }
            | Hold::Window { .. }
            | Hold::After { .. }
            | Hold::Unavailable { .. }
            | Hold::WaveLimit { .. }
            | Hold::Unseen { .. }
            | Hold::RebootTurn { .. }
            | Hold::InFlightLimit { .. } => State::Held,
            Hold::Unreachable { .. } => State::Unreachable,
            Hold::Busy { .. } | Hold::Rebooting { .. } => State::Switching,
            Hold::ReportOnly
            | Hold::HealDelay { .. }
            | Hold::Elsewhere { .. }
            | Hold::RebootRequired
            | Hold::Degraded { .. } => State::Drift,
            Hold::HooksRefused { .. } | Hold::HookFailed { .. } => State::Failed,
            Hold::RebootOverdue { .. } | Hold::RebootFailed { .. } => State::Failed,
            Hold::WrongMachine { .. } | Hold::NotEvaluated { .. } | Hold::NotBuilt { .. } => State::Failed,
            Hold::GivenUp { outcome, .. } => match outcome {
                Outcome::RolledBack | Outcome::CommitFailed => State::RolledBack,
                Outcome::RollbackFailed
                | Outcome::Succeeded
                | Outcome::Staged
                | Outcome::Interfered
                | Outcome::Interrupted => State::Failed,
            },
        },
    }
}
