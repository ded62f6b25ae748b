//! When each node is looked at, and what was last seen of it: one read each per interval, jittered; unreachable ones less
//! often.
//!
//! Remembers the way over which each node answered last, which is the one thing that a node cannot be asked for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::clock::{Moment, moved};
use crate::model::health::FailingCheck;
use crate::model::name::NodeName;
use crate::model::node::NodeSpec;
use crate::model::observed::{Contact, Elsewhere, NodeState, Observation};
use crate::model::release::Release;
use crate::model::way::Way;
use crate::plan::ways;

/// A node that does not answer is tried at least this often.
const LONGEST_SILENCE: Duration = Duration::from_secs(300);

/// What a read of a node found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    /// The way that counts.
    pub way: Way,
    /// What was found there, or why nothing was, one sentence. The node is its subject.
    pub outcome: Result<NodeState, String>,
    /// The way that does not count and why, where there are two and it was waited for.
    pub aside: Option<(Way, String)>,
}

/// Every node that can be reached, and what was last seen of it.
#[derive(Debug)]
pub struct Lookout {
    interval: Duration,
    chance: StdRng,
    watched: BTreeMap<NodeName, Watched>,
    /// The way over which each node answered last: where it is worked on until it answers where it is declared.
    ways: BTreeMap<NodeName, Way>,
}

#[derive(Debug)]
struct Watched {
    spec: Arc<NodeSpec>,
    /// Its own.
    declared: Way,
    due: Instant,
    looking: Looking,
    silent: u32,
    /// Shared with every snapshot, with its journal: a pass copies none of it.
    seen: Option<Arc<Observation>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looking {
    Yes,
    No,
}

impl Watched {
    fn new(spec: Arc<NodeSpec>, now: Instant) -> Self {
        let declared = spec.way();
        Self { spec, declared, due: now, looking: Looking::No, silent: 0, seen: None }
    }
}

impl Lookout {
    /// Watches nothing yet. `ways` are those over which nodes answered an earlier controller last.
    pub fn new(interval: Duration, ways: BTreeMap<NodeName, Way>, seed: u64) -> Self {
        Self { interval, chance: StdRng::seed_from_u64(seed), watched: BTreeMap::new(), ways }
    }

    /// The way over which each node answered last, for a successor.
    pub fn ways(&self) -> &BTreeMap<NodeName, Way> {
        &self.ways
    }

    /// The way over which a node answered last, where it is another than the declared one.
    pub fn last_way(&self, name: &NodeName) -> Option<&Way> {
        let declared = &self.watched.get(name)?.declared;
        self.ways.get(name).filter(|last| *last != declared)
    }

    /// Every node that is watched, and its last declaration.
    pub fn watched(&self) -> impl Iterator<Item = (&NodeName, &Arc<NodeSpec>)> {
        self.watched.iter().map(|(name, watched)| (name, &watched.spec))
    }

    /// Watches exactly the nodes of a release that have a host. What was seen of a node outlives its redeclaration, unless
    /// it is declared elsewhere from now on: then it may be another machine, and is looked at before it is acted on.
    pub fn follow(&mut self, release: &Release, now: Instant) {
        let declared = |name: &NodeName| {
            release.nodes.get(name).and_then(|node| node.spec.as_ref()).filter(|spec| spec.host.is_some())
        };
        self.watched.retain(|name, _| declared(name).is_some());
        self.ways.retain(|name, _| release.nodes.contains_key(name));
        for name in release.nodes.keys() {
            let Some(spec) = declared(name) else { continue };
            match self.watched.get_mut(name) {
                Some(watched) if watched.spec == *spec => {}
                Some(watched) if watched.declared == spec.way() => watched.spec = spec.clone(),
                Some(_) | None => drop(self.watched.insert(name.clone(), Watched::new(spec.clone(), now))),
            }
        }
    }

    /// Every node is due.
    pub fn look_now(&mut self, now: Instant) {
        self.watched.values_mut().for_each(|watched| watched.due = now);
    }

    /// These of a node's health checks fail.
    pub fn checked(&mut self, name: &NodeName, failing: Vec<FailingCheck>) {
        let seen = self.watched.get_mut(name).and_then(|watched| watched.seen.as_mut());
        if let Some(seen) = seen.filter(|seen| seen.health != failing) {
            Arc::make_mut(seen).health = failing;
        }
    }

    /// One node is due.
    pub fn look_at(&mut self, name: &NodeName, now: Instant) {
        if let Some(watched) = self.watched.get_mut(name) {
            watched.due = now;
        }
    }

    /// The nodes to be read now; not those that are being worked on. And when the next will be due.
    pub fn due(&mut self, is_acting: impl Fn(&NodeName) -> bool, now: Instant) -> (Vec<NodeName>, Instant) {
        let (mut due, mut next) = (Vec::new(), now + self.interval);
        for (name, watched) in &mut self.watched {
            if watched.looking == Looking::Yes || is_acting(name) {
                continue;
            }
            if watched.due > now {
                next = next.min(watched.due);
                continue;
            }
            watched.looking = Looking::Yes;
            due.push(name.clone());
        }
        (due, next)
    }

    /// Takes in what a read found. One that nobody waits for any more began before something ended that was seen since.
    pub fn read(&mut self, name: &NodeName, sight: Sight, now: Moment) {
        if self.watched.get(name).is_some_and(|watched| watched.looking == Looking::Yes) {
            self.saw(name, sight, now);
        }
    }

    /// Takes in what is seen of a node.
    pub fn saw(&mut self, name: &NodeName, sight: Sight, now: Moment) {
        let Some(watched) = self.watched.get_mut(name) else { return };
        watched.looking = Looking::No;
        let declared = &watched.declared;
        let Sight { way, outcome, aside } = sight;
        if let Ok(state) = &outcome
            && ways::proves(watched.spec.machine_id.as_ref(), state)
            && self.ways.get(name) != Some(&way)
        {
            tracing::info!(node = %name, %way, "answers");
            self.ways.insert(name.clone(), way.clone());
        }
        if way != *declared && aside.as_ref().is_none_or(|(aside, _)| aside != declared) {
            // It was declared elsewhere meanwhile, and nobody has looked there.
            watched.due = now.steady;
            return;
        }
        let before = watched.seen.take().map(Arc::unwrap_or_clone);
        let seen = match outcome {
            Ok(state) => {
                watched.silent = 0;
                let elsewhere = aside.filter(|_| way != *declared).map(|(_, error)| Elsewhere {
                    at: way.told_from(declared),
                    way: way.clone(),
                    error,
                });
                reachable(before, state, elsewhere, now.wall)
            }
            Err(said) => {
                watched.silent = watched.silent.saturating_add(1);
                let said = match aside {
                    None => said,
                    Some((aside, why)) => format!("{said}; and at {}: {why}", aside.told_from(&way)),
                };
                unreachable(name, before, said, now.wall)
            }
        };
        watched.seen = Some(Arc::new(seen));
        let pause = self.interval.saturating_mul(1 << watched.silent.saturating_sub(1).min(8));
        let pause = pause.min(LONGEST_SILENCE.max(self.interval));
        watched.due = now.steady + pause.mul_f64(1.0 + self.chance.random_range(0.0..0.1));
    }

    /// This host's clock was stepped.
    pub fn clock_stepped(&mut self, by: SignedDuration) {
        for seen in self.watched.values_mut().filter_map(|watched| watched.seen.as_mut()) {
            let seen = Arc::make_mut(seen);
            seen.state_since = seen.state_since.map(|at| moved(at, by));
            match &mut seen.contact {
                Contact::Reachable { at } | Contact::Unreachable { since: at, error: _ } => {
                    *at = moved(*at, by)
                }
            }
        }
    }

    /// What was last seen of each node.
    pub fn seen(&self) -> BTreeMap<NodeName, Arc<Observation>> {
        let seen = |(name, watched): (&NodeName, &Watched)| Some((name.clone(), watched.seen.clone()?));
        self.watched.iter().filter_map(seen).collect()
    }

    /// What was last seen of one node.
    pub fn observation(&self, name: &NodeName) -> Option<&Observation> {
        self.watched.get(name)?.seen.as_deref()
    }
}

fn reachable(
    before: Option<Observation>,
    state: NodeState,
    elsewhere: Option<Elsewhere>,
    now: Timestamp,
) -> Observation {
    let unchanged = before
        .as_ref()
        .and_then(|seen| seen.state.as_ref())
        .is_some_and(|old| (&old.running, &old.boot_default) == (&state.running, &state.boot_default));
    let (since, health) = before.map(|seen| (seen.state_since, seen.health)).unwrap_or_default();
    let since = since.filter(|_| unchanged);
    Observation {
        contact: Contact::Reachable { at: now },
        state: Some(state),
        state_since: since.or(Some(now)),
        elsewhere,
        health,
    }
}

fn unreachable(name: &NodeName, before: Option<Observation>, said: String, now: Timestamp) -> Observation {
    let since = match before.as_ref().map(|seen| &seen.contact) {
        Some(Contact::Unreachable { since, .. }) => *since,
        Some(Contact::Reachable { .. }) | None => {
            tracing::warn!(node = %name, error = said, "not reachable");
            now
        }
    };
    let contact = Contact::Unreachable { since, error: said };
    match before {
        Some(before) => Observation { contact, elsewhere: None, ..before },
        None => Observation { contact, state: None, state_since: None, elsewhere: None, health: Vec::new() },
    }
}
