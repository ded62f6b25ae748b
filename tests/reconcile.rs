//! The main job on real nodes: a commit becomes the fleet, drift is healed, and nothing that breaks takes the rest along.

mod faults;
mod misdeclared;
mod people;
mod programs;
mod release;
mod removal;
mod rest;
mod restart;
mod rivals;
mod rollouts;
mod source;
mod state;
mod steering;
mod streaming;

use std::time::Duration;

use driftless_lab::{Fleet, Lab, System};
use serde_json::Value;

use crate::beginning::{commit, fleet, fleet_of};

const SOON: Duration = Duration::from_secs(60);

fn text(text: &str) -> String {
    format!("configuration.lab.text = \"{text}\";")
}

/// The same on a node that has time: a machine that runs many tests at once may need longer for a login than the rest allows.
fn patient(text: &str) -> String {
    format!("switchTimeout = 60; successTimeout = 60; healthTimeout = 60; {}", self::text(text))
}

fn is(node: &Value, decision: &str, kind: &str) -> bool {
    node["decision"]["decision"] == decision && (kind.is_empty() || node["decision"]["hold"]["kind"] == kind)
}

/// How many switches a node has seen.
fn switches(fleet: &Fleet, name: &str) -> usize {
    let list = fleet.nodes[name].enter("ls /var/lib/driftless-node/switches 2>/dev/null | wc -l").unwrap();
    list.stdout.trim().parse().unwrap()
}

#[test]
fn a_commit_becomes_the_fleet_and_a_second_one_touches_only_what_it_changes() {
    let mut fleet = fleet(&["n1", "n2", "n3"]);
    let first = commit(&fleet, "first", |_| text("one"));
    fleet.start().unwrap();
    fleet.wait_in_sync(&first, SOON).unwrap();
    for node in fleet.nodes.values() {
        assert_eq!(node.running().unwrap(), node.boot_default().unwrap());
        assert_eq!(node.enter("cat /etc/lab-text").unwrap().stdout.trim(), "one");
    }
    let second = commit(&fleet, "second", |name| text(if name == "n3" { "one" } else { "two" }));
    fleet.wait_in_sync(&second, SOON).unwrap();
    assert_eq!([switches(&fleet, "n1"), switches(&fleet, "n2"), switches(&fleet, "n3")], [2, 2, 1]);
    assert_eq!(fleet.stop().unwrap(), Some(0), "{}", fleet.log());
}

#[test]
fn a_commit_that_locks_one_node_out_is_rolled_back_there_and_goes_on_elsewhere() {
    let mut fleet = fleet(&["n1", "n2"]);
    let first = commit(&fleet, "first", |_| text("one"));
    fleet.start().unwrap();
    fleet.wait_in_sync(&first, SOON).unwrap();
    let before = fleet.nodes["n1"].running().unwrap();
    commit(&fleet, "no more ssh", |name| {
        if name == "n1" {
            format!("{} configuration.lab.faults.killSsh = true;", text("two"))
        } else {
            text("two")
        }
    });
    let seen = fleet
        .wait("n1 is given up and n2 in sync", SOON, |seen| {
            is(&seen["nodes"]["n1"], "hold", "given-up")
                && seen["nodes"]["n2"]["state"] == "in-sync"
                && seen["nodes"]["n2"]["runningRevision"] == seen["nodes"]["n2"]["desiredRevision"]
        })
        .unwrap();
    assert_eq!(seen["nodes"]["n1"]["state"], "rolled-back");
    let why = seen["nodes"]["n1"]["why"].as_str().unwrap();
    assert!(why.contains("lost contact after activation") && why.contains("driftless retry n1"), "{why}");
    assert_eq!(fleet.nodes["n1"].running().unwrap(), before);
    assert_eq!(fleet.nodes["n2"].enter("cat /etc/lab-text").unwrap().stdout.trim(), "two");
    let mended = commit(&fleet, "ssh again", |_| text("three"));
    fleet.wait_in_sync(&mended, SOON).unwrap();
}

#[test]
fn a_node_that_was_changed_by_hand_is_reported_and_healed() {
    let mut fleet = fleet(&["n1"]);
    let deployment = fleet.deployment("rollout.healAfter = 5;", |_| text("one"));
    let first = fleet.commit("first", &[("deployment.nix", &deployment)]).unwrap();
    fleet.start().unwrap();
    let seen = fleet.wait_in_sync(&first, SOON).unwrap();
    let desired = seen["nodes"]["n1"]["desired"].as_str().unwrap().to_owned();
    let stray = System::new("by hand").name("n1").package("htop", "3.3.0").build().unwrap();
    fleet.nodes["n1"].nixos_rebuild(&stray).unwrap();
    let seen = fleet
        .wait("the drift is seen", SOON, |seen| {
            is(&seen["nodes"]["n1"], "hold", "heal-delay")
                && seen["nodes"]["n1"]["why"].as_str().unwrap().contains("htop 3.3.0")
        })
        .unwrap();
    assert_eq!(seen["nodes"]["n1"]["drift"][0], "diverged", "{seen:#}");
    fleet.wait_in_sync(&first, SOON).unwrap();
    assert_eq!(fleet.nodes["n1"].running().unwrap(), desired);
    assert_eq!(fleet.nodes["n1"].boot_default().unwrap(), desired);
}

#[test]
fn a_broken_commit_and_a_broken_node_leave_the_rest_to_go_on() {
    let mut fleet = fleet(&["n1", "n2", "n3"]);
    let first = commit(&fleet, "first", |_| text("one"));
    fleet.start().unwrap();
    fleet.wait_in_sync(&first, SOON).unwrap();
    fleet.commit("oops", &[("deployment.nix", "import <driftless> { } (")]).unwrap();
    let seen = fleet.wait("head is blocked", SOON, |seen| !seen["source"]["blocked"].is_null()).unwrap();
    assert_eq!(seen["source"]["blocked"]["reason"], "eval_failed");
    assert!(seen["source"]["blocked"]["message"].as_str().unwrap().contains("syntax error"), "{seen:#}");
    assert_eq!(seen["nodes"]["n1"]["state"], "in-sync", "the last good release stays in force");
    commit(&fleet, "n1 does not evaluate, n2 does not build", |name| {
        match name {
        "n1" => "configuration = { lab.text = throw \"no such luck\"; };".to_owned(),
        "n2" => "configuration = { pkgs, ... }: { environment.systemPackages = [ (pkgs.runCommand \"broken-1\" { } \"echo it went wrong; exit 1\") ]; };".to_owned(),
        _ => text("two"),
    }
    });
    let seen = fleet
        .wait("each node is where it can be", SOON, |seen| {
            is(&seen["nodes"]["n1"], "hold", "not-evaluated")
                && is(&seen["nodes"]["n2"], "hold", "not-built")
                && seen["nodes"]["n3"]["state"] == "in-sync"
                && fleet_text(seen, "n3")
        })
        .unwrap();
    let why = |name: &str| seen["nodes"][name]["decision"]["hold"]["error"].as_str().unwrap().to_owned();
    assert!(why("n1").contains("no such luck"), "{}", why("n1"));
    assert!(why("n2").contains("it went wrong"), "the log tail is shown: {}", why("n2"));
    assert_eq!(fleet.nodes["n3"].enter("cat /etc/lab-text").unwrap().stdout.trim(), "two");
    assert!(seen["source"]["blocked"].is_null(), "{seen:#}");
}

fn fleet_text(seen: &Value, name: &str) -> bool {
    seen["nodes"][name]["runningRevision"] == seen["nodes"][name]["desiredRevision"]
        && seen["nodes"][name]["progress"]["state"] == "built"
}

#[test]
fn an_unreachable_node_blocks_nobody_and_catches_up() {
    let mut fleet = fleet(&["n1", "n2"]);
    let first = commit(&fleet, "first", |_| text("one"));
    fleet.nodes["n1"].power_off().unwrap();
    fleet.start().unwrap();
    let seen = fleet
        .wait("n2 is in sync and n1 unreachable", SOON, |seen| {
            seen["nodes"]["n2"]["state"] == "in-sync" && seen["nodes"]["n1"]["state"] == "unreachable"
        })
        .unwrap();
    assert!(seen["nodes"]["n1"]["drift"].as_array().unwrap().is_empty(), "unreachable is not drift");
    fleet.nodes["n1"].start().unwrap();
    fleet.wait_in_sync(&first, SOON).unwrap();
}

#[test]
fn a_controller_that_is_killed_mid_switch_is_followed_by_one_that_re_attaches() {
    let mut fleet = fleet(&["n1"]);
    let gate = |command: &str| {
        format!("{} healthTimeout = 30; healthChecks.commands.gate = \"{command}\";", text("one"))
    };
    let first = commit(&fleet, "first", |_| gate("test -e /run/open"));
    fleet.start().unwrap();
    fleet
        .wait("the switch waits for health", SOON, |seen| {
            seen["nodes"]["n1"]["inFlight"]["stage"]["phase"] == "health"
        })
        .unwrap();
    fleet.kill().unwrap();
    fleet.start().unwrap();
    fleet
        .wait("the successor has re-attached", SOON, |seen| {
            seen["nodes"]["n1"]["inFlight"]["stage"]["phase"] == "health"
        })
        .unwrap();
    fleet.nodes["n1"].enter("touch /run/open").unwrap();
    fleet.wait_in_sync(&first, SOON).unwrap();
    assert_eq!(switches(&fleet, "n1"), 1, "nothing was done twice");
}

#[test]
fn an_unchanged_world_costs_no_evaluation_and_no_switch_even_after_a_restart() {
    let mut fleet = fleet(&["n1"]);
    let first = commit(&fleet, "first", |_| text("one"));
    fleet.start().unwrap();
    fleet.wait_in_sync(&first, SOON).unwrap();
    fleet.stop().unwrap();
    fleet.start().unwrap();
    let ready = |seen: &Value| seen["ready"] == "ready" && seen["source"]["evaluatedAt"].is_string();
    fleet.wait("the second controller is ready", SOON, ready).unwrap();
    let passes = fleet.snapshot().unwrap()["passes"].as_u64().unwrap();
    fleet.wait("some passes are over", SOON, |seen| seen["passes"].as_u64() > Some(passes + 3)).unwrap();
    assert_eq!(switches(&fleet, "n1"), 1);
    let metrics = fleet.get("/metrics").unwrap();
    let evaluations: Vec<&str> =
        metrics.lines().filter(|line| line.contains("evaluation_duration_seconds_sum")).collect();
    println!("{evaluations:?}");
}

#[test]
fn one_state_directory_has_one_controller() {
    let mut fleet = fleet(&[]);
    fleet.commit("empty", &[("deployment.nix", &fleet.deployment("", |_| String::new()))]).unwrap();
    fleet.start().unwrap();
    fleet.wait("the first controller is ready", SOON, |seen| seen["ready"] == "ready").unwrap();
    let second = fleet.driftless(&["run"]).unwrap();
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(second.stderr.contains("another controller runs with the state directory"), "{}", second.stderr);
}

#[test]
fn a_rewritten_branch_is_refused_until_a_person_accepts_it() {
    let mut fleet = fleet(&["n1"]);
    let first = commit(&fleet, "first", |_| text("one"));
    commit(&fleet, "second", |_| text("two"));
    let second = fleet.git(&["rev-parse", "HEAD"]).unwrap();
    fleet.start().unwrap();
    fleet.wait_in_sync(&second, SOON).unwrap();
    fleet.git(&["reset", "-q", "--hard", &first]).unwrap();
    let rewritten = commit(&fleet, "instead", |_| text("three"));
    // The branch may be seen between the reset and the commit: an old commit is refused just the same.
    let remedy = format!("driftless accept-history {}", &rewritten[..7]);
    let seen = fleet
        .wait("the head is refused with the remedy", SOON, |seen| {
            seen["source"]["blocked"]["message"].as_str().is_some_and(|message| message.contains(&remedy))
        })
        .unwrap();
    assert_eq!(seen["source"]["blocked"]["reason"], "non_fast_forward");
    assert_eq!(fleet.nodes["n1"].enter("cat /etc/lab-text").unwrap().stdout.trim(), "two");
    let accepted = fleet.driftless(&["accept-history", &rewritten[..7]]).unwrap();
    assert!(accepted.success(), "{accepted:?}");
    fleet.wait_in_sync(&rewritten, SOON).unwrap();
}
