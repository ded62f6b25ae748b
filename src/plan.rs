//! Decides: from what Git wants, what the nodes are, what people want and the time, one decision for every node. Pure and
//! total.
//!
//! Nothing here does I/O, waits, or asks for the time; nothing outside decides. Each node is asked about by itself first
//! ([`question`]); the questions are asked in this order, and the first answer wins:
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
//! 6. *Has it been tried?* Given up, not built by the node itself, backoff ([`backoff`]), rebooted for it ([`reboots`]).
//! 7. *Was it booted once?* Then its proof is all that is missing, and what people asked for: pins and `healAfter` do not
//!    hold it back. Before the reboot the node waits for that.
//! 8. *Is it drift?* If the wanted system is the one that was installed last, somebody took the node away from it:
//!    `onDrift` and `healAfter` apply. Everything else is a new release and acts at once.
//!
//! Then all nodes are looked at together:
//!
//! 9. *Is it its turn?* Where each node [stands](standing) with the release says how far its [waves] are, and what has to
//!    wait for that, for people and for the calendar ([`gate`]). A release that failed on too many nodes goes nowhere, and is
//!    taken back where the deployment says so.
//! 10. *Is there room?* Only so many nodes are worked on at once ([`room`]), in an order. Re-attaching never waits for room.

pub mod approval;
pub mod backoff;
pub mod declared;
pub mod drift;
pub mod gate;
pub mod history;
pub mod pin;
pub mod plan_time;
pub mod question;
pub mod reboots;
pub mod removal;
pub mod room;
pub mod secrets;
pub mod settling;
pub mod standing;
pub mod suspended;
pub mod target;
pub mod view;
pub mod waves;
pub mod ways;
pub mod windows;

#[cfg(test)]
pub(crate) mod tests;

use std::time::Duration;

use jiff::Timestamp;

use crate::model::decision::{Decision, Hold, Plan};
use crate::model::intent::Intent;
use crate::model::journal::PinEnd;
use crate::model::name::NodeName;
use crate::model::observed::Observed;
use crate::model::release::{NodeRelease, Release};

use gate::Gate;
use plan_time::PlanTime;
use question::Question;
use standing::Member;
use waves::Waves;

/// How the `asker` of every switch begins that a controller started by itself.
pub const CONTROLLER: &str = "controller";

/// The wait after a failed try to re-attach: short beside the time for which a node waits for contact.
const ATTACH_AGAIN: Duration = Duration::from_secs(2);

/// Decides the one thing to do next, or why not, for every node of the release.
pub fn plan(release: &Release, observed: &Observed, intent: &Intent, now: Timestamp) -> Plan {
    let time = PlanTime::at(now);
    let (mut decisions, members) = each(release, observed, intent, &time);
    let waves = Waves::of(release);
    let gate = Gate::new(release, (intent, &time), &waves, members);
    if gate.takes_back() {
        take_back(release, (observed, intent), now, &mut decisions);
    }
    for ((node, decision), wave) in release.nodes.iter().zip(&mut decisions).zip(waves.places()) {
        if let Decision::Act { action } = decision
            && let Some(hold) = gate.hold(node, wave, action)
        {
            *decision = hold.into();
        }
    }
    room::limit(release, observed, (&waves, gate.members()), &mut decisions);
    let boundaries = decisions.iter().filter_map(boundary).filter(|at| *at > now);
    let look_again_at = boundaries.chain(time.next()).min();
    let decisions = release.nodes.keys().cloned().zip(decisions).collect();
    Plan { waves: gate.view(), decisions, look_again_at }
}

/// What would be done about each node, were it alone, and where that leaves it for the others. Both are asked while the node
/// is at hand: with ten thousand of them, reading their states is what costs. In the order of their names, like all that is
/// handed on from here.
fn each<'a>(
    release: &'a Release,
    observed: &Observed,
    intent: &Intent,
    time: &PlanTime,
) -> (Vec<Decision>, Vec<Member<'a>>) {
    let incomplete = target::incomplete(release);
    // Both maps are in the order of names: one walk over each, instead of a search for every node.
    let mut seen = observed.nodes.iter().peekable();
    let mut members = Vec::with_capacity(release.nodes.len());
    let decide = |(name, node): (&'a NodeName, &NodeRelease)| {
        while seen.next_if(|(other, _)| *other < name).is_some() {}
        let observation = seen.next_if(|(other, _)| *other == name).map(|(_, observation)| &**observation);
        let question = Question {
            name,
            node,
            target: target::target(node, incomplete),
            observation,
            observed,
            intent,
            heal_after: release.rollout.heal_after,
            now: time.now(),
        };
        let decision = question.answer();
        members.push(standing::member(
            release,
            (observed, intent, time),
            (name, node),
            observation,
            &decision,
        ));
        decision
    };
    (release.nodes.iter().map(decide).collect(), members)
}

/// The release failed: what it has changed goes back to what it was before.
fn take_back(
    release: &Release,
    (observed, intent): (&Observed, &Intent),
    now: Timestamp,
    decisions: &mut [Decision],
) {
    for ((name, node), decision) in release.nodes.iter().zip(decisions) {
        let observation = observed.nodes.get(name).map(|seen| &**seen);
        let state = observation.and_then(|seen| seen.state.as_ref());
        let spec = node.spec.as_deref();
        if let Some(before) = spec.zip(state).and_then(|(spec, state)| standing::before(release, spec, state))
        {
            let (target, heal_after) = (target::target(node, None), release.rollout.heal_after);
            let question = Question { name, node, target, observation, observed, intent, heal_after, now };
            *decision = question.take_back(before);
        }
    }
}

/// When this decision could become another one without the world changing.
fn boundary(decision: &Decision) -> Option<Timestamp> {
    match decision {
        Decision::InSync | Decision::InFlight | Decision::Act { .. } => None,
        Decision::Hold { hold } => match hold {
            Hold::Window { until, .. } => *until,
            Hold::Backoff { until, .. }
            | Hold::HealDelay { until }
            | Hold::Rebooting { until }
            | Hold::Soak { until, .. }
            | Hold::Pinned { until: PinEnd::At(until), .. } => Some(*until),
            Hold::Suspended { until, .. } => *until,
            Hold::Pinned { until: PinEnd::NextRelease(_), .. }
            | Hold::NoHost
            | Hold::NotObserved
            | Hold::Unreachable { .. }
            | Hold::WrongMachine { .. }
            | Hold::HooksRefused { .. }
            | Hold::Evaluating
            | Hold::NotEvaluated { .. }
            | Hold::Building
            | Hold::NotBuilt { .. }
            | Hold::ReleaseIncomplete { .. }
            | Hold::GivenUp { .. }
            | Hold::Busy { .. }
            | Hold::ReportOnly
            | Hold::Wave { .. }
            | Hold::Halted { .. }
            | Hold::Approval { .. }
            | Hold::After { .. }
            | Hold::Unavailable { .. }
            | Hold::WaveLimit { .. }
            | Hold::RebootOverdue { .. }
            | Hold::RebootFailed { .. }
            | Hold::Unseen { .. }
            | Hold::RebootTurn { .. }
            | Hold::InFlightLimit { .. }
            | Hold::Elsewhere { .. }
            | Hold::AwaitingReboot
            | Hold::HookFailed { .. }
            | Hold::RebootRequired
            | Hold::Degraded { .. } => None,
        },
    }
}

/// `at` plus `delay`; the end of time where that is beyond it.
fn later(at: Timestamp, delay: Duration) -> Timestamp {
    at.saturating_add(delay).unwrap_or(Timestamp::MAX)
}
