//! Carries out actions, one per node at a time. No choice is left here: `plan` made it, and the node has the last word.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::Instrument;

use super::clock::moved;
use super::{Desk, News, counted};
use crate::error_chain::error_chain;
use crate::model::decision::{Action, Purpose};
use crate::model::hook::{Hook, HookFailure, HookPoint, HookPolicy};
use crate::model::journal::{Entry, Outcome};
use crate::model::name::NodeName;
use crate::model::node::Goal;
use crate::model::observed::{Attempt, AttemptKind, Begun, BegunWhat, InFlight, Observed, Stage};
use crate::model::release::Release;
use crate::model::store_path::StorePath;
use crate::nix::Nix;
use crate::node::{Look, Node, NodeError, Order, Rebooted};
use crate::plan::{CONTROLLER, settling};
use crate::serve::metrics::{DeploymentMeter, Metrics};

/// A stage that changes is shown at most so often.
const SHOW: Duration = Duration::from_millis(250);
/// The look after an action.
const LOOK: Duration = Duration::from_secs(20);

/// What is being done, and what failed before a node's journal could say so.
#[derive(Debug, Default)]
pub struct Running {
    actions: BTreeMap<NodeName, Acting>,
    attempts: BTreeMap<NodeName, Attempt>,
    hook_failures: BTreeMap<NodeName, HookFailure>,
    begun: BTreeMap<NodeName, Begun>,
}

#[derive(Debug)]
struct Acting {
    toplevel: StorePath,
    since: Timestamp,
    what: BegunWhat,
    stage: watch::Receiver<Stage>,
    task: JoinHandle<()>,
}

/// One action, with all it takes to carry it out.
#[derive(Debug)]
pub struct Job {
    /// On which node.
    pub node: Arc<Node>,
    /// What.
    pub action: Action,
    /// The commit it is for; `-` where that is not known.
    pub revision: String,
    /// Who copies.
    pub nix: Nix,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
    /// Whether hooks are run.
    pub hooks: HookPolicy,
}

/// An action that ended.
#[derive(Debug)]
pub struct Ended {
    /// On which node.
    pub node: NodeName,
    /// What was to be installed.
    pub toplevel: StorePath,
    /// The journal's entry, or why there is none.
    pub outcome: Result<Done, NodeError>,
    /// How the hooks after it ended.
    pub hooks: Result<(), NodeError>,
    /// The node right after it.
    pub seen: Look,
}

/// What came of an action.
#[derive(Debug)]
pub enum Done {
    /// A switch ended; how, says its entry.
    Switched(Box<Entry>),
    /// A node was told to reboot, and waited for.
    Told,
}

impl Ended {
    /// Whether a new system has come.
    pub fn brought(&self) -> bool {
        match &self.outcome {
            Ok(Done::Switched(entry)) => entry.outcome == Some(Outcome::Succeeded),
            Ok(Done::Told) | Err(_) => false,
        }
    }
}

impl Running {
    /// Starts one action.
    pub fn start(&mut self, job: Job, desk: &Desk) {
        let Job { node, action, revision, .. } = &job;
        let (toplevel, goal) = match action {
            Action::Deploy { toplevel, goal, .. } => (toplevel.clone(), *goal),
            Action::Attach { toplevel, .. } | Action::Reboot { toplevel, .. } => {
                (toplevel.clone(), node.spec().goal)
            }
        };
        let (what, first) = match action {
            Action::Deploy { .. } | Action::Attach { .. } => (BegunWhat::Switch, Stage::Preparing),
            Action::Reboot { boot, .. } => (BegunWhat::Reboot { boot: boot.clone() }, Stage::Rebooting),
        };
        let (show, stage) = watch::channel(first);
        let name = node.name().clone();
        let span = tracing::info_span!("act", node = %name, revision = revision.get(..7).unwrap_or(revision));
        let work = perform(job, toplevel.clone(), goal, (show, stage.clone()), desk.clone());
        let task = tokio::spawn(work.instrument(span));
        self.actions.insert(name, Acting { toplevel, since: Timestamp::now(), what, stage, task });
    }

    /// Takes in the end of an action.
    pub fn end(&mut self, ended: &Ended) {
        self.actions.remove(&ended.node);
        self.hook_failures.remove(&ended.node);
        if let Err(error) = &ended.hooks {
            let failure = HookFailure { toplevel: ended.toplevel.clone(), error: said(&ended.node, error) };
            self.hook_failures.insert(ended.node.clone(), failure);
        }
        match &ended.outcome {
            Ok(Done::Switched(_) | Done::Told) => {
                self.attempts.remove(&ended.node);
            }
            Err(error) => {
                let before = self.attempts.get(&ended.node).filter(|old| old.toplevel == ended.toplevel);
                let attempt = Attempt {
                    toplevel: ended.toplevel.clone(),
                    failures: before.map_or(0, |old| old.failures).saturating_add(1),
                    last: Timestamp::now(),
                    error: said(&ended.node, error),
                    kind: if error.is_broken_build() { AttemptKind::Build } else { AttemptKind::Way },
                };
                self.attempts.insert(ended.node.clone(), attempt);
            }
        }
    }

    /// Takes over what a predecessor began.
    pub fn resuming(begun: BTreeMap<NodeName, Begun>) -> Self {
        Self { begun, ..Self::default() }
    }

    /// Notes what has reached its node by now. Before that, its silence means nothing.
    pub fn note_begun(&mut self) {
        for (name, acting) in &self.actions {
            let begun = match *acting.stage.borrow() {
                Stage::Switching { .. } | Stage::Rebooting => true,
                Stage::Preparing | Stage::Copying { .. } | Stage::Building { .. } | Stage::Hook { .. } => {
                    false
                }
            };
            if begun && self.begun.get(name).is_none_or(|noted| noted.at < acting.since) {
                let (toplevel, at, what) = (acting.toplevel.clone(), acting.since, acting.what.clone());
                self.begun.insert(name.clone(), Begun { toplevel, at, what });
            }
        }
    }

    /// What was begun and has not ended well for long enough.
    pub fn begun(&self) -> &BTreeMap<NodeName, Begun> {
        &self.begun
    }

    /// Forgets what has ended well, by what is seen of the nodes.
    pub fn settle(&mut self, observed: &Observed, now: Timestamp) {
        self.begun.retain(|name, begun| {
            let seen = observed.nodes.get(name).map(|seen| &**seen);
            self.actions.contains_key(name) || !settling::is_settled(begun, seen, now)
        });
    }

    /// Whether something is being done to a node.
    pub fn contains(&self, name: &NodeName) -> bool {
        self.actions.contains_key(name)
    }

    /// How many actions are running.
    pub fn count(&self) -> usize {
        self.actions.len()
    }

    /// What is being done, for `plan` and the windows.
    pub fn in_flight(&self) -> BTreeMap<NodeName, InFlight> {
        let show = |acting: &Acting| InFlight {
            toplevel: acting.toplevel.clone(),
            since: acting.since,
            stage: acting.stage.borrow().clone(),
        };
        self.actions.iter().map(|(name, acting)| (name.clone(), show(acting))).collect()
    }

    /// What failed before a node's journal could say so.
    pub fn attempts(&self) -> BTreeMap<NodeName, Attempt> {
        self.attempts.clone()
    }

    /// Hooks that failed after a switch.
    pub fn hook_failures(&self) -> BTreeMap<NodeName, HookFailure> {
        self.hook_failures.clone()
    }

    /// This host's clock was stepped.
    pub fn clock_stepped(&mut self, by: SignedDuration) {
        self.attempts.values_mut().for_each(|attempt| attempt.last = moved(attempt.last, by));
        self.actions.values_mut().for_each(|acting| acting.since = moved(acting.since, by));
        self.begun.values_mut().for_each(|begun| begun.at = moved(begun.at, by));
    }

    /// What failed on the way to a node no longer holds anything up.
    pub fn forget_attempts(&mut self) {
        self.attempts.clear();
        self.hook_failures.clear();
    }

    /// What failed on the way to a node that is declared no more is nobody's concern.
    pub fn forget_attempts_except(&mut self, release: &Release) {
        self.attempts.retain(|name, _| release.nodes.contains_key(name));
        self.hook_failures.retain(|name, _| release.nodes.contains_key(name));
        self.begun.retain(|name, _| release.nodes.contains_key(name));
    }

    /// Stops watching the switches that are still running: each node decides alone, or with a successor.
    pub fn let_go(&mut self) {
        for (_, acting) in std::mem::take(&mut self.actions) {
            acting.task.abort();
        }
    }

    /// Ends what has not reached its node's switch yet; a running switch is never ended.
    pub fn cancel_unstarted(&mut self) {
        self.actions.retain(|_, acting| {
            let begun = match *acting.stage.borrow() {
                Stage::Switching { .. } | Stage::Hook { at: HookPoint::AfterSwitch, .. } => true,
                Stage::Preparing
                | Stage::Copying { .. }
                | Stage::Building { .. }
                | Stage::Hook { .. }
                | Stage::Rebooting => false,
            };
            if !begun {
                acting.task.abort();
            }
            begun
        });
    }
}

async fn perform(
    job: Job,
    toplevel: StorePath,
    goal: Goal,
    (show, mut stage): (watch::Sender<Stage>, watch::Receiver<Stage>),
    desk: Desk,
) {
    tracing::info!(%toplevel, "started");
    if let Action::Reboot { boot, .. } = &job.action {
        let outcome = job.node.reboot_into(boot, &toplevel, job.node.spec().reboot.timeout).await;
        job.metrics.rebooted(counted::reboot(&outcome));
        report_reboot(&outcome);
        return hand_in(&job, toplevel, outcome.map(|_| Done::Told), Ok(()), &desk).await;
    }
    let act = async {
        let outcome = switch(&job, &show).await;
        let hooks = match &outcome {
            Ok(entry) => {
                let hooks = hooks(&job, &entry.system, &entry.previous);
                job.node.hooks_after(hooks, entry, &show).await
            }
            Err(_) => Ok(()),
        };
        (outcome, hooks)
    };
    let mut meter = DeploymentMeter::start(job.metrics.clone(), goal);
    let mut shown = Instant::now();
    let announce = async {
        while stage.changed().await.is_ok() {
            let stage = stage.borrow_and_update().clone();
            meter.stage(&stage);
            let chatting =
                matches!(stage, Stage::Copying { .. } | Stage::Building { .. } | Stage::Hook { .. });
            if !chatting || shown.elapsed() > SHOW {
                shown = Instant::now();
                desk.look_again();
            }
        }
    };
    let (outcome, hooks) = tokio::select! {
        ended = act => ended,
        () = announce => unreachable!("the sender of stages lives as long as the action"),
    };
    meter.ended(counted::deployment(&outcome));
    report(&outcome);
    if let Err(error) = &hooks {
        tracing::error!(error = error as &dyn std::error::Error, "a hook failed after the switch");
    }
    let outcome = outcome.map(|entry| Done::Switched(Box::new(entry)));
    hand_in(&job, toplevel, outcome, hooks, &desk).await;
}

/// Looked at before it counts as over, so that the next plan does not act on what was there before.
async fn hand_in(
    job: &Job,
    toplevel: StorePath,
    outcome: Result<Done, NodeError>,
    hooks: Result<(), NodeError>,
    desk: &Desk,
) {
    let seen = job.node.look(LOOK).await;
    let node = job.node.name().clone();
    desk.hand_in(News::Ended(Box::new(Ended { node, toplevel, outcome, hooks, seen })));
}

/// Copies and switches, or watches what is switching.
async fn switch(job: &Job, show: &watch::Sender<Stage>) -> Result<Entry, NodeError> {
    match &job.action {
        Action::Deploy { toplevel, expected, goal, purpose } => {
            let asker = match purpose {
                Purpose::Proof | Purpose::Heal | Purpose::Release => CONTROLLER.to_owned(),
                Purpose::TakeBack => format!("{CONTROLLER} (taking the release back)"),
            };
            let order = Order {
                toplevel: toplevel.clone(),
                expected: expected.clone(),
                goal: *goal,
                revision: job.revision.clone(),
                asker,
                hooks: hooks(job, toplevel, expected).to_vec(),
            };
            job.node.deploy(&job.nix, &order, show).await
        }
        Action::Attach { id, .. } => job.node.attach(id, show).await,
        Action::Reboot { .. } => unreachable!("a reboot is no switch"),
    }
}

/// The hooks that are run around a switch; the plan has seen to it that none is left out unasked.
fn hooks<'a>(job: &'a Job, toplevel: &StorePath, running: &StorePath) -> &'a [Hook] {
    match job.hooks {
        HookPolicy::Run => job.node.spec().hooks_around(toplevel, running),
        HookPolicy::Refuse => &[],
    }
}

/// An error without the name of its node, which is said by whoever shows it.
fn said(node: &NodeName, error: &NodeError) -> String {
    let said = error.hook_in_one_line().unwrap_or_else(|| error_chain(error));
    said.strip_prefix(&format!("{node}: ")).unwrap_or(&said).to_owned()
}

fn report_reboot(outcome: &Result<Rebooted, NodeError>) {
    match outcome {
        Ok(Rebooted::Back) => tracing::info!("rebooted"),
        Ok(Rebooted::NotBack) => tracing::error!("has not come back from its reboot"),
        Err(error) => tracing::warn!(error = error as &dyn std::error::Error, "not rebooted"),
    }
}

fn report(outcome: &Result<Entry, NodeError>) {
    match outcome {
        Ok(entry) if entry.outcome == Some(Outcome::Succeeded) => tracing::info!(id = %entry.id, "succeeded"),
        Ok(entry) if entry.outcome == Some(Outcome::Staged) => {
            tracing::info!(id = %entry.id, "staged: the next reboot boots it once");
        }
        Ok(entry) => tracing::warn!(
            id = %entry.id,
            outcome = entry.outcome.map(Outcome::as_str),
            cause = entry.cause.map(|cause| cause.sentence()),
            detail = entry.detail,
            "did not succeed"
        ),
        Err(error) => tracing::warn!(error = error as &dyn std::error::Error, "did not come to a switch"),
    }
}
