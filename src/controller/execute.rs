//! Carries out actions, one per node at a time. No choice is left here: `plan` made it, and the node has the last word.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::Instrument;

use super::connections::sight;
use super::{Desk, News, counted};
use crate::error_chain::error_chain;
use crate::model::decision::{Action, Purpose};
use crate::model::hook::{Hook, HookPolicy};
use crate::model::journal::{Entry, Outcome};
use crate::model::name::NodeName;
use crate::model::node::Goal;
use crate::model::observed::{AttemptKind, BootId, Stage};
use crate::model::store_path::StorePath;
use crate::nix::Nix;
use crate::node::{Node, NodeError, Order, Rebooted};
use crate::plan::CONTROLLER;
use crate::reconcile::actions::{self, Failed};
use crate::reconcile::lookout::Sight;
use crate::serve::metrics::{DeploymentMeter, Metrics};

/// A stage that changes is shown at most so often.
const SHOW: Duration = Duration::from_millis(250);
/// The look after an action.
const LOOK: Duration = Duration::from_secs(20);

/// The tasks of what is being done.
#[derive(Debug, Default)]
pub struct Running(BTreeMap<NodeName, Acting>);

#[derive(Debug)]
struct Acting {
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
    /// The journal's entry, where there is one.
    pub entry: Option<Entry>,
    /// The rest.
    pub ended: actions::Ended,
}

impl Ended {
    /// The end of an action that nobody could begin.
    pub fn unbegun(node: &NodeName, action: &Action, sight: Sight) -> News {
        let said = sight.outcome.as_ref().err().cloned().unwrap_or_default();
        let outcome = Err(Failed { said, kind: AttemptKind::Way });
        let toplevel = action.toplevel().clone();
        let ended = actions::Ended { toplevel, outcome, hooks: Ok(()), sight };
        News::Ended(Box::new(Self { node: node.clone(), entry: None, ended }))
    }
}

impl Running {
    /// Starts one action.
    pub fn start(&mut self, job: Job, desk: &Desk) {
        let Job { node, action, revision, .. } = &job;
        let first = match action {
            Action::Deploy { .. } | Action::Attach { .. } => Stage::Preparing,
            Action::Reboot { .. } => Stage::Rebooting,
        };
        let (show, stage) = watch::channel(first);
        let name = node.name().clone();
        let span = tracing::info_span!("act", node = %name, revision = revision.get(..7).unwrap_or(revision));
        let task = tokio::spawn(perform(job, show, desk.clone()).instrument(span));
        self.0.insert(name, Acting { stage, task });
    }

    /// It has ended.
    pub fn forget(&mut self, name: &NodeName) {
        self.0.remove(name);
    }

    /// How far each is.
    pub fn stages(&self) -> impl Iterator<Item = (&NodeName, Stage)> {
        self.0.iter().map(|(name, acting)| (name, acting.stage.borrow().clone()))
    }

    /// Ends one.
    pub fn abort(&mut self, name: &NodeName) {
        if let Some(acting) = self.0.remove(name) {
            tracing::info!(node = %name, "given up before its switch has begun");
            acting.task.abort();
        }
    }

    /// Stops watching the switches that are still running: each node decides alone, or with a successor.
    pub fn let_go(&mut self) {
        for (_, acting) in std::mem::take(&mut self.0) {
            acting.task.abort();
        }
    }
}

async fn perform(job: Job, show: watch::Sender<Stage>, desk: Desk) {
    tracing::info!(toplevel = %job.action.toplevel(), "started");
    let (outcome, hooks) = match &job.action {
        Action::Reboot { boot, toplevel } => (reboot(&job, boot, toplevel).await.map(|()| None), Ok(())),
        Action::Attach { id, .. } => {
            let switch = job.node.attach(id, &show);
            watched(&job, job.node.spec().goal, switch, &show, &desk).await
        }
        Action::Deploy { toplevel, expected, goal, purpose } => {
            let order = Order {
                toplevel: toplevel.clone(),
                expected: expected.clone(),
                goal: *goal,
                revision: job.revision.clone(),
                asker: asker(*purpose),
                hooks: hooks(&job, toplevel, expected).to_vec(),
            };
            let switch = job.node.deploy(&job.nix, &order, &show);
            watched(&job, *goal, switch, &show, &desk).await
        }
    };
    hand_in(&job, outcome, hooks, &desk).await;
}

async fn reboot(job: &Job, boot: &BootId, toplevel: &StorePath) -> Result<(), NodeError> {
    let outcome = job.node.reboot_into(boot, toplevel, job.node.spec().reboot.timeout).await;
    job.metrics.rebooted(counted::reboot(&outcome));
    report_reboot(&outcome);
    outcome.map(|_| ())
}

/// A switch and the hooks after it, shown and counted as they go: how it ended, and how the hooks did.
async fn watched(
    job: &Job,
    goal: Goal,
    switch: impl Future<Output = Result<Entry, NodeError>>,
    show: &watch::Sender<Stage>,
    desk: &Desk,
) -> (Result<Option<Entry>, NodeError>, Result<(), NodeError>) {
    let act = async {
        let outcome = switch.await;
        let hooks = match &outcome {
            Ok(entry) => {
                let hooks = hooks(job, &entry.system, &entry.previous);
                job.node.hooks_after(hooks, entry, show).await
            }
            Err(_) => Ok(()),
        };
        (outcome, hooks)
    };
    let mut meter = DeploymentMeter::start(job.metrics.clone(), goal);
    let (outcome, hooks) = tokio::select! {
        ended = act => ended,
        never = announce(show.subscribe(), &mut meter, desk) => match never {},
    };
    meter.ended(counted::deployment(&outcome));
    report(&outcome);
    if let Err(error) = &hooks {
        tracing::error!(error = error as &dyn std::error::Error, "a hook failed after the switch");
    }
    (outcome.map(Some), hooks)
}

/// Counts each stage, and has it shown.
async fn announce(mut stage: watch::Receiver<Stage>, meter: &mut DeploymentMeter, desk: &Desk) -> Infallible {
    let mut shown = Instant::now();
    while stage.changed().await.is_ok() {
        let stage = stage.borrow_and_update().clone();
        meter.stage(&stage);
        let chatting = matches!(stage, Stage::Copying { .. } | Stage::Building { .. } | Stage::Hook { .. });
        if !chatting || shown.elapsed() > SHOW {
            shown = Instant::now();
            desk.look_again();
        }
    }
    // The sender of stages lives as long as the action.
    std::future::pending().await
}

/// Looked at before it counts as over, so that the next plan does not act on what was there before.
async fn hand_in(
    job: &Job,
    outcome: Result<Option<Entry>, NodeError>,
    hooks: Result<(), NodeError>,
    desk: &Desk,
) {
    let seen = job.node.look(LOOK).await;
    let node = job.node.name().clone();
    let (entry, outcome) = match outcome {
        Ok(entry) => (entry, Ok(())),
        Err(error) => (None, Err(failed(&node, &error))),
    };
    let hooks = hooks.map_err(|error| said(&node, &error));
    let sight = sight(&node, seen);
    let ended = actions::Ended { toplevel: job.action.toplevel().clone(), outcome, hooks, sight };
    desk.hand_in(News::Ended(Box::new(Ended { node, entry, ended })));
}

/// Whom the node's journal names.
fn asker(purpose: Purpose) -> String {
    match purpose {
        Purpose::Proof | Purpose::Heal | Purpose::Release => CONTROLLER.to_owned(),
        Purpose::TakeBack => format!("{CONTROLLER} (taking the release back)"),
    }
}

/// The hooks that are run around a switch; the plan has seen to it that none is left out unasked.
fn hooks<'a>(job: &'a Job, toplevel: &StorePath, running: &StorePath) -> &'a [Hook] {
    match job.hooks {
        HookPolicy::Run => job.node.spec().hooks_around(toplevel, running),
        HookPolicy::Refuse => &[],
    }
}

fn failed(node: &NodeName, error: &NodeError) -> Failed {
    let kind = if error.is_broken_build() { AttemptKind::Build } else { AttemptKind::Way };
    Failed { said: said(node, error), kind }
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
