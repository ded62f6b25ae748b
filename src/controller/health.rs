//! Health checks of nodes that nothing is being done to: asked beside the loop, again and again. What fails makes a node
//! degraded, which only people cure: no check ever brings about a deployment.
//!
//! One failure is none yet: a check fails when two rounds in a row have failed, and the second comes soon after the first.
//! It passes again with the first round that passes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use rand::Rng;
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use super::{Desk, News};
use crate::model::health::{FailingCheck, HealthChecks};
use crate::model::name::NodeName;
use crate::model::snapshot::NodeView;
use crate::node::{Checked, Node};
use crate::reconcile::Reconciler;
use crate::reconcile::clock::moved;

/// Nodes at a time.
const AT_A_TIME: usize = 16;
/// So many rounds in a row have to fail.
const FAILURES: u32 = 2;
/// What has failed once is asked again after this, or earlier where it is asked more often anyway.
const CONFIRM: Duration = Duration::from_secs(10);

/// When each node's checks are due, and what came of them.
#[derive(Debug)]
pub struct Rounds {
    watched: BTreeMap<NodeName, Watched>,
    places: Arc<Semaphore>,
}

#[derive(Debug)]
struct Watched {
    checks: HealthChecks,
    due: Instant,
    /// Ended with this value: nothing is asked of a node that is being switched, or after a shutdown.
    asking: Option<AbortOnDropHandle<()>>,
    failures: BTreeMap<String, Failure>,
}

#[derive(Debug)]
struct Failure {
    /// Of the first round.
    since: Timestamp,
    rounds: u32,
    output: String,
}

impl Default for Rounds {
    fn default() -> Self {
        Self { watched: BTreeMap::new(), places: Arc::new(Semaphore::new(AT_A_TIME)) }
    }
}

impl Rounds {
    /// Starts what is due. Returns when the next will be.
    pub fn start(
        &mut self,
        views: &BTreeMap<NodeName, Arc<NodeView>>,
        nodes: impl Fn(&NodeName) -> Option<Arc<Node>>,
        desk: &Desk,
    ) -> Option<Instant> {
        self.watched.retain(|name, _| views.contains_key(name));
        let now = Instant::now();
        let mut next = None;
        for (name, view) in views {
            let Some(node) = nodes(name) else { continue };
            let checks = &node.spec().health_checks;
            let watched = self.watched.entry(name.clone()).or_insert_with(|| Watched::new(now));
            watched.is_declared(checks, now);
            if checks.after.is_empty() {
                continue;
            }
            if !may_be_asked(view) {
                watched.asking = None;
                continue;
            }
            if watched.asking.is_some() {
                continue;
            }
            if watched.due > now {
                next = Some(next.map_or(watched.due, |next: Instant| next.min(watched.due)));
                continue;
            }
            let (desk, places) = (desk.clone(), Arc::clone(&self.places));
            let span = tracing::info_span!("health", node = %name);
            let task = async move {
                // Never closed; without a place it would merely be one too many.
                let _place = places.acquire_owned().await;
                let round = node.check_health().await;
                desk.hand_in(News::HealthChecked { node: node.name().clone(), round });
            };
            watched.asking = Some(AbortOnDropHandle::new(tokio::spawn(task.instrument(span))));
        }
        next
    }

    /// Tells the loop which checks fail.
    pub fn tell(&self, reconciler: &mut Reconciler) {
        for name in self.watched.keys() {
            reconciler.checked(name, self.failing(name));
        }
    }

    /// Takes in a round of one node's checks.
    pub fn took(&mut self, name: &NodeName, round: Vec<Checked>, now: Timestamp) {
        // Of one that was ended meanwhile nothing is believed.
        let Some(watched) = self.watched.get_mut(name) else { return };
        if watched.asking.take().is_none() {
            return;
        }
        watched.take_in(name, round, now);
        let interval = watched.checks.interval();
        let doubtful = watched.failures.values().any(|failure| failure.rounds < FAILURES);
        let pause = if doubtful { CONFIRM.min(interval) } else { interval };
        watched.due = Instant::now() + pause.mul_f64(1.0 + rand::rng().random_range(0.0..0.1));
    }

    /// A switch of this controller ended: all checks have just passed, or another system is there again.
    pub fn switched(&mut self, name: &NodeName, healthy: bool) {
        let Some(watched) = self.watched.get_mut(name) else { return };
        watched.asking = None;
        watched.due = Instant::now();
        if healthy {
            watched.failures.clear();
            watched.due += watched.checks.interval();
        }
    }

    /// The checks of a node that fail.
    pub fn failing(&self, name: &NodeName) -> Vec<FailingCheck> {
        let Some(watched) = self.watched.get(name) else { return Vec::new() };
        let failing = watched.failures.iter().filter(|(_, failure)| failure.rounds >= FAILURES);
        failing
            .map(|(name, failure)| FailingCheck {
                name: name.clone(),
                output: failure.output.clone(),
                since: failure.since,
            })
            .collect()
    }

    /// A person asks: all of them are due.
    pub fn try_now(&mut self) {
        let now = Instant::now();
        self.watched.values_mut().for_each(|watched| watched.due = now);
    }

    /// This host's clock was stepped.
    pub fn clock_stepped(&mut self, by: SignedDuration) {
        for failure in self.watched.values_mut().flat_map(|watched| watched.failures.values_mut()) {
            failure.since = moved(failure.since, by);
        }
    }

    /// Ends what runs.
    pub fn cancel(&mut self) {
        self.watched.clear();
    }
}

impl Watched {
    fn new(due: Instant) -> Self {
        Self { checks: HealthChecks::default(), due, asking: None, failures: BTreeMap::new() }
    }

    /// What is not declared any more fails no more; what is declared anew is asked at once.
    fn is_declared(&mut self, checks: &HealthChecks, now: Instant) {
        if self.checks == *checks {
            return;
        }
        self.checks = checks.clone();
        self.asking = None;
        self.due = now;
        let names: BTreeSet<String> = self.checks.after.list().iter().map(ToString::to_string).collect();
        self.failures.retain(|name, _| names.contains(name));
    }

    fn take_in(&mut self, node: &NodeName, round: Vec<Checked>, now: Timestamp) {
        let mut before = std::mem::take(&mut self.failures);
        for Checked { name, failed } in round {
            let known = before.remove(&name);
            let failed_before = known.as_ref().is_some_and(|failure| failure.rounds >= FAILURES);
            let Some(output) = failed else {
                if failed_before {
                    tracing::info!(%node, check = name, "passes again");
                }
                continue;
            };
            let (since, rounds) =
                known.map_or((now, 1), |known| (known.since, known.rounds.saturating_add(1)));
            if rounds == FAILURES {
                tracing::warn!(%node, check = name, output, "fails");
            }
            self.failures.insert(name, Failure { since, rounds, output });
        }
    }
}

/// Only of a node that answers and that nobody is switching.
fn may_be_asked(view: &NodeView) -> bool {
    let seen = view.observation.as_ref().filter(|seen| seen.contact.is_reachable());
    let state = seen.and_then(|seen| seen.state.as_ref());
    view.in_flight.is_none() && state.is_some_and(|state| state.live_switch().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(failed: Option<&str>) -> Vec<Checked> {
        vec![Checked { name: "http web".into(), failed: failed.map(str::to_owned) }]
    }

    #[test]
    fn one_failure_is_none_and_one_success_ends_them() {
        let name: NodeName = "web1".parse().unwrap();
        let mut rounds = Rounds::default();
        rounds.watched.insert(name.clone(), Watched::new(Instant::now()));
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut took = |second, failed| {
            rounds.watched.get_mut(&name).unwrap().take_in(&name, round(failed), at(second));
            rounds.failing(&name)
        };
        assert_eq!(took(1, Some("status 500")), []);
        assert_eq!(took(2, None), []);
        assert_eq!(took(3, Some("status 500")), []);
        let failing = FailingCheck { name: "http web".into(), output: "status 502".into(), since: at(3) };
        assert_eq!(took(4, Some("status 502")), std::slice::from_ref(&failing));
        assert_eq!(took(5, Some("status 502")), [failing], "since the first");
        assert_eq!(took(6, None), []);
    }

    #[test]
    fn what_is_not_declared_any_more_fails_no_more() {
        let name: NodeName = "web1".parse().unwrap();
        let mut watched = Watched::new(Instant::now());
        watched.take_in(&name, round(Some("no")), Timestamp::UNIX_EPOCH);
        watched.checks.after.units.push("x".into());
        watched.is_declared(&HealthChecks::default(), Instant::now());
        assert!(watched.failures.is_empty());
    }

    #[tokio::test]
    async fn what_a_round_found_that_was_ended_is_not_believed() {
        let name: NodeName = "web1".parse().unwrap();
        let mut rounds = Rounds::default();
        rounds.watched.insert(name.clone(), Watched::new(Instant::now()));
        for _ in 0..3 {
            rounds.took(&name, round(Some("no")), Timestamp::UNIX_EPOCH);
        }
        assert_eq!(rounds.failing(&name), []);
    }
}
