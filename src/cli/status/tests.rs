//! What `status` prints, from a sample snapshot.

use super::*;
use crate::model::sample;
use crate::model::snapshot::{Blocked, BlockedReason};

fn shown(snapshot: &Snapshot) -> String {
    anstream::adapter::strip_str(&text(snapshot, sample::now(), None)).to_string()
}

#[test]
fn the_reason_is_always_there_in_one_sentence() {
    insta::assert_snapshot!(shown(&sample::fleet()));
}

#[test]
fn a_narrow_terminal_cuts_the_reason_and_nothing_else() {
    let text = text(&sample::fleet(), sample::now(), Some(80));
    let text = anstream::adapter::strip_str(&text).to_string();
    let longest = text.lines().skip(2).map(|line| line.chars().count()).max().unwrap();
    assert_eq!(longest, 80, "{text}");
}

#[test]
fn a_commit_that_is_not_in_force_says_why() {
    let mut snapshot = sample::fleet();
    snapshot.source.blocked =
        Some(Blocked { reason: BlockedReason::EvalFailed, message: "error: syntax error".into() });
    snapshot.source.fetch_error = Some("Could not resolve host: git.example.org".into());
    snapshot.ready = Ready::Starting;
    snapshot.nodes.clear();
    insta::assert_snapshot!(shown(&snapshot));
}

#[test]
fn a_fleet_from_a_file_names_builds_where_it_has_no_commits() {
    let mut snapshot = sample::quiet();
    snapshot.source.branch = String::new();
    snapshot.source.url = "./deployment.nix".into();
    snapshot.source.head = None;
    snapshot.source.last_good = None;
    for node in snapshot.nodes.values_mut() {
        let node = std::sync::Arc::make_mut(node);
        node.desired_revision = None;
        node.running_revision = None;
    }
    insta::assert_snapshot!(shown(&snapshot));
}

#[test]
fn the_json_is_the_snapshot_itself() {
    let snapshot = sample::fleet();
    let json = serde_json::to_string(&snapshot).unwrap();
    assert_eq!(serde_json::from_str::<Snapshot>(&json).unwrap(), snapshot);
}

#[test]
fn what_people_have_said_stands_below_with_the_command_that_ends_it() {
    use crate::model::decision::{Decision, Hold};
    use crate::model::intent::{Approval, Intent, NodeSuspension, Override, Suspension, SuspensionId};

    let mut snapshot = sample::fleet();
    let (since, until) = ("2026-11-22T15:00:00Z".parse().unwrap(), "2026-11-22T19:00:00Z".parse().unwrap());
    let (by, id) = ("alice@infra".to_owned(), SuspensionId::new(since, 7));
    let suspension = Suspension {
        on: "@web".parse().unwrap(),
        by: by.clone(),
        reason: "disk swap".into(),
        since,
        until: None,
    };
    let approval = Approval {
        hash: "0123456789ab".parse().unwrap(),
        what: "wave 1".into(),
        by: by.clone(),
        at: since,
        until,
    };
    let opened = Override { on: "*".parse().unwrap(), by: by.clone(), reason: "outage".into(), since, until };
    snapshot.intent = std::sync::Arc::new(Intent {
        suspensions: [(id.clone(), suspension)].into(),
        approvals: vec![approval],
        overrides: vec![opened],
        ..Intent::default()
    });
    for (name, node) in &mut snapshot.nodes {
        let node = std::sync::Arc::make_mut(node);
        let told = |id: &SuspensionId| NodeSuspension {
            by: by.clone(),
            reason: "disk swap".into(),
            until: None,
            id: Some(id.clone()),
        };
        match name.as_str() {
            "web1" => {
                node.suspended = Some(told(&id));
                node.why = "suspended by alice@infra: disk swap".into();
            }
            "old" => node.suspended = Some(told(&SuspensionId::new(since, 8))),
            "mail" => {
                let (what, hash) = ("wave 2".to_owned(), "ba9876543210".parse().unwrap());
                node.decision = Decision::Hold { hold: Hold::Approval { what, hash } };
            }
            _ => {}
        }
    }
    insta::assert_snapshot!(shown(&snapshot));
}
