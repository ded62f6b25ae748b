//! A commit whose rollout cannot be meant: the last good one stays in force, and a person reads where the mistake is.

use super::source::is_healed;
use super::*;

/// Commits a deployment with this rollout.
fn rollout(fleet: &Fleet, message: &str, rollout: &str, body: impl Fn(&str) -> String) -> String {
    let top = format!("rollout.healAfter = 1; {rollout}");
    fleet.commit(message, &[("deployment.nix", &fleet.deployment(&top, body))]).unwrap()
}

fn mistake(seen: &Value) -> &str {
    match seen["source"]["blocked"]["reason"].as_str() {
        Some("misdeclared") => seen["source"]["blocked"]["message"].as_str().unwrap(),
        Some(_) | None => "",
    }
}

#[test]
fn a_commit_whose_rollout_cannot_be_meant_is_not_followed() {
    let mut fleet = fleet(&["n1", "n2"]);
    let first = rollout(&fleet, "first", "", |_| patient("one"));
    fleet.start().unwrap();
    fleet.wait_in_sync(&first, SOON).unwrap();
    let tagged = |name: &str| format!("tags = [ \"all\" \"{name}\" ]; {}", patient("two"));
    for (waves, expected) in [
        // Known with the names.
        (
            "rollout.waves = [ { on = \"n7\"; } { on = \"*\"; } ];",
            "rollout.waves[0].on: no node matches \"n7\"",
        ),
        (
            "rollout.windows = [ { timeZone = \"Mars\"; } ];",
            "rollout.windows[0].timeZone: \"Mars\" is not a time zone",
        ),
        // Known with the tags: meanwhile nothing of it is in force.
        ("rollout.waves = [ { on = \"@all\"; } { on = \"@n2\"; } ];", "rollout.waves[1].on: n2 is in wave 1"),
        (
            "rollout.waves = [ { on = \"@n3\"; } { on = \"*\"; } ];",
            "rollout.waves[0].on: no node matches \"@n3\"",
        ),
    ] {
        rollout(&fleet, waves, waves, tagged);
        let seen = fleet.wait(expected, SOON, |seen| mistake(seen).contains(expected)).unwrap();
        assert_eq!(seen["source"]["lastGood"]["commit"], first);
    }
    is_healed(&mut fleet, "n2", "a commit is misdeclared");
    assert_eq!((switches(&fleet, "n1"), switches(&fleet, "n2")), (1, 2), "nothing of them was deployed");
    let status = fleet.driftless(&["status"]).unwrap();
    assert!(status.stdout.contains("is not in force (misdeclared)"), "{status:?}");
    let metrics = fleet.get("/metrics").unwrap();
    assert!(metrics.contains("driftless_git_head_blocked{reason=\"misdeclared\"} 1"), "{metrics}");
    assert!(fleet.get("/").unwrap().contains("it declares what cannot be meant"));
    let good = rollout(&fleet, "good", "rollout.waves = [ { on = \"@n2\"; } { on = \"*\"; } ];", tagged);
    fleet.wait_in_sync(&good, SOON).unwrap();
    assert!(fleet.snapshot().unwrap()["source"]["blocked"].is_null());
    assert_eq!(fleet.stop().unwrap(), Some(0));
}

#[test]
fn a_node_that_comes_after_nobody_keeps_what_it_has() {
    let mut fleet = fleet(&["n1", "n2"]);
    // One after the other: n1 is known, and on its way, before anybody can know about n2.
    let config = fleet.config_text(&fleet.repository().display().to_string());
    let config = config.replace("[nix]\n", "[eval]\nworkers = 1\nchunk = 1\n\n[nix]\n");
    std::fs::write(fleet.config_file(), config).unwrap();
    let first = rollout(&fleet, "first", "", |_| patient("one"));
    fleet.start().unwrap();
    fleet.wait_in_sync(&first, SOON).unwrap();
    let after = |name: &str, first: &str| match name {
        "n2" => format!("after = [ \"{first}\" ]; {}", patient("two")),
        _ => patient("two"),
    };
    rollout(&fleet, "a typo", "", |name| after(name, "n3"));
    let expected = "nodes.n2.after[0]: no node matches \"n3\"; the nodes are n1, n2";
    let held = |seen: &Value| mistake(seen) == expected && is(&seen["nodes"]["n2"], "hold", "not-evaluated");
    let seen = fleet.wait("the mistake is told", SOON, held).unwrap();
    assert_eq!(seen["source"]["lastGood"]["commit"], first);
    fleet
        .wait("n1 has the commit", SOON, |seen| {
            seen["nodes"]["n1"]["state"] == "in-sync" && fleet_text(seen, "n1")
        })
        .unwrap();
    assert_eq!((switches(&fleet, "n1"), switches(&fleet, "n2")), (2, 1));
    let mended = rollout(&fleet, "mended", "", |name| after(name, "n1"));
    fleet.wait_in_sync(&mended, SOON).unwrap();
    assert_eq!(switches(&fleet, "n2"), 2);
}
