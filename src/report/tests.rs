//! What the drift report says about a sample snapshot, in each format.

use super::*;
use crate::model::sample;

#[test]
fn the_text_says_what_differs_since_when_and_what_happens_next() {
    let text = text::render(&Report::of(&sample::fleet()), sample::now());
    insta::assert_snapshot!(anstream::adapter::strip_str(&text).to_string());
}

#[test]
fn the_markdown_can_be_pasted_into_an_issue() {
    insta::assert_snapshot!(markdown::render(&Report::of(&sample::fleet()), sample::now()));
}

#[test]
fn the_json_is_versioned_and_complete() {
    let mut snapshot = sample::fleet();
    snapshot.nodes.retain(|name, _| name.as_str() == "mail");
    insta::assert_json_snapshot!(json::document(&Report::of(&snapshot)));
}

#[test]
fn nothing_to_report_is_said() {
    let report = Report::of(&sample::quiet());
    assert_eq!(report.sentence(), "Nothing to report: the one node is what Git says.");
    assert_eq!(text::render(&report, sample::now()), "Nothing to report: the one node is what Git says.\n");
    let mut none = sample::quiet();
    none.nodes.clear();
    assert_eq!(Report::of(&none).sentence(), "The fleet has no nodes.");
}

#[test]
fn what_a_node_says_cannot_break_the_markdown() {
    let mut snapshot = sample::fleet();
    snapshot.nodes.retain(|name, _| name.as_str() == "mail");
    for node in snapshot.nodes.values_mut() {
        std::sync::Arc::make_mut(node).why = "a|b\n<img src=x> @everyone".into();
    }
    let markdown = markdown::render(&Report::of(&snapshot), sample::now());
    assert!(markdown.contains("a\\|b<br>&lt;img src=x&gt; &#64;everyone"), "{markdown}");
}
