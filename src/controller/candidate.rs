//! A commit on its way into force. One that may take most of the fleet away, or whose rollout speaks of tags, waits, with
//! all that is found out about it, until that is known; any other does not wait. The rules are `plan`'s.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::prepare::{Failure, Prepared};
use crate::model::manifest::Names;
use crate::model::name::{NodeName, Tag};
use crate::model::node::NodeSpec;
use crate::model::rollout::RolloutSpec;
use crate::model::selector::Selector;
use crate::plan::declared::{self, Known};
use crate::plan::removal::{Fate, Losses, Removal, removal};

/// A commit that is not in force yet.
#[derive(Debug)]
pub struct Candidate {
    /// Its nodes.
    pub names: Box<Names>,
    /// What was found out about them, in order.
    pub steps: Vec<Prepared>,
    /// What it declares of its rollout.
    pub hearing: Hearing,
    fates: BTreeMap<NodeName, Fate>,
}

/// What comes of a candidate.
#[derive(Debug)]
pub enum Verdict {
    /// Not known yet.
    Waits(Candidate),
    /// It comes into force.
    Enters(Candidate),
    /// Not at all: it declares what cannot be meant.
    Misdeclared(String),
    /// Not before a person says so.
    Refused(Losses),
}

impl Candidate {
    /// The deployment has these nodes; deployed to are `now`.
    pub fn new(names: Box<Names>, now: BTreeSet<NodeName>) -> Self {
        let fate = |name: &NodeName| if names.nodes.contains(name) { Fate::Open } else { Fate::Lost };
        let fates = now.into_iter().map(|name| (name.clone(), fate(&name))).collect();
        let hearing = Hearing::of(&names);
        Self { names, steps: Vec::new(), hearing, fates }
    }

    /// Takes in what was found out.
    pub fn learn(&mut self, step: Prepared) {
        if let Prepared::Evaluated(name, outcome) = &step
            && let Some(fate) = self.fates.get_mut(name)
        {
            *fate = fate_of(outcome);
        }
        self.hearing.hear(&step);
        self.steps.push(step);
    }

    /// What comes of it, as far as it is known.
    pub fn judge(self) -> Verdict {
        let complete = self.hearing.is_complete();
        let open = match removal(&self.fates) {
            Removal::Mass(losses) => return Verdict::Refused(losses),
            Removal::Open => true,
            Removal::Bearable => self.hearing.rollout.needs_tags() && !complete,
        };
        // With the names much is known, with the last node all; between them nothing is that could not wait.
        if (self.steps.is_empty() || complete || !open)
            && let Err(said) = self.hearing.check()
        {
            return Verdict::Misdeclared(said);
        }
        if open { Verdict::Waits(self) } else { Verdict::Enters(self) }
    }
}

/// What a commit says of its rollout, as far as its nodes are evaluated.
#[derive(Debug)]
pub struct Hearing {
    rollout: RolloutSpec,
    nodes: BTreeMap<NodeName, Heard>,
    /// How many nodes have not been heard of.
    open: usize,
}

#[derive(Debug)]
enum Heard {
    Nothing,
    NotEvaluated,
    Disabled,
    Said { tags: BTreeSet<Tag>, after: Vec<Selector> },
}

impl Hearing {
    fn of(names: &Names) -> Self {
        let nodes: BTreeMap<_, _> = names.nodes.iter().map(|name| (name.clone(), Heard::Nothing)).collect();
        Self { rollout: names.rollout.clone(), open: nodes.len(), nodes }
    }

    /// Takes in what was found out.
    pub fn hear(&mut self, step: &Prepared) {
        let Prepared::Evaluated(name, outcome) = step else { return };
        let Some(heard) = self.nodes.get_mut(name) else { return };
        self.open -= usize::from(matches!(heard, Heard::Nothing));
        *heard = match outcome {
            Ok(Some(spec)) => Heard::Said { tags: spec.tags.clone(), after: spec.after.clone() },
            Ok(None) => Heard::Disabled,
            Err(_) => Heard::NotEvaluated,
        };
    }

    /// Whether every node was heard of.
    pub fn is_complete(&self) -> bool {
        self.open == 0
    }

    /// Whether it is about a node that comes after others.
    pub fn is_to_wait(&self, step: &Prepared) -> bool {
        let (Prepared::Evaluated(name, _) | Prepared::Built(name, _)) = step else { return false };
        matches!(self.nodes.get(name), Some(Heard::Said { after, .. }) if !after.is_empty())
    }

    /// What cannot be meant, in one line.
    pub fn check(&self) -> Result<(), String> {
        let known = |heard| match heard {
            &Heard::Nothing | &Heard::NotEvaluated => Known::Name,
            &Heard::Disabled => Known::Disabled,
            Heard::Said { tags, after } => Known::Said { tags, after },
        };
        let nodes = self.nodes.iter().map(|(name, heard)| (name.clone(), known(heard))).collect();
        declared::check(&self.rollout, &nodes).map_err(|found| declared::told(&found))
    }
}

fn fate_of(outcome: &Result<Option<Arc<NodeSpec>>, Failure>) -> Fate {
    match outcome {
        Ok(Some(spec)) if spec.host.is_some() => Fate::Kept,
        Ok(Some(_) | None) => Fate::Lost,
        Err(_) => Fate::Kept,
    }
}

#[cfg(test)]
mod tests {
    use super::super::prepare::Again;
    use super::*;
    use crate::model::sample;

    fn candidate(rollout: serde_json::Value) -> Candidate {
        let names = serde_json::json!({ "version": 1, "format": "driftless", "nodes": ["n1", "n2"], "rollout": rollout });
        Candidate::new(Box::new(serde_json::from_value(names).unwrap()), BTreeSet::new())
    }

    fn evaluated(name: &str, tag: &str, after: &[&str]) -> Prepared {
        let mut spec = sample::spec(name);
        spec.tags = BTreeSet::from([tag.parse().unwrap()]);
        spec.after = after.iter().map(|after| after.parse().unwrap()).collect();
        Prepared::Evaluated(name.parse().unwrap(), Ok(Some(spec.into())))
    }

    fn word(candidate: Candidate) -> (String, Option<Candidate>) {
        match candidate.judge() {
            Verdict::Waits(candidate) => ("waits".into(), Some(candidate)),
            Verdict::Enters(candidate) => ("enters".into(), Some(candidate)),
            Verdict::Misdeclared(said) => (said, None),
            Verdict::Refused(_) => ("refused".into(), None),
        }
    }

    #[test]
    fn a_commit_waits_for_its_nodes_where_its_rollout_speaks_of_tags() {
        assert_eq!(word(candidate(serde_json::json!({}))).0, "enters");
        let waves = serde_json::json!({ "waves": [{ "on": "@a" }, { "on": "@b" }] });
        for (second, expected) in [
            (evaluated("n2", "b", &[]), "enters"),
            (
                evaluated("n2", "c", &[]),
                "rollout.waves[1].on: no node matches \"@b\"; the nodes are n1, n2; the tags are @a, @c; \
              rollout.waves: n2 is in no wave; add one with on = \"*\" for the rest",
            ),
            (
                Prepared::Evaluated(
                    "n2".parse().unwrap(),
                    Err(Failure { said: "broken".into(), again: Again::Same }),
                ),
                "enters",
            ),
        ] {
            let (first, candidate) = word(candidate(waves.clone()));
            let mut candidate = candidate.unwrap();
            candidate.learn(evaluated("n1", "a", &[]));
            let (then, candidate) = word(candidate);
            let mut candidate = candidate.unwrap();
            candidate.learn(second);
            assert_eq!(
                (first.as_str(), then.as_str(), word(candidate).0.as_str()),
                ("waits", "waits", expected)
            );
        }
        let wrong = serde_json::json!({ "waves": [{ "on": "@a" }, { "on": "n3" }] });
        assert!(word(candidate(wrong)).0.starts_with("rollout.waves[1].on: no node matches \"n3\""));
    }

    #[test]
    fn nodes_that_come_after_others_wait_until_every_node_is_known() {
        let mut hearing = candidate(serde_json::json!({})).hearing;
        let (free, bound) = (evaluated("n1", "a", &[]), evaluated("n2", "a", &["n1"]));
        hearing.hear(&free);
        hearing.hear(&free);
        assert!(!hearing.is_complete() && !hearing.is_to_wait(&free));
        hearing.hear(&bound);
        assert!(hearing.is_complete() && hearing.is_to_wait(&bound));
        assert_eq!(hearing.check(), Ok(()));
    }
}
