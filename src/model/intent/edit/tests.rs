//! What becomes of what people say: who is meant, what ends, and what is refused.

use std::time::Duration;

use super::*;
use crate::model::intent::SuspensionMark;

const HASH: &str = "0123456789ab";

fn at(text: &str) -> Timestamp {
    format!("2026-11-22T{text}:00Z").parse().unwrap()
}

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

fn member(tags: &[&str]) -> Member {
    let tags = tags.iter().map(|tag| tag.parse().unwrap()).collect();
    Member { tags: Some(tags), seen: true, ..Member::default() }
}

/// Two web servers, a database, and a node that Git suspends.
fn fleet() -> Fleet {
    let frozen = Member { declared: Declared::Suspended, ..member(&[]) };
    let nodes = [
        ("web1", member(&["web", "canary"])),
        ("web2", member(&["web"])),
        ("db1", member(&["db"])),
        ("old", frozen),
    ];
    Fleet {
        nodes: nodes.into_iter().map(|(node, member)| (name(node), member)).collect(),
        approval_expires: Duration::from_secs(3600),
    }
}

fn mark(random: u32) -> SuspensionMark {
    let (id, by) = (SuspensionId::new(at("11:00"), random), "alice@laptop".to_owned());
    SuspensionMark { id, by, reason: "disk swap".into(), until: None }
}

/// Somebody who speaks to a controller of this fleet.
struct Person {
    intent: Intent,
    fleet: Option<Fleet>,
    spoken: u32,
}

impl Person {
    fn new(fleet: Fleet) -> Self {
        Self { intent: Intent::default(), fleet: Some(fleet), spoken: 0 }
    }

    fn say(&mut self, edit: Edit, when: &str) -> Result<Done, String> {
        self.spoken += 1;
        let asked = Asked { by: "alice@laptop", now: at(when), random: self.spoken };
        let edited = self.intent.edited(&edit, self.fleet.as_ref(), asked);
        let (intent, done) = edited.map_err(|error| error.to_string())?;
        self.intent = intent;
        Ok(done)
    }

    fn suspend(&mut self, on: &str, until: Option<&str>) -> Result<Done, String> {
        let (on, until) = (on.parse().unwrap(), until.map(at));
        self.say(Edit::Suspend(Suspend { on, reason: "disk\nswap".into(), until }), "12:00")
    }

    fn resume(&mut self, on: &str) -> Result<Done, String> {
        self.say(Edit::Resume(Resume::On(on.parse().unwrap())), "12:30")
    }

    /// Who is left alone by the controller's own word.
    fn suspended(&self) -> Vec<&str> {
        let fleet = self.fleet.as_ref().unwrap();
        let means = |(name, member): &(&NodeName, &Member)| {
            let tags = member.tags.clone().unwrap_or_default();
            let known = self.intent.suspensions.values().any(|one| one.on.matches(name, &tags));
            known || member.marks.iter().any(|mark| self.intent.counts(name, mark))
        };
        fleet.nodes.iter().filter(means).map(|(name, _)| name.as_str()).collect()
    }
}

#[test]
fn who_suspends_is_told_which_nodes_until_when_and_how_it_ends() {
    let mut alice = Person::new(fleet());
    let done = alice.suspend("@web", None).unwrap();
    let id = done.id.unwrap();
    assert_eq!(id.as_str(), "20261122T120000Z-00000001");
    assert_eq!(done.said, [format!("suspended web1, web2 until `driftless resume --id {id}`")]);
    assert_eq!(alice.intent.suspensions[&id].reason, "disk swap", "one line");
    let done = alice.suspend("db1", Some("13:00")).unwrap();
    assert_eq!(done.said, ["suspended db1 until 2026-11-22 13:00:00 UTC"]);
    assert_eq!(alice.suspended(), ["db1", "web1", "web2"]);
}

#[test]
fn what_cannot_be_meant_is_refused_and_changes_nothing() {
    let mut alice = Person::new(fleet());
    let mut refused = |on: &str, reason: &str, until: Option<&str>| {
        let (on, reason, until) = (on.parse().unwrap(), reason.into(), until.map(at));
        alice.say(Edit::Suspend(Suspend { on, reason, until }), "12:00").unwrap_err()
    };
    assert!(refused("wbe1", "x", None).starts_with("no node matches \"wbe1\"; the nodes are db1"));
    assert_eq!(refused("web1", " \n\t", None), "a reason is needed: others will read it");
    assert_eq!(refused("web1", &"x".repeat(301), None), "the reason has 301 characters, more than 300");
    assert_eq!(refused("web1", "x", Some("12:00")), "2026-11-22 12:00:00 UTC is not in the future");
    let open = Open { on: "web1".parse().unwrap(), reason: "x".into(), until: at("11:00") };
    assert!(alice.say(Edit::Override(open.clone()), "12:00").unwrap_err().ends_with("is not in the future"));
    let open = Open { until: "2026-12-22T12:00:00Z".parse().unwrap(), ..open };
    assert!(alice.say(Edit::Override(open), "12:00").unwrap_err().contains("more than 7 days"));
    assert_eq!(alice.intent, Intent::default());
}

#[test]
fn a_whole_suspension_ends_with_the_last_of_its_nodes() {
    let mut alice = Person::new(fleet());
    let id = alice.suspend("@web", None).unwrap().id.unwrap();
    let done = alice.resume("web*").unwrap();
    assert_eq!(done.said, [format!("resumed web1, web2 ({id}: disk swap)")]);
    assert_eq!(alice.intent.suspensions.len(), 0);
    assert_eq!(alice.intent.resumed[&id], at("12:30"), "nodes out of reach still carry its mark");
}

#[test]
fn resuming_one_node_of_several_leaves_the_others_suspended_or_says_how_to_end_it() {
    let mut alice = Person::new(fleet());
    let id = alice.suspend("@web", None).unwrap().id.unwrap();
    // Without `not` in the language of selectors there is no way to say what is left.
    if "(web1) and not (web2)".parse::<Selector>().is_err() {
        let said = alice.resume("web1").unwrap_err();
        assert!(said.ends_with(&format!("`driftless resume --id {id}` ends it for all of them")), "{said}");
        assert_eq!(alice.suspended(), ["web1", "web2"]);
        return;
    }
    let done = alice.resume("web1").unwrap();
    assert_eq!(done.said, [format!("resumed web1; web2 stays suspended ({id})")]);
    assert_eq!(alice.suspended(), ["web2"]);
    assert_eq!(alice.intent.suspensions[&id].since, at("12:00"), "it is the same one");
    alice.fleet.as_mut().unwrap().nodes.insert(name("web3"), member(&["web"]));
    assert_eq!(alice.suspended(), ["web2", "web3"], "it still means a tag");
    alice.resume("web2,web3").unwrap();
    assert_eq!((alice.suspended(), alice.intent.resumed.len()), (Vec::<&str>::new(), 1));
}

#[test]
fn a_node_that_does_not_evaluate_may_have_the_tag_and_stays_suspended() {
    let mut alice = Person::new(fleet());
    alice.fleet.as_mut().unwrap().nodes.get_mut(&name("web2")).unwrap().tags = None;
    let id = alice.suspend("@web", None).unwrap().id.unwrap();
    let _ = alice.resume("web1");
    assert!(alice.intent.suspensions.contains_key(&id), "web2 is as much meant as web1");
}

#[test]
fn what_is_not_suspended_or_only_in_git_cannot_be_resumed() {
    let mut alice = Person::new(fleet());
    assert!(alice.resume("web1").unwrap_err().starts_with("not suspended: web1;"));
    assert_eq!(
        alice.resume("old").unwrap_err(),
        "old: suspended by the deployment; remove `suspended` there"
    );
    alice.suspend("*", None).unwrap();
    let done = alice.resume("*").unwrap();
    assert_eq!(done.said.len(), 2, "{done:?}");
    assert!(done.said[1].starts_with("old: suspended by the deployment"));
    let unknown = SuspensionId::new(at("12:00"), 99);
    assert!(
        alice.say(Edit::Resume(Resume::Id(unknown)), "12:30").unwrap_err().starts_with("not suspended: 2026")
    );
    assert!(alice.say(Edit::Resume(Resume::All), "12:30").unwrap_err().starts_with("not suspended"));
    assert!(alice.say(Edit::Resume(Resume::Unreadable), "12:30").unwrap_err().starts_with("resume what?"));
}

#[test]
fn a_mark_is_resumed_on_the_named_nodes_only_and_by_its_id_on_all() {
    let mut fleet = fleet();
    for node in ["web1", "web2"] {
        fleet.nodes.get_mut(&name(node)).unwrap().marks.push(mark(7));
    }
    let mut alice = Person::new(fleet);
    assert_eq!(alice.suspended(), ["web1", "web2"]);
    let done = alice.resume("web1").unwrap();
    assert_eq!(done.said, ["resumed web1 (20261122T110000Z-00000007: disk swap)"]);
    assert_eq!(alice.suspended(), ["web2"]);
    let done = alice.say(Edit::Resume(Resume::Id(mark(7).id)), "12:31").unwrap();
    assert_eq!(done.nodes.len(), 2);
    assert_eq!((alice.suspended(), alice.intent.released.len()), (Vec::<&str>::new(), 0));
}

#[test]
fn everything_can_be_resumed_at_once_marks_too() {
    let mut fleet = fleet();
    fleet.nodes.get_mut(&name("db1")).unwrap().marks.push(mark(7));
    let mut alice = Person::new(fleet);
    alice.suspend("@web", None).unwrap();
    let done = alice.say(Edit::Resume(Resume::All), "12:30").unwrap();
    assert_eq!((done.nodes.len(), alice.suspended().len(), alice.intent.resumed.len()), (3, 0, 2));
}

#[test]
fn names_of_released_nodes_are_forgotten_when_their_marks_are_gone() {
    let mut with_mark = fleet();
    with_mark.nodes.get_mut(&name("web1")).unwrap().marks.push(mark(7));
    let mut alice = Person::new(with_mark.clone());
    alice.resume("web1").unwrap();
    alice.intent.forget_released(&with_mark);
    assert_eq!(alice.intent.released.len(), 1);
    alice.intent.forget_released(&fleet());
    assert_eq!(alice.intent.released.len(), 0);
}

#[test]
fn exactly_what_waits_can_be_approved_and_for_a_while() {
    let mut fleet = fleet();
    fleet.nodes.get_mut(&name("web1")).unwrap().waits =
        Some(("wave 2 of 3f9c2e1".into(), HASH.parse().unwrap()));
    let mut alice = Person::new(fleet);
    let approve = |hash: &str| Edit::Approve(Approve { hash: hash.parse().unwrap() });
    let said = alice.say(approve("ffffffffffff"), "12:00").unwrap_err();
    assert_eq!(
        said,
        "nothing that waits for approval has the hash ffffffffffff; what waits: wave 2 of 3f9c2e1 (0123456789ab)"
    );
    let done = alice.say(approve(HASH), "12:00").unwrap();
    assert_eq!(done.said, ["approved wave 2 of 3f9c2e1 (0123456789ab), until 2026-11-22 13:00:00 UTC"]);
    alice.say(approve(HASH), "12:10").unwrap();
    assert_eq!(alice.intent.approvals.len(), 1, "the last word counts");
    assert!(alice.intent.is_stale(at("13:10")) && !alice.intent.is_stale(at("13:09")));
    assert!(alice.intent.prune(at("13:10")) && alice.intent.approvals.is_empty());
}

#[test]
fn what_is_over_goes_with_the_next_word() {
    let mut alice = Person::new(fleet());
    alice.suspend("web1", Some("12:15")).unwrap();
    let open = Open { on: "*".parse().unwrap(), reason: "outage".into(), until: at("12:10") };
    alice.say(Edit::Override(open), "12:00").unwrap();
    assert_eq!((alice.intent.suspensions.len(), alice.intent.overrides.len()), (1, 1));
    assert!(alice.resume("web1").unwrap_err().starts_with("not suspended"), "it has ended by itself");
    alice.suspend("db1", None).unwrap();
    assert!(alice.intent.prune(at("12:20")));
    assert_eq!((alice.intent.suspensions.len(), alice.intent.overrides.len()), (1, 0));
}

#[test]
fn nothing_but_resume_is_heard_while_what_was_said_before_cannot_be_read() {
    let mut alice = Person::new(fleet());
    alice.intent = Intent::unreadable("/x/intent.json is damaged".into(), at("11:00"));
    assert_eq!(alice.suspended().len(), 4);
    let said = alice.suspend("web1", None).unwrap_err();
    assert!(said.contains("/x/intent.json is damaged") && said.contains("`driftless resume`"), "{said}");
    assert!(alice.resume("web1").unwrap_err().contains("cannot be read"));
    let done = alice.say(Edit::Resume(Resume::Unreadable), "12:00").unwrap();
    assert!(done.said[0].starts_with("goes on"));
    assert_eq!(alice.intent, Intent::default());
}

#[test]
fn before_the_fleet_is_known_people_are_heard_all_the_same() {
    let mut alice = Person::new(fleet());
    alice.fleet = None;
    let done = alice.suspend("@web", None).unwrap();
    assert!(done.said[0].ends_with("which nodes that means is not known yet"), "{done:?}");
    assert!(alice.resume("web1").unwrap_err().contains("the fleet is not known yet"));
    alice.resume("@web").unwrap();
    assert_eq!(alice.intent.suspensions.len(), 0);
}
