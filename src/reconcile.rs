//! What the loop knows and what it orders: every decision of a running controller, without its hands. Told what happened and
//! what both clocks show, it says what to start, where to look and when to be asked again. Pure but for its memory.
//!
//! [`controller`](crate::controller) carries its orders out on real nodes; the simulation, `tests/simulation`, on nodes that are
//! made up, in time that is made up. Both tell it of everything through the same few methods.

pub mod actions;
pub mod clock;
pub mod lookout;
pub mod succession;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::model::decision::{Action, Decision, Plan};
use crate::model::health::FailingCheck;
use crate::model::hook::HookPolicy;
use crate::model::intent::Intent;
use crate::model::name::NodeName;
use crate::model::node::NodeSpec;
use crate::model::observed::{Begun, FirstLook, Observed, Stage};
use crate::model::progress::WaveView;
use crate::model::release::{Progress, Release};
use crate::model::snapshot::NodeView;
use crate::model::way::Way;
use crate::plan::suspended::suspended;
use crate::plan::view::{Pass, node_views};

use actions::{Actions, Ended};
use clock::{Moment, moved};
use lookout::{Lookout, Sight};

/// The longest sleep between two passes: the heartbeat of the loop.
pub const HEARTBEAT: Duration = Duration::from_secs(10);

/// How a controller is set up, as far as it decides by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Time between two reads of one node; a random tenth is added.
    pub interval: Duration,
    /// Whether hooks from the repository are run.
    pub hooks: HookPolicy,
}

/// The memory of a controller. All of it may be lost: the nodes and the release in force tell a successor the rest.
#[derive(Debug)]
pub struct Reconciler {
    hooks: HookPolicy,
    now: Moment,
    lookout: Lookout,
    actions: Actions,
    intent: Arc<Intent>,
    views: BTreeMap<NodeName, Arc<NodeView>>,
    waves: Vec<WaveView>,
    first_look: FirstLook,
}

/// What a controller leaves to its successor, beside the release in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Left {
    /// The way over which each node answered last: a node that is being moved cannot be asked where it is.
    #[serde(default)]
    pub ways: BTreeMap<NodeName, Way>,
    /// What was begun on nodes and has not ended well for long enough: one that is silent since cannot be asked.
    #[serde(default)]
    pub begun: BTreeMap<NodeName, Begun>,
}

/// What one pass orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orders {
    /// The decision for every node.
    pub plan: Plan,
    /// What is to be begun, and on which nodes. It counts as begun.
    pub start: Vec<(NodeName, Action)>,
    /// The nodes that are to be read. They count as being read.
    pub look: Vec<NodeName>,
    /// When the next pass is due, whatever happens until then.
    pub next: Instant,
}

impl Reconciler {
    /// Knows nothing yet but what an earlier controller left. `seed` is for what is left to chance.
    pub fn new(settings: Settings, left: Left, now: Moment, seed: u64) -> Self {
        Self {
            hooks: settings.hooks,
            now,
            lookout: Lookout::new(settings.interval, left.ways, seed),
            actions: Actions::resuming(left.begun),
            intent: Arc::default(),
            views: BTreeMap::new(),
            waves: Vec::new(),
            first_look: FirstLook::Open,
        }
    }

    /// Time has passed. Comes before anything else that happened by now; returns by how much the clock on the wall was
    /// stepped, if it was, for whoever else remembers times.
    pub fn tick(&mut self, now: Moment) -> Option<SignedDuration> {
        let step = now.step_since(std::mem::replace(&mut self.now, now));
        if let Some(by) = step {
            self.lookout.clock_stepped(by);
            self.actions.clock_stepped(by);
            for view in self.views.values_mut() {
                let view = Arc::make_mut(view);
                view.since = moved(view.since, by);
            }
        }
        step
    }

    /// A node was read.
    pub fn looked(&mut self, name: &NodeName, sight: Sight) {
        self.lookout.read(name, sight, self.now);
    }

    /// What was begun on a node is so far by now.
    pub fn reached(&mut self, name: &NodeName, stage: Stage) {
        self.actions.reached(name, stage);
    }

    /// What was begun on a node has ended.
    pub fn ended(&mut self, name: &NodeName, ended: Ended) {
        let Ended { toplevel, outcome, hooks, sight } = ended;
        self.actions.end(name, toplevel, (outcome, hooks), self.now.wall);
        self.lookout.saw(name, sight, self.now);
    }

    /// These of a node's health checks fail.
    pub fn checked(&mut self, name: &NodeName, failing: Vec<FailingCheck>) {
        self.lookout.checked(name, failing);
    }

    /// A node has changed by what was done beside the loop: it is looked at.
    pub fn look_at(&mut self, name: &NodeName) {
        self.lookout.look_at(name, self.now.steady);
    }

    /// What people want from now on.
    pub fn wanted(&mut self, intent: Arc<Intent>) {
        self.intent = intent;
    }

    /// Gives up what is still being brought to nodes that people want left alone by now, and says to which.
    pub fn give_up_suspended(&mut self) -> Vec<NodeName> {
        let (intent, views, now) = (&self.intent, &self.views, self.now.wall);
        self.actions.give_up_bringing(|name| {
            let spec = views.get(name).and_then(|view| view.spec.as_deref());
            let marks = views.get(name).map(|view| view.marks()).unwrap_or_default();
            suspended(intent, name, spec, marks, now).is_some()
        })
    }

    /// A person asks (SIGHUP, `driftless retry`): every node is looked at, and what failed on the way to one is tried now.
    pub fn try_now(&mut self) {
        self.lookout.look_now(self.now.steady);
        self.actions.forget_attempts();
    }

    /// One pass over a release. Whoever gets its orders carries all of them out.
    pub fn pass(&mut self, release: &Release) -> Orders {
        let Moment { wall, steady } = self.now;
        self.lookout.follow(release, steady);
        self.actions.forget_attempts_except(release);
        let actions = &self.actions;
        let (look, due) = self.lookout.due(|name| actions.contains(name), steady);
        if self.looked_at_all(release) {
            self.first_look = FirstLook::Over;
        }
        self.actions.settle(&self.lookout.seen(), wall);
        let plan = crate::plan::plan(release, &self.observed(), &self.intent, wall);
        let mut start = Vec::new();
        for (name, decision) in &plan.decisions {
            if let Decision::Act { action } = decision {
                self.actions.begin(name, action, wall);
                start.push((name.clone(), action.clone()));
            }
        }
        let mut next = due.min(steady + HEARTBEAT);
        if let Some(at) = plan.look_again_at {
            next = next.min(steady + Duration::try_from(at.duration_since(wall)).unwrap_or_default());
        }
        Orders { plan, start, look, next }
    }

    /// Puts a pass into words. What it began is in flight already: the picture shows what is, not what was meant.
    pub fn show(&mut self, release: &Release, plan: &Plan) {
        let observed = self.observed();
        let pass = Pass { release, observed: &observed, plan, intent: &self.intent, now: self.now.wall };
        self.views = node_views(pass, &self.views);
        self.waves.clone_from(&plan.waves);
    }

    /// The observed world for `plan`.
    pub fn observed(&self) -> Observed {
        Observed {
            nodes: self.lookout.seen(),
            in_flight: self.actions.in_flight().clone(),
            attempts: self.actions.attempts().clone(),
            hook_failures: self.actions.hook_failures().clone(),
            hooks: self.hooks,
            begun: self.actions.begun().clone(),
            first_look: self.first_look,
        }
    }

    /// The time of the last [`tick`](Self::tick).
    pub fn now(&self) -> Timestamp {
        self.now.wall
    }

    /// Every node of the last release, as it was last shown.
    pub fn views(&self) -> &BTreeMap<NodeName, Arc<NodeView>> {
        &self.views
    }

    /// How far the release is, as it was last shown.
    pub fn waves(&self) -> &[WaveView] {
        &self.waves
    }

    /// What people want.
    pub fn intent(&self) -> &Arc<Intent> {
        &self.intent
    }

    /// The same, for whoever finds out more about them than decisions need.
    pub fn views_mut(&mut self) -> &mut BTreeMap<NodeName, Arc<NodeView>> {
        &mut self.views
    }

    /// Every node that is read, and what its last declaration says.
    pub fn watched(&self) -> impl Iterator<Item = (&NodeName, &Arc<NodeSpec>)> {
        self.lookout.watched()
    }

    /// The way over which a node answered last, where it is another than the declared one.
    pub fn last_way(&self, name: &NodeName) -> Option<&Way> {
        self.lookout.last_way(name)
    }

    /// The way over which each node answered last, for a successor.
    pub fn ways(&self) -> &BTreeMap<NodeName, Way> {
        self.lookout.ways()
    }

    /// What was begun on nodes and has not ended well for long enough, for a successor.
    pub fn begun(&self) -> &BTreeMap<NodeName, Begun> {
        self.actions.begun()
    }

    /// Whether something is being done to a node.
    pub fn is_acting_on(&self, name: &NodeName) -> bool {
        self.actions.contains(name)
    }

    /// On how many nodes something is being done.
    pub fn acting(&self) -> usize {
        self.actions.in_flight().len()
    }

    /// At a shutdown: gives up what has not reached its node's switch yet, and says on which nodes. A running switch is never
    /// given up.
    pub fn give_up_unstarted(&mut self) -> Vec<NodeName> {
        self.actions.give_up_unstarted()
    }

    /// Whether every node of a release was looked at once, as far as it is declared at all.
    pub fn looked_at_all(&self, release: &Release) -> bool {
        release.nodes.iter().all(|(name, node)| match (&node.spec, &node.progress) {
            (None, Progress::NotEvaluated { .. }) => true,
            (
                None,
                Progress::Evaluating | Progress::Building | Progress::NotBuilt { .. } | Progress::Built,
            ) => false,
            (Some(spec), _) => spec.host.is_none() || self.lookout.observation(name).is_some(),
        })
    }
}
