//! Rollouts on real nodes: a failed canary, a release that is taken back, a node that dies in its switch, a second merge in the
//! middle, reboots that come back and that do not; and each goes on as it was when the controller is killed in the middle.

use super::*;

/// Commits these texts, one for each node, as a rollout.
fn rollout(fleet: &Fleet, message: &str, fleet_wide: &str, body: impl Fn(&str) -> String) -> String {
    let deployment = fleet.deployment(fleet_wide, body);
    fleet.commit(message, &[("deployment.nix", &deployment)]).unwrap()
}

const CANARY_FIRST: &str = "rollout.waves = [ { on = \"n1\"; } { on = \"*\"; } ]; rollout.healAfter = 0;";

fn shown(fleet: &Fleet, name: &str) -> String {
    fleet.nodes[name].enter("cat /etc/lab-text").unwrap().stdout.trim().to_owned()
}

/// What is true stays true while the controller is killed and another one takes over.
fn still(fleet: &mut Fleet, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    fleet.wait(what, SOON, &is).unwrap();
    fleet.kill().unwrap();
    fleet.start().unwrap();
    fleet
        .wait(&format!("{what}, after a restart"), SOON, |seen| seen["ready"] == "ready" && is(seen))
        .unwrap()
}

#[test]
fn a_canary_that_fails_leaves_the_rest_untouched_and_a_new_commit_goes_on() {
    let mut fleet = fleet(&["n1", "n2", "n3"]);
    let first = rollout(&fleet, "first", CANARY_FIRST, |_| text("one"));
    fleet.start().unwrap();
    fleet.wait_in_sync(&first, SOON).unwrap();
    rollout(&fleet, "locks the canary out", CANARY_FIRST, |name| match name {
        "n1" => format!("{} configuration.lab.faults.killSsh = true;", text("two")),
        _ => text("two"),
    });
    let halted = |seen: &Value| {
        is(&seen["nodes"]["n1"], "hold", "given-up")
            && is(&seen["nodes"]["n2"], "hold", "halted")
            && is(&seen["nodes"]["n3"], "hold", "halted")
    };
    let seen = still(&mut fleet, "the rest is held", halted);
    let why = seen["nodes"]["n2"]["why"].as_str().unwrap();
    assert!(why.contains("wave 1, n1: lost contact after activation"), "{why}");
    assert_eq!(seen["waves"][0]["phase"]["phase"], "halted", "{seen:#}");
    assert_eq!([switches(&fleet, "n2"), switches(&fleet, "n3")], [1, 1]);
    let status = fleet.driftless(&["status"]).unwrap();
    assert!(status.stdout.contains("halted in wave 1 of 2 by n1"), "{}", status.stdout);
    let mended = rollout(&fleet, "mended", CANARY_FIRST, |_| text("three"));
    fleet.wait_in_sync(&mended, SOON).unwrap();
    assert_eq!(["n1", "n2", "n3"].map(|name| shown(&fleet, name)), ["three", "three", "three"]);
}

#[test]
fn a_release_that_fails_is_taken_back_from_the_nodes_that_have_it() {
    let mut fleet = fleet(&["n1", "n2", "n3"]);
    let fleet_wide = "rollout.onFailure = \"rollback\"; \
                      rollout.waves = [ { on = \"n1\"; } { on = \"n2\"; } { on = \"*\"; } ];";
    let first = rollout(&fleet, "first", fleet_wide, |_| text("one"));
    fleet.start().unwrap();
    fleet.wait_in_sync(&first, SOON).unwrap();
    let before = fleet.nodes["n1"].running().unwrap();
    rollout(&fleet, "works on the canary only", fleet_wide, |name| match name {
        "n2" => format!("{} configuration.lab.faults.unitFails = true;", text("two")),
        _ => text("two"),
    });
    fleet.wait("the second wave has begun", SOON, |seen| !seen["nodes"]["n2"]["inFlight"].is_null()).unwrap();
    assert_eq!(shown(&fleet, "n1"), "two");
    fleet.kill().unwrap();
    fleet.start().unwrap();
    let taken_back = |seen: &Value| {
        ["n1", "n3"].iter().all(|name| is(&seen["nodes"][name], "hold", "halted"))
            && is(&seen["nodes"]["n2"], "hold", "given-up")
            && seen["nodes"]["n1"]["observation"]["state"]["running"] == before.as_str()
    };
    still(&mut fleet, "the canary is back", taken_back);
    assert_eq!(
        (fleet.nodes["n1"].running().unwrap(), fleet.nodes["n1"].boot_default().unwrap()),
        (before.clone(), before)
    );
    assert_eq!([switches(&fleet, "n1"), switches(&fleet, "n2"), switches(&fleet, "n3")], [3, 2, 1]);
    // By a switch like any other, which says what it was for.
    let history = fleet.driftless(&["history", "--on", "n1"]).unwrap();
    assert!(history.stdout.contains("taking the release back"), "{}", history.stdout);
    let mended = rollout(&fleet, "mended", fleet_wide, |_| text("three"));
    fleet.wait_in_sync(&mended, SOON).unwrap();
}

#[test]
fn a_node_that_dies_in_its_switch_halts_the_rollout_until_it_is_back() {
    let mut fleet = fleet(&["n1", "n2"]);
    let first = rollout(&fleet, "first", CANARY_FIRST, |_| text("one"));
    fleet.start().unwrap();
    fleet.wait_in_sync(&first, SOON).unwrap();
    let second = rollout(&fleet, "kills the canary", CANARY_FIRST, |name| match name {
        "n1" => format!("{} configuration.lab.faults.slow = 4;", text("two")),
        _ => text("two"),
    });
    fleet
        .wait("the switch runs", SOON, |seen| seen["nodes"]["n1"]["inFlight"]["stage"]["phase"] == "testing")
        .unwrap();
    // What a successor has to know is on the disk within a second.
    std::thread::sleep(Duration::from_secs(2));
    fleet.nodes["n1"].power_cut().unwrap();
    let halted = |seen: &Value| {
        seen["nodes"]["n1"]["state"] == "unreachable" && is(&seen["nodes"]["n2"], "hold", "halted")
    };
    let seen = still(&mut fleet, "the rest is held", halted);
    let why = seen["nodes"]["n2"]["why"].as_str().unwrap();
    assert!(why.contains("n1: does not answer since its switch"), "{why}");
    assert_eq!(switches(&fleet, "n2"), 1);
    // It was interrupted, which may pass: it is tried again, and then the others follow.
    fleet.nodes["n1"].start().unwrap();
    fleet.wait_in_sync(&second, Duration::from_secs(120)).unwrap();
}

#[test]
fn a_second_merge_in_the_middle_begins_again_at_the_first_wave() {
    let mut fleet = fleet(&["n1", "n2"]);
    let soaking =
        |soak: &str| format!("rollout.waves = [ {{ on = \"n1\"; soak = \"{soak}\"; }} {{ on = \"*\"; }} ];");
    let first = rollout(&fleet, "first", &soaking("0s"), |_| text("one"));
    fleet.start().unwrap();
    fleet.wait_in_sync(&first, SOON).unwrap();
    rollout(&fleet, "second", &soaking("1h"), |_| text("two"));
    let soaks =
        |seen: &Value| seen["nodes"]["n1"]["state"] == "in-sync" && is(&seen["nodes"]["n2"], "hold", "soak");
    still(&mut fleet, "the canary has it, and must be well", soaks);
    let third = rollout(&fleet, "third", &soaking("2s"), |_| text("three"));
    fleet.wait_in_sync(&third, SOON).unwrap();
    assert_eq!(
        [switches(&fleet, "n1"), switches(&fleet, "n2")],
        [3, 2],
        "nobody got the second but the canary"
    );
}

/// A release that only a boot can start, on a node that may be rebooted.
fn kernel(version: &str, more: &str) -> String {
    format!(
        "{} configuration.boot.kernelVersion = \"{version}\"; reboot.policy = \"when-required\"; reboot.timeout = 20; {more}",
        text(version)
    )
}

#[test]
fn a_new_kernel_is_booted_once_proven_and_made_the_default_and_then_the_others_follow() {
    let mut fleet = fleet(&["n1", "n2"]);
    let first = rollout(&fleet, "first", CANARY_FIRST, |_| kernel("6.6.1", ""));
    fleet.start().unwrap();
    fleet.wait_in_sync(&first, SOON).unwrap();
    let boots = fleet.nodes["n1"].boot_count();
    assert_eq!(switches(&fleet, "n1"), 1, "no reboot without need");
    let second = rollout(&fleet, "a new kernel", CANARY_FIRST, |_| kernel("6.9.1", ""));
    let rebooting = |seen: &Value| seen["nodes"]["n1"]["inFlight"]["stage"]["stage"] == "rebooting";
    let seen = fleet.wait("the canary reboots", SOON, rebooting).unwrap();
    assert!(is(&seen["nodes"]["n2"], "hold", "wave"), "{seen:#}");
    fleet.kill().unwrap();
    fleet.start().unwrap();
    let seen = fleet.wait_in_sync(&second, SOON * 2).unwrap();
    for name in ["n1", "n2"] {
        let node = &fleet.nodes[name];
        assert_eq!(node.boot_count(), boots + 1, "{name}: one reboot");
        let desired = seen["nodes"][name]["desired"].as_str().unwrap();
        let is = [node.running().unwrap(), node.booted().unwrap(), node.boot_default().unwrap()];
        assert!(is.iter().all(|system| system == desired), "{name}: {is:?}");
    }
}

#[test]
fn a_reboot_that_never_returns_halts_the_rollout_and_is_not_repeated() {
    let mut fleet = fleet(&["n1", "n2"]);
    let first = rollout(&fleet, "first", CANARY_FIRST, |_| kernel("6.6.1", ""));
    fleet.start().unwrap();
    fleet.wait_in_sync(&first, SOON).unwrap();
    let before = fleet.nodes["n1"].running().unwrap();
    let boots = fleet.nodes["n1"].boot_count();
    // It comes up, and nobody gets in.
    rollout(&fleet, "comes up deaf", CANARY_FIRST, |name| {
        kernel("6.9.1", if name == "n1" { "configuration.lab.faults.killSsh = true;" } else { "" })
    });
    let overdue = |seen: &Value| {
        is(&seen["nodes"]["n1"], "hold", "reboot-overdue") && is(&seen["nodes"]["n2"], "hold", "halted")
    };
    let seen = still(&mut fleet, "the canary is overdue, and the rest held", overdue);
    assert_eq!(seen["nodes"]["n1"]["state"], "failed");
    assert_eq!((fleet.nodes["n1"].boot_count(), switches(&fleet, "n2")), (boots + 1, 1));
    // Somebody pulls the plug: the next boot starts what was proven.
    fleet.nodes["n1"].power_cut().unwrap();
    fleet.nodes["n1"].start().unwrap();
    let seen = fleet
        .wait("it is back as it was", SOON, |seen| is(&seen["nodes"]["n1"], "hold", "given-up"))
        .unwrap();
    assert!(is(&seen["nodes"]["n2"], "hold", "halted"), "{seen:#}");
    assert_eq!(fleet.nodes["n1"].running().unwrap(), before);
    let mended =
        rollout(&fleet, "the old kernel again", CANARY_FIRST, |_| kernel("6.6.1", "tags = [ \"x\" ];"));
    fleet.wait_in_sync(&mended, SOON).unwrap();
    assert_eq!(switches(&fleet, "n2"), 1);
}

#[test]
fn windows_order_and_limits_hold_real_nodes_and_a_person_may_open_a_window() {
    let mut fleet = fleet(&["n1", "n2", "n3"]);
    let first = rollout(&fleet, "first", "", |_| text("one"));
    fleet.start().unwrap();
    fleet.wait_in_sync(&first, SOON).unwrap();
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let (from, until) = (today.yesterday().unwrap(), today.tomorrow().unwrap());
    let shut = format!(
        "rollout.windows = [ {{ effect = \"deny\"; from = \"{from}\"; until = \"{until}\"; timeZone = \"UTC\"; }} ];"
    );
    let second = rollout(&fleet, "in a freeze", &shut, |name| {
        format!("{} {}", text("two"), if name == "n1" { "after = [ \"n2\" ];" } else { "" })
    });
    let held = |seen: &Value| {
        ["n2", "n3"].iter().all(|name| is(&seen["nodes"][name], "hold", "window"))
            && is(&seen["nodes"]["n1"], "hold", "after")
    };
    let seen = still(&mut fleet, "all are held", held);
    let why = seen["nodes"]["n2"]["why"].as_str().unwrap();
    assert!(why.contains(&format!("not now (deny {from} to {until}")), "{why}");
    let opened = fleet.driftless(&["override", "*", "--reason", "a hole", "--for", "1h"]).unwrap();
    assert!(opened.success(), "{opened:?}");
    let seen = fleet.wait_in_sync(&second, SOON).unwrap();
    let last = |name: &str, what: &str| {
        let journal = seen["nodes"][name]["observation"]["state"]["journal"].as_array().unwrap();
        journal.last().unwrap()[what].as_str().unwrap().to_owned()
    };
    assert!(last("n1", "started") >= last("n2", "finished"), "{seen:#}");

    // One may be down, and one is.
    fleet.nodes["n3"].power_off().unwrap();
    fleet.wait("n3 is silent", SOON, |seen| seen["nodes"]["n3"]["state"] == "unreachable").unwrap();
    let one = "rollout.waves = [ { on = \"*\"; maxUnavailable = \"34%\"; } ];";
    let third = rollout(&fleet, "third", one, |_| text("three"));
    let held = |seen: &Value| ["n1", "n2"].iter().all(|name| is(&seen["nodes"][name], "hold", "unavailable"));
    fleet.wait("no other is taken away", SOON, held).unwrap();
    fleet.nodes["n3"].start().unwrap();
    fleet.wait_in_sync(&third, SOON).unwrap();
}
