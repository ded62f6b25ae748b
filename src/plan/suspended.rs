//! Whether a person, or the deployment, wants a node left alone.
//!
//! Three may say so: the deployment itself, a suspension that the controller keeps, and a mark on the node, which is what
//! is left of a suspension when the controller's state is lost. What is known of the suspension itself counts more than its
//! mark: a mark of one that was ended, or that means other nodes by now, is only waiting to be taken away.

use jiff::Timestamp;

use crate::model::intent::{DEPLOYMENT, Intent, NodeSuspension, SuspensionMark};
use crate::model::name::NodeName;
use crate::model::node::NodeSpec;

/// Why this node is left alone at this time; of several reasons the one that lasts longest. Of a node that does not evaluate
/// nothing but its name is known.
pub fn suspended(
    intent: &Intent,
    name: &NodeName,
    spec: Option<&NodeSpec>,
    marks: &[SuspensionMark],
    now: Timestamp,
) -> Option<NodeSuspension> {
    let in_git = spec.and_then(|spec| spec.suspended.as_ref()).map(|reason| NodeSuspension {
        by: DEPLOYMENT.to_owned(),
        reason: reason.clone(),
        until: None,
        id: None,
    });
    if in_git.is_some() || (intent.suspensions.is_empty() && marks.is_empty()) {
        return in_git;
    }
    let kept = intent.suspensions.iter().filter(|(_, suspension)| suspension.means(name, spec));
    let kept = kept.map(|(id, suspension)| NodeSuspension {
        by: suspension.by.clone(),
        reason: suspension.reason.clone(),
        until: suspension.until,
        id: Some(id.clone()),
    });
    let marked = marks.iter().filter(|mark| intent.counts(name, mark)).map(|mark| NodeSuspension {
        by: mark.by.clone(),
        reason: mark.reason.clone(),
        until: mark.until,
        id: Some(mark.id.clone()),
    });
    kept.chain(marked)
        .filter(|suspension| suspension.until.is_none_or(|until| now < until))
        .max_by_key(|suspension| suspension.until.unwrap_or(Timestamp::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::intent::{Suspension, SuspensionId};
    use crate::model::sample;

    fn at(text: &str) -> Timestamp {
        format!("2026-11-22T{text}:00Z").parse().unwrap()
    }

    fn id(digit: u32) -> SuspensionId {
        SuspensionId::new(at("12:00"), digit)
    }

    fn mark(digit: u32, until: Option<Timestamp>) -> SuspensionMark {
        SuspensionMark { id: id(digit), by: "alice@laptop".into(), reason: format!("mark {digit}"), until }
    }

    fn suspension(on: &str, until: Option<Timestamp>) -> Suspension {
        let (by, reason) = ("alice@laptop".to_owned(), format!("all of {on}"));
        Suspension { on: on.parse().unwrap(), by, reason, since: at("12:00"), until }
    }

    fn of(intent: &Intent, marks: &[SuspensionMark], now: &str) -> Option<String> {
        let spec = sample::spec("web1");
        suspended(intent, &"web1".parse().unwrap(), Some(&spec), marks, at(now)).map(|found| found.reason)
    }

    #[test]
    fn a_suspension_counts_where_it_means_the_node_and_until_its_end() {
        let mut intent = Intent::default();
        assert_eq!(of(&intent, &[], "12:00"), None);
        intent.suspensions.insert(id(1), suspension("@db,db*", None));
        assert_eq!(of(&intent, &[], "12:00"), None);
        intent.suspensions.insert(id(2), suspension("@web", Some(at("13:00"))));
        assert_eq!(of(&intent, &[], "12:59").unwrap(), "all of @web");
        assert_eq!(of(&intent, &[], "13:00"), None);
        intent.suspensions.insert(id(3), suspension("web?", Some(at("14:00"))));
        assert_eq!(of(&intent, &[], "12:00").unwrap(), "all of web?", "it lasts longer");
        intent.suspensions.insert(id(4), suspension("*", None));
        assert_eq!(of(&intent, &[], "12:00").unwrap(), "all of *", "it lasts for good");
    }

    #[test]
    fn a_mark_that_nobody_knows_counts_as_if_it_were_known() {
        let marks = [mark(1, Some(at("13:00")))];
        let mut intent = Intent::default();
        assert_eq!(of(&intent, &marks, "12:00").unwrap(), "mark 1");
        assert_eq!(of(&intent, &marks, "13:00"), None);
        intent.resumed.insert(id(1), at("12:00"));
        assert_eq!(of(&intent, &marks, "12:00"), None, "it was ended while the node was out of reach");
    }

    #[test]
    fn a_mark_of_a_suspension_that_means_other_nodes_by_now_does_not_count() {
        let mut intent = Intent::default();
        intent.suspensions.insert(id(1), suspension("web2", None));
        assert_eq!(of(&intent, &[mark(1, None)], "12:00"), None);
    }

    #[test]
    fn a_mark_from_which_this_node_was_released_counts_for_the_others_only() {
        let mut intent = Intent::default();
        intent.released.insert(id(1), ["web1".parse().unwrap()].into());
        assert_eq!(of(&intent, &[mark(1, None)], "12:00"), None);
        let other = suspended(&intent, &"web2".parse().unwrap(), None, &[mark(1, None)], at("12:00"));
        assert_eq!(other.unwrap().reason, "mark 1");
    }

    #[test]
    fn what_git_says_ends_in_git_only() {
        let mut spec = sample::spec("web1");
        spec.suspended = Some("disk swap".into());
        let mut intent = Intent::default();
        intent.suspensions.insert(id(1), suspension("*", None));
        let found = suspended(&intent, &"web1".parse().unwrap(), Some(&spec), &[], at("12:00")).unwrap();
        assert_eq!((found.by.as_str(), found.id), (DEPLOYMENT, None));
    }
}
