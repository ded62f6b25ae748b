//! A fleet that obeys: every action of a plan is carried out, some fail as they are told to, and time goes on.
//!
//! Keeps its own book of failures, so that the plan is checked against something that is not the plan.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::world::{World, switch};
use crate::model::decision::{Action, Decision, Hold, Plan, Purpose};
use crate::model::journal::{Cause, Entry, Outcome, SwitchId};
use crate::model::name::NodeName;
use crate::model::node::{Goal, RebootPolicy};
use crate::model::observed::{Attempt, AttemptKind, Contact, InFlight, NodeState, Stage};
use crate::model::store_path::StorePath;

/// A switch takes so many seconds.
const SWITCH: i64 = 10;
/// The journal of a node keeps so many entries.
const JOURNAL: usize = 20;

/// What happens to deployments on a node.
#[derive(Debug, Clone, Copy)]
pub enum Behaviour {
    Works,
    /// Every switch fails for this reason, which would repeat itself.
    Fails(Cause),
    /// So many switches and attempts fail in passing, then they work.
    Flaky(u32),
}

/// The failures in a row of one toplevel on one node.
#[derive(Debug, Clone, Copy)]
struct Failed {
    count: u32,
    last: Timestamp,
    is_final: bool,
}

pub struct Simulation {
    pub world: World,
    behaviour: BTreeMap<NodeName, Behaviour>,
    /// How far each node's clock is ahead.
    ahead: BTreeMap<NodeName, SignedDuration>,
    failed: BTreeMap<(NodeName, StorePath), Failed>,
    switches: u32,
}

impl Simulation {
    /// The times of the world's journals are taken as ours, and become those of each node's own clock.
    pub fn new(
        mut world: World,
        behaviour: BTreeMap<NodeName, Behaviour>,
        ahead: BTreeMap<NodeName, SignedDuration>,
    ) -> Self {
        for (name, ahead) in &ahead {
            let state =
                world.observed.nodes.get_mut(name).and_then(|seen| Arc::make_mut(seen).state.as_mut());
            if let Some(state) = state {
                state.journal.edit(|entries| {
                    for entry in entries {
                        entry.started += *ahead;
                        entry.finished = entry.finished.map(|at| at + *ahead);
                    }
                });
            }
        }
        let mut simulation = Self { world, behaviour, ahead, failed: BTreeMap::new(), switches: 0 };
        simulation.look();
        simulation
    }

    /// Runs until nothing is left to do or to wait for, and returns the plan of that rest.
    pub fn run_to_rest(&mut self) -> Plan {
        let most = 200 + 100 * self.world.release.nodes.len();
        for _ in 0..most {
            let plan = self.world.plan();
            check(&self.world, &plan);
            let acts = self.start(&plan);
            let busy = !self.world.observed.in_flight.is_empty();
            match plan.look_again_at {
                _ if acts > 0 || busy => self.world.now += SignedDuration::from_secs(4),
                Some(later) => self.world.now = later,
                None => return plan,
            }
            self.finish();
            self.look();
        }
        panic!("no rest after {most} passes: {:?}", self.world.plan());
    }

    fn start(&mut self, plan: &Plan) -> usize {
        let mut acts = 0;
        for (name, decision) in &plan.decisions {
            let Decision::Act { action } = decision else { continue };
            acts += 1;
            let toplevel = match action {
                Action::Deploy { toplevel, .. } => {
                    self.assert_may_be_tried(name, toplevel);
                    toplevel
                }
                Action::Attach { toplevel, .. } | Action::Reboot { toplevel, .. } => toplevel,
            };
            let flight =
                InFlight { toplevel: toplevel.clone(), since: self.world.now, stage: Stage::Preparing };
            assert!(self.world.observed.in_flight.insert(name.clone(), flight).is_none());
        }
        acts
    }

    /// The rule in other words than the plan's: 30 s, 60 s, 120 s, ... 3600 s after the failures seen here.
    fn assert_may_be_tried(&self, name: &NodeName, toplevel: &StorePath) {
        let Some(failed) = self.failed.get(&(name.clone(), toplevel.clone())) else { return };
        assert!(!failed.is_final, "{name}: {toplevel} failed for good and is tried again");
        let wait = (1..failed.count).fold(30, |wait: i64, _| (2 * wait).min(3600));
        let waited = self.world.now.duration_since(failed.last).as_secs();
        assert!(waited >= wait, "{name}: tried after {waited} s, not {wait} s ({} failures)", failed.count);
    }

    fn finish(&mut self) {
        let due = |flight: &InFlight| self.world.now.duration_since(flight.since).as_secs() >= SWITCH;
        let done: Vec<(NodeName, InFlight)> = self
            .world
            .observed
            .in_flight
            .iter()
            .filter(|(_, flight)| due(flight))
            .map(|(name, flight)| (name.clone(), flight.clone()))
            .collect();
        for (name, flight) in done {
            self.world.observed.in_flight.remove(&name);
            self.switches += 1;
            let Some(seen) = self.world.observed.nodes.get(&name) else { continue };
            if seen.state.is_none() || matches!(seen.contact, Contact::Unreachable { .. }) {
                self.fail_attempt(&name, flight.toplevel);
            } else {
                self.end_switch(&name, flight.toplevel);
            }
        }
    }

    fn end_switch(&mut self, name: &NodeName, toplevel: StorePath) {
        let now = self.world.now;
        match self.behaviour.get(name).copied() {
            Some(Behaviour::Flaky(left)) if left > 0 => {
                self.behaviour.insert(name.clone(), Behaviour::Flaky(left - 1));
                // A switch that the node waits in is in its journal already; all else may fail before it gets there.
                let live = self.state(name).live_switch().is_some();
                if left % 2 == 1 && !live {
                    self.fail_attempt(name, toplevel);
                } else {
                    self.journal(name, &toplevel, Outcome::Interrupted, Some(Cause::Killed));
                    self.count(name, toplevel, false);
                }
            }
            Some(Behaviour::Fails(cause)) => {
                self.journal(name, &toplevel, Outcome::RolledBack, Some(cause));
                self.count(name, toplevel, true);
            }
            Some(Behaviour::Works | Behaviour::Flaky(_)) | None => {
                self.journal(name, &toplevel, Outcome::Succeeded, None);
                self.failed.remove(&(name.clone(), toplevel.clone()));
                self.world.observed.attempts.remove(name);
                let goal =
                    self.world.release.nodes[name].spec.as_ref().map_or(Goal::Switch, |spec| spec.goal);
                let state = self.state(name);
                if goal.activates() {
                    state.running = toplevel.clone();
                }
                if goal.persists() {
                    state.boot_default = Some(toplevel);
                }
                Arc::make_mut(self.world.observed.nodes.get_mut(name).unwrap()).state_since = Some(now);
            }
        }
    }

    fn fail_attempt(&mut self, name: &NodeName, toplevel: StorePath) {
        let before = self.world.observed.attempts.get(name).filter(|attempt| attempt.toplevel == toplevel);
        let failures = before.map_or(0, |attempt| attempt.failures) + 1;
        let attempt = Attempt {
            toplevel: toplevel.clone(),
            failures,
            last: self.world.now,
            error: "no route to host".into(),
            kind: AttemptKind::Way,
        };
        self.world.observed.attempts.insert(name.clone(), attempt);
        self.count(name, toplevel, false);
    }

    fn count(&mut self, name: &NodeName, toplevel: StorePath, is_final: bool) {
        let first = Failed { count: 0, last: self.world.now, is_final };
        let failed = self.failed.entry((name.clone(), toplevel)).or_insert(first);
        *failed = Failed { count: failed.count + 1, ..first };
    }

    fn state(&mut self, name: &NodeName) -> &mut NodeState {
        Arc::make_mut(self.world.observed.nodes.get_mut(name).unwrap()).state.as_mut().unwrap()
    }

    /// Ends the waiting switch of this system, or adds one that ended.
    fn journal(&mut self, name: &NodeName, toplevel: &StorePath, outcome: Outcome, cause: Option<Cause>) {
        let clock = self.world.now + self.ahead.get(name).copied().unwrap_or_default();
        let id = SwitchId::new(self.world.now, self.switches);
        self.state(name).journal.edit(|entries| {
            let waiting = entries.iter().rposition(|entry| entry.outcome.is_none());
            let waiting = waiting.filter(|at| entries[*at].system == *toplevel);
            let at = waiting.unwrap_or_else(|| {
                let new = Entry { id, system: toplevel.clone(), started: clock, ..switch("any").entry() };
                entries.push(new);
                entries.len() - 1
            });
            let entry = &mut entries[at];
            (entry.outcome, entry.cause, entry.finished) = (Some(outcome), cause, Some(clock));
            let surplus = entries.len().saturating_sub(JOURNAL);
            entries.drain(..surplus);
        });
    }

    /// Reads every node that answers.
    fn look(&mut self) {
        let now = self.world.now;
        for (name, seen) in &mut self.world.observed.nodes {
            let seen = Arc::make_mut(seen);
            if let (Contact::Reachable { at }, Some(state)) = (&mut seen.contact, &mut seen.state) {
                *at = now;
                state.clock = Some(now + self.ahead.get(name).copied().unwrap_or_default());
            }
        }
    }
}

/// What must be true of every plan for every world.
pub fn check(world: &World, plan: &Plan) {
    let (release, observed) = (&world.release, &world.observed);
    let nodes: BTreeSet<_> = release.nodes.keys().collect();
    assert_eq!(plan.decisions.keys().collect::<BTreeSet<_>>(), nodes, "one decision for every node");
    assert_eq!(*plan, world.plan(), "the same again");

    let (mut deploys, mut attaches) = (0, 0);
    for (name, decision) in &plan.decisions {
        let seen = observed.nodes.get(name);
        let in_flight = observed.in_flight.contains_key(name);
        assert_eq!(in_flight, *decision == Decision::InFlight, "{name}: {decision:?}");
        let Decision::Act { action } = decision else { continue };
        let seen = seen.unwrap_or_else(|| panic!("{name} was never seen: {decision:?}"));
        assert!(matches!(seen.contact, Contact::Reachable { .. }), "{name} does not answer: {decision:?}");
        let state = seen.state.as_ref().unwrap();
        match action {
            Action::Attach { id, .. } => {
                attaches += 1;
                assert_eq!(&state.live_switch().unwrap().id, id);
            }
            Action::Reboot { boot, .. } => {
                deploys += 1;
                assert_eq!(*boot, state.boot_id);
                assert_ne!(release.nodes[name].spec.as_ref().unwrap().reboot.policy, RebootPolicy::Never);
            }
            Action::Deploy { toplevel, expected, purpose, .. } => {
                deploys += 1;
                let spec = release.nodes[name].spec.as_ref().unwrap();
                assert_eq!(spec.suspended, None, "{name} is suspended");
                assert_eq!(*expected, state.running);
                assert!(
                    *purpose == Purpose::TakeBack
                        || *toplevel == spec.toplevel
                        || Some(toplevel) == release.nodes[name].last_good.as_ref()
                );
            }
        }
    }
    let limit = usize::try_from(release.rollout.max_in_flight).unwrap();
    let in_flight = observed.in_flight.len();
    assert!(
        deploys == 0 || deploys + attaches + in_flight <= limit,
        "{deploys}+{attaches}+{in_flight}>{limit}"
    );
    check_time(world, plan);
}

/// Time alone changes the plan at `look_again_at` and never before.
fn check_time(world: &World, plan: &Plan) {
    let (now, mut later) = (world.now, world.clone());
    later.now = match plan.look_again_at {
        Some(at) => {
            assert!(at > now, "look again in the past");
            let last = at.as_nanosecond() - 1;
            Timestamp::from_nanosecond(last).unwrap().max(now)
        }
        None => now + SignedDuration::from_hours(24 * 3650),
    };
    assert_eq!(plan.decisions, later.plan().decisions, "changed between {now} and {}", later.now);
}

/// Whether a node may stay like this for ever: nothing that time or this controller could do is left.
pub fn is_rest(decision: &Decision) -> bool {
    match decision {
        Decision::InSync => true,
        Decision::InFlight | Decision::Act { .. } => false,
        Decision::Hold { hold } => {
            !matches!(hold, Hold::Backoff { .. } | Hold::HealDelay { .. } | Hold::InFlightLimit { .. })
        }
    }
}
