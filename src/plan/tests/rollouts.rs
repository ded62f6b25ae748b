//! What a node waits for on account of the others.

use serde_json::json;

use super::simulation::check;
use super::world::{NodeBuilder, World, at, fleet, node, switch, system};
use crate::model::decision::{Action, Decision, Hold, Purpose};
use crate::model::journal::{Cause, Outcome, PinEnd};
use crate::model::node::{Goal, RebootPolicy};
use crate::model::observed::FirstLook;
use crate::model::progress::WavePhase;
use crate::model::release::Progress;

/// A canary and two others, in two waves.
fn two_waves(canary: NodeBuilder) -> World {
    fleet([canary.tags(&["canary"]), old("web1"), old("web2")])
        .rollout(json!({ "waves": [{ "on": "@canary", "soak": 600 }, { "on": "*" }] }))
}

pub(super) fn old(name: &str) -> NodeBuilder {
    node(name).running("old").wants("new")
}

fn canary() -> NodeBuilder {
    old("canary")
}

pub(super) fn hold(world: &World, name: &str) -> Hold {
    match world.decision(name) {
        Decision::Hold { hold } => hold,
        decision @ (Decision::InSync | Decision::InFlight | Decision::Act { .. }) => {
            panic!("{name}: {decision:?}")
        }
    }
}

pub(super) fn acts(world: &World) -> Vec<String> {
    check(world, &world.plan());
    let plan = world.plan();
    let acts = plan.decisions.iter().filter(|(_, decision)| matches!(decision, Decision::Act { .. }));
    acts.map(|(name, _)| name.to_string()).collect()
}

#[test]
fn a_wave_begins_when_the_one_before_it_has_the_release_and_has_been_well_for_long_enough() {
    let first = two_waves(canary());
    assert_eq!(acts(&first), ["canary"]);
    assert_eq!(hold(&first, "web1"), Hold::Wave { wave: 2, waits_for: 1, node: "canary".parse().unwrap() });
    let soaking = two_waves(canary().got("new", "old", -500));
    assert_eq!(hold(&soaking, "web1"), Hold::Soak { wave: 1, until: at(100) });
    assert_eq!(soaking.plan().look_again_at, Some(at(100)));
    assert_eq!(acts(&soaking.later(100)), ["web1", "web2"]);
}

#[test]
fn a_node_that_had_the_release_before_does_not_make_the_others_wait() {
    // Unchanged by this release, and then taken away by somebody.
    for canary in [
        canary().wants("same").running("same"),
        canary().wants("same").running("stray").entry(switch("same").finished(-90_000)),
    ] {
        let world = two_waves(canary);
        assert!(acts(&world).ends_with(&["web1".into(), "web2".into()]), "{:?}", world.said());
    }
}

#[test]
fn a_failed_canary_leaves_the_rest_untouched_until_somebody_says_otherwise() {
    let failed = two_waves(canary().rolled_back("new"));
    assert_eq!(acts(&failed), [""; 0]);
    let Hold::Halted { wave: 1, node, why } = hold(&failed, "web1") else { panic!("{:?}", failed.said()) };
    assert_eq!((node.as_str(), why.as_str()), ("canary", "lost contact after activation"));
    assert_eq!(failed.plan().waves[0].phase, WavePhase::Halted);
    // Also when it does not answer any more, as long as it is known.
    assert_eq!(hold(&two_waves(canary().rolled_back("new").unreachable()), "web2").as_str(), "halted");
    let forgiven = switch("new").ended(Outcome::RolledBack, Some(Cause::Contact)).forgiven();
    assert_eq!(acts(&two_waves(canary().entry(forgiven))), ["canary"]);
    for given_up in [canary().rolled_back("new"), canary().rolled_back("new").unreachable()] {
        assert_eq!(acts(&two_waves(given_up.suspended())), ["web1", "web2"], "somebody goes on without it");
    }
}

#[test]
fn a_failure_halts_its_own_wave_too_beyond_what_is_allowed() {
    let nodes = || [node("a").rolled_back("new"), old("b"), old("c"), old("d")];
    assert_eq!(acts(&fleet(nodes())), [""; 0]);
    let allowed = |amount| fleet(nodes()).rollout(json!({ "waves": [{ "on": "*", "maxFailures": amount }] }));
    assert_eq!(acts(&allowed(json!(1))), ["b", "c", "d"]);
    assert_eq!(acts(&allowed(json!("25%"))), ["b", "c", "d"]);
    assert_eq!(acts(&allowed(json!("24%"))), [""; 0], "rounded down");
}

#[test]
fn a_node_is_healed_whatever_became_of_the_release_elsewhere() {
    let drifted =
        node("b").wants("new").running("stray").entry(switch("new").finished(-90_000)).since(-90_000);
    let world = fleet([node("a").rolled_back("new"), drifted]);
    assert_eq!(acts(&world), ["b"]);
    let Decision::Act { action: Action::Deploy { purpose: Purpose::Heal, .. } } = world.decision("b") else {
        panic!("{:?}", world.decision("b"))
    };
}

#[test]
fn nothing_new_goes_anywhere_before_all_that_may_have_failed_were_looked_at() {
    let unseen = old("b").never_seen();
    let world = fleet([old("a"), unseen.clone()]);
    assert_eq!(hold(&world, "a"), Hold::Unseen { node: "b".parse().unwrap() });
    let had = node("a").wants("new").running("stray").entry(switch("new").finished(-90_000)).since(-90_000);
    assert_eq!(acts(&fleet([had, unseen.clone()])), ["a"], "it is healed all the same");
    // In a later wave it does not matter, unless what fails there is taken back here.
    let waves = json!([{ "on": "a" }, { "on": "*" }]);
    assert_eq!(acts(&fleet([old("a"), unseen.clone()]).rollout(json!({ "waves": waves }))), ["a"]);
    let rolling_back = json!({ "waves": waves, "onFailure": "rollback" });
    assert_eq!(hold(&fleet([old("a"), unseen]).rollout(rolling_back), "a").as_str(), "unseen");
    // One that is declared anew is waited for only while nothing is known at all.
    let mut world = fleet([old("a"), old("b").never_seen().unevaluated()]);
    assert_eq!(acts(&world), ["a"]);
    world.observed.first_look = FirstLook::Open;
    assert_eq!(hold(&world, "a").as_str(), "unseen");
}

#[test]
fn silence_passes_unless_something_was_begun() {
    assert_eq!(acts(&two_waves(canary().unreachable())), ["web1", "web2"]);
    let begun = |canary: NodeBuilder| two_waves(canary).begun("canary", "new", -60);
    assert_eq!(hold(&begun(canary().unreachable()), "web1").as_str(), "halted");
    assert_eq!(acts(&begun(canary().unreachable().wants("newer"))), ["web1", "web2"], "another release");
    assert_eq!(acts(&begun(canary().unreachable().intermittent())), ["web1", "web2"], "a laptop");
    let mut waits = two_waves(canary().unreachable());
    waits.release.rollout.unreachable = crate::model::rollout::Unreachable::Wait;
    assert_eq!(hold(&waits, "web1").as_str(), "wave");
}

#[test]
fn a_node_that_is_not_well_since_it_has_the_release_stops_the_waves_behind_it() {
    let sick = two_waves(canary().got("new", "old", -5000).failed("nginx.service"));
    assert_eq!(hold(&sick, "web1").as_str(), "wave");
    // Of a release before this one: it has nothing to do with it.
    let before = canary().wants("same").running("same").entry(switch("same").finished(-90_000));
    assert_eq!(acts(&two_waves(before.failed("nginx.service"))), ["web1", "web2"]);
}

#[test]
fn those_who_cannot_get_the_release_pass() {
    let cases: [fn(NodeBuilder) -> NodeBuilder; 5] = [
        |node| node.suspended(),
        |node| node.no_host(),
        |node| node.machine('a').must_be_machine('b'),
        |node| node.hook("drain"),
        |node| node.progress(Progress::NotBuilt { error: "e".into() }).last_good("old"),
    ];
    for case in cases {
        let world = two_waves(case(canary()));
        assert_eq!(acts(&world), ["web1", "web2"], "{:?}", world.said());
    }
    for case in [Progress::Evaluating, Progress::Building] {
        let world = two_waves(canary().progress(case).last_good("old"));
        assert_eq!(hold(&world, "web1").as_str(), "wave");
    }
    // Whoever took it back from this release had a reason.
    let pinned =
        canary().got("new", "old", -5000).entry(switch("old").by("alice").finished(-100)).running("old");
    let world = two_waves(pinned.pinned(PinEnd::NextRelease(system("new"))));
    assert_eq!(hold(&world, "web1").as_str(), "wave");
}

#[test]
fn a_failed_release_is_taken_back_where_the_deployment_says_so() {
    let nodes = || {
        [
            node("a").got("new", "old", -700),
            node("b").rolled_back("new"),
            old("c"),
            // It has had it for long: not this rollout's doing.
            node("d").wants("new").running("new").entry(switch("new").from("old").finished(-90_000)),
        ]
    };
    assert_eq!(fleet(nodes()).words(), ["in-sync", "given-up", "halted", "in-sync"]);
    let rolling_back = json!({ "onFailure": "rollback" });
    let world = fleet(nodes()).rollout(rolling_back.clone());
    assert_eq!(world.words(), ["act", "given-up", "halted", "in-sync"]);
    let back = Action::Deploy {
        toplevel: system("old"),
        expected: system("new"),
        goal: Goal::Switch,
        purpose: Purpose::TakeBack,
    };
    assert_eq!(world.decision("a"), back.into());
    // Once it is back, the release is held.
    let [a, b, ..] = nodes();
    let a = a.running("old").entry(switch("old").from("new").finished(-5).of_this_release());
    let world = fleet([a, b]).rollout(rolling_back.clone());
    assert_eq!(hold(&world, "a").as_str(), "halted");
    // Also where it failed in a later wave.
    let [a, b, ..] = nodes();
    let a = a.running("old").entry(switch("old").from("new").finished(-5).of_this_release());
    let waves = json!({ "onFailure": "rollback", "waves": [{ "on": "a" }, { "on": "*" }] });
    assert_eq!(hold(&fleet([a, b]).rollout(waves), "a").as_str(), "halted");
    // What it goes back to may fail there as anything may.
    let [a, b, ..] = nodes();
    let a = a.entry(switch("old").ended(Outcome::RolledBack, Some(Cause::Activation)).finished(-5));
    assert_eq!(hold(&fleet([a, b]).rollout(rolling_back), "a").as_str(), "given-up");
}

#[test]
fn a_release_that_is_taken_back_is_not_brought_again_to_the_waves_before_the_one_where_it_failed() {
    let first = node("a").running("old").entry(switch("new").from("old").finished(-60).of_this_release());
    let first = first.entry(switch("old").from("new").finished(-5).of_this_release());
    let rollout = json!({ "waves": [{ "on": "a" }, { "on": "*" }], "onFailure": "rollback" });
    let world = fleet([first, node("b").rolled_back("new")]).rollout(rollout);
    let Hold::Halted { wave: 2, node, .. } = hold(&world, "a") else { panic!("{:?}", world.said()) };
    assert_eq!(node.as_str(), "b");
}

#[test]
fn a_wave_that_needs_approval_waits_for_exactly_its_plan() {
    let rollout = json!({ "waves": [{ "on": "*", "approval": true }] });
    let world = || fleet([old("a"), old("b")]).rollout(rollout.clone());
    let Hold::Approval { what, hash } = hold(&world(), "a") else { panic!("{:?}", world().said()) };
    assert_eq!(what, "wave 1");
    assert_eq!(acts(&world().approved(&hash, 60)), ["a", "b"]);
    assert_eq!(world().approved(&hash, 60).plan().look_again_at, Some(at(60)));
    assert_eq!(acts(&world().approved(&hash, 60).later(60)), [""; 0], "expired");
    let half = fleet([node("a").got("new", "old", -5), old("b")]).rollout(rollout.clone());
    assert_eq!(acts(&half.approved(&hash, 60)), ["b"], "it holds while the wave goes on");
    let other = fleet([old("a"), old("b").wants("newer")]).rollout(rollout.clone());
    assert_eq!(acts(&other.approved(&hash, 60)), [""; 0], "another plan");
    let open = fleet([old("a"), old("b").progress(Progress::Evaluating).last_good("old")]).rollout(rollout);
    assert_eq!(hold(&open, "a").as_str(), "evaluating");
    assert_eq!(open.plan().waves[0].phase, WavePhase::Approval { hash: None });
    let one = fleet([old("a").needs_approval(), old("b")]);
    let Hold::Approval { what, hash: its } = hold(&one, "a") else { panic!("{:?}", one.said()) };
    assert_eq!((what.as_str(), acts(&one)), ("node a", vec!["b".to_owned()]));
    assert_ne!(its, hash);
    assert_eq!(acts(&one.approved(&its, 60)), ["a", "b"]);
}

#[test]
fn a_node_that_needs_approval_waits_for_it_also_where_no_wave_selects_it() {
    let alone = fleet([old("a").needs_approval(), old("b")]).rollout(json!({ "waves": [{ "on": "b" }] }));
    let Hold::Approval { what, .. } = hold(&alone, "a") else { panic!("{:?}", alone.said()) };
    assert_eq!((what.as_str(), acts(&alone)), ("node a", vec!["b".to_owned()]));
}

#[test]
fn a_node_comes_after_those_it_names() {
    let world = |db: NodeBuilder| fleet([db.tags(&["db"]), old("web").after("@db")]);
    assert_eq!(hold(&world(old("db1")), "web"), Hold::After { node: "db1".parse().unwrap() });
    assert_eq!(acts(&world(node("db1").got("new", "old", -5))), ["web"]);
    assert_eq!(acts(&world(old("db1").unreachable())), ["web"]);
    assert_eq!(
        hold(&world(node("db1").got("new", "old", -5).failed("postgresql.service")), "web").as_str(),
        "after"
    );
}

#[test]
fn only_so_many_of_a_wave_are_worked_on_silent_or_not_well() {
    let limited = |nodes: Vec<NodeBuilder>, most: serde_json::Value| {
        fleet(nodes).rollout(json!({ "waves": [{ "on": "*", "maxUnavailable": most }] }))
    };
    let five = || ["a", "b", "c", "d", "e"].map(old).to_vec();
    assert_eq!(acts(&limited(five(), json!(2))), ["a", "b"]);
    assert_eq!(acts(&limited(five(), json!("50%"))), ["a", "b"], "rounded down");
    assert_eq!(acts(&limited(five(), json!("10%"))), ["a"], "one at least");
    let with = |first: NodeBuilder| {
        let mut nodes = five();
        nodes[0] = first;
        nodes
    };
    assert_eq!(acts(&limited(with(old("a").unreachable()), json!(2))), ["b"]);
    assert_eq!(acts(&limited(with(old("a").unreachable().intermittent()), json!(2))), ["b", "c"]);
    // A controller that has just begun does not know yet whether it is up.
    assert_eq!(acts(&limited(with(old("a").never_seen()), json!(2))), [""; 0]);
    // What is down already may be worked on without any more being down.
    assert_eq!(acts(&limited(with(old("a").failed("x.service")), json!(1))), ["a"]);
    assert_eq!(acts(&limited(with(old("a").in_flight()), json!(2))), ["b"]);
    let Hold::Unavailable { wave: 1, limit: 2 } = hold(&limited(five(), json!(2)), "c") else { panic!() };
}

#[test]
fn a_wave_has_its_own_limit_and_its_order() {
    let four = || ["a", "b", "c", "d"].map(old);
    let rollout =
        json!({ "waves": [{ "on": "*", "maxInFlight": 2, "order": ["d", "b*"] }], "maxInFlight": 3 });
    let world = fleet(four()).rollout(rollout);
    assert_eq!(acts(&world), ["b", "d"]);
    let Hold::WaveLimit { wave: 1, limit: 2 } = hold(&world, "a") else { panic!("{:?}", world.said()) };
}

#[test]
fn windows_hold_what_is_new_and_what_is_healed_and_reboots_but_not_the_way_back() {
    // Sunday noon, UTC.
    let shut = json!([{ "effect": "deny", "days": ["sun"], "timeZone": "UTC" }]);
    let drifted =
        node("b").wants("new").running("stray").entry(switch("new").finished(-90_000)).since(-90_000);
    let due = node("c").wants("new").running("new").other_kernel_booted().reboots(RebootPolicy::WhenRequired);
    let world = fleet([old("a"), drifted, due.clone()]).rollout(json!({ "windows": shut }));
    assert_eq!(world.words(), ["window", "window", "window"]);
    assert_eq!(world.plan().look_again_at, Some(at(12 * 3600)));
    check(&world, &world.plan());
    let failed = fleet([node("a").got("new", "old", -60), node("b").rolled_back("new")])
        .rollout(json!({ "windows": shut, "onFailure": "rollback" }));
    assert_eq!(acts(&failed), ["a"]);
    let mut urgent = world;
    urgent.intent.overrides.push(crate::model::intent::Override {
        on: "a".parse().unwrap(),
        by: "alice".into(),
        reason: "CVE".into(),
        since: at(-1),
        until: at(60),
    });
    assert_eq!(acts(&urgent), ["a"]);
    let night = due.reboot_window(json!({ "hours": "22:00-04:00", "timeZone": "UTC" }));
    let world = fleet([night]);
    assert_eq!(hold(&world, "c").as_str(), "window");
    assert_eq!(acts(&world.later(11 * 3600)), ["c"]);
}

#[test]
fn a_system_of_an_earlier_release_is_healed_to_and_not_rolled_out() {
    let waiting = |name| node(name).running("old").wants("newer").last_good("new");
    for progress in [Progress::Evaluating, Progress::Building, Progress::NotBuilt { error: "e".into() }] {
        let world = fleet([waiting("a").progress(progress.clone())]);
        assert_eq!(acts(&world), [""; 0], "it may have failed elsewhere");
        let had = waiting("a").entry(switch("new").finished(-90_000)).since(-90_000);
        assert_eq!(acts(&fleet([had.progress(progress)])), ["a"]);
    }
}

#[test]
fn a_new_release_starts_again_at_the_first_wave() {
    let world = fleet([
        node("canary").got("new", "old", -5000).wants("newer").tags(&["canary"]),
        node("web1").got("new", "old", -60).wants("newer"),
        old("web2").wants("newer"),
    ])
    .rollout(json!({ "waves": [{ "on": "@canary" }, { "on": "*" }] }));
    assert_eq!(acts(&world), ["canary"]);
    assert_eq!(world.words(), ["act", "wave", "wave"]);
    let phases: Vec<_> = world.plan().waves.iter().map(|wave| (wave.done, wave.phase.as_str())).collect();
    assert_eq!(phases, [(0, "running"), (0, "waiting")]);
}
