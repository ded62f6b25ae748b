//! What people say, in Git and on the node, is heeded: suspensions, goals, reports without healing, pins, retries.

use super::*;

/// Goes on by hand.
fn by_hand(fleet: &Fleet, name: &str) -> String {
    let stray = System::new("by hand").name(name).build().unwrap();
    fleet.nodes[name].nixos_rebuild(&stray).unwrap();
    stray
}

#[test]
fn what_git_says_of_a_node_is_heeded_and_what_is_not_touched_is_watched() {
    let mut fleet = fleet(&["boot", "report", "suspended", "test"]);
    let told = |name: &str| match name {
        "boot" => format!("{} goal = \"boot\";", text("one")),
        "report" => format!("{} onDrift = \"report\";", text("one")),
        "suspended" => format!("{} suspended = \"disk swap\";", text("one")),
        _ => format!("{} goal = \"test\";", text("one")),
    };
    let before = fleet.nodes["suspended"].running().unwrap();
    let deployment = fleet.deployment("rollout.healAfter = 1;", told);
    fleet.commit("first", &[("deployment.nix", &deployment)]).unwrap();
    fleet.start().unwrap();
    let seen = fleet
        .wait("every node is where it may be", SOON, |seen| {
            is(&seen["nodes"]["boot"], "hold", "awaiting-reboot")
                && is(&seen["nodes"]["suspended"], "hold", "suspended")
                && ["report", "test"].iter().all(|name| seen["nodes"][name]["state"] == "in-sync")
        })
        .unwrap();
    assert!(seen["nodes"]["suspended"]["why"].as_str().unwrap().contains("disk swap"), "{seen:#}");
    let desired = |name: &str| seen["nodes"][name]["desired"].as_str().unwrap().to_owned();
    for name in ["boot", "test"] {
        let node = &fleet.nodes[name];
        let ran = (node.running().unwrap() == desired(name), node.boot_default().unwrap() == desired(name));
        assert_eq!(ran, (name == "test", false), "{name}: runs, boots");
    }
    let stray = [by_hand(&fleet, "suspended"), by_hand(&fleet, "report")];
    let seen = fleet
        .wait("both are seen", SOON, |seen| {
            seen["nodes"]["suspended"]["observation"]["state"]["running"] == stray[0].as_str()
                && is(&seen["nodes"]["report"], "hold", "report-only")
                // Not yet where it is seen in the middle of it: the profile is set before the system is activated.
                && seen["nodes"]["report"]["drift"][0] == "diverged"
        })
        .unwrap();
    let passes = seen["passes"].as_u64();
    fleet.wait("some passes are over", SOON, |seen| seen["passes"].as_u64() > passes.map(|n| n + 8)).unwrap();
    assert_eq!((switches(&fleet, "suspended"), switches(&fleet, "report")), (0, 1));
    assert_ne!(fleet.nodes["suspended"].running().unwrap(), before);

    let metrics = fleet.get("/metrics").unwrap();
    for line in [
        "driftless_node_suspended{node=\"suspended\"} 1",
        "driftless_node_drift{kind=\"diverged\",node=\"report\"} 1",
        "driftless_node_in_sync{node=\"report\"} 0",
        "driftless_node_in_sync{node=\"test\"} 1",
        "driftless_node_hold{node=\"boot\",reason=\"awaiting-reboot\"} 1",
        "driftless_node_drift{kind=\"reboot-required\",node=\"boot\"} 1",
        "driftless_node_last_deployment_success{node=\"boot\"} 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in {metrics}");
    }
    fleet.nodes["boot"].reboot().unwrap();
    fleet.wait("it was booted and proven", SOON, |seen| seen["nodes"]["boot"]["state"] == "in-sync").unwrap();
    let boot = &fleet.nodes["boot"];
    assert_eq!((boot.running().unwrap(), boot.loader_default().unwrap()), (desired("boot"), desired("boot")));
    assert_eq!(switches(&fleet, "boot"), 2);
}

#[test]
fn a_system_that_waits_for_a_reboot_is_taken_back_with_its_commit_and_given_up_where_it_does_not_come_up() {
    let mut fleet = fleet(&["boot"]);
    let told = |what: &str, fault: &str| format!("{} goal = \"boot\"; {fault}", text(what));
    let awaiting = |seen: &Value| is(&seen["nodes"]["boot"], "hold", "awaiting-reboot");
    let in_sync = |seen: &Value| seen["nodes"]["boot"]["state"] == "in-sync";
    commit(&fleet, "first", |_| told("one", ""));
    fleet.start().unwrap();
    fleet.wait("the first is staged", SOON, awaiting).unwrap();
    fleet.nodes["boot"].reboot().unwrap();
    let seen = fleet.wait("it is booted and proven", SOON, in_sync).unwrap();
    let first = seen["nodes"]["boot"]["desired"].as_str().unwrap().to_owned();
    assert_eq!(fleet.nodes["boot"].loader_default().unwrap(), first);

    commit(&fleet, "second", |_| told("two", ""));
    fleet.wait("the second is staged", SOON, awaiting).unwrap();
    commit(&fleet, "revert", |_| told("one", ""));
    let seen = fleet.wait("it is taken back", SOON, in_sync).unwrap();
    assert_eq!(seen["nodes"]["boot"]["observation"]["state"]["staged"], Value::Null);

    commit(&fleet, "third", |_| told("three", "configuration.lab.faults.panicAtBoot = true;"));
    fleet.wait("the third is staged", SOON, awaiting).unwrap();
    let boots = fleet.nodes["boot"].boot_count();
    fleet.nodes["boot"].enter("systemctl reboot").unwrap();
    fleet.nodes["boot"].wait_for_boot(boots + 2).unwrap();
    let given_up = |seen: &Value| is(&seen["nodes"]["boot"], "hold", "given-up");
    let seen = fleet.wait("it is given up", SOON, given_up).unwrap();
    let why = seen["nodes"]["boot"]["why"].as_str().unwrap();
    assert!(why.contains("did not come up") && why.contains("driftless retry boot"), "{why}");
    assert_eq!(switches(&fleet, "boot"), 5, "staged and proven, staged and taken back, staged");
    assert_eq!(fleet.nodes["boot"].running().unwrap(), first);
}

#[test]
fn a_rollback_by_a_person_is_not_fought_until_the_next_release() {
    let mut fleet = fleet(&["n1"]);
    let deployment = fleet.deployment("rollout.healAfter = 1;", |_| text("one"));
    let first = fleet.commit("first", &[("deployment.nix", &deployment)]).unwrap();
    let before = fleet.nodes["n1"].running().unwrap();
    fleet.start().unwrap();
    fleet.wait_in_sync(&first, SOON).unwrap();
    let back = fleet.driftless(&["rollback", "--on", "n1", "--reason", "it eats disks"]).unwrap();
    assert!(back.success(), "{back:?}");
    let seen =
        fleet.wait("the pin is seen", SOON, |seen| is(&seen["nodes"]["n1"], "hold", "pinned")).unwrap();
    assert!(seen["nodes"]["n1"]["why"].as_str().unwrap().contains("it eats disks"), "{seen:#}");
    let passes = seen["passes"].as_u64();
    fleet.wait("some passes are over", SOON, |seen| seen["passes"].as_u64() > passes.map(|n| n + 8)).unwrap();
    assert_eq!((fleet.nodes["n1"].running().unwrap(), switches(&fleet, "n1")), (before, 2));
    let second = commit(&fleet, "second", |_| text("two"));
    fleet.wait_in_sync(&second, SOON).unwrap();
}

#[test]
fn a_rolled_back_node_is_left_alone_and_counted_until_a_person_asks_for_a_retry() {
    let mut fleet = fleet(&["bad", "away"]);
    let first = commit(&fleet, "first", |_| text("one"));
    fleet.start().unwrap();
    fleet.wait_in_sync(&first, SOON).unwrap();
    fleet.nodes["away"].power_off().unwrap();
    commit(&fleet, "second", |name| match name {
        "bad" => format!("{} configuration.lab.faults.activationFails = true;", text("two")),
        _ => text("two"),
    });
    fleet
        .wait("one is given up, one unreachable", SOON, |seen| {
            is(&seen["nodes"]["bad"], "hold", "given-up") && is(&seen["nodes"]["away"], "hold", "unreachable")
        })
        .unwrap();
    let metrics = fleet.get("/metrics").unwrap();
    for line in [
        "driftless_node_state{node=\"bad\",state=\"rolled-back\"} 1",
        "driftless_node_last_deployment_success{node=\"bad\"} 0",
        "driftless_node_consecutive_failures{node=\"bad\"} 1",
        "driftless_node_in_sync{node=\"bad\"} 0",
        "driftless_node_hold{node=\"bad\",reason=\"given-up\"} 1",
        "driftless_node_reachable{node=\"bad\"} 1",
        "driftless_node_reachable{node=\"away\"} 0",
        "driftless_node_state{node=\"away\",state=\"unreachable\"} 1",
        "driftless_deployments_total{operation=\"switch\",result=\"succeeded\"} 2",
        "driftless_deployments_total{operation=\"switch\",result=\"rolled-back\"} 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in {metrics}");
    }
    assert!(!metrics.contains("driftless_node_drift{kind=\"outdated\",node=\"away\"}"), "{metrics}");
    assert_eq!(switches(&fleet, "bad"), 2);
    let retried = fleet.driftless(&["retry", "bad"]).unwrap();
    assert!(retried.success(), "{retried:?}");
    fleet
        .wait("it was tried again", SOON, |seen| {
            let journal = &seen["nodes"]["bad"]["observation"]["state"]["journal"];
            is(&seen["nodes"]["bad"], "hold", "given-up")
                && journal.as_array().is_some_and(|all| all.len() == 3)
        })
        .unwrap();
}
