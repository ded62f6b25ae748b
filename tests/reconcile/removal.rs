//! A commit that would take most of the fleet away is not followed until a person says that it is meant.

use std::fs;

use super::source::{head, is_healed};
use super::*;

fn removal(seen: &Value) -> &str {
    match seen["source"]["blocked"]["reason"].as_str() {
        Some("mass_removal") => seen["source"]["blocked"]["message"].as_str().unwrap(),
        Some(_) | None => "",
    }
}

/// Commits a deployment without these nodes.
fn without(fleet: &mut Fleet, names: &[&str], message: &str) -> String {
    let gone: Vec<_> = names.iter().map(|name| fleet.nodes.remove_entry(*name).unwrap()).collect();
    let commit = commit(fleet, message, |_| patient("one"));
    fleet.nodes.extend(gone);
    commit
}

fn names(seen: &Value) -> Vec<&str> {
    seen["nodes"].as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn a_commit_that_takes_most_nodes_away_is_not_followed_until_a_person_allows_exactly_that_commit() {
    let mut fleet = fleet(&["n1", "n2", "n3"]);
    let deployment = fleet.deployment("rollout.healAfter = 1;", |_| patient("one"));
    let first = fleet.commit("first", &[("deployment.nix", &deployment)]).unwrap();
    fleet.start().unwrap();
    fleet.wait_in_sync(&first, SOON).unwrap();

    let disabled = commit(&fleet, "disabled", |name| match name {
        "n1" => "enabled = false;".to_owned(),
        "n2" => "imports = [ { host = lib.mkForce null; } ];".to_owned(),
        _ => patient("two"),
    });
    let seen = fleet.wait("head is blocked", SOON, |seen| !removal(seen).is_empty()).unwrap();
    assert_eq!((head(&seen), names(&seen)), (disabled.as_str(), vec!["n1", "n2", "n3"]));
    assert!(removal(&seen).contains("2 of 3 nodes (n1, n2)"), "{}", removal(&seen));

    let all = without(&mut fleet, &["n1", "n2", "n3"], "all gone");
    fleet.wait("all is too much, too", SOON, |seen| removal(seen).contains("3 of 3")).unwrap();
    let short = &all[..7];
    let most = without(&mut fleet, &["n2", "n3"], "most gone");
    let seen =
        fleet.wait("so is most", SOON, |seen| removal(seen).contains("2 of 3 nodes (n2, n3)")).unwrap();
    assert_eq!(seen["source"]["lastGood"]["commit"], first);
    is_healed(&mut fleet, "n3", "a commit without it is blocked");
    let status = fleet.driftless(&["status"]).unwrap();
    let remedy = format!("driftless sync --allow-mass-removal {}", &most[..7]);
    assert!(status.stdout.contains("is not in force (mass_removal)"), "{status:?}");
    assert!(status.stdout.contains(&remedy), "{status:?}");
    let metrics = fleet.get("/metrics").unwrap();
    assert!(metrics.contains("driftless_git_head_blocked{reason=\"mass_removal\"} 1"), "{metrics}");
    assert!(fleet.get("/").unwrap().contains("it removes most of the fleet"));

    // What is said of one commit is not said of another, and a restart changes nothing.
    let allowed = fleet.driftless(&["sync", "--allow-mass-removal", short]).unwrap();
    assert!(allowed.success() && allowed.stdout.contains("The controller looks again"), "{allowed:?}");
    fleet.stop().unwrap();
    fleet.start().unwrap();
    fleet.wait("head is still blocked", SOON, |seen| !removal(seen).is_empty()).unwrap();
    fleet.stop().unwrap();
    // Nor does the loss of the memory: what was built for the nodes is known by its GC roots.
    fs::remove_file(fleet.state().join("release.json")).unwrap();
    fleet.start().unwrap();
    fleet.wait("head is blocked without a memory", SOON, |seen| removal(seen).contains("2 of 3")).unwrap();
    fleet.stop().unwrap();

    let allowed = fleet.driftless(&["sync", "--allow-mass-removal", &most[..7]]).unwrap();
    assert!(allowed.success() && allowed.stdout.contains("the next one follows it"), "{allowed:?}");
    fleet.start().unwrap();
    let in_force = |seen: &Value| seen["source"]["lastGood"]["commit"] == most && names(seen) == ["n1"];
    fleet.wait("the commit is in force", SOON, in_force).unwrap();
    assert_eq!((switches(&fleet, "n1"), switches(&fleet, "n2"), switches(&fleet, "n3")), (1, 1, 2));
    assert_eq!(fleet.stop().unwrap(), Some(0));
}

#[test]
fn nodes_that_do_not_evaluate_are_not_removed_ones() {
    let mut fleet = fleet(&["n1", "n2"]);
    let first = commit(&fleet, "first", |_| patient("one"));
    fleet.start().unwrap();
    fleet.wait_in_sync(&first, SOON).unwrap();
    commit(&fleet, "both broken", |_| "configuration = throw \"no such luck\";".to_owned());
    let broken = |seen: &Value| seen["source"]["blocked"]["reason"] == "eval_failed";
    let seen = fleet.wait("no node evaluates", SOON, broken).unwrap();
    assert_eq!(names(&seen), ["n1", "n2"]);
    let half = without(&mut fleet, &["n2"], "half gone");
    let in_force = |seen: &Value| seen["source"]["lastGood"]["commit"] == half && names(seen) == ["n1"];
    fleet.wait("half is not most", SOON, in_force).unwrap();
}
