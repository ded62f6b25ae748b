//! Looks at the nodes: one read each per interval, jittered, a bounded number at a time; unreachable ones less often.
//!
//! Remembers the way over which each node answered last, which is the one thing that a node cannot be asked for.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use rand::Rng;
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use super::clock::moved;
use super::execute::Running;
use super::health::Rounds;
use super::{Desk, News, Options};
use crate::config::{ObserveConfig, SshConfig};
use crate::error_chain::error_chain;
use crate::model::hook::HookPolicy;
use crate::model::name::NodeName;
use crate::model::node::NodeSpec;
use crate::model::observed::{Contact, Elsewhere, NodeState, Observation, Observed};
use crate::model::release::{Progress, Release};
use crate::model::way::Way;
use crate::node::{Look, Node, NodeError};
use crate::plan::ways;
use crate::secrets::Keyring;

/// A node that does not answer is tried at least this often.
const LONGEST_SILENCE: Duration = Duration::from_secs(300);

/// Every node that can be reached, and what was last seen of it.
#[derive(Debug)]
pub struct Lookout {
    config: ObserveConfig,
    ssh: SshConfig,
    keyring: Keyring,
    runtime_dir: PathBuf,
    at_a_time: Arc<Semaphore>,
    /// Whether this controller runs hooks.
    hooks: HookPolicy,
    watched: BTreeMap<NodeName, Watched>,
    /// The way over which each node answered last: where it is worked on until it answers where it is declared.
    ways: BTreeMap<NodeName, Way>,
    /// Nodes whose declaration was replaced; their kept connections are still to be ended.
    replaced: Vec<Arc<Node>>,
}

#[derive(Debug)]
struct Watched {
    /// As it was when `node` was made of it.
    spec: Arc<NodeSpec>,
    /// `None` where the files of its connection cannot be written.
    node: Option<Arc<Node>>,
    due: Instant,
    looking: Option<AbortOnDropHandle<()>>,
    silent: u32,
    /// Shared with every snapshot, with its journal: a pass copies none of it.
    seen: Option<Arc<Observation>>,
}

impl Watched {
    fn new(name: &NodeName, spec: Arc<NodeSpec>, node: Result<Arc<Node>, NodeError>) -> Self {
        let (node, seen) = match node {
            Ok(node) => (Some(node), None),
            Err(error) => {
                (None, Some(Arc::new(unreachable(name, None, error_chain(&error), Timestamp::now()))))
            }
        };
        Self { spec, node, due: Instant::now(), looking: None, silent: 0, seen }
    }
}

impl Lookout {
    /// Watches nothing yet. `ways` are those over which nodes answered an earlier controller last.
    pub fn new(options: &Options, ways: BTreeMap<NodeName, Way>) -> Self {
        let config = options.config.observe.clone();
        Self {
            at_a_time: Arc::new(Semaphore::new(config.concurrency.max(1))),
            config,
            ssh: options.config.ssh.clone(),
            keyring: Keyring::new(&options.config.secrets.identity_files),
            hooks: options.config.source.hooks,
            runtime_dir: options.runtime_dir.clone(),
            watched: BTreeMap::new(),
            ways,
            replaced: Vec::new(),
        }
    }

    /// The way over which each node answered last, for a successor.
    pub fn ways(&self) -> &BTreeMap<NodeName, Way> {
        &self.ways
    }

    /// Watches exactly the nodes of a release that have a host. What was seen of a node outlives its redeclaration, unless
    /// it is declared elsewhere from now on: then it may be another machine, and is looked at before it is acted on.
    pub fn follow(&mut self, release: &Release, running: &Running) {
        let declared = |name: &NodeName| {
            release.nodes.get(name).and_then(|node| node.spec.as_ref()).filter(|spec| spec.host.is_some())
        };
        let gone: Vec<NodeName> =
            self.watched.keys().filter(|name| declared(name).is_none()).cloned().collect();
        let gone = gone.iter().filter_map(|name| self.watched.remove(name)?.node);
        self.replaced.extend(gone.collect::<Vec<_>>());
        self.ways.retain(|name, _| release.nodes.contains_key(name));
        for name in release.nodes.keys() {
            let Some(spec) = declared(name) else { continue };
            let known = self.watched.get(name);
            if known.is_some_and(|watched| watched.spec == *spec) {
                continue;
            }
            let same_way = known.is_some_and(|known| known.spec.way() == spec.way());
            let mut new = Watched::new(name, spec.clone(), self.prepare(name, spec));
            match self.watched.get_mut(name) {
                Some(watched) if same_way => {
                    if let (Some(new), Some(old)) = (&new.node, &watched.node) {
                        new.go_on_like(old);
                    }
                    std::mem::swap(&mut watched.node, &mut new.node);
                    watched.spec = new.spec;
                    self.replaced.extend(new.node);
                }
                Some(watched) => self.replaced.extend(std::mem::replace(watched, new).node),
                None => drop(self.watched.insert(name.clone(), new)),
            }
        }
        self.hang_up(running);
    }

    fn prepare(&self, name: &NodeName, spec: &NodeSpec) -> Result<Arc<Node>, NodeError> {
        Node::moving(name, spec, self.ways.get(name), &self.ssh, &self.runtime_dir)
            .map(|node| Arc::new(node.with_keyring(&self.keyring)))
    }

    /// Ends the kept connections that nobody has a use for any more; a running action has until its end.
    fn hang_up(&mut self, running: &Running) {
        for old in self.replaced.extract_if(.., |old| !running.contains(old.name())) {
            let successor = self.watched.get(old.name()).and_then(|watched| watched.node.clone());
            tokio::spawn(async move {
                match successor {
                    Some(successor) => old.give_way_to(&successor).await,
                    None => old.close().await,
                }
            });
        }
    }

    /// Every node is due.
    pub fn look_now(&mut self) {
        let now = Instant::now();
        self.watched.values_mut().for_each(|watched| watched.due = now);
    }

    /// Starts the reads that are due; not of nodes that are being worked on. Returns when the next will be.
    pub fn look(&mut self, desk: &Desk, running: &Running) -> Instant {
        let now = Instant::now();
        let mut next = now + self.config.interval;
        for (name, watched) in &mut self.watched {
            if watched.looking.is_some() || running.contains(name) {
                continue;
            }
            if watched.due > now {
                next = next.min(watched.due);
                continue;
            }
            let Some(node) = watched.node.clone() else { continue };
            let (desk, name) = (desk.clone(), name.clone());
            let (places, deadline) = (self.at_a_time.clone(), self.config.timeout);
            watched.looking = Some(AbortOnDropHandle::new(tokio::spawn(async move {
                // Never closed; without a place the read would merely be one too many.
                let _place = places.acquire_owned().await;
                let look = Box::new(node.look(deadline).await);
                desk.hand_in(News::Observed { node: name, look });
            })));
        }
        next
    }

    /// Takes in what a read found.
    pub fn saw(&mut self, name: &NodeName, look: Look) {
        let Some(watched) = self.watched.get_mut(name) else { return };
        watched.looking = None;
        let declared = watched.spec.way();
        let Look { way, outcome, aside } = look;
        if let Ok(state) = &outcome
            && ways::proves(watched.spec.machine_id.as_ref(), state)
            && self.ways.get(name) != Some(&way)
        {
            tracing::info!(node = %name, %way, "answers");
            self.ways.insert(name.clone(), way.clone());
        }
        if way != declared && aside.as_ref().is_none_or(|aside| aside.way != declared) {
            // It was declared elsewhere meanwhile, and nobody has looked there.
            watched.due = Instant::now();
            return self.prepare_anew(name);
        }
        let now = Timestamp::now();
        let before = watched.seen.take().map(Arc::unwrap_or_clone);
        let seen = match outcome {
            Ok(state) => {
                watched.silent = 0;
                let elsewhere = aside.filter(|_| way != declared).map(|aside| Elsewhere {
                    at: way.told_from(&declared),
                    way: way.clone(),
                    error: aside.said,
                });
                reachable(before, state, elsewhere, now)
            }
            Err(error) => {
                watched.silent = watched.silent.saturating_add(1);
                // The node is the subject of the sentence wherever it is shown.
                let said = error_chain(&error);
                let said = said.strip_prefix(&format!("{name}: ")).unwrap_or(&said).to_owned();
                let both = aside.map_or(said.clone(), |aside| {
                    format!("{said}; and at {}: {}", aside.way.told_from(&way), aside.said)
                });
                unreachable(name, before, both, now)
            }
        };
        watched.seen = Some(Arc::new(seen));
        let pause = self.config.interval.saturating_mul(1 << watched.silent.saturating_sub(1).min(8));
        let pause = pause.min(LONGEST_SILENCE.max(self.config.interval));
        watched.due = Instant::now() + pause.mul_f64(1.0 + rand::rng().random_range(0.0..0.1));
        self.prepare_anew(name);
    }

    /// A node whose last way is another one by now is reached by that from here on.
    fn prepare_anew(&mut self, name: &NodeName) {
        let Some(watched) = self.watched.get(name) else { return };
        let declared = watched.spec.way();
        let last = self.ways.get(name).filter(|last| **last != declared);
        if watched.node.as_ref().is_none_or(|node| node.last_way() == last) {
            return;
        }
        let Ok(new) = self.prepare(name, &watched.spec.clone()) else { return };
        if let Some(watched) = self.watched.get_mut(name) {
            self.replaced.extend(watched.node.replace(new));
        }
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

    /// Which checks fail, of every node that was seen.
    pub fn tell_health(&mut self, rounds: &Rounds) {
        for (name, watched) in &mut self.watched {
            let failing = rounds.failing(name);
            if let Some(seen) = watched.seen.as_mut().filter(|seen| seen.health != failing) {
                Arc::make_mut(seen).health = failing;
            }
        }
    }

    /// The observed world for `plan`.
    pub fn observed(&self, running: &Running) -> Observed {
        let seen = |(name, watched): (&NodeName, &Watched)| Some((name.clone(), watched.seen.clone()?));
        Observed {
            nodes: self.watched.iter().filter_map(seen).collect(),
            in_flight: running.in_flight(),
            attempts: running.attempts(),
            hook_failures: running.hook_failures(),
            hooks: self.hooks,
        }
    }

    /// One node, if it can be acted on.
    pub fn node(&self, name: &NodeName) -> Option<&Arc<Node>> {
        self.watched.get(name)?.node.as_ref()
    }

    /// Whether every node of a release was looked at once, as far as it is declared at all.
    pub fn looked_at_all(&self, release: &Release) -> bool {
        release.nodes.iter().all(|(name, node)| match (&node.spec, &node.progress) {
            (None, Progress::NotEvaluated { .. }) => true,
            (
                None,
                Progress::Evaluating | Progress::Building | Progress::NotBuilt { .. } | Progress::Built,
            ) => false,
            (Some(spec), _) => {
                spec.host.is_none() || self.watched.get(name).is_some_and(|watched| watched.seen.is_some())
            }
        })
    }

    /// Ends the reads.
    pub fn cancel(&mut self) {
        for watched in self.watched.values_mut() {
            watched.looking = None;
        }
    }

    /// Ends the kept connections.
    pub async fn close(&self) {
        let mut closing = tokio::task::JoinSet::new();
        let watched = self.watched.values().filter_map(|watched| watched.node.clone());
        for node in watched.chain(self.replaced.iter().cloned()) {
            closing.spawn(async move { node.close().await });
        }
        closing.join_all().await;
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
