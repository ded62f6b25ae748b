//! Hooks around the switch, on lab nodes: run by a person's `driftless deploy`, and by a controller only with permission.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use driftless_lab::Fleet;
use serde_json::Value;

use crate::beginning::{commit, fleet};

const SOON: Duration = Duration::from_secs(60);

/// Where the hooks of a test write what they saw.
fn diary(fleet: &Fleet) -> PathBuf {
    fleet.dir().join("diary")
}

fn written(fleet: &Fleet) -> Vec<String> {
    fs::read_to_string(diary(fleet)).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// A node with these phases and this text in its system.
fn node(text: &str, phases: &str) -> String {
    format!(
        "hookTimeout = 5; deployScriptPhases = with (import <driftless/nix/dag.nix> {{ }} (import <nixpkgs/lib>)).dag; {{ {phases} }}; configuration.lab.text = \"{text}\";"
    )
}

/// Hooks that write down what they were told, and what the node runs while they run.
fn telling(fleet: &Fleet, further: &str) -> String {
    let diary = diary(fleet).display().to_string();
    let tell = |name: &str, more: &str| {
        format!("''echo \"{name} $NODE $OLDSYSTEM $(ssh \"$HOST\" cat /etc/lab-text) {more}\" >> {diary}''")
    };
    format!(
        "early = entryBefore [ \"copy-closure\" ] {};
         before = entryBefore [ \"switch\" ] {};
         after = entryAfter [ \"switch\" ] {};
         {further}",
        tell("early", "$(ssh \"$HOST\" test -e \"$NEWSYSTEM\" && echo there || echo not there)"),
        tell("before", "$(ssh \"$HOST\" test -e \"$NEWSYSTEM\" && echo there || echo not there)"),
        tell("after", "$status $OUTCOME"),
    )
}

fn allow(fleet: &Fleet) {
    let text = fs::read_to_string(fleet.config_file()).unwrap();
    fs::write(fleet.config_file(), text.replace("[source]\n", "[source]\nhooks = \"run\"\n")).unwrap();
}

fn is(node: &Value, kind: &str) -> bool {
    node["decision"]["decision"] == "hold" && node["decision"]["hold"]["kind"] == kind
}

#[test]
fn a_person_runs_the_hooks_of_a_deployment_and_sees_which_one_failed() {
    let fleet = fleet(&["n1"]);
    let deploy = |name: &str, text: &str, further: &str| {
        let deployment = fleet.deployment("", |_| node(text, &telling(&fleet, further)));
        fs::write(fleet.repository().join(name), deployment).unwrap();
        fleet.driftless(&["deploy", "--file", name]).unwrap()
    };
    let done = deploy("one.nix", "one", "");
    assert!(done.success(), "{done:?}");
    let seen = written(&fleet);
    assert_eq!(seen.len(), 3, "{seen:?}");
    for (line, (start, end)) in seen.iter().zip([
        ("early n1 /nix/store/", "installed not there"),
        ("before n1 /nix/store/", "installed there"),
        ("after n1 /nix/store/", "one success succeeded"),
    ]) {
        assert!(line.starts_with(start) && line.ends_with(end), "{line} is not {start} ... {end}");
    }
    assert!(deploy("one.nix", "one", "").success());
    assert_eq!(written(&fleet).len(), 3, "where nothing is switched, nothing is hooked");

    let running = fleet.nodes["n1"].running().unwrap();
    let refused = deploy(
        "two.nix",
        "two",
        "lb = entryBetween [ \"before\" ] [ \"switch\" ] \"echo the balancer is away; exit 3\";",
    );
    assert_eq!(refused.code, Some(1), "{refused:?}");
    for words in [
        "the hook lb before the switch failed, so the node was not switched",
        "exit status: 3",
        "the balancer is away",
    ] {
        assert!(refused.stderr.contains(words), "no {words:?} in {refused:?}");
    }
    assert_eq!(fleet.nodes["n1"].running().unwrap(), running);
    assert_eq!(written(&fleet).len(), 5, "the hooks before it ran, and none after");

    let late =
        deploy("three.nix", "three", "tell = entryAfter [ \"after\" ] \"echo nobody listens; exit 4\";");
    assert_eq!(late.code, Some(1), "{late:?}");
    for words in ["it is deployed, but the hook tell after the switch failed", "nobody listens"] {
        assert!(late.stderr.contains(words), "no {words:?} in {late:?}");
    }
    assert_ne!(fleet.nodes["n1"].running().unwrap(), running);

    let slow = deploy("four.nix", "four", "hang = { before = [ \"switch\" ]; data = \"sleep 300\"; };");
    assert!(slow.stderr.contains("did not end within 5 s"), "{slow:?}");
}

#[test]
fn a_hook_after_a_failed_switch_is_told_so() {
    let fleet = fleet(&["n1"]);
    let deployment = fleet.deployment("", |_| {
        format!("{} configuration.lab.faults.activationFails = true;", node("bad", &telling(&fleet, "")))
    });
    fs::write(fleet.repository().join("bad.nix"), deployment).unwrap();
    let failed = fleet.driftless(&["deploy", "--file", "bad.nix"]).unwrap();
    assert!(failed.stderr.contains("n1 rolled back: activation failed"), "{failed:?}");
    let seen = written(&fleet);
    assert!(seen[2].ends_with("installed failure rolled-back"), "{seen:?}");
}

#[test]
fn a_controller_runs_no_hook_until_its_configuration_allows_it() {
    let mut fleet = fleet(&["n1", "n2"]);
    let phases = telling(&fleet, "");
    let first = commit(&fleet, "hooks for n1", |name| node("one", if name == "n1" { &phases } else { "" }));
    fleet.start().unwrap();
    let seen = fleet
        .wait("n1 is held and n2 in sync", SOON, |seen| {
            is(&seen["nodes"]["n1"], "hooks-refused") && seen["nodes"]["n2"]["state"] == "in-sync"
        })
        .unwrap();
    let why = seen["nodes"]["n1"]["why"].as_str().unwrap();
    assert!(
        why.contains("has hooks (before, early, after)") && why.contains("source.hooks = \"run\""),
        "{why}"
    );
    assert_eq!(seen["nodes"]["n1"]["state"], "failed");
    assert!(written(&fleet).is_empty());
    fleet.stop().unwrap();
    allow(&fleet);
    fleet.start().unwrap();
    fleet.wait_in_sync(&first, SOON).unwrap();
    let seen = written(&fleet);
    assert_eq!(seen.len(), 3, "{seen:?}");
    assert!(seen[2].ends_with("one success succeeded"), "{seen:?}");
}

#[test]
fn a_controller_says_which_hook_failed_before_and_after_the_switch() {
    let mut fleet = fleet(&["n1", "n2"]);
    allow(&fleet);
    commit(&fleet, "hooks that fail", |name| {
        let phases = if name == "n1" {
            "lb = entryBefore [ \"switch\" ] \"echo the balancer is away >&2; exit 3\";"
        } else {
            "tell = entryAfter [ \"switch\" ] \"echo nobody listens; exit 4\";"
        };
        node("one", phases)
    });
    let before = fleet.nodes["n1"].running().unwrap();
    fleet.start().unwrap();
    let seen = fleet
        .wait("both hooks have failed", SOON, |seen| {
            is(&seen["nodes"]["n1"], "backoff") && is(&seen["nodes"]["n2"], "hook-failed")
        })
        .unwrap();
    let why = |name: &str| seen["nodes"][name]["why"].as_str().unwrap().to_owned();
    assert!(why("n1").starts_with("the hook lb before the switch failed, so the node was not switched (exit status: 3): the balancer is away"), "{}", why("n1"));
    assert!(why("n2").starts_with("the switch has succeeded, and then the hook tell after the switch failed (exit status: 4): nobody listens"), "{}", why("n2"));
    assert_eq!(fleet.nodes["n1"].running().unwrap(), before);
    assert_eq!(fleet.nodes["n2"].enter("cat /etc/lab-text").unwrap().stdout.trim(), "one");
    assert!(
        fleet.log().contains("the balancer is away") && fleet.log().contains("nobody listens"),
        "{}",
        fleet.log()
    );
    let metrics = fleet.get("/metrics").unwrap();
    assert!(
        metrics.lines().any(|line| line.contains("result=\"hook-failed\"") && !line.ends_with(" 0")),
        "{metrics}"
    );

    fleet.driftless(&["retry", "n2"]).unwrap();
    fleet.wait("n2 is in sync again", SOON, |seen| seen["nodes"]["n2"]["state"] == "in-sync").unwrap();
    let mended = commit(&fleet, "no hooks", |_| node("two", ""));
    fleet.wait_in_sync(&mended, SOON).unwrap();
}
