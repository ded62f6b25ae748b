//! What to do about one node, as far as that does not depend on the other nodes: the first seven of the plan's questions.

use std::time::Duration;

use jiff::Timestamp;

use super::target::Target;
use super::{ATTACH_AGAIN, CONTROLLER, backoff, drift, history, later, pin, reboots, suspended, ways};
use crate::model::decision::{Action, Decision, Hold, Purpose};
use crate::model::drift::DriftKind;
use crate::model::hook::HookPolicy;
use crate::model::intent::{Intent, NodeSuspension};
use crate::model::journal::Entry;
use crate::model::name::NodeName;
use crate::model::node::{Goal, NodeSpec, OnDrift};
use crate::model::observed::{AttemptKind, Contact, NodeState, Observation, Observed};
use crate::model::release::NodeRelease;
use crate::model::store_path::StorePath;

/// Everything that bears on one node, the other nodes aside.
pub struct Question<'a> {
    /// Its name.
    pub name: &'a NodeName,
    /// What Git wants of it.
    pub node: &'a NodeRelease,
    /// What it should run.
    pub target: Target<'a>,
    /// What was seen of it.
    pub observation: Option<&'a Observation>,
    /// What else is known.
    pub observed: &'a Observed,
    /// What people want.
    pub intent: &'a Intent,
    /// `rollout.healAfter`.
    pub heal_after: Duration,
    /// The time.
    pub now: Timestamp,
}

/// What a node that is not what it should be needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Switch,
    Reboot,
}

/// A node that answered: its state, and when it was read.
#[derive(Clone, Copy)]
struct Seen<'a> {
    observation: &'a Observation,
    state: &'a NodeState,
    at: Timestamp,
}

impl<'a> Question<'a> {
    /// What to do about the node, as far as it does not depend on others.
    pub fn answer(&self) -> Decision {
        self.action().map_or_else(|decision| decision, Decision::from)
    }

    /// What to do about a node that goes back to `before`, which it ran before it got a release that failed elsewhere.
    pub fn take_back(&self, before: &StorePath) -> Decision {
        self.way_back(before).map_or_else(|decision| decision, Decision::from)
    }

    fn way_back(&self, before: &StorePath) -> Result<Action, Decision> {
        let (seen, spec) = self.free()?;
        self.not_suspended(spec, seen.state)?;
        self.hooks_may_run(spec, before, seen.state)?;
        self.released_by_people(before, seen)?;
        self.may_be_tried(before, seen)?;
        Ok(Action::Deploy {
            toplevel: before.clone(),
            expected: seen.state.running.clone(),
            goal: Goal::Switch,
            purpose: Purpose::TakeBack,
        })
    }

    /// A node that answers and that nobody is working on.
    fn free(&self) -> Result<(Seen<'a>, &'a NodeSpec), Decision> {
        if self.observed.in_flight.contains_key(self.name) {
            return Err(Decision::InFlight);
        }
        let seen = self.seen()?;
        self.right_machine(seen.state)?;
        match (seen.state.live_switch(), &self.node.spec) {
            (Some(entry), _) => Err(self.attach(entry).map_or_else(|decision| decision, Decision::from)),
            (None, Some(spec)) => Ok((seen, spec)),
            (None, None) => Err(Hold::Evaluating.into()),
        }
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
        let need = self.need(spec, toplevel, seen)?;
        self.not_suspended(spec, seen.state)?;
        match need {
            Need::Switch => self.switch(spec, toplevel, seen),
            Need::Reboot => self.reboot(spec, toplevel, seen),
        }
    }

    fn not_suspended(&self, spec: &NodeSpec, state: &NodeState) -> Result<(), Decision> {
        match suspended::suspended(self.intent, self.name, Some(spec), &state.suspended, self.now) {
            None => Ok(()),
            Some(NodeSuspension { by, reason, until, id: _ }) => {
                Err(Hold::Suspended { by, reason, until }.into())
            }
        }
    }

    fn switch(&self, spec: &NodeSpec, toplevel: &StorePath, seen: Seen<'_>) -> Result<Action, Decision> {
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
        let purpose = if to_be_proven {
            Purpose::Proof
        } else if history::had(toplevel, seen.state) {
            Purpose::Heal
        } else {
            Purpose::Release
        };
        // A system of an earlier release is healed to, and brought to an end; it is not rolled out any more: nobody knows now
        // whether it failed elsewhere.
        if let (Purpose::Release, Some(waits)) = (purpose, &self.target.waits) {
            return Err(waits.clone().into());
        }
        let (toplevel, expected) = (toplevel.clone(), seen.state.running.clone());
        Ok(Action::Deploy { toplevel, expected, goal: spec.goal, purpose })
    }

    fn reboot(&self, spec: &NodeSpec, toplevel: &StorePath, seen: Seen<'_>) -> Result<Action, Decision> {
        self.released_by_people(toplevel, seen)?;
        reboots::may_be_ordered(spec, toplevel, (seen.state, seen.at), self.now)?;
        self.may_be_tried(toplevel, seen)?;
        Ok(Action::Reboot { boot: seen.state.boot_id.clone(), toplevel: toplevel.clone() })
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
                let begun = self.observed.begun.get(self.name);
                let spec = self.node.spec.as_deref();
                let overdue = reboots::overdue(begun.zip(spec), error, self.now);
                Err(overdue
                    .unwrap_or_else(|| Hold::Unreachable { since: *since, error: error.clone() })
                    .into())
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

    /// What would make the node what it should be. `Err`: it is, or nothing that is done here would.
    fn need(&self, spec: &NodeSpec, toplevel: &StorePath, seen: Seen<'_>) -> Result<Need, Decision> {
        let state = seen.state;
        if state.staged.as_ref() == Some(toplevel) && !drift::is_installed(toplevel, spec.goal, state) {
            return reboots::wanted(spec).then_some(Need::Reboot).ok_or_else(|| Hold::AwaitingReboot.into());
        }
        if !drift::is_installed(toplevel, spec.goal, state) {
            let reboots = reboots::starts(spec, toplevel, state);
            return Ok(if reboots { Need::Reboot } else { Need::Switch });
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
        let failing = &seen.observation.health;
        let kinds = drift::kinds(Some(toplevel), spec, state, failing);
        if kinds.contains(&DriftKind::Degraded) {
            let checks = failing.iter().map(|check| check.name.clone()).collect();
            return Err(Hold::Degraded { units: drift::failed_units(spec, state), checks }.into());
        }
        if reboots::is_due(spec, kinds.contains(&DriftKind::RebootRequired), state) {
            return Ok(Need::Reboot);
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
