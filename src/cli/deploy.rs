//! `driftless deploy`: evaluates, builds, copies and switches from here, with or without a controller.
//!
//! Nodes do not wait for each other, except for `rollout.maxInFlight` switches at a time. What happens on a node is
//! the node's decision; this verb only asks, shows and reports.

mod trial;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use tokio::sync::Semaphore;

use super::Global;
use super::act::{self, Acting, Wish};
use super::direct::Direct;
use super::ending::{self, Ending};
use super::fleet::FleetArgs;
use super::progress::{Progress, Show};
use crate::error_chain::error_chain;
use crate::model::name::NodeName;
use crate::model::node::{self, NodeSpec};
use crate::model::observed::NodeState;
use crate::model::release::{NodeRelease, Progress as Built, Release};
use crate::node::Order;
use crate::plan::drift;

/// Arguments of `deploy`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which deployment, which nodes.
    #[command(flatten)]
    pub fleet: FleetArgs,
    /// What deploying means [default: the node's own `goal`]
    #[arg(long, value_enum)]
    pub goal: Option<Goal>,
    /// Reach the one node at this [user@]host[:port] until it answers where it is declared: for a deployment that changes
    /// its address, port, host key or user
    #[arg(long, value_name = "ADDRESS")]
    pub via: Option<String>,
    /// Reboot each node whose system waits for that, and have the system proven
    #[arg(long)]
    pub reboot: bool,
    /// With the goal `boot`, where the boot loader cannot boot a system once: make it the default without proof
    #[arg(long)]
    pub unproven: bool,
    /// Say why, for a controller that is kept off the nodes for an hour
    #[arg(long, value_name = "TEXT", default_value = "deployed by hand")]
    pub reason: String,
}

/// What deploying means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Goal {
    /// Activate now and make it the boot default once proven
    Switch,
    /// Boot it once at the next reboot, and make it the boot default once proven
    Boot,
    /// Activate now, never make it the boot default
    Test,
}

impl From<Goal> for node::Goal {
    fn from(goal: Goal) -> Self {
        match goal {
            Goal::Switch => Self::Switch,
            Goal::Boot => Self::Boot,
            Goal::Test => Self::Test,
        }
    }
}

/// Deploys; an error names the nodes that failed.
pub async fn run(global: &Global, args: Args) -> Result<ExitCode> {
    let origin = args.fleet.declared.named_or_here().context(super::NO_DEPLOYMENT)?;
    let here = Direct::prepare(global)?;
    let release = here.evaluate(&origin, args.fleet.on.as_ref()).await?;
    let revision =
        release.revision.as_ref().map_or_else(|| "-".into(), |revision| revision.commit.to_string());
    if args.via.is_some() && release.nodes.len() != 1 {
        bail!("--via is the way to one node: name it with --on");
    }
    let acting = Arc::new(Acting { via: args.via, ..acting(here, &release, args.reason) });
    let asked = Asked {
        goal: args.goal.map(node::Goal::from),
        waiting: if args.reboot { Waiting::Reboot } else { Waiting::Leave },
        proof: if args.unproven { Proof::Waived } else { Proof::AsDeclared },
        revision,
    };
    let endings =
        acting.each(release.nodes, |acting, name, node| one(acting, name, node, asked.clone())).await;
    ending::conclude(&endings)
}

/// What acting on this release needs.
pub fn acting(here: Arc<Direct>, release: &Release, reason: String) -> Acting {
    let limit = Semaphore::new(release.rollout.max_in_flight.max(1) as usize);
    let progress = Progress::new(release.nodes.keys(), Show::Stages);
    Acting { here, progress, limit, asker: act::asker(), reason, via: None }
}

/// What is asked of every node.
#[derive(Debug, Clone)]
struct Asked {
    goal: Option<node::Goal>,
    waiting: Waiting,
    proof: Proof,
    revision: String,
}

/// What is done about a node whose system waits for a reboot.
#[derive(Debug, Clone, Copy)]
enum Waiting {
    Leave,
    Reboot,
}

/// Whether a system may become the boot default without proof where the boot loader cannot boot it once.
#[derive(Debug, Clone, Copy)]
enum Proof {
    AsDeclared,
    Waived,
}

async fn one(acting: Arc<Acting>, name: NodeName, node: NodeRelease, asked: Asked) -> Ending {
    let mut spec = match built(&acting, &name, node).await {
        Ok(spec) => spec,
        Err(ending) => return ending,
    };
    match asked.proof {
        Proof::AsDeclared => {}
        Proof::Waived => Arc::make_mut(&mut spec).reboot.unproven = true,
    }
    let goal = asked.goal.unwrap_or(spec.goal);
    let (asker, revision) = (acting.asker.clone(), asked.revision.clone());
    let ending =
        acting.switch(&name, &spec, "deployed", |state| wish(&spec, state, goal, revision, asker)).await;
    match (&ending, asked.waiting) {
        (Ending::Staged, Waiting::Reboot) => trial::run(&acting, &name, &spec, asked.revision).await,
        (
            Ending::Staged | Ending::Done { .. } | Ending::Left { .. } | Ending::Failed { .. },
            Waiting::Leave | Waiting::Reboot,
        ) => ending,
    }
}

/// The declaration of a node whose system is built, or how it ended before.
pub async fn built(acting: &Acting, name: &NodeName, node: NodeRelease) -> Result<Arc<NodeSpec>, Ending> {
    let Some(spec) = node.spec else {
        return Err(match node.progress {
            Built::NotEvaluated { error } => Ending::failed("does not evaluate", error),
            Built::Evaluating | Built::Building | Built::NotBuilt { .. } | Built::Built => {
                Ending::failed("not evaluated", "")
            }
        });
    };
    if spec.host.is_none() {
        return Err(Ending::Left { why: "it has no host and is never deployed".into() });
    }
    if let Some(reason) = &spec.suspended {
        return Err(Ending::Left { why: format!("suspended in the deployment: {reason}") });
    }
    acting.progress.say(name, "building");
    match acting.here.realise(name, &spec).await {
        Ok(()) => {
            acting.here.publish(name, &spec).await;
            Ok(spec)
        }
        Err(error) => Err(Ending::failed("does not build", error_chain(&error))),
    }
}

/// What a deployment by a person wants of a node: the system, unless the node has it already.
fn wish(spec: &NodeSpec, state: &NodeState, goal: node::Goal, revision: String, asker: String) -> Wish {
    if !goal.activates() && state.staged.as_ref() == Some(&spec.toplevel) {
        return Wish::Nothing(Ending::Staged);
    }
    if drift::is_installed(&spec.toplevel, goal, state) {
        return Wish::Secrets;
    }
    let order = Order {
        toplevel: spec.toplevel.clone(),
        expected: state.running.clone(),
        goal,
        revision,
        asker,
        hooks: spec.hooks_around(&spec.toplevel, &state.running).to_vec(),
    };
    Wish::Switch { order, until: act::in_an_hour() }
}
