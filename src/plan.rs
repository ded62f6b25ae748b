//! Decides: from what Git wants, what the nodes are and the time, one decision for every node. Pure and total.
//!
//! Nothing here does I/O, waits, or asks for the time; nothing outside decides. The questions are asked in this order,
//! and the first answer wins:
//!
//! 1. *Can anything be done at all?* A node this controller works on is left to that work. Without a host, a successful
//!    look, or the right machine there is nobody to act on; the kept state of an unreachable node is history, and
//!    acting on history would undo what happened since.
//! 2. *Is a switch waiting on the node?* One that a controller started is re-attached to, whatever Git says by now and
//!    whether or not anything is evaluated: the node waits for a verdict and rolls back without it. Anybody else's is
//!    left alone.
//! 3. *Is there a system to want?* See [`target`]: while the new one is not ready, the last good one stays in force.
//! 4. *Is the node that system?* Then what is left to say comes from the release or from what only a reboot or a person
//!    can cure, and from where it answers ([`ways`]). A node that is in sync is in sync, suspended or not.
//! 5. *Does a person want it left alone?* Suspended, pinned. *May what belongs to it be run here?* Hooks.
//! 6. *Has it been tried?* Given up, not built by the node itself, backoff ([`backoff`]).
//! 7. *Was it booted once?* Then its proof is all that is missing, and what people asked for: pins and `healAfter` do not
//!    hold it back. Before the reboot the node waits for that.
//! 8. *Is it drift?* If the wanted system is the one that was installed last, somebody took the node away from it:
//!    `onDrift` and `healAfter` apply. Everything else is a new release and acts at once.
//! 9. *Is there room?* At most `maxInFlight` nodes switch at once, first by name. Re-attaching never waits for room.

pub mod backoff;
pub mod declared;
pub mod drift;
pub mod history;
pub mod pin;
pub mod removal;
pub mod secrets;
pub mod target;
pub mod view;
pub mod waves;
pub mod ways;
pub mod windows;

#[cfg(test)]
mod tests;

use std::time::Duration;

use jiff::Timestamp;

use crate::model::decision::{Action, Decision, Hold, Plan};
use crate::model::drift::DriftKind;
use crate::model::hook::HookPolicy;
use crate::model::journal::{Entry, PinEnd};
use crate::model::name::NodeName;
use crate::model::node::{NodeSpec, OnDrift};
use crate::model::observed::{AttemptKind, Contact, NodeState, Observation, Observed};
use crate::model::release::{NodeRelease, Release};
use crate::model::store_path::StorePath;

/// How the `asker` of every switch begins that a controller started by itself.
pub const CONTROLLER: &str = "controller";

/// The wait after a failed try to re-attach: short beside the time for which a node waits for contact.
const ATTACH_AGAIN: Duration = Duration::from_secs(2);

/// Decides the one thing to do next, or why not, for every node of the release.
pub fn plan(release: &Release, observed: &Observed, now: Timestamp) -> Plan {
    let incomplete = target::incomplete(release);
    // Both maps are in the order of names: one walk over each, instead of a search for every node.
    let mut seen = observed.nodes.iter().peekable();
    let decide = |(name, node): (&NodeName, &NodeRelease)| {
        while seen.next_if(|(other, _)| *other < name).is_some() {}
        let question = Question {
            name,
            node,
            target: target::target(node, incomplete),
            observation: seen.next_if(|(other, _)| *other == name).map(|(_, observation)| &**observation),
            observed,
            heal_after: release.rollout.heal_after,
            now,
        };
        (name.clone(), question.answer())
    };
    let decisions = release.nodes.iter().map(decide).collect();
    let mut plan = Plan { decisions, look_again_at: None };
    limit(&mut plan, release.rollout.max_in_flight, observed.in_flight.len());
    plan.look_again_at = plan.decisions.values().filter_map(boundary).filter(|at| *at > now).min();
    plan
}

/// Holds the deployments for which there is no room. Nodes in flight count even when the release dropped them.
fn limit(plan: &mut Plan, limit: u32, in_flight: usize) {
    let attaching = plan.decisions.values().filter(|decision| is_attach(decision)).count();
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut room = most.saturating_sub(in_flight).saturating_sub(attaching);
    for decision in plan.decisions.values_mut() {
        if let Decision::Act { action: Action::Deploy { .. } } = decision {
            match room.checked_sub(1) {
                Some(left) => room = left,
                None => *decision = Hold::InFlightLimit { limit }.into(),
            }
        }
    }
}

fn is_attach(decision: &Decision) -> bool {
    matches!(decision, Decision::Act { action: Action::Attach { .. } })
}

/// When this decision could become another one without the world changing.
fn boundary(decision: &Decision) -> Option<Timestamp> {
    match decision {
        Decision::InSync | Decision::InFlight | Decision::Act { .. } => None,
        Decision::Hold { hold } => match hold {
            Hold::Backoff { until, .. }
            | Hold::HealDelay { until }
            | Hold::Pinned { until: PinEnd::At(until), .. } => Some(*until),
            Hold::Pinned { until: PinEnd::NextRelease(_), .. }
            | Hold::NoHost
            | Hold::NotObserved
            | Hold::Unreachable { .. }
            | Hold::WrongMachine { .. }
            | Hold::Suspended { .. }
            | Hold::HooksRefused { .. }
            | Hold::Evaluating
            | Hold::NotEvaluated { .. }
            | Hold::Building
            | Hold::NotBuilt { .. }
            | Hold::ReleaseIncomplete { .. }
            | Hold::GivenUp { .. }
            | Hold::Busy { .. }
            | Hold::ReportOnly
            | Hold::InFlightLimit { .. }
            | Hold::Elsewhere { .. }
            | Hold::AwaitingReboot
            | Hold::HookFailed { .. }
            | Hold::RebootRequired
            | Hold::Degraded { .. } => None,
        },
    }
}

/// Everything that bears on one node.
struct Question<'a> {
    name: &'a NodeName,
    node: &'a NodeRelease,
    target: target::Target<'a>,
    observation: Option<&'a Observation>,
    observed: &'a Observed,
    heal_after: Duration,
    now: Timestamp,
}

/// A node that answered: its state, and when it was read.
#[derive(Clone, Copy)]
struct Seen<'a> {
    observation: &'a Observation,
    state: &'a NodeState,
    at: Timestamp,
}

impl<'a> Question<'a> {
    fn answer(&self) -> Decision {
        self.action().map_or_else(|decision| decision, Decision::from)
    }

    /// The questions in their order. `Err` is the first that stands in the way.
    fn action(&self) -> Result<Action, Decision> {
        if self.observed.in_flight.contains_key(self.name) {
            return Err(Decision::InFlight);
        }
        let seen = self.seen()?;
        self.right_machine(seen.state)?;
        if let Some(entry) = seen.state.live_switch() {
            return self.attach(entry);
        }
        let (spec, toplevel) = self.wanted()?;
        self.differs(spec, toplevel, seen)?;
        if let Some(reason) = &spec.suspended {
            return Err(Hold::Suspended { reason: reason.clone() }.into());
        }
        if seen.state.staged.as_ref() == Some(toplevel) {
            return Err(Hold::AwaitingReboot.into());
        }
        self.hooks_may_run(spec, toplevel, seen.state)?;
        let to_be_proven = history::is_to_be_proven(toplevel, seen.state);
        if !to_be_proven {
            self.released_by_people(toplevel, seen)?;
        }
        self.may_be_tried(toplevel, seen)?;
        // A system that only waits for a reboot is no drift by somebody's hand, but what Git wanted before.
        if !to_be_proven && seen.state.staged.is_none() {
            self.may_be_healed(spec, toplevel, seen)?;
        }
        Ok(Action::Deploy {
            toplevel: toplevel.clone(),
            expected: seen.state.running.clone(),
            goal: spec.goal,
        })
    }

    fn seen(&self) -> Result<Seen<'a>, Decision> {
        if self.node.spec.as_ref().is_some_and(|spec| spec.host.is_none()) {
            return Err(Hold::NoHost.into());
        }
        let Some(observation) = self.observation else {
            return Err(self.unknown());
        };
        match (&observation.contact, &observation.state) {
            (Contact::Unreachable { since, error }, _) => {
                Err(Hold::Unreachable { since: *since, error: error.clone() }.into())
            }
            (Contact::Reachable { .. }, None) => Err(self.unknown()),
            (Contact::Reachable { at }, Some(state)) => Ok(Seen { observation, state, at: *at }),
        }
    }

    /// A node without a spec cannot be looked at: then its evaluation is the reason, not the missing look.
    fn unknown(&self) -> Decision {
        match (&self.node.spec, &self.target.waits) {
            (None, Some(waits)) => waits.clone().into(),
            (None | Some(_), _) => Hold::NotObserved.into(),
        }
    }

    fn right_machine(&self, state: &NodeState) -> Result<(), Decision> {
        let Some(expected) = self.node.spec.as_ref().and_then(|spec| spec.machine_id.as_ref()) else {
            return Ok(());
        };
        if ways::is_it(Some(expected), state) {
            return Ok(());
        }
        let found = state.machine_id.as_ref().map_or("none", |found| found.as_str()).to_owned();
        Err(Hold::WrongMachine { expected: expected.as_str().to_owned(), found }.into())
    }

    /// A switch that waits for a verdict does not wait for a backoff; a breath is enough to not ask without end.
    fn attach(&self, entry: &Entry) -> Result<Action, Decision> {
        if !entry.asker.starts_with(CONTROLLER) {
            return Err(Hold::Busy { id: entry.id.clone(), asker: entry.asker.clone() }.into());
        }
        if let Some(attempt) = self.observed.attempts.get(self.name)
            && let until = later(attempt.last, ATTACH_AGAIN)
            && self.now < until
        {
            let (failures, error) = (attempt.failures, attempt.error.clone());
            return Err(Hold::Backoff { until, failures, error }.into());
        }
        Ok(Action::Attach { id: entry.id.clone(), toplevel: entry.system.clone() })
    }

    fn wanted(&self) -> Result<(&'a NodeSpec, &'a StorePath), Decision> {
        match (&self.node.spec, self.target.toplevel) {
            (Some(spec), Some(toplevel)) => Ok((spec, toplevel)),
            (None | Some(_), _) => Err(self.target.waits.clone().unwrap_or(Hold::Evaluating).into()),
        }
    }

    fn differs(&self, spec: &NodeSpec, toplevel: &StorePath, seen: Seen<'_>) -> Result<(), Decision> {
        let state = seen.state;
        if !drift::is_installed(toplevel, spec.goal, state) {
            return Ok(());
        }
        if let Some(waits) = &self.target.waits {
            return Err(waits.clone().into());
        }
        // No switch is left that could move it: the declaration, or the machine, is wrong.
        if let Some(elsewhere) = &seen.observation.elsewhere {
            let (at, error) = (elsewhere.at.clone(), elsewhere.error.clone());
            return Err(Hold::Elsewhere { at, error }.into());
        }
        // Nobody else would tell: the node itself is well.
        if let Some(failed) = self.observed.hook_failures.get(self.name).filter(|at| at.toplevel == *toplevel)
        {
            return Err(Hold::HookFailed { error: failed.error.clone() }.into());
        }
        let kinds = drift::kinds(Some(toplevel), spec, state);
        if kinds.contains(&DriftKind::Degraded) {
            return Err(Hold::Degraded { units: drift::failed_units(spec, state) }.into());
        }
        if kinds.contains(&DriftKind::RebootRequired) {
            return Err(Hold::RebootRequired.into());
        }
        Err(Decision::InSync)
    }

    fn hooks_may_run(
        &self,
        spec: &NodeSpec,
        toplevel: &StorePath,
        state: &NodeState,
    ) -> Result<(), Decision> {
        match (self.observed.hooks, spec.hooks_around(toplevel, &state.running)) {
            (HookPolicy::Run, _) | (HookPolicy::Refuse, []) => Ok(()),
            (HookPolicy::Refuse, hooks) => {
                Err(Hold::HooksRefused { hooks: hooks.iter().map(|hook| hook.name.clone()).collect() }.into())
            }
        }
    }

    fn released_by_people(&self, toplevel: &StorePath, seen: Seen<'_>) -> Result<(), Decision> {
        let Some(pin) = &seen.state.pin else { return Ok(()) };
        if pin::holds(&pin.until, toplevel, seen.state, seen.at, self.now) {
            return Err(Hold::Pinned {
                by: pin.by.clone(),
                reason: pin.reason.clone(),
                until: pin.until.clone(),
            }
            .into());
        }
        Ok(())
    }

    fn may_be_tried(&self, toplevel: &StorePath, seen: Seen<'_>) -> Result<(), Decision> {
        let failed = history::failures(toplevel, seen.state);
        if let Some(entry) = history::given_up(&failed)
            && let Some(outcome) = entry.outcome
        {
            return Err(Hold::GivenUp {
                id: entry.id.clone(),
                outcome,
                cause: entry.cause,
                detail: entry.detail.clone(),
            }
            .into());
        }
        let attempt = self.observed.attempts.get(self.name);
        if let Some(attempt) = attempt.filter(|attempt| attempt.toplevel == *toplevel) {
            match attempt.kind {
                AttemptKind::Build => return Err(Hold::NotBuilt { error: attempt.error.clone() }.into()),
                AttemptKind::Way => {}
            }
        }
        let failures = backoff::failures(toplevel, &failed, seen.state, seen.at, attempt);
        let contested = backoff::contested(toplevel, seen.state, seen.at, self.now);
        for failures in [failures, contested].into_iter().flatten() {
            let until = failures.retry_at();
            if self.now < until {
                return Err(Hold::Backoff { until, failures: failures.count, error: failures.error }.into());
            }
        }
        Ok(())
    }

    fn may_be_healed(&self, spec: &NodeSpec, toplevel: &StorePath, seen: Seen<'_>) -> Result<(), Decision> {
        let Some(installed) = history::last_success(seen.state).filter(|entry| entry.system == *toplevel)
        else {
            return Ok(());
        };
        // Nobody took it away: our own commit was interrupted, and the next switch begins by mending what it left.
        if history::is_half_committed(seen.state) {
            return Ok(());
        }
        match spec.on_drift {
            OnDrift::Report => return Err(Hold::ReportOnly.into()),
            OnDrift::Heal => {}
        }
        // Where a switch succeeds and the node still differs, the state is old: not even then one switch follows another.
        let ended = history::ended(installed, seen.state, seen.at);
        let since = seen.observation.state_since.map_or(ended, |since| since.max(ended));
        let until = later(since, self.heal_after);
        if self.now < until {
            return Err(Hold::HealDelay { until }.into());
        }
        Ok(())
    }
}

/// `at` plus `delay`; the end of time where that is beyond it.
fn later(at: Timestamp, delay: Duration) -> Timestamp {
    at.saturating_add(delay).unwrap_or(Timestamp::MAX)
}
