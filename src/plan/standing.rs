//! Where one node stands with the release: what those who wait for it need to know. Said by facts alone (what runs, the
//! node's journal, what was begun), so that a restart or a lost state changes nothing.

use jiff::Timestamp;

use super::plan_time::PlanTime;
use super::{CONTROLLER, drift, history, reboots, suspended};
use crate::model::decision::{Decision, Hold};
use crate::model::intent::Intent;
use crate::model::journal::{Entry, PinEnd};
use crate::model::name::NodeName;
use crate::model::node::{Availability, NodeSpec};
use crate::model::observed::{Begun, BegunWhat, Contact, FirstLook, NodeState, Observation, Observed};
use crate::model::release::{NodeRelease, Progress, Release};
use crate::model::rollout::Unreachable;
use crate::model::store_path::StorePath;

/// Where a node stands with the release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It has the release, or had it before somebody took it away.
    Done {
        /// Since when, by our clock; `None` where no switch brought it, or no wave soaks: then nobody asks.
        since: Option<Timestamp>,
    },
    /// It got the release, and is not well since.
    Unwell,
    /// The release failed on it.
    Failed {
        /// What became of it.
        why: String,
    },
    /// It will get the release.
    Open,
    /// Nobody waits for it.
    Passed,
}

/// A node of a release, as those see it who wait for it.
#[derive(Debug)]
pub struct Member<'a> {
    /// Its name.
    pub name: &'a NodeName,
    /// Where it stands.
    pub standing: Standing,
    /// Nobody has looked at it since the controller started: the release may have failed on it.
    pub unseen: bool,
    /// It does not do its work now.
    pub is_down: bool,
}

/// A node of a release, as those see it who wait for it. `decision` is what would be done about it by itself.
pub fn member<'a>(
    release: &Release,
    facts: (&Observed, &Intent, &PlanTime),
    (name, node): (&'a NodeName, &NodeRelease),
    observation: Option<&Observation>,
    decision: &Decision,
) -> Member<'a> {
    let (observed, ..) = facts;
    let known = observation.is_some() || observed.in_flight.contains_key(name);
    let unseen = !known && may_be_seen(node, observed.first_look);
    let is_down = node.spec.as_deref().is_some_and(|spec| is_down(spec, observation));
    Member { name, standing: standing(release, facts, (name, node), observation, decision), unseen, is_down }
}

/// Whether a node does not do its work now. One whose silence is ordinary does. One that nobody has looked at yet may be down:
/// a controller that has just begun does not take the others away before it knows.
fn is_down(spec: &NodeSpec, seen: Option<&Observation>) -> bool {
    if spec.host.is_none() {
        return false;
    }
    let answers = seen.filter(|seen| seen.contact.is_reachable());
    match (answers.and_then(|seen| Some((seen, seen.state.as_ref()?))), spec.availability) {
        (Some((seen, state)), _) => state.live_switch().is_some() || drift::is_degraded(spec, seen, state),
        (None, Availability::Always) => true,
        (None, Availability::Intermittent) => false,
    }
}

/// Whether it will be looked at soon. Of a node that is declared anew nobody need know before its declaration; while the
/// controller has not looked at all of them once, it may be one that had the release.
fn may_be_seen(node: &NodeRelease, first_look: FirstLook) -> bool {
    match (&node.spec, &node.progress, first_look) {
        (Some(spec), ..) => spec.host.is_some(),
        (None, Progress::Evaluating, FirstLook::Open) => true,
        (
            None,
            Progress::Evaluating
            | Progress::NotEvaluated { .. }
            | Progress::Building
            | Progress::NotBuilt { .. }
            | Progress::Built,
            FirstLook::Open | FirstLook::Over,
        ) => false,
    }
}

fn standing(
    release: &Release,
    (observed, intent, time): (&Observed, &Intent, &PlanTime),
    (name, node): (&NodeName, &NodeRelease),
    observation: Option<&Observation>,
    decision: &Decision,
) -> Standing {
    let stands = by_facts(release, observed, (name, node), observation, decision);
    match stands {
        Standing::Done { .. } | Standing::Passed => stands,
        Standing::Unwell | Standing::Failed { .. } | Standing::Open => {
            let marks =
                observation.and_then(|seen| seen.state.as_ref()).map_or(&[][..], |state| &state.suspended);
            let spec = node.spec.as_deref();
            let worked_on = observed.in_flight.contains_key(name);
            match suspended::suspended(intent, name, spec, marks, time.now()) {
                // Somebody has said that it is to be left alone: then nobody waits for it either.
                Some(suspension) if !worked_on => {
                    suspension.until.into_iter().for_each(|until| time.look_again(until));
                    Standing::Passed
                }
                Some(_) | None => stands,
            }
        }
    }
}

fn by_facts(
    release: &Release,
    observed: &Observed,
    (name, node): (&NodeName, &NodeRelease),
    observation: Option<&Observation>,
    decision: &Decision,
) -> Standing {
    let Some(spec) = node.spec.as_deref() else {
        return match node.progress {
            Progress::NotEvaluated { .. } => Standing::Passed,
            Progress::Evaluating | Progress::Building | Progress::NotBuilt { .. } | Progress::Built => {
                Standing::Open
            }
        };
    };
    match node.progress {
        Progress::Evaluating => return Standing::Open,
        // It keeps its last good system, whoever gets the new one.
        Progress::NotEvaluated { .. } | Progress::NotBuilt { .. } => return Standing::Passed,
        Progress::Building | Progress::Built => {}
    }
    if spec.host.is_none() {
        return Standing::Passed;
    }
    let kept = observation.and_then(|seen| seen.state.as_ref());
    if observed.in_flight.contains_key(name) {
        // Also while it is taken back for that: or it would be brought the release again.
        let failed = kept.and_then(|state| reboots::failed(&spec.toplevel, state));
        return failed.map_or(Standing::Open, |why| Standing::Failed { why });
    }
    let answers = observation.is_some_and(|seen| seen.contact.is_reachable());
    let state = observation.and_then(|seen| seen.state.as_ref());
    let begun = observed.begun.get(name).filter(|begun| begun.toplevel == spec.toplevel);
    match (observation, state) {
        (Some(seen), Some(state)) if answers => {
            answering(release, (spec, &node.progress), (seen, state), decision)
        }
        (Some(seen), kept) if !answers => silent(release, spec, (seen, kept), begun),
        // Not looked at yet.
        (Some(_) | None, _) => Standing::Open,
    }
}

fn answering(
    release: &Release,
    (spec, progress): (&NodeSpec, &Progress),
    (seen, state): (&Observation, &NodeState),
    decision: &Decision,
) -> Standing {
    let toplevel = &spec.toplevel;
    // Before its own system is ready, what is decided is about its last good one.
    let own = *progress == Progress::Built;
    if let Decision::Hold { hold: Hold::WrongMachine { .. } } = decision {
        return Standing::Passed;
    }
    if state.live_switch().is_some() {
        return Standing::Open;
    }
    let at = contact_time(seen);
    if drift::is_installed(toplevel, spec.goal, state) {
        if let (Decision::Hold { hold: Hold::RebootFailed { error } }, true) = (decision, own) {
            return Standing::Failed { why: error.clone() };
        }
        let brought_by = |entry: &Entry| is_of(release, entry);
        if drift::is_degraded(spec, seen, state)
            && history::newest_success(toplevel, state).is_some_and(brought_by)
        {
            return Standing::Unwell;
        }
        return done(release, toplevel, state, at);
    }
    if let Some(entry) = history::given_up(&history::failures(toplevel, state)) {
        return Standing::Failed { why: what_became(entry) };
    }
    if let Some(why) = reboots::failed(toplevel, state) {
        return Standing::Failed { why };
    }
    if let Decision::Hold { hold } = decision
        && let Some(standing) = by_hold(hold, spec, state)
        && (own || !matches!(standing, Standing::Failed { .. }))
    {
        return standing;
    }
    // The same while the release is still being built, where nothing else is decided yet.
    if let Some(PinEnd::NextRelease(from)) = state.pin.as_ref().map(|pin| &pin.until)
        && from == toplevel
    {
        return Standing::Open;
    }
    if history::had(toplevel, state) {
        return done(release, toplevel, state, at);
    }
    Standing::Open
}

/// It has the release, or had it. `at` is when the state was read.
fn done(release: &Release, toplevel: &StorePath, state: &NodeState, at: Timestamp) -> Standing {
    let soaks = release.rollout.waves.iter().any(|wave| !wave.soak.is_zero());
    let brought = if soaks { history::newest_success(toplevel, state) } else { None };
    Standing::Done { since: brought.map(|entry| history::ended(entry, state, at)) }
}

/// What a node is held for by itself says more than what runs there.
fn by_hold(hold: &Hold, spec: &NodeSpec, state: &NodeState) -> Option<Standing> {
    match hold {
        Hold::HooksRefused { .. } | Hold::NotBuilt { .. } => Some(Standing::Passed),
        // A person who took it back from this release has a reason.
        Hold::Pinned { .. } => Some(Standing::Open),
        Hold::RebootFailed { error } => Some(Standing::Failed { why: error.clone() }),
        // Nothing that is done here would bring it there.
        Hold::AwaitingReboot => (!reboots::wanted(spec) && state.staged.as_ref() == Some(&spec.toplevel))
            .then_some(Standing::Passed),
        Hold::NoHost
        | Hold::Suspended { .. }
        | Hold::NotObserved
        | Hold::Unreachable { .. }
        | Hold::WrongMachine { .. }
        | Hold::Evaluating
        | Hold::NotEvaluated { .. }
        | Hold::Building
        | Hold::ReleaseIncomplete { .. }
        | Hold::GivenUp { .. }
        | Hold::Backoff { .. }
        | Hold::Busy { .. }
        | Hold::ReportOnly
        | Hold::HealDelay { .. }
        | Hold::Wave { .. }
        | Hold::Soak { .. }
        | Hold::Halted { .. }
        | Hold::Approval { .. }
        | Hold::Window { .. }
        | Hold::After { .. }
        | Hold::Unavailable { .. }
        | Hold::WaveLimit { .. }
        | Hold::Rebooting { .. }
        | Hold::RebootOverdue { .. }
        | Hold::Unseen { .. }
        | Hold::RebootTurn { .. }
        | Hold::InFlightLimit { .. }
        | Hold::Elsewhere { .. }
        | Hold::HookFailed { .. }
        | Hold::RebootRequired
        | Hold::Degraded { .. } => None,
    }
}

/// A node that does not answer cannot say what happened. Where something was begun on it, that was its end, unless
/// its silence is ordinary; else its silence has nothing to do with the release.
fn silent(
    release: &Release,
    spec: &NodeSpec,
    (seen, kept): (&Observation, Option<&NodeState>),
    begun: Option<&Begun>,
) -> Standing {
    let toplevel = &spec.toplevel;
    if let (Some(begun), Availability::Always) = (begun, spec.availability) {
        let what = match begun.what {
            BegunWhat::Switch => "does not answer since its switch",
            BegunWhat::Reboot { .. } => "does not answer since its reboot",
        };
        return Standing::Failed { why: what.to_owned() };
    }
    if let Some(state) = kept {
        if let Some(entry) = history::given_up(&history::failures(toplevel, state)) {
            return Standing::Failed { why: what_became(entry) };
        }
        if let Some(why) = reboots::failed(toplevel, state) {
            return Standing::Failed { why };
        }
        if drift::is_installed(toplevel, spec.goal, state) || history::had(toplevel, state) {
            return done(release, toplevel, state, contact_time(seen));
        }
    }
    match (release.rollout.unreachable, spec.availability) {
        (Unreachable::Wait, Availability::Always) => Standing::Open,
        (Unreachable::Wait, Availability::Intermittent) | (Unreachable::Skip, _) => Standing::Passed,
    }
}

fn contact_time(seen: &Observation) -> Timestamp {
    match &seen.contact {
        Contact::Reachable { at } | Contact::Unreachable { since: at, .. } => *at,
    }
}

/// Whether a switch was part of moving the fleet to this release.
fn is_of(release: &Release, entry: &Entry) -> bool {
    release.revision.as_ref().is_some_and(|revision| entry.revision == revision.commit.to_string())
}

fn what_became(entry: &Entry) -> String {
    let cause = entry.cause.map(|cause| cause.sentence());
    let outcome = entry.outcome.map_or("failed", |outcome| outcome.as_str());
    cause.unwrap_or(outcome).to_owned()
}

/// What a node ran before this release was brought to it, where a controller brought it and nothing has come after.
pub fn before<'a>(release: &Release, spec: &NodeSpec, state: &'a NodeState) -> Option<&'a StorePath> {
    let entry = history::last_success(state)?;
    let ours = entry.asker.starts_with(CONTROLLER) && is_of(release, entry);
    (ours
        && entry.system == spec.toplevel
        && state.running == spec.toplevel
        && entry.previous != entry.system)
        .then_some(&entry.previous)
}
