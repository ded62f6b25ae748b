//! What `plan` prints, from a sample snapshot.

use super::*;
use crate::model::sample;

#[test]
fn a_plan_says_what_would_be_done_and_what_it_brings() {
    let text = text(&sample::fleet(), sample::now(), None);
    insta::assert_snapshot!(anstream::adapter::strip_str(&text).to_string());
}

#[test]
fn the_json_of_a_plan_carries_the_decision_itself() {
    let mut snapshot = sample::fleet();
    snapshot.nodes.retain(|name, _| name.as_str() == "web2");
    insta::assert_json_snapshot!(document(&snapshot));
}

#[test]
fn only_a_node_that_needs_nothing_is_settled() {
    let settled: Vec<String> = sample::fleet()
        .nodes
        .iter()
        .filter(|(_, node)| is_settled(&node.decision))
        .map(|(name, _)| name.to_string())
        .collect();
    assert_eq!(settled, ["web1"]);
    assert!(is_settled(&Decision::Hold { hold: Hold::NoHost }));
}
