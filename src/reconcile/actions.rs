//! The book of what is being done, one action per node at a time, and of what failed before a node's journal could say so.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::clock::moved;
use super::lookout::Sight;
use crate::model::decision::Action;
use crate::model::hook::{HookFailure, HookPoint};
use crate::model::name::NodeName;
use crate::model::observed::{Attempt, AttemptKind, Begun, BegunWhat, InFlight, Observation, Stage};
use crate::model::release::Release;
use crate::model::store_path::StorePath;
use crate::plan::settling;

/// An action that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// What was to be installed.
    pub toplevel: StorePath,
    /// Whether the node's journal tells how it ended; otherwise why there was no switch.
    pub outcome: Result<(), Failed>,
    /// How the hooks after it ended: which failed, and what it said.
    pub hooks: Result<(), String>,
    /// The node right after it. Looked at before the action counts as over, so that the next plan does not act on what was
    /// there before.
    pub sight: Sight,
}

/// An action that did not come to a switch, as far as is known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// What went wrong, one sentence. The node is its subject.
    pub said: String,
    /// What kind of failure it was.
    pub kind: AttemptKind,
}

/// What is being done, and what failed on the way.
#[derive(Debug, Default)]
pub struct Actions {
    in_flight: BTreeMap<NodeName, InFlight>,
    attempts: BTreeMap<NodeName, Attempt>,
    hook_failures: BTreeMap<NodeName, HookFailure>,
    begun: BTreeMap<NodeName, Begun>,
}

impl Actions {
    /// Knows what a predecessor began.
    pub fn resuming(begun: BTreeMap<NodeName, Begun>) -> Self {
        Self { begun, ..Self::default() }
    }

    /// Begins one.
    pub fn begin(&mut self, name: &NodeName, action: &Action, now: Timestamp) {
        let toplevel = action.toplevel().clone();
        let stage = match action {
            Action::Deploy { .. } | Action::Attach { .. } => Stage::Preparing,
            Action::Reboot { boot, .. } => {
                let what = BegunWhat::Reboot { boot: boot.clone() };
                self.begun.insert(name.clone(), Begun { toplevel: toplevel.clone(), at: now, what });
                Stage::Rebooting
            }
        };
        self.in_flight.insert(name.clone(), InFlight { toplevel, since: now, stage });
    }

    /// It is so far. Before its node's switch begins, the node's silence means nothing.
    pub fn reached(&mut self, name: &NodeName, stage: Stage) {
        let Some(flight) = self.in_flight.get_mut(name) else { return };
        let switches = matches!(stage, Stage::Switching { .. });
        if switches && self.begun.get(name).is_none_or(|begun| begun.at < flight.since) {
            let (toplevel, at) = (flight.toplevel.clone(), flight.since);
            self.begun.insert(name.clone(), Begun { toplevel, at, what: BegunWhat::Switch });
        }
        flight.stage = stage;
    }

    /// Forgets what was begun and has ended well, by what is seen of the nodes.
    pub fn settle(&mut self, seen: &BTreeMap<NodeName, Arc<Observation>>, now: Timestamp) {
        self.begun.retain(|name, begun| {
            let seen = seen.get(name).map(|seen| &**seen);
            self.in_flight.contains_key(name) || !settling::is_settled(begun, seen, now)
        });
    }

    /// What was begun and has not ended well for long enough.
    pub fn begun(&self) -> &BTreeMap<NodeName, Begun> {
        &self.begun
    }

    /// It has ended.
    pub fn end(
        &mut self,
        name: &NodeName,
        toplevel: StorePath,
        (outcome, hooks): (Result<(), Failed>, Result<(), String>),
        now: Timestamp,
    ) {
        self.in_flight.remove(name);
        self.hook_failures.remove(name);
        if let Err(error) = hooks {
            self.hook_failures.insert(name.clone(), HookFailure { toplevel: toplevel.clone(), error });
        }
        match outcome {
            Ok(()) => {
                self.attempts.remove(name);
            }
            Err(Failed { said: error, kind }) => {
                let before = self.attempts.get(name).filter(|old| old.toplevel == toplevel);
                let failures = before.map_or(0, |old| old.failures).saturating_add(1);
                self.attempts.insert(name.clone(), Attempt { toplevel, failures, last: now, error, kind });
            }
        }
    }

    /// Whether something is being done to a node.
    pub fn contains(&self, name: &NodeName) -> bool {
        self.in_flight.contains_key(name)
    }

    /// What is being done.
    pub fn in_flight(&self) -> &BTreeMap<NodeName, InFlight> {
        &self.in_flight
    }

    /// What failed before a node's journal could say so.
    pub fn attempts(&self) -> &BTreeMap<NodeName, Attempt> {
        &self.attempts
    }

    /// Hooks that failed after a switch.
    pub fn hook_failures(&self) -> &BTreeMap<NodeName, HookFailure> {
        &self.hook_failures
    }

    /// This host's clock was stepped.
    pub fn clock_stepped(&mut self, by: SignedDuration) {
        self.attempts.values_mut().for_each(|attempt| attempt.last = moved(attempt.last, by));
        self.in_flight.values_mut().for_each(|flight| flight.since = moved(flight.since, by));
        self.begun.values_mut().for_each(|begun| begun.at = moved(begun.at, by));
    }

    /// What failed on the way to a node no longer holds anything up.
    pub fn forget_attempts(&mut self) {
        self.attempts.clear();
        self.hook_failures.clear();
    }

    /// What failed on the way to a node that is declared no more is nobody's concern.
    pub fn forget_attempts_except(&mut self, release: &Release) {
        self.attempts.retain(|name, _| release.nodes.contains_key(name));
        self.hook_failures.retain(|name, _| release.nodes.contains_key(name));
        self.begun.retain(|name, _| release.nodes.contains_key(name));
    }

    /// Gives up what is still being brought to such nodes, and says to which. What is about to begin, or has, is not given up.
    pub fn give_up_bringing(&mut self, such: impl Fn(&NodeName) -> bool) -> Vec<NodeName> {
        self.give_up(|name, stage| match stage {
            Stage::Copying { .. } | Stage::Building { .. } => such(name),
            Stage::Preparing | Stage::Switching { .. } | Stage::Hook { .. } | Stage::Rebooting => false,
        })
    }

    /// Gives up what has not reached its node's switch yet, and says on which nodes.
    pub fn give_up_unstarted(&mut self) -> Vec<NodeName> {
        self.give_up(|_, stage| match stage {
            Stage::Switching { .. } | Stage::Hook { at: HookPoint::AfterSwitch, .. } => false,
            Stage::Preparing
            | Stage::Copying { .. }
            | Stage::Building { .. }
            | Stage::Hook { .. }
            | Stage::Rebooting => true,
        })
    }

    fn give_up(&mut self, such: impl Fn(&NodeName, &Stage) -> bool) -> Vec<NodeName> {
        let given_up: Vec<NodeName> = self
            .in_flight
            .iter()
            .filter(|(name, flight)| such(name, &flight.stage))
            .map(|(name, _)| name.clone())
            .collect();
        self.in_flight.retain(|name, _| !given_up.contains(name));
        given_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::node::Goal;
    use crate::model::sample;

    #[test]
    fn what_is_still_being_brought_to_a_suspended_node_is_given_up_and_what_has_begun_is_not() {
        let mut actions = Actions::default();
        let copying = Stage::Copying { bytes: 1, total: 2 };
        for (name, stage) in [
            ("copied", copying.clone()),
            ("other", copying),
            ("prepared", Stage::Preparing),
            (
                "switched",
                Stage::Switching { phase: crate::model::journal::Phase::Testing, detail: String::new() },
            ),
        ] {
            let (toplevel, expected) = (sample::path('a', "new"), sample::path('b', "old"));
            let (goal, purpose) = (Goal::Switch, crate::model::decision::Purpose::Release);
            let name: NodeName = name.parse().unwrap();
            actions.begin(
                &name,
                &Action::Deploy { toplevel, expected, goal, purpose },
                Timestamp::UNIX_EPOCH,
            );
            actions.reached(&name, stage);
        }
        let given_up = actions.give_up_bringing(|name| name.as_str() != "other");
        assert_eq!(given_up, ["copied".parse::<NodeName>().unwrap()]);
        assert!(actions.contains(&"prepared".parse().unwrap()));
    }
}
