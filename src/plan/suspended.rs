//! Whether a person, or the deployment, wants a node left alone.
//!
//! Three may say so: the deployment itself, a suspension that the controller keeps, and a mark on the node, which is what
//! is left of a suspension when the controller's state is lost. What is known of the suspension itself counts more than its
//! mark: a mark of one that was ended, or that means other nodes by now, is only waiting to be taken away.

use jiff::Timestamp;

use crate::model::decision::{Decision, Hold};
use crate::model::intent::{DEPLOYMENT, Intent, NodeSuspension, SuspensionId, SuspensionMark};
use crate::model::name::NodeName;
use crate::model::node::NodeSpec;
use crate::model::observed::NodeState;
use crate::model::snapshot::NodeView;

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

/// What is to be changed about the marks of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MarkChange {
    /// A suspension that it does not know.
    Write(SuspensionMark),
    /// One that is over, or means other nodes.
    Remove(SuspensionId),
}

/// What makes the marks of a node equal to what people want. Nothing while that cannot be read, and nothing on a machine that
/// may be another one, or does not answer.
pub fn mark_changes(intent: &Intent, name: &NodeName, view: &NodeView, now: Timestamp) -> Vec<MarkChange> {
    let Some(state) = markable(view).filter(|_| !intent.is_unreadable()) else { return Vec::new() };
    let lasts = |until: Option<Timestamp>| until.is_none_or(|until| now < until);
    let meant = |id: &SuspensionId| {
        let known = intent.suspensions.get(id);
        known.is_some_and(|one| lasts(one.until) && one.means(name, view.spec.as_deref()))
    };
    let is_over =
        |mark: &&SuspensionMark| !lasts(mark.until) || !(intent.counts(name, mark) || meant(&mark.id));
    let over = state.suspended.iter().filter(is_over).map(|mark| MarkChange::Remove(mark.id.clone()));
    let marked = |id: &SuspensionId| state.suspended.iter().any(|mark| mark.id == *id);
    let missing = intent.suspensions.iter().filter(|(id, _)| meant(id) && !marked(id));
    let missing = missing.map(|(id, one)| {
        let (id, by, reason) = (id.clone(), one.by.clone(), one.reason.clone());
        MarkChange::Write(SuspensionMark { id, by, reason, until: one.until })
    });
    over.chain(missing).collect()
}

fn markable(view: &NodeView) -> Option<&NodeState> {
    let seen = view.observation.as_ref()?;
    let wrong = matches!(&view.decision, Decision::Hold { hold: Hold::WrongMachine { .. } });
    seen.state.as_ref().filter(|_| seen.contact.is_reachable() && !wrong && view.spec.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::intent::Suspension;
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

    fn changes(intent: &Intent, marks: &[SuspensionMark], now: &str) -> Vec<MarkChange> {
        let mut view = sample::in_sync("web1");
        let seen = std::sync::Arc::make_mut(view.observation.as_mut().unwrap());
        seen.state.as_mut().unwrap().suspended = marks.to_vec();
        mark_changes(intent, &"web1".parse().unwrap(), &view, at(now))
    }

    #[test]
    fn the_marks_of_a_node_follow_what_people_want_and_what_nobody_knows_stays() {
        let mut intent = Intent::default();
        assert_eq!(changes(&intent, &[mark(9, None)], "12:00"), []);
        intent.suspensions.insert(id(1), suspension("@web", Some(at("13:00"))));
        intent.suspensions.insert(id(2), suspension("web2", None));
        let written = SuspensionMark { reason: "all of @web".into(), ..mark(1, Some(at("13:00"))) };
        assert_eq!(changes(&intent, &[mark(9, None)], "12:00"), [MarkChange::Write(written.clone())]);
        assert_eq!(changes(&intent, std::slice::from_ref(&written), "12:00"), []);
        assert_eq!(changes(&intent, std::slice::from_ref(&written), "13:00"), [MarkChange::Remove(id(1))]);
        assert_eq!(
            changes(&intent, &[written.clone(), mark(2, None)], "12:00"),
            [MarkChange::Remove(id(2))],
            "it means another node by now"
        );
        intent.suspensions.clear();
        intent.resumed.insert(id(1), at("12:00"));
        intent.released.insert(id(9), ["web1".parse().unwrap()].into());
        let both = [MarkChange::Remove(id(1)), MarkChange::Remove(id(9))];
        assert_eq!(changes(&intent, &[written, mark(9, None)], "12:00"), both);
    }

    #[test]
    fn while_nobody_knows_what_people_want_no_mark_is_touched() {
        let unreadable = Intent::unreadable("damaged".into(), at("12:00"));
        assert_eq!(changes(&unreadable, &[mark(9, Some(at("11:00")))], "12:00"), []);
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
