//! Whether a commit takes so much out of the fleet that a person has to say that it is meant.
//!
//! A node is lost that is deployed to now and is not declared by the commit, is disabled there, or has no host there. One
//! that does not evaluate is not lost: it is still declared. More than half of the fleet is too much.

use std::collections::BTreeMap;

use crate::model::name::NodeName;

/// So many names are said; the rest is a number.
const NAMED: usize = 5;

/// What a commit does with a node that is deployed to now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Not known before its evaluation has ended.
    Open,
    /// It goes on being deployed to.
    Kept,
    /// It is deployed to no more.
    Lost,
}

/// What is known of a commit's removals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    /// The nodes whose fate is open decide.
    Open,
    /// Whatever becomes of the nodes whose fate is open, it is not most of the fleet.
    Bearable,
    /// Most of the fleet.
    Mass(Losses),
}

/// The nodes that a commit would take away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Losses {
    /// Those that are known to be lost, by name.
    pub lost: Vec<NodeName>,
    /// Nodes of which it is not known yet.
    pub open: usize,
    /// How many nodes are deployed to now.
    pub of: usize,
}

/// Judges the fates of every node that is deployed to now.
pub fn removal(fates: &BTreeMap<NodeName, Fate>) -> Removal {
    let all = |fate: Fate| fates.iter().filter(move |(_, is)| **is == fate).map(|(name, _)| name);
    let is_most = |nodes: usize| 2 * nodes > fates.len();
    let (lost, open) = (all(Fate::Lost).count(), all(Fate::Open).count());
    if is_most(lost) {
        Removal::Mass(Losses { lost: all(Fate::Lost).cloned().collect(), open, of: fates.len() })
    } else if is_most(lost + open) {
        Removal::Open
    } else {
        Removal::Bearable
    }
}

impl Losses {
    /// What is wrong and what to do, for people. `commit` is how they name it.
    pub fn message(&self, commit: &str) -> String {
        let mut named: Vec<String> = self.lost.iter().take(NAMED).map(ToString::to_string).collect();
        if let Some(further @ 1..) = self.lost.len().checked_sub(NAMED) {
            named.push(format!("{further} more"));
        }
        format!(
            "{commit} removes or disables {}{} of {} nodes ({}); restore them, or, if that is meant, run `driftless sync \
             --allow-mass-removal {commit}`",
            if self.open > 0 { "at least " } else { "" },
            self.lost.len(),
            self.of,
            named.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One letter for each node: kept, lost, open.
    fn fates(letters: &str) -> BTreeMap<NodeName, Fate> {
        let fate = |letter| match letter {
            'k' => Fate::Kept,
            'l' => Fate::Lost,
            _ => Fate::Open,
        };
        let name = |at: usize| format!("n{at:02}").parse().unwrap();
        letters.chars().enumerate().map(|(at, letter)| (name(at), fate(letter))).collect()
    }

    fn word(letters: &str) -> &'static str {
        match removal(&fates(letters)) {
            Removal::Open => "open",
            Removal::Bearable => "bearable",
            Removal::Mass(_) => "mass",
        }
    }

    #[test]
    fn more_than_half_of_the_fleet_is_too_much() {
        for (letters, expected) in [
            ("", "bearable"),
            ("k", "bearable"),
            ("l", "mass"),
            ("lk", "bearable"),
            ("ll", "mass"),
            ("lkk", "bearable"),
            ("llk", "mass"),
            ("lllkkk", "bearable"),
            ("llllkkk", "mass"),
        ] {
            assert_eq!(word(letters), expected, "{letters}");
        }
    }

    #[test]
    fn an_open_fate_is_waited_for_only_where_it_could_decide() {
        for (letters, expected) in
            [("o", "open"), ("ko", "bearable"), ("lo", "open"), ("oookkk", "bearable"), ("llloo", "mass")]
        {
            assert_eq!(word(letters), expected, "{letters}");
        }
    }

    #[test]
    fn the_message_names_some_nodes_and_the_way_out() {
        let Removal::Mass(losses) = removal(&fates("lllllllk")) else { panic!() };
        assert_eq!(
            losses.message("3f9c2e1"),
            "3f9c2e1 removes or disables 7 of 8 nodes (n00, n01, n02, n03, n04, 2 more); restore them, or, if that is \
             meant, run `driftless sync --allow-mass-removal 3f9c2e1`"
        );
        let Removal::Mass(losses) = removal(&fates("llo")) else { panic!() };
        assert!(losses.message("3f9c2e1").contains("disables at least 2 of 3 nodes (n00, n01);"));
    }

    proptest! {
        #[test]
        fn what_is_decided_early_is_what_would_be_decided_in_the_end(
            letters in "[klo]{0,12}", ends in "[kl]{12}"
        ) {
            let settled: String =
                letters.chars().zip(ends.chars()).map(|(now, end)| if now == 'o' { end } else { now }).collect();
            let (early, late) = (word(&letters), word(&settled));
            prop_assert!(late != "open");
            prop_assert!(early == "open" || early == late, "{letters} {early}, {settled} {late}");
        }
    }
}
