//! Which of two ways leads to a node, while it moves from one to the other. Pure.

use crate::model::node::MachineId;
use crate::model::observed::NodeState;
use crate::model::way::Which;

/// Which way is worked over, by what answered on each. The declared one is, as soon as the node answers there: Git says
/// where the node is. Until then it is the one that answered last, so that a deployment that moves the node can reach it.
pub fn choose(machine: Option<&MachineId>, declared: Option<&NodeState>, last: Option<&NodeState>) -> Which {
    match (declared, last) {
        (Some(declared), _) if is_it(machine, declared) => Which::Declared,
        (_, Some(last)) if is_it(machine, last) => Which::Last,
        // Nothing is where it should be: what is wrong at the declared place is what a person wants to know.
        (Some(_) | None, Some(_) | None) => Which::Declared,
    }
}

/// Whether this is the machine that was declared, as far as it was.
pub fn is_it(machine: Option<&MachineId>, state: &NodeState) -> bool {
    machine.is_none_or(|expected| state.machine_id.as_ref() == Some(expected))
}

/// Whether an answer makes a way the one that answered last, and the one before forgotten. In the middle of a switch it
/// does not: the node may yet go back to where it came from.
pub fn proves(machine: Option<&MachineId>, state: &NodeState) -> bool {
    is_it(machine, state) && state.live_switch().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::world::{machine, switch};

    #[test]
    fn an_answer_in_the_middle_of_a_switch_proves_no_way() {
        let mut state = machine('a');
        let expected = state.machine_id.clone();
        assert!(proves(None, &state) && proves(expected.as_ref(), &state));
        assert!(!proves(machine('b').machine_id.as_ref(), &state));
        state.journal.edit(|entries| entries.push(switch("new").live().entry()));
        assert!(!proves(None, &state));
    }

    #[test]
    fn a_node_is_where_it_is_declared_as_soon_as_it_answers_there() {
        let (own, other) = (machine('a'), machine('b'));
        let expected = own.machine_id.clone();
        let (any, own_only) = (None, expected.as_ref());
        for (machine, declared, last, which) in [
            (any, Some(&own), Some(&own), Which::Declared),
            (any, None, Some(&own), Which::Last),
            (any, None, None, Which::Declared),
            // Where no machine is declared, Git may have meant another one.
            (any, Some(&other), Some(&own), Which::Declared),
            (own_only, Some(&own), Some(&own), Which::Declared),
            (own_only, Some(&other), Some(&own), Which::Last),
            (own_only, Some(&other), Some(&other), Which::Declared),
            (own_only, None, Some(&other), Which::Declared),
        ] {
            assert_eq!(choose(machine, declared, last), which, "{machine:?} {declared:?} {last:?}");
        }
    }
}
