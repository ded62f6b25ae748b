//! What will be done to the fleet, and when: a pure function of a seed and a number of faults. Knows no node and no clock; how
//! long things then take is the machine's business, so that a replay is the same in what happens and not to the millisecond.

use std::fmt;
use std::time::Duration;

use crate::dice::Dice;
use crate::fault::{ControllerFault, Fault, NodeFault};
use crate::merge::{MergeKind, Wrong};

/// The machines of the fleet.
pub const NODES: [&str; 5] = ["n1", "n2", "n3", "n4", "n5"];

/// Phases of a switch, by their words in the node's journal. Nothing is as delicate as committing; few switches roll back.
const PHASES: [&str; 10] = [
    "checking",
    "testing",
    "testing",
    "contact",
    "contact",
    "health",
    "committing",
    "committing",
    "committing",
    "rolling-back",
];

/// Everything that will be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// What it was made from.
    pub seed: u64,
    /// One after the other, each followed by a checkpoint.
    pub rounds: Vec<Round>,
}

/// Merges and faults that overlap, up to a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    /// One after the other.
    pub merges: Vec<Merge>,
    /// Those on one node are one after the other, those on different nodes at the same time; the controller is like a node.
    pub faults: Vec<Injection>,
}

/// A commit on the branch that is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merge {
    /// Counted through the campaign.
    pub number: usize,
    /// When.
    pub when: When,
    /// Of what.
    pub kind: MergeKind,
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Injection {
    /// Counted through the campaign.
    pub number: usize,
    /// When.
    pub when: When,
    /// What and where.
    pub fault: Fault,
}

/// When a step is due, counted from the step before on the same node (for merges: from the merge before).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// After this time.
    After(Duration),
    /// As soon as a switch is in this phase: on the fault's node, for merges and the controller on any. After a few seconds
    /// without, it is done all the same.
    InPhase(&'static str),
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::After(delay) => write!(f, "after {:.1} s", delay.as_secs_f32()),
            Self::InPhase(phase) => write!(f, "in phase {phase}"),
        }
    }
}

/// Cards that are dealt until none is left, then shuffled again: each kind comes about as often as each other.
struct Deck<T> {
    all: Vec<T>,
    left: Vec<T>,
}

impl<T: Clone> Deck<T> {
    fn of(all: Vec<T>) -> Self {
        Self { all, left: Vec::new() }
    }

    fn deal(&mut self, dice: &mut Dice) -> T {
        if self.left.is_empty() {
            self.left.clone_from(&self.all);
        }
        self.left.swap_remove(dice.below(self.left.len()))
    }
}

/// One of each fault; where and for how long is thrown when it is dealt.
#[derive(Clone)]
enum Card {
    Node(NodeFault),
    Controller(ControllerFault),
}

impl Schedule {
    /// `faults` faults, about `per_round` between two checkpoints.
    #[must_use]
    pub fn new(seed: u64, faults: usize, per_round: usize) -> Self {
        let mut dice = Dice::new(seed);
        let cards = NodeFault::every().into_iter().map(Card::Node);
        let cards = cards.chain(ControllerFault::every().into_iter().map(Card::Controller));
        let mut deck = Deck::of(cards.collect());
        let mut merges = Deck::of(MergeKind::every());
        let mut wrongs = Deck::of(Wrong::every());
        let (mut rounds, mut merged, mut injected) = (Vec::new(), 0, 0);
        while injected < faults {
            let least = (per_round * 3 / 4).max(1);
            let size = (least + dice.below(per_round / 2 + 1)).min(faults - injected);
            let round = Round {
                merges: (0..3 + dice.below(4))
                    .map(|place| {
                        merged += 1;
                        merge(&mut dice, merged, place, &mut merges, &mut wrongs)
                    })
                    .collect(),
                faults: (0..size)
                    .map(|_| {
                        injected += 1;
                        injection(&mut dice, injected, &mut deck)
                    })
                    .collect(),
            };
            rounds.push(round);
        }
        Self { seed, rounds }
    }

    /// How many faults there are in it.
    #[must_use]
    pub fn faults(&self) -> usize {
        self.rounds.iter().map(|round| round.faults.len()).sum()
    }
}

fn merge(
    dice: &mut Dice,
    number: usize,
    place: usize,
    merges: &mut Deck<MergeKind>,
    wrongs: &mut Deck<Wrong>,
) -> Merge {
    let when = match dice.below(3) {
        // Faults need switches to fall into: a round begins with a commit.
        _ if place == 0 => When::After(Duration::ZERO),
        0 => When::InPhase(dice.pick(&PHASES)),
        1 => When::After(dice.millis(0, 300)),
        // Faults go on for longer than one rollout.
        2.. => When::After(dice.millis(1500, 5000)),
    };
    let node = dice.below(NODES.len());
    let kind = match merges.deal(dice) {
        MergeKind::Bad { .. } => MergeKind::Bad { node, wrong: wrongs.deal(dice) },
        MergeKind::NotEvaluated { .. } => MergeKind::NotEvaluated { node },
        MergeKind::NotBuilt { .. } => MergeKind::NotBuilt { node },
        MergeKind::Without { .. } => MergeKind::Without { node },
        MergeKind::Some { .. } => MergeKind::Some { from: node },
        kind @ (MergeKind::Good
        | MergeKind::Test
        | MergeKind::Twice
        | MergeKind::Broken
        | MergeKind::Revert
        | MergeKind::Options) => kind,
    };
    Merge { number, when, kind }
}

fn injection(dice: &mut Dice, number: usize, deck: &mut Deck<Card>) -> Injection {
    let fault = match deck.deal(dice) {
        Card::Node(fault) => Fault::Node { node: dice.below(NODES.len()), fault: fault.thrown(dice) },
        Card::Controller(fault) => Fault::Controller(fault.thrown(dice)),
    };
    let phased = match &fault {
        Fault::Node { fault, .. } => fault.wants_a_switch(),
        Fault::Controller(_) => false,
    };
    let when = if phased || dice.hit(1, 2) {
        When::InPhase(dice.pick(&PHASES))
    } else {
        When::After(dice.millis(0, 1500))
    };
    Injection { number, when, fault }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_is_a_schedule_and_another_seed_another() {
        assert_eq!(Schedule::new(7, 200, 15), Schedule::new(7, 200, 15));
        assert_ne!(Schedule::new(7, 200, 15).rounds, Schedule::new(8, 200, 15).rounds);
        // What a seed in an old report means.
        let first = &Schedule::new(1, 200, 15).rounds[0];
        assert_eq!(Dice::new(1).below(1 << 20), Dice::new(1).below(1 << 20));
        assert_eq!(first, &Schedule::new(1, 200, 15).rounds[0]);
    }

    #[test]
    fn there_are_as_many_faults_as_asked_for_and_each_has_its_number() {
        for faults in [0, 1, 14, 200, 1000] {
            let schedule = Schedule::new(3, faults, 15);
            let numbers: Vec<usize> =
                schedule.rounds.iter().flat_map(|round| &round.faults).map(|fault| fault.number).collect();
            assert_eq!(numbers, (1..=faults).collect::<Vec<_>>());
            assert_eq!(schedule.faults(), faults);
            for round in &schedule.rounds {
                assert!(round.faults.len() <= 20, "a round of {}", round.faults.len());
                assert!((3..=6).contains(&round.merges.len()));
                assert_eq!(round.merges[0].when, When::After(Duration::ZERO));
            }
        }
    }

    #[test]
    fn every_kind_of_fault_merge_and_wrong_system_comes_and_none_is_forgotten() {
        let schedule = Schedule::new(11, 200, 15);
        let faults: BTreeSet<&str> =
            schedule.rounds.iter().flat_map(|round| &round.faults).map(|step| step.fault.kind()).collect();
        let all = NodeFault::every()
            .iter()
            .map(NodeFault::kind)
            .chain(ControllerFault::every().iter().map(ControllerFault::kind))
            .collect();
        assert_eq!(faults, all);
        let long = Schedule::new(11, 1500, 15);
        let merges: Vec<&MergeKind> =
            long.rounds.iter().flat_map(|round| &round.merges).map(|merge| &merge.kind).collect();
        for kind in MergeKind::every() {
            assert!(merges.iter().any(|merge| merge.kind() == kind.kind()), "{kind:?}");
        }
        for wanted in Wrong::every() {
            let is = |merge: &&&MergeKind| matches!(merge, MergeKind::Bad { wrong, .. } if *wrong == wanted);
            assert!(merges.iter().any(|merge| is(&merge)), "{wanted:?}");
        }
    }
}
