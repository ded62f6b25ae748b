//! Properties over random fleets, histories, clocks and work in flight.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::SignedDuration;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;

use super::simulation::{Behaviour, Simulation, check, is_rest};
use super::world::{NodeBuilder, World, at, fleet, node, switch, system};
use crate::model::decision::Decision;
use crate::model::journal::{Cause, Outcome, PinEnd};
use crate::model::name::NodeName;
use crate::model::node::Goal;
use crate::model::observed::Contact;
use crate::model::release::Progress;
use crate::model::rollout::{Amount, OnFailure, RolloutSpec, Wave};

const SYSTEMS: [&str; 4] = ["s0", "s1", "s2", "stray"];

/// A node with its surroundings.
#[derive(Debug, Clone)]
struct Case {
    node: NodeBuilder,
    behaviour: Behaviour,
    ahead: SignedDuration,
}

type Change = fn(NodeBuilder) -> NodeBuilder;

fn a_system() -> impl Strategy<Value = &'static str> {
    select(SYSTEMS.as_slice())
}

fn behaviour() -> impl Strategy<Value = Behaviour> {
    prop_oneof![
        4 => Just(Behaviour::Works),
        2 => select(vec![Cause::Contact, Cause::Units, Cause::Rejected]).prop_map(Behaviour::Fails),
        2 => (1..6u32).prop_map(Behaviour::Flaky),
    ]
}

/// An ordinary node: it answers and may be acted on. Its past, its clock and its luck are anything.
fn ordinary() -> impl Strategy<Value = Case> {
    let past =
        (a_system(), select(Outcome::ALL.as_slice()), proptest::option::of(select(Cause::ALL.as_slice())));
    let history = proptest::collection::vec((past, any::<bool>(), 1..20_000i64), 0..8);
    let state = (
        a_system(),
        a_system(),
        0..2000i64,
        select(vec![Goal::Switch, Goal::Switch, Goal::Test, Goal::Boot]),
    );
    let attempt = proptest::option::of((a_system(), 0..12u32, 0..5000i64));
    let ahead = prop_oneof![
        3 => Just(0),
        1 => Just(-50 * 365 * 86_400),
        1 => Just(10 * 365 * 86_400),
    ];
    (a_system(), state, history, attempt, behaviour(), ahead).prop_map(
        |(wants, (running, boots, since, goal), mut history, attempt, behaviour, ahead)| {
            history.sort_by_key(|(_, _, ago)| std::cmp::Reverse(*ago));
            let mut built = node("x").wants(wants).running(running).boots(boots).since(-since).goal(goal);
            for ((to, outcome, cause), forgiven, ago) in history {
                let entry = switch(to).ended(outcome, cause).finished(-ago);
                built = built.entry(if forgiven { entry.forgiven() } else { entry });
            }
            if let Some((to, failures, ago)) = attempt {
                built = built.attempts(to, failures, -ago);
            }
            Case { node: built, behaviour, ahead: SignedDuration::from_secs(ahead) }
        },
    )
}

/// Any node: up to three things that set it apart from an ordinary one.
fn any_node() -> impl Strategy<Value = Case> {
    let changes: Vec<Change> = vec![
        |node| node.unreachable(),
        |node| node.suspended(),
        |node| node.in_flight(),
        |node| node.no_host(),
        |node| node.machine('a').must_be_machine('b'),
        |node| node.reports_drift(),
        |node| node.failed("nginx.service"),
        |node| node.other_kernel_booted(),
        |node| node.pinned(PinEnd::At(at(4000))),
        |node| node.pinned(PinEnd::NextRelease(system("s1"))),
        |node| node.last_good("s0"),
        |node| node.last_good("s1").progress(Progress::NotBuilt { error: "e".into() }),
        |node| node.last_good("s2").progress(Progress::Evaluating),
        |node| node.progress(Progress::NotEvaluated { error: "e".into() }),
        |node| node.progress(Progress::Building),
        |node| node.entry(switch("s1").live()),
        |node| node.entry(switch("s2").live().by("alice@laptop")),
        |node| node.never_seen(),
    ];
    (ordinary(), proptest::collection::vec(select(changes), 0..4)).prop_map(|(mut case, changes)| {
        case.node = changes.into_iter().fold(case.node, |node, change| change(node));
        case
    })
}

fn named(cases: Vec<Case>) -> Vec<(NodeName, Case)> {
    let name = |(number, case): (usize, Case)| {
        let name: NodeName = format!("n{number:02}").parse().unwrap();
        (name.clone(), Case { node: case.node.named(name), ..case })
    };
    cases.into_iter().enumerate().map(name).collect()
}

/// Failures here do not stop the others.
fn world(cases: &[(NodeName, Case)], limit: u32) -> World {
    let mut world = fleet(cases.iter().map(|(_, case)| case.node.clone())).max_in_flight(limit);
    world.release.rollout.waves[0].max_failures = Amount::Percent(100);
    world
}

/// Two or three waves with a limit here and there.
fn waves() -> impl Strategy<Value = RolloutSpec> {
    let amount = || prop_oneof![(0..4u32).prop_map(Amount::Count), (0..=100u8).prop_map(Amount::Percent)];
    let wave =
        (0..900u64, proptest::option::of(amount()), amount(), proptest::option::of(1..4u32), any::<bool>());
    let wave = wave.prop_map(|(soak, max_unavailable, max_failures, max_in_flight, approval)| Wave {
        soak: Duration::from_secs(soak),
        max_unavailable,
        max_failures,
        max_in_flight,
        approval,
        ..Wave::default()
    });
    let windows = select(vec![
        json!([]),
        json!([{ "effect": "deny", "days": ["sun"], "timeZone": "UTC" }]),
        json!([{ "on": "n0*", "hours": "11:00-12:30", "timeZone": "Europe/Berlin" }]),
    ]);
    let rollback = any::<bool>();
    (proptest::collection::vec(wave, 1..4), windows, rollback).prop_map(|(mut waves, windows, rollback)| {
        let last = waves.len() - 1;
        for (wave, on) in waves[..last].iter_mut().zip(["n00,n03", "n01"]) {
            wave.on = on.parse().unwrap();
        }
        RolloutSpec {
            waves,
            windows: serde_json::from_value(windows).unwrap(),
            on_failure: if rollback { OnFailure::Rollback } else { OnFailure::Halt },
            ..RolloutSpec::default()
        }
    })
}

fn simulation(cases: &[(NodeName, Case)], world: World) -> Simulation {
    let behaviour = cases.iter().map(|(name, case)| (name.clone(), case.behaviour)).collect();
    let ahead: BTreeMap<_, _> = cases.iter().map(|(name, case)| (name.clone(), case.ahead)).collect();
    Simulation::new(world, behaviour, ahead)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn every_plan_of_every_world_keeps_the_rules(
        cases in proptest::collection::vec(any_node(), 0..12), limit in 0..6u32, all in any::<bool>(),
    ) {
        let cases = named(cases);
        let mut world = world(&cases, limit);
        world.release.rollout.require_all = all;
        check(&world, &world.plan());
    }

    #[test]
    fn every_plan_of_a_rollout_in_waves_keeps_the_rules(
        cases in proptest::collection::vec(any_node(), 0..8), waves in waves(),
    ) {
        let cases = named(cases);
        let mut world = world(&cases, 5);
        world.release.rollout = waves;
        check(&world, &world.plan());
    }

    #[test]
    fn any_fleet_comes_to_rest(
        cases in proptest::collection::vec(any_node(), 0..10), limit in 1..6u32, all in any::<bool>(),
    ) {
        let cases = named(cases);
        let mut world = world(&cases, limit);
        world.release.rollout.require_all = all;
        let mut simulation = simulation(&cases, world);
        let plan = simulation.run_to_rest();
        for (name, decision) in &plan.decisions {
            prop_assert!(is_rest(decision), "{}: {:?}", name, decision);
        }
        let years_later = simulation.world.later(86_400 * 1000);
        prop_assert_eq!(years_later.plan(), plan, "an unchanged world has an unchanged plan");
    }

    #[test]
    fn ordinary_nodes_end_in_sync_or_given_up(
        cases in proptest::collection::vec(ordinary(), 0..10), limit in 1..6u32,
    ) {
        let cases = named(cases);
        let plan = simulation(&cases, world(&cases, limit)).run_to_rest();
        for (name, case) in &cases {
            let word = plan.decisions[name].as_str();
            // A system that waits for the next boot is where `goal = "boot"` wants it.
            prop_assert!(["in-sync", "given-up", "reboot-required"].contains(&word), "{:?}: {}", case, word);
        }
    }

    #[test]
    fn nodes_that_cannot_be_acted_on_do_not_block_the_others(
        cases in proptest::collection::vec(any_node(), 0..12), limit in 0..6u32,
    ) {
        let cases = named(cases);
        let world = world(&cases, limit);
        // What was never looked at is waited for.
        prop_assume!(world.release.nodes.keys().all(|name| world.observed.nodes.contains_key(name)));
        let plan = world.plan();
        let mut without = world.clone();
        without.release.nodes.retain(|name, node| {
            let answers = world.observed.nodes.get(name).is_some_and(|seen| matches!(seen.contact, Contact::Reachable { .. }));
            let suspended = node.spec.as_ref().is_some_and(|spec| spec.suspended.is_some());
            let attaches = matches!(&plan.decisions[name], Decision::Act { .. });
            attaches || (answers && !suspended)
        });
        for (name, decision) in without.plan().decisions {
            prop_assert_eq!(&decision, &plan.decisions[&name]);
        }
    }
}
