//! Behaviour of `plan`: tables of single questions here, properties over random fleets and histories beside it.

mod properties;
mod reboots;
mod rollouts;
mod simulation;
mod views;
pub(crate) mod world;

use std::time::Duration;

use super::*;
use crate::model::decision::{Action, Purpose};
use crate::model::hook::{HookFailure, HookPolicy};
use crate::model::journal::{Cause, Outcome, Phase};
use crate::model::node::Goal;
use crate::model::observed::{Attempt, AttemptKind};
use crate::model::release::Progress;
use world::{NodeBuilder, World, at, fleet, node, switch, system};

/// The decision for the only node of a world.
fn only(world: &World) -> Decision {
    let plan = world.plan();
    assert_eq!(plan.decisions.len(), 1);
    plan.decisions.into_values().next().unwrap()
}

fn reason(world: &World) -> &'static str {
    only(world).as_str()
}

#[test]
fn a_new_release_is_deployed_at_once() {
    let world = fleet([node("web1").running("old").wants("new")]);
    assert_eq!(
        only(&world),
        Action::Deploy {
            toplevel: system("new"),
            expected: system("old"),
            goal: Goal::Switch,
            purpose: Purpose::Release
        }
        .into()
    );
    assert_eq!(world.plan().look_again_at, None);
}

#[test]
fn what_runs_and_boots_the_wanted_system_is_in_sync() {
    let world = fleet([node("web1").running("new").wants("new")]);
    assert_eq!(only(&world), Decision::InSync);
    for (goal, running, boots, expected) in [
        (Goal::Switch, "new", "old", "act"),
        (Goal::Switch, "old", "new", "act"),
        (Goal::Test, "new", "old", "in-sync"),
        (Goal::Test, "old", "new", "act"),
        (Goal::Boot, "new", "old", "act"),
        (Goal::Boot, "old", "new", "reboot-required"),
        (Goal::Boot, "new", "new", "in-sync"),
    ] {
        let world = fleet([node("web1").running(running).boots(boots).wants("new").goal(goal)]);
        assert_eq!(reason(&world), expected, "{goal:?}: runs {running}, boots {boots}");
    }
}

#[test]
fn the_first_question_that_stands_in_the_way_is_the_answer() {
    let differs = || node("web1").running("old").wants("new");
    for (built, expected) in [
        (differs().in_flight(), "in-flight"),
        (differs().in_flight().unreachable(), "in-flight"),
        (differs().no_host(), "no-host"),
        (node("web1").wants("new"), "not-observed"),
        (differs().unreachable(), "unreachable"),
        (differs().unreachable().entry(switch("new").live()), "unreachable"),
        (differs().machine('a').must_be_machine('b'), "wrong-machine"),
        (differs().must_be_machine('b'), "wrong-machine"),
        (differs().machine('a').must_be_machine('b').entry(switch("new").live()), "wrong-machine"),
        (differs().machine('b').must_be_machine('b'), "act"),
        (differs().entry(switch("new").live()).suspended(), "act"),
        (differs().entry(switch("new").live().by("alice@laptop")), "busy"),
        (differs().progress(Progress::Evaluating), "evaluating"),
        (differs().progress(Progress::Building), "building"),
        (differs().progress(Progress::NotEvaluated { error: "e".into() }), "not-evaluated"),
        (differs().progress(Progress::NotBuilt { error: "e".into() }), "not-built"),
        (differs().suspended(), "suspended"),
        (node("web1").running("new").wants("new").suspended(), "in-sync"),
        (differs().marked(None), "suspended"),
        (differs().marked(Some(at(1))), "suspended"),
        (differs().marked(Some(at(0))), "act"),
        (node("web1").running("new").wants("new").marked(None), "in-sync"),
        (differs().pinned(PinEnd::At(at(1))), "pinned"),
        (differs().pinned(PinEnd::At(at(0))), "act"),
        (differs().pinned(PinEnd::NextRelease(system("new"))), "pinned"),
        (differs().pinned(PinEnd::NextRelease(system("old"))), "act"),
        (node("web1").running("new").wants("new").failed("nginx.service"), "degraded"),
        (node("web1").running("new").wants("new").failed("nginx.service").ignores("ngin?.*"), "in-sync"),
        (node("web1").running("new").wants("new").other_kernel_booted(), "reboot-required"),
        (node("web1").running("new").wants("new").failed("nginx.service").elsewhere(), "elsewhere"),
        (differs().elsewhere(), "act"),
        (differs().elsewhere().suspended(), "suspended"),
        (differs().other_kernel_booted().failed("nginx.service"), "act"),
    ] {
        assert_eq!(reason(&fleet([built.clone()])), expected, "{built:?}");
    }
}

#[test]
fn a_waiting_switch_of_a_controller_is_attached_to_before_anything_is_evaluated() {
    let waiting =
        node("web1").running("old").entry(switch("new").live().by("controller@infra")).unevaluated();
    assert!(matches!(only(&fleet([waiting])), Decision::Act { action: Action::Attach { .. } }));
}

#[test]
fn hooks_keep_a_node_from_being_switched_until_they_may_run() {
    let refused = |built: NodeBuilder| reason(&fleet([built.hook("drain")]));
    let differs = || node("web1").running("old").wants("new");
    assert_eq!(refused(differs()), "hooks-refused");
    assert_eq!(refused(differs().suspended()), "suspended");
    assert_eq!(refused(node("web1").running("new").wants("new")), "in-sync");
    assert_eq!(
        refused(differs().entry(switch("new").live())),
        "act",
        "a switch that waits is not kept waiting"
    );
    assert_eq!(refused(node("web1").running("new").wants("new").boots("old")), "act", "it brings nothing");
    let older = differs().progress(Progress::NotBuilt { error: "e".into() }).last_good("good");
    let older = older.entry(switch("good").finished(-90_000)).since(-90_000);
    assert_eq!(refused(older), "act", "they belong to the declared system");
    let mut allowed = fleet([differs().hook("drain")]);
    allowed.observed.hooks = HookPolicy::Run;
    assert_eq!(reason(&allowed), "act");
}

#[test]
fn a_hook_that_failed_after_the_switch_is_told_until_another_system_is_wanted() {
    let failed = |built: NodeBuilder| {
        let mut world = fleet([built]);
        let failure = HookFailure { toplevel: system("new"), error: "the hook undrain failed".into() };
        world.observed.hook_failures.insert("web1".parse().unwrap(), failure);
        reason(&world)
    };
    assert_eq!(failed(node("web1").running("new").wants("new")), "hook-failed");
    assert_eq!(failed(node("web1").running("new").wants("newer")), "act");
    assert_eq!(failed(node("web1").running("newer").wants("newer")), "in-sync");
}

#[test]
fn two_that_want_different_systems_on_one_node_switch_it_less_and_less_often() {
    let fought = |times: i64| {
        let mut node = node("web1").running("theirs").wants("ours");
        for round in 0..times {
            let ended = -60 * (times - round);
            node = node.entry(switch("ours").finished(ended)).entry(switch("theirs").finished(ended + 30));
        }
        fleet([node])
    };
    assert_eq!(reason(&fought(0)), "act");
    assert_eq!(reason(&fought(1)), "act", "a revert is nobody's fight");
    for (times, seconds) in [(2, 0), (3, 30), (4, 90), (8, 1890)] {
        let world = fought(times);
        if seconds == 0 {
            assert_eq!(reason(&world), "act", "30 s after the last");
        } else {
            assert_eq!(reason(&world), "backoff", "{times}");
            assert_eq!(world.plan().look_again_at, Some(at(seconds)), "{times}");
        }
    }
}

#[test]
fn a_failed_try_to_re_attach_is_followed_by_a_breath_and_not_by_a_backoff() {
    let tried = |seconds| {
        let live = switch("new").live().by("controller@infra");
        fleet([node("web1").running("old").wants("new").entry(live).attempts("new", 9, seconds)])
    };
    assert!(matches!(only(&tried(-2)), Decision::Act { action: Action::Attach { .. } }));
    assert_eq!(reason(&tried(-1)), "backoff");
    assert_eq!(tried(-1).plan().look_again_at, Some(at(1)));
}

#[test]
fn a_node_that_does_not_build_is_healed_to_its_last_good_system_and_held_there() {
    let broken =
        || node("web1").wants("new").last_good("good").progress(Progress::NotBuilt { error: "e".into() });
    let world = fleet([broken().running("old").entry(switch("good").finished(-90_000)).since(-90_000)]);
    assert!(
        matches!(only(&world), Decision::Act { action: Action::Deploy { toplevel, .. } } if toplevel == system("good"))
    );
    assert_eq!(reason(&fleet([broken().running("good")])), "not-built");
    assert_eq!(reason(&fleet([broken().running("old")])), "not-built", "it never had that one");
}

#[test]
fn a_node_that_failed_to_build_its_own_system_is_held_until_another_system_is_wanted_or_a_person_asks() {
    let mut world = fleet([node("web1").running("old").wants("new").attempts("new", 1, -1)]);
    assert_eq!(reason(&world), "backoff");
    let change = |world: &mut World, change: fn(&mut Attempt)| {
        world.observed.attempts.values_mut().for_each(change);
    };
    change(&mut world, |attempt| (attempt.kind, attempt.last) = (AttemptKind::Build, at(-90_000)));
    assert_eq!(reason(&world), "not-built", "the same build would fail in the same way");
    change(&mut world, |attempt| attempt.toplevel = system("newer"));
    assert_eq!(reason(&world), "act");
}

#[test]
fn one_broken_node_holds_the_release_only_where_all_are_required() {
    let broken =
        node("a").running("good").last_good("good").progress(Progress::NotEvaluated { error: "e".into() });
    let changed = node("b").running("old").last_good("old").wants("new");
    let unchanged = node("c").running("same").last_good("same").wants("same");
    let strayed = node("d").running("stray").last_good("old").wants("new");
    let strayed = strayed.entry(switch("old").finished(-90_000)).since(-90_000);
    let world = fleet([broken, changed, unchanged, strayed]);
    assert_eq!(world.words(), ["not-evaluated", "act", "in-sync", "act"]);

    let world = world.require_all();
    assert_eq!(world.words(), ["not-evaluated", "release-incomplete", "in-sync", "act"]);
    let Decision::Act { action: Action::Deploy { toplevel, .. } } = world.decision("d") else {
        panic!("d heals")
    };
    assert_eq!(toplevel, system("old"), "the release before stays in force");
}

#[test]
fn a_failure_that_would_repeat_itself_is_not_tried_again_until_forgiven_or_superseded() {
    let failed = |cause| switch("new").ended(Outcome::RolledBack, cause);
    for (entry, expected) in [
        (failed(Some(Cause::Contact)), "given-up"),
        (failed(None), "given-up"),
        (failed(Some(Cause::Contact)).forgiven(), "act"),
        (failed(Some(Cause::Silence)), "backoff"),
        (switch("new").ended(Outcome::RollbackFailed, Some(Cause::Silence)), "given-up"),
        (switch("new").ended(Outcome::CommitFailed, Some(Cause::Commit)), "given-up"),
        (switch("new").ended(Outcome::Interrupted, Some(Cause::Killed)), "backoff"),
        (switch("new").ended(Outcome::Interfered, Some(Cause::Foreign)), "backoff"),
        (switch("newer").ended(Outcome::RolledBack, Some(Cause::Contact)), "act"),
    ] {
        let world = fleet([node("web1").running("old").wants("new").entry(entry.clone())]);
        assert_eq!(reason(&world), expected, "{entry:?}");
    }
}

#[test]
fn waits_grow_with_every_failure_in_a_row_and_begin_anew_after_a_success() {
    let killed = |ago: i64| switch("new").ended(Outcome::Interrupted, Some(Cause::Killed)).finished(-ago);
    let failures = |entries: &[i64]| {
        entries.iter().fold(node("web1").running("old").wants("new"), |node, ago| node.entry(killed(*ago)))
    };
    let until = |world: &World| match only(world) {
        Decision::Hold { hold: Hold::Backoff { until, failures, .. } } => (until, failures),
        other @ (Decision::InSync | Decision::InFlight | Decision::Act { .. } | Decision::Hold { .. }) => {
            panic!("{other:?}")
        }
    };
    assert_eq!(until(&fleet([failures(&[10])])), (at(20), 1));
    assert_eq!(fleet([failures(&[10])]).plan().look_again_at, Some(at(20)));
    assert_eq!(until(&fleet([failures(&[900, 100, 10])])), (at(110), 3));
    assert_eq!(reason(&fleet([failures(&[900, 100, 10])]).later(110)), "act");
    assert_eq!(until(&fleet([failures(&[10]).attempts("new", 2, -5)])), (at(115), 3), "attempts count too");
    assert_eq!(until(&fleet([node("a").running("old").wants("new").attempts("new", 1, -1)])), (at(29), 1));
    assert_eq!(reason(&fleet([node("a").running("old").wants("new").attempts("other", 9, -1)])), "act");

    let restarted = failures(&[900, 800]).entry(switch("new").finished(-700)).entry(killed(10)).since(-9999);
    assert_eq!(until(&fleet([restarted])), (at(20), 1));
}

#[test]
fn what_our_own_interrupted_commit_left_is_mended_at_once_whatever_is_said_of_drift() {
    let half = |phase| {
        let away = switch("other").interrupted_in(phase).finished(-10);
        node("web1")
            .wants("new")
            .entry(switch("new").finished(-9999))
            .running("new")
            .boots("other")
            .entry(away)
    };
    assert_eq!(reason(&fleet([half(Phase::Committing).reports_drift()])), "act");
    assert_eq!(reason(&fleet([half(Phase::Committing).since(-1)])), "act");
    // Once mended, or where no commit had begun, it is drift like any other.
    assert_eq!(reason(&fleet([half(Phase::Finished).since(-1)])), "heal-delay");
    assert_eq!(reason(&fleet([half(Phase::Health).since(-1)])), "heal-delay");
}

#[test]
fn what_left_the_system_installed_last_is_drift_and_waits_for_people() {
    let strayed =
        || node("web1").wants("new").entry(switch("new").finished(-9999)).running("stray").since(-100);
    assert_eq!(only(&fleet([strayed()])), Hold::HealDelay { until: at(200) }.into());
    assert_eq!(fleet([strayed()]).plan().look_again_at, Some(at(200)));
    assert_eq!(reason(&fleet([strayed()]).later(200)), "act");
    assert_eq!(reason(&fleet([strayed().reports_drift()]).later(9999)), "report-only");
    assert_eq!(reason(&fleet([strayed()]).heal_after(Duration::MAX)), "heal-delay", "no overflow");

    let stubborn = strayed().entry(switch("new").finished(-10));
    assert_eq!(
        only(&fleet([stubborn])),
        Hold::HealDelay { until: at(290) }.into(),
        "a switch changed nothing"
    );

    let reverted = strayed().entry(switch("newer").finished(-50)).running("newer");
    assert_eq!(reason(&fleet([reverted.reports_drift()])), "act", "a revert is a release, not drift");
}

#[test]
fn the_limit_counts_what_runs_and_never_refuses_to_attach() {
    let differs = |name| node(name).running("old").wants("new");
    let waits = |name| differs(name).entry(switch("new").live());
    let world = fleet([differs("a").in_flight(), differs("b"), differs("c"), waits("d"), waits("e")]);
    assert_eq!(world.clone().max_in_flight(4).words(), ["in-flight", "act", "in-flight-limit", "act", "act"]);
    assert_eq!(
        world.clone().max_in_flight(1).words(),
        ["in-flight", "in-flight-limit", "in-flight-limit", "act", "act"]
    );
    assert_eq!(world.max_in_flight(0).decision("b"), Hold::InFlightLimit { limit: 0 }.into());
}

#[test]
fn a_node_that_left_the_release_still_takes_its_room() {
    let mut world = fleet([node("a").running("old").wants("new"), node("gone").running("old").in_flight()]);
    world.release.nodes.remove(&"gone".parse().unwrap());
    assert_eq!(world.max_in_flight(1).words(), ["in-flight-limit"]);
}

#[test]
fn ten_thousand_nodes_with_full_journals_are_decided_in_a_moment() {
    let full = |number: u32| {
        let name = format!("n{number}").parse().unwrap();
        let node =
            node("n").named(name).running("old").wants(if number.is_multiple_of(2) { "old" } else { "new" });
        (0..20).fold(node, |node, _| node.entry(switch("old")))
    };
    let world = fleet((0..10_000).map(full));
    let began = std::time::Instant::now();
    let plan = world.plan();
    // A fraction of this even unoptimised and on a busy machine; work that grows with the square takes minutes. The real
    // figure is that of `make bench`.
    assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
    assert_eq!(plan.decisions.len(), 10_000);
}
