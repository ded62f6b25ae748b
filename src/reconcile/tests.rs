//! What the loop knows and orders, event by event.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::SignedDuration;

use super::actions::{Ended, Failed};
use super::clock::Moment;
use super::lookout::Sight;
use super::{HEARTBEAT, Left, Reconciler, Settings};
use crate::model::decision::Decision;
use crate::model::hook::HookPolicy;
use crate::model::journal::Phase;
use crate::model::name::NodeName;
use crate::model::observed::{AttemptKind, NodeState, Stage};
use crate::model::release::Release;
use crate::plan::tests::world::{World, at, fleet, node, system};

/// A controller of a world that is asked at moments of it.
struct Controller {
    began: Instant,
    reconciler: Reconciler,
    release: Release,
    states: BTreeMap<NodeName, NodeState>,
}

impl Controller {
    fn of(world: World) -> Self {
        let began = Instant::now();
        let settings = Settings { interval: Duration::from_secs(30), hooks: HookPolicy::Run };
        let now = Moment { wall: at(0), steady: began };
        let state = |(name, seen): (&NodeName, &std::sync::Arc<crate::model::observed::Observation>)| {
            Some((name.clone(), seen.state.clone()?))
        };
        Self {
            began,
            reconciler: Reconciler::new(settings, Left::default(), now, 7),
            states: world.observed.nodes.iter().filter_map(state).collect(),
            release: world.release,
        }
    }

    fn at(&mut self, seconds: u64) -> &mut Self {
        let steady = self.began + Duration::from_secs(seconds);
        self.reconciler.tick(Moment { wall: at(seconds.cast_signed()), steady });
        self
    }

    fn sight(&self, name: &NodeName) -> Sight {
        let way = self.release.nodes[name].spec.as_ref().unwrap().way();
        Sight { way, outcome: Ok(self.states[name].clone()), aside: None }
    }

    /// Looks, acts, and the word of each decision, in the order of names.
    fn pass(&mut self) -> (Vec<String>, Vec<String>, Vec<&'static str>) {
        let orders = self.reconciler.pass(&self.release);
        let names = |names: Vec<&NodeName>| names.into_iter().map(ToString::to_string).collect();
        let starts = names(orders.start.iter().map(|(name, _)| name).collect());
        (
            names(orders.look.iter().collect()),
            starts,
            orders.plan.decisions.values().map(Decision::as_str).collect(),
        )
    }

    fn look(&mut self) -> &mut Self {
        for name in self.reconciler.pass(&self.release).look {
            let sight = self.sight(&name);
            self.reconciler.looked(&name, sight);
        }
        self
    }
}

fn name(name: &str) -> NodeName {
    name.parse().unwrap()
}

#[test]
fn a_step_is_told_from_time_that_passes() {
    let before = Moment { wall: at(0), steady: Instant::now() };
    let after = |passed: u64, shown: i64| Moment {
        wall: before.wall + SignedDuration::from_secs(shown),
        steady: before.steady + Duration::from_secs(passed),
    };
    let year = 365 * 24 * 3600;
    assert_eq!(after(10, 10).step_since(before), None);
    assert_eq!(after(10, 8).step_since(before), None);
    assert_eq!(after(10, 10 + year).step_since(before), Some(SignedDuration::from_secs(year)));
    assert_eq!(after(10, 10 - year).step_since(before), Some(SignedDuration::from_secs(-year)));
}

#[test]
fn a_node_is_looked_at_then_acted_on_and_left_alone_until_that_has_ended() {
    let mut controller = Controller::of(fleet([node("web1").running("old").wants("new")]));
    assert_eq!(controller.pass(), (vec!["web1".to_owned()], vec![], vec!["not-observed"]));
    assert_eq!(controller.at(1).pass(), (vec![], vec![], vec!["not-observed"]), "it is being read");
    let sight = controller.sight(&name("web1"));
    controller.reconciler.looked(&name("web1"), sight);
    assert_eq!(controller.at(2).pass(), (vec![], vec!["web1".to_owned()], vec!["act"]));
    assert_eq!(controller.at(200).pass(), (vec![], vec![], vec!["in-flight"]));
    let failed = Failed { said: "no route to host".into(), kind: AttemptKind::Way };
    let sight = controller.sight(&name("web1"));
    let ended = Ended { toplevel: system("new"), outcome: Err(failed), hooks: Ok(()), sight };
    controller.reconciler.ended(&name("web1"), ended);
    assert_eq!(controller.at(201).pass().2, ["backoff"]);
    let orders = controller.reconciler.pass(&controller.release);
    assert_eq!(orders.next, controller.began + Duration::from_secs(201) + HEARTBEAT);
    controller.reconciler.try_now();
    assert_eq!(controller.at(202).pass(), (vec!["web1".to_owned()], vec!["web1".to_owned()], vec!["act"]));
}

#[test]
fn a_step_of_the_clock_moves_what_is_waited_for() {
    let mut controller = Controller::of(fleet([node("web1").running("old").wants("new")]));
    controller.look();
    assert_eq!(controller.at(1).pass().2, ["act"]);
    let failed = Failed { said: "no route to host".into(), kind: AttemptKind::Way };
    let sight = controller.sight(&name("web1"));
    let ended = Ended { toplevel: system("new"), outcome: Err(failed), hooks: Ok(()), sight };
    controller.reconciler.ended(&name("web1"), ended);
    let year = SignedDuration::from_hours(365 * 24);
    let steady = controller.began + Duration::from_secs(2);
    assert_eq!(controller.reconciler.tick(Moment { wall: at(2) + year, steady }), Some(year));
    assert_eq!(controller.pass().2, ["backoff"], "a year of the wall clock is not a wait");
}

#[test]
fn a_shutdown_gives_up_what_has_not_reached_its_node() {
    let nodes = ["a", "b"].map(|name| node(name).running("old").wants("new"));
    let mut controller = Controller::of(fleet(nodes));
    controller.look();
    assert_eq!(controller.at(1).pass().1, ["a", "b"]);
    let stage = Stage::Switching { phase: Phase::Checking, detail: String::new() };
    controller.reconciler.reached(&name("b"), stage);
    assert_eq!(controller.reconciler.give_up_unstarted(), [name("a")]);
    assert_eq!(controller.reconciler.acting(), 1);
}

#[test]
fn a_read_that_began_before_an_action_ended_says_nothing_any_more() {
    let mut controller = Controller::of(fleet([node("web1").running("old").wants("new")]));
    controller.look();
    assert_eq!(controller.at(1).pass().1, ["web1"]);
    // Its next read has begun, and finds what was there before the switch.
    let stale = controller.sight(&name("web1"));
    let mut sight = stale.clone();
    if let Ok(state) = &mut sight.outcome {
        (state.running, state.boot_default) = (system("new"), Some(system("new")));
    }
    let ended = Ended { toplevel: system("new"), outcome: Ok(()), hooks: Ok(()), sight };
    controller.reconciler.ended(&name("web1"), ended);
    controller.reconciler.looked(&name("web1"), stale);
    assert_eq!(controller.at(2).pass().2, ["in-sync"]);
}
