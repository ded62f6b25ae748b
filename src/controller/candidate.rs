//! A commit on its way into force. One that may take most of the fleet away waits, with all that is found out about it,
//! until that is known; any other does not wait. The rule is `plan`'s.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::prepare::{Failure, Prepared};
use crate::model::manifest::Names;
use crate::model::name::NodeName;
use crate::model::node::NodeSpec;
use crate::plan::removal::{Fate, Losses, Removal, removal};

/// A commit that is not in force yet.
#[derive(Debug)]
pub struct Candidate {
    /// Its nodes.
    pub names: Box<Names>,
    /// What was found out about them, in order.
    pub steps: Vec<Prepared>,
    fates: BTreeMap<NodeName, Fate>,
}

/// What comes of a candidate.
#[derive(Debug)]
pub enum Verdict {
    /// Not known yet.
    Waits(Candidate),
    /// It comes into force.
    Enters(Candidate),
    /// Not before a person says so.
    Refused(Losses),
}

impl Candidate {
    /// The deployment has these nodes; deployed to are `now`.
    pub fn new(names: Box<Names>, now: BTreeSet<NodeName>) -> Self {
        let fate = |name: &NodeName| if names.nodes.contains(name) { Fate::Open } else { Fate::Lost };
        let fates = now.into_iter().map(|name| (name.clone(), fate(&name))).collect();
        Self { names, steps: Vec::new(), fates }
    }

    /// Takes in what was found out.
    pub fn learn(&mut self, step: Prepared) {
        if let Prepared::Evaluated(name, outcome) = &step
            && let Some(fate) = self.fates.get_mut(name)
        {
            *fate = fate_of(outcome);
        }
        self.steps.push(step);
    }

    /// What comes of it, as far as it is known.
    pub fn judge(self) -> Verdict {
        match removal(&self.fates) {
            Removal::Open => Verdict::Waits(self),
            Removal::Bearable => Verdict::Enters(self),
            Removal::Mass(losses) => Verdict::Refused(losses),
        }
    }
}

fn fate_of(outcome: &Result<Option<Arc<NodeSpec>>, Failure>) -> Fate {
    match outcome {
        Ok(Some(spec)) if spec.host.is_some() => Fate::Kept,
        Ok(Some(_) | None) => Fate::Lost,
        Err(_) => Fate::Kept,
    }
}
