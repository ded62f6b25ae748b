//! What people read about a node: the state word, since when, and the sentence.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::world::{World, at, fleet, node, switch, system};
use crate::model::drift::DriftKind;
use crate::model::journal::{Cause, Outcome, PinEnd};
use crate::model::name::NodeName;
use crate::model::packages::PackageDiff;
use crate::model::release::Progress;
use crate::model::snapshot::{NodeView, State};
use crate::plan::secrets::may_be_brought;
use crate::plan::view::{Pass, node_views};

type Views = BTreeMap<NodeName, Arc<NodeView>>;

fn views(world: &World, previous: &Views) -> Views {
    let plan = world.plan();
    let (release, observed, intent) = (&world.release, &world.observed, &world.intent);
    let pass = Pass { release, observed, plan: &plan, intent, now: world.now };
    node_views(pass, previous)
}

fn only(world: &World) -> NodeView {
    Arc::unwrap_or_clone(views(world, &Views::new()).into_values().next().unwrap())
}

#[test]
fn every_state_is_told_in_one_word_and_one_sentence() {
    let differs = || node("vps3").running("old").wants("new").entry(switch("old").finished(-9999));
    let broken = "error:\n… while evaluating\n\nerror: undefined variable 'foo'\n\n  at /x.nix:1:2";
    for (built, state, why) in [
        (node("vps3").running("new").wants("new"), State::InSync, ""),
        (differs(), State::Switching, "outdated: runs an earlier system; to be deployed: nixos-system-new"),
        (differs().in_flight(), State::Switching, "health: http :80/ 2 of 3"),
        (differs().no_host(), State::Held, "declared without a host, never deployed"),
        (node("vps3"), State::Held, "not looked at yet"),
        (differs().unreachable(), State::Unreachable, "connect to 192.0.2.7:22 timed out after 10 s"),
        (
            differs().must_be_machine('b').machine('a'),
            State::Failed,
            "is another machine: machine id aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa, expected \
             bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
        ),
        (
            differs().marked(Some(at(3600))),
            State::Held,
            "outdated: runs an earlier system; suspended by alice@laptop until 2026-11-22 13:00:00 UTC: disk swap",
        ),
        (
            differs().suspended(),
            State::Held,
            "outdated: runs an earlier system; suspended by the deployment: disk is full",
        ),
        (
            differs().pinned(PinEnd::At(at(3600))),
            State::Held,
            "pinned by alice until 2026-11-22 13:00:00 UTC: disk replaced",
        ),
        (
            differs().pinned(PinEnd::NextRelease(system("new"))),
            State::Held,
            "pinned by alice until the next release: disk replaced",
        ),
        (
            differs().progress(Progress::NotEvaluated { error: broken.into() }),
            State::Failed,
            "does not evaluate: undefined variable 'foo'",
        ),
        (
            differs().last_good("old").progress(Progress::NotBuilt { error: "cc: no such file\n".into() }),
            State::Failed,
            "does not build: cc: no such file; its last good system stays",
        ),
        (
            differs().entry(switch("new").ended(Outcome::RolledBack, Some(Cause::Contact))),
            State::RolledBack,
            "lost contact after activation; retried on a new commit or `driftless retry vps3`",
        ),
        (
            differs().entry(switch("new").ended(Outcome::RolledBack, Some(Cause::NeedsReboot))),
            State::RolledBack,
            "only a reboot can start this system; `driftless deploy --on vps3 --goal boot`, then reboot it",
        ),
        (
            differs().entry(
                switch("new").ended(Outcome::RollbackFailed, Some(Cause::Units)).detail("nginx.service"),
            ),
            State::Failed,
            "units failed after activation, and the previous system could not be re-activated: \
             nginx.service; retried on a new commit or `driftless retry vps3`",
        ),
        (
            differs().attempts("new", 2, -1),
            State::Held,
            "the copy made no progress for 60 s (2 times in a row); tried again at 2026-11-22 12:00:59 UTC",
        ),
        (
            differs().entry(switch("new").live().by("alice@laptop")),
            State::Switching,
            "alice@laptop is switching it (20261122T114500Z-00000007)",
        ),
        (
            differs().entry(switch("new")).running("stray").since(0),
            State::Drift,
            "diverged: not deployed by driftless; healed at 2026-11-22 12:05:00 UTC",
        ),
        (
            differs().entry(switch("new")).running("new").boots("old").reports_drift(),
            State::Drift,
            "unpersisted: boots another system than it runs; only reported, as onDrift says",
        ),
        (
            node("vps3").running("new").failed("a.service").failed("b.service"),
            State::Drift,
            "degraded: failed a.service, b.service",
        ),
        (
            node("vps3").running("new").other_kernel_booted(),
            State::Drift,
            "reboot-required: only a reboot starts what is installed",
        ),
    ] {
        let view = only(&fleet([built.clone()]));
        assert_eq!((view.state, view.why.as_str()), (state, why), "{built:?}");
    }
}

#[test]
fn a_node_without_room_is_told_how_many_switch_already() {
    let differs = |name| node(name).running("old").wants("new");
    let world = fleet([differs("a").in_flight(), differs("b"), differs("c")]).max_in_flight(2);
    let why = &views(&world, &Views::new())[&"c".parse().unwrap()].why;
    assert_eq!(why, "2 of at most 2 nodes are switching already");
}

#[test]
fn since_is_kept_while_the_decision_is_of_the_same_kind() {
    let world = |ago| {
        let failed = switch("new").ended(Outcome::Interrupted, Some(Cause::Killed)).finished(ago);
        fleet([node("a").running("old").wants("new").entry(failed)])
    };
    let first = views(&world(-10), &Views::new());
    let name: NodeName = "a".parse().unwrap();
    assert_eq!(first[&name].since, at(0));
    let second = views(&world(-9).later(5), &first);
    assert_ne!(first[&name].decision, second[&name].decision);
    assert_eq!(second[&name].since, at(0), "still a backoff");
    let third = views(&world(-9).later(25), &second);
    assert_eq!(third[&name].since, at(25), "now it acts");
    let unreachable = fleet([node("a").running("old").unreachable()]);
    assert_eq!(views(&unreachable, &third)[&name].since, at(-300), "the last look knows better");
}

#[test]
fn a_remembered_state_is_shown_but_is_no_drift() {
    let strayed = || node("a").running("stray").boots("old").failed("a.service").wants("new");
    let seen = only(&fleet([strayed()]));
    assert_eq!(
        seen.drift.into_iter().collect::<Vec<_>>(),
        [DriftKind::Diverged, DriftKind::Unpersisted, DriftKind::Degraded]
    );
    let remembered = only(&fleet([strayed().unreachable()]));
    assert!(remembered.drift.is_empty());
    assert!(remembered.observation.unwrap().state.is_some());
}

#[test]
fn commits_are_those_of_the_release_and_of_the_journal() {
    let installed = || node("a").entry(switch("old")).running("old");
    let view = only(&fleet([installed().wants("new")]));
    assert_eq!(view.desired_revision.as_deref(), Some("3f9c2e1"));
    assert_eq!(view.running_revision.as_deref(), Some("b81d0aa"));
    let same = only(&fleet([installed().wants("old")]));
    assert_eq!(same.running_revision, same.desired_revision, "an unchanged system is of the new commit too");
    let kept = only(&fleet([installed().last_good("old").progress(Progress::Building)]));
    assert_eq!(kept.desired, Some(system("old")));
    assert_eq!(kept.desired_revision.as_deref(), Some("b81d0aa"));
    let unknown =
        installed().wants("old").last_good("old").progress(Progress::NotEvaluated { error: "e".into() });
    assert_eq!(
        only(&fleet([unknown])).desired_revision.as_deref(),
        Some("b81d0aa"),
        "a commit that does not evaluate wants nothing"
    );
    assert_eq!(only(&fleet([node("a").running("stray")])).running_revision, None);
}

#[test]
fn known_packages_are_named_until_either_system_changes() {
    let strayed = || node("a").entry(switch("new")).running("stray").since(0);
    let name: NodeName = "a".parse().unwrap();
    let mut first = views(&fleet([strayed()]), &Views::new());
    let path = |name: &str| format!("/nix/store/{}-{name}", "c".repeat(32)).parse().unwrap();
    // From running to desired; the reason tells what was done to the node.
    let diff = PackageDiff::between(&[path("openssh-9.8"), path("htop-3.3.0")], &[path("openssh-9.7")]);
    Arc::make_mut(first.get_mut(&name).unwrap()).packages = Some(diff);
    let second = views(&fleet([strayed()]), &first);
    assert_eq!(
        second[&name].why,
        "diverged: not deployed by driftless; +htop 3.3.0, openssh 9.7 → 9.8; healed at 2026-11-22 12:05:00 UTC"
    );
    assert_eq!(views(&fleet([strayed().running("other")]), &second)[&name].packages, None);
}

#[test]
fn secrets_come_to_nodes_that_are_in_sync_and_to_none_that_a_person_wants_left_alone() {
    let in_sync = || node("a").running("new").wants("new").with_a_secret();
    let differs = node("a").running("old").wants("new").with_a_secret();
    for (built, may) in [
        (in_sync(), true),
        (node("a").running("new").wants("new"), false),
        (differs, false),
        (in_sync().suspended(), false),
        (in_sync().pinned(PinEnd::At(at(60))), false),
        (in_sync().pinned(PinEnd::At(at(-60))), true),
        (in_sync().failed("a.service"), true),
        (in_sync().unreachable(), false),
        (in_sync().in_flight(), false),
    ] {
        let world = fleet([built]);
        assert_eq!(may_be_brought(&only(&world), world.now), may, "{:?}", only(&world).decision);
    }
}
