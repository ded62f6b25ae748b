//! Reboots in a rollout: by policy, in turn, and what failed ones mean for the release.

use serde_json::json;

use super::rollouts::{acts, hold, old};
use super::world::{NodeBuilder, at, fleet, node, switch, system};
use crate::model::decision::{Action, Decision, Hold};
use crate::model::journal::{Outcome, PinEnd};
use crate::model::node::{Goal, RebootPolicy};
use crate::model::observed::Stage;
use crate::model::release::Progress;

#[test]
fn a_node_is_rebooted_as_its_policy_says() {
    let kernel = |policy| fleet([node("a").got("new", "old", -60).other_kernel_booted().reboots(policy)]);
    assert_eq!(kernel(RebootPolicy::Never).words(), ["reboot-required"]);
    for policy in [RebootPolicy::WhenRequired, RebootPolicy::Always] {
        assert_eq!(acts(&kernel(policy)), ["a"]);
    }
    let same_kernel = |policy| fleet([node("a").got("new", "old", -60).reboots(policy)]);
    assert_eq!(same_kernel(RebootPolicy::WhenRequired).words(), ["in-sync"]);
    let staged = old("a").staged("new").entry(switch("new").ended(Outcome::Staged, None));
    assert_eq!(fleet([staged.clone()]).words(), ["awaiting-reboot"]);
    let world = fleet([staged.reboots(RebootPolicy::WhenRequired)]);
    let Decision::Act { action: Action::Reboot { toplevel, .. } } = world.decision("a") else {
        panic!("{:?}", world.said())
    };
    assert_eq!(toplevel, system("new"));
    // Made the default without proof: only a boot starts it.
    let unproven = old("a").boots("new").entry(switch("new").from("old")).reboots(RebootPolicy::WhenRequired);
    assert!(matches!(fleet([unproven]).decision("a"), Decision::Act { action: Action::Reboot { .. } }));
    assert_eq!(
        fleet([node("a")
            .got("new", "old", -60)
            .other_kernel_booted()
            .reboots(RebootPolicy::Always)
            .suspended()])
        .words(),
        ["suspended"]
    );
}

#[test]
fn a_system_that_is_only_tested_is_not_taken_away_by_a_reboot() {
    for policy in [RebootPolicy::WhenRequired, RebootPolicy::Always] {
        let tested = node("a").goal(Goal::Test).got("new", "old", -60).boots("old");
        let world = fleet([tested.other_kernel_booted().reboots(policy)]);
        assert_eq!(world.words(), ["reboot-required"]);
    }
}

#[test]
fn a_reboot_that_came_to_nothing_is_not_repeated() {
    let due = || node("a").got("new", "old", -60).other_kernel_booted().reboots(RebootPolicy::WhenRequired);
    let told = |seconds| fleet([due().told_to_reboot("new", seconds)]);
    assert_eq!(hold(&told(-60), "a"), Hold::Rebooting { until: at(540) });
    assert_eq!(hold(&told(-600), "a").as_str(), "reboot-failed");
    let back = fleet([due().told_to_reboot("new", -60).booted_since()]);
    assert_eq!(hold(&back, "a").as_str(), "reboot-failed");
    assert_eq!(acts(&fleet([due().told_to_reboot("earlier", -60).booted_since()])), ["a"]);
    let silent = |seconds| fleet([due().unreachable(), old("b")]).reboot_begun("a", "new", seconds);
    assert_eq!(hold(&silent(-60), "a"), Hold::Rebooting { until: at(540) });
    assert_eq!(hold(&silent(-700), "a").as_str(), "reboot-overdue");
    assert_eq!(hold(&silent(-700), "b").as_str(), "halted");
}

#[test]
fn what_somebody_does_after_a_reboot_that_went_well_does_not_halt_the_release() {
    let due = node("a").got("new", "old", -60).other_kernel_booted().reboots(RebootPolicy::WhenRequired);
    let world = fleet([due.told_to_reboot("new", -60).booted_since().booted("new"), old("b")]);
    assert_eq!(world.words(), ["reboot-required", "act"]);
}

#[test]
fn a_node_that_a_person_took_back_from_a_release_holds_the_next_wave_also_while_it_is_built_again() {
    let back = node("a").got("new", "old", -600).running("old").pinned(PinEnd::NextRelease(system("new")));
    let rollout = json!({ "waves": [{ "on": "a" }, { "on": "*" }] });
    for progress in [Progress::Built, Progress::Building] {
        let world = fleet([back.clone().progress(progress), old("b")]).rollout(rollout.clone());
        assert_eq!(hold(&world, "b").as_str(), "wave");
    }
}

#[test]
fn a_reboot_that_failed_for_the_last_release_says_nothing_against_this_one() {
    let a = node("a").got("old", "older", -600).wants("new").last_good("old").progress(Progress::Building);
    let a = a.other_kernel_booted().reboots(RebootPolicy::WhenRequired);
    let world = fleet([a.told_to_reboot("old", -60).booted_since().booted("older"), old("b")]);
    assert_eq!(world.words(), ["building", "act"]);
}

#[test]
fn a_release_that_was_taken_back_for_a_reboot_that_failed_is_not_brought_again() {
    let back = node("a").wants("new").running("old").told_to_reboot("new", -60).booted_since().booted("old");
    let rollout = json!({ "onFailure": "rollback" });
    let world = |a: NodeBuilder| fleet([a, old("b")]).rollout(rollout.clone());
    assert_eq!(world(back.clone()).words(), ["halted", "halted"]);
    assert_eq!(world(back.clone().in_flight()).words(), ["in-flight", "halted"], "also while it goes back");
    assert_eq!(world(back.unreachable()).words(), ["unreachable", "halted"], "also when it is silent later");
    let mine = node("a").got("new", "old", -600).running("mine").told_to_reboot("new", -60).booted_since();
    assert_eq!(world(mine.booted("mine")).words()[1], "act", "somebody made another system the default");
}

#[test]
fn one_node_of_a_wave_reboots_at_a_time() {
    let due =
        |name| node(name).got("new", "old", -60).other_kernel_booted().reboots(RebootPolicy::WhenRequired);
    let world = fleet([due("a"), due("b")]);
    assert_eq!(acts(&world), ["a"]);
    assert_eq!(hold(&world, "b"), Hold::RebootTurn { node: "a".parse().unwrap() });
    let mut world = fleet([due("a").in_flight(), due("b")]);
    world.observed.in_flight.values_mut().for_each(|flight| flight.stage = Stage::Rebooting);
    assert_eq!(hold(&world, "b").as_str(), "reboot-turn");
}
