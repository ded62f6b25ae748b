//! What is merged: the fleet as its deployment file declares it, and what a merge changes. Pure.

use driftless_lab::Fault;

use crate::schedule::NODES;

/// A change of the deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MergeKind {
    /// A new system for every node.
    Good,
    /// A new system for some nodes, from this one on.
    Some {
        /// The first.
        from: usize,
    },
    /// A new system for every node, to try only.
    Test,
    /// Two good ones, one right after the other.
    Twice,
    /// A new system for every node, and something is wrong with one.
    Bad {
        /// Which.
        node: usize,
        /// What.
        wrong: Wrong,
    },
    /// The deployment file does not evaluate.
    Broken,
    /// One node does not evaluate, the others have a new system.
    NotEvaluated {
        /// Which.
        node: usize,
    },
    /// One node does not build, the others have a new system.
    NotBuilt {
        /// Which.
        node: usize,
    },
    /// What the merge before changed is taken back.
    Revert,
    /// One node is taken out of the fleet, or put back.
    Without {
        /// Which.
        node: usize,
    },
    /// Options that change no system.
    Options,
}

/// What is wrong with a node's new system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrong {
    /// The system itself.
    System(Fault),
    /// Nothing, but its health check fails.
    HealthCheck,
}

impl Wrong {
    /// One of each. Not among them: a system that panics when it is booted. A switch proves what runs, not what boots.
    pub fn every() -> Vec<Self> {
        let mut all: Vec<Self> = Fault::every()
            .into_iter()
            .filter(|fault| *fault != Fault::PanicAtBoot)
            .map(Self::System)
            .collect();
        let further = [
            Fault::FillDisk("/var".into()),
            Fault::FillDisk("/nix".into()),
            Fault::Exit(100),
            Fault::Exit(11),
        ];
        all.extend(further.map(Self::System));
        all.push(Self::HealthCheck);
        all
    }
}

impl MergeKind {
    /// One of each.
    pub fn every() -> Vec<Self> {
        vec![
            // Faults are for nodes that switch: most merges give most nodes something to do.
            Self::Good,
            Self::Good,
            Self::Some { from: 0 },
            Self::Test,
            Self::Twice,
            Self::Bad { node: 0, wrong: Wrong::HealthCheck },
            Self::Bad { node: 0, wrong: Wrong::HealthCheck },
            Self::Bad { node: 0, wrong: Wrong::HealthCheck },
            Self::Broken,
            Self::NotEvaluated { node: 0 },
            Self::NotBuilt { node: 0 },
            Self::Revert,
            Self::Without { node: 0 },
            Self::Options,
        ]
    }

    /// Its word in log and report.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Good => "all",
            Self::Some { .. } => "some",
            Self::Test => "test-goal",
            Self::Twice => "two-at-once",
            Self::Bad { .. } => "bad-system",
            Self::Broken => "broken-evaluation",
            Self::NotEvaluated { .. } => "node-not-evaluated",
            Self::NotBuilt { .. } => "node-not-built",
            Self::Revert => "revert",
            Self::Without { .. } => "node-removed-or-added",
            Self::Options => "options",
        }
    }
}

/// What the deployment says of one node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Declared {
    text: String,
    extra: String,
    absent: bool,
}

/// The deployment as it stands on the branch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Deployment {
    nodes: [Declared; NODES.len()],
    options: usize,
    broken: bool,
}

impl Deployment {
    /// After this merge; `before` is what the merge before changed.
    pub(crate) fn merged(&self, number: usize, kind: &MergeKind, before: &Self) -> Self {
        let mut next = self.renewed(&format!("m{number}"), 0);
        match kind {
            MergeKind::Good | MergeKind::Twice => {}
            MergeKind::Some { from } => next = self.renewed(&format!("m{number}"), *from),
            MergeKind::Test => next.nodes.iter_mut().for_each(|node| node.extra = "goal = \"test\";".into()),
            MergeKind::Bad { node, wrong } => next.nodes[*node].extra = wrong.declared(),
            MergeKind::Broken => next.broken = true,
            MergeKind::NotEvaluated { node } => {
                next.nodes[*node].extra = "configuration.assertions = throw \"the campaign says so\";".into();
            }
            MergeKind::NotBuilt { node } => {
                next.nodes[*node].extra = format!(
                    "configuration.environment.systemPackages = [ (pkgs.runCommand \"broken-{number}\" {{ }} \"exit 1\") ];"
                );
            }
            MergeKind::Revert => next = Self { broken: false, ..before.clone() },
            MergeKind::Without { node } => {
                next = Self { broken: false, ..self.clone() };
                next.nodes[*node].absent = !self.nodes[*node].absent;
            }
            MergeKind::Options => next = Self { broken: false, options: number, ..self.clone() },
        }
        next
    }

    /// A good release for the whole fleet, which nothing has tried before.
    pub(crate) fn whole(name: &str) -> Self {
        Self::default().renewed(name, 0)
    }

    fn renewed(&self, text: &str, from: usize) -> Self {
        let mut next = Self { broken: false, ..self.clone() };
        for node in &mut next.nodes[from..] {
            *node = Declared { text: text.to_owned(), extra: String::new(), absent: node.absent };
        }
        next
    }

    /// What the file says of the whole fleet.
    pub(crate) fn fleet_wide(&self) -> String {
        format!("rollout.healAfter = 2; rollout.maxInFlight = {};", 5 - self.options % 3)
    }

    /// What the file says of a node.
    pub(crate) fn of(&self, node: usize, patience: Patience) -> String {
        let declared = &self.nodes[node];
        let deadlines = match patience {
            // A machine that is busy with other things must not look like a fault.
            Patience::Checkpoint => "switchTimeout = 60; successTimeout = 40; healthTimeout = 40;",
            // What may last, lasts through some cuts; the other half shows what a deadline does.
            Patience::Round
                if declared.extra.is_empty() && declared.text.ends_with(['1', '3', '5', '7', '9']) =>
            {
                "switchTimeout = 20; successTimeout = 20; healthTimeout = 20;"
            }
            Patience::Round if declared.extra.is_empty() => {
                "switchTimeout = 20; successTimeout = 6; healthTimeout = 6;"
            }
            Patience::Round => "switchTimeout = 5; successTimeout = 4; healthTimeout = 4;",
        };
        format!(
            "enabled = {}; tags = [ \"t{}\" ]; {deadlines} configuration.lab.text = \"{}\"; {}",
            !declared.absent, self.options, declared.text, declared.extra
        )
    }

    /// Whether the file is Nix at all.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }
}

/// Which deadlines the nodes get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Short ones.
    Round,
    /// Those of a release that must succeed.
    Checkpoint,
}

impl Wrong {
    /// As the deployment file says it.
    fn declared(&self) -> String {
        match self {
            Self::System(fault) => {
                let (name, value) = fault.attribute();
                format!("configuration.lab.faults.{name} = \"{value}\";")
            }
            Self::HealthCheck => "healthChecks.commands.never = \"false\";".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revert_brings_back_what_was_and_a_good_merge_forgets_what_was_wrong() {
        let first = Deployment::whole("first");
        let bad = first.merged(1, &MergeKind::Bad { node: 2, wrong: Wrong::HealthCheck }, &first);
        assert!(bad.of(2, Patience::Round).contains("never = \"false\""));
        assert!(!bad.of(1, Patience::Round).contains("never"));
        assert_eq!(bad.merged(2, &MergeKind::Revert, &first), first);
        let good = bad.merged(2, &MergeKind::Good, &first);
        assert!(
            !good.of(2, Patience::Round).contains("never") && good.of(2, Patience::Round).contains("\"m2\"")
        );
    }

    #[test]
    fn a_node_that_was_taken_out_stays_out_until_it_is_put_back_or_the_checkpoint() {
        let first = Deployment::whole("first");
        let without = first.merged(1, &MergeKind::Without { node: 0 }, &first);
        let later = without.merged(2, &MergeKind::Good, &first);
        assert!(later.of(0, Patience::Round).starts_with("enabled = false"));
        let again = later.merged(3, &MergeKind::Without { node: 0 }, &without);
        assert!(again.of(0, Patience::Round).starts_with("enabled = true"));
        assert!(Deployment::whole("next").of(0, Patience::Checkpoint).starts_with("enabled = true"));
    }
}
