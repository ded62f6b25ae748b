//! `driftless rollback`: brings nodes back to what they ran before their last switch, and keeps the controller off them
//! until the next revision. The system before is told by the node's own journal, never guessed.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, bail};
use tokio::sync::Semaphore;

use super::act::{self, Acting, Wish};
use super::direct::Direct;
use super::ending::{self, Ending};
use super::fleet::FleetArgs;
use super::progress::{Progress, Show};
use super::{Global, fleet};
use crate::model::journal::PinEnd;
use crate::model::name::NodeName;
use crate::model::node::{Goal, NodeSpec};
use crate::model::observed::NodeState;
use crate::node::Order;

/// Nodes that are rolled back at a time; what they go back to is there already.
const AT_A_TIME: usize = 5;

/// Arguments of `rollback`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which fleet, which nodes.
    #[command(flatten)]
    pub fleet: FleetArgs,
    /// Say why, for the controller that is kept off the nodes until the next revision
    #[arg(long, value_name = "TEXT", default_value = "rolled back by hand")]
    pub reason: String,
}

/// Rolls back; an error names the nodes that failed.
pub async fn run(global: &Global, args: Args) -> Result<ExitCode> {
    if args.fleet.on.is_none() {
        bail!("roll back which nodes? name them with --on (`--on '*'` is all)");
    }
    let fleet::Chosen { specs, without } = fleet::specs(global, &args.fleet).await?;
    let progress = Progress::new(specs.keys(), Show::Stages);
    let acting = Arc::new(Acting {
        here: Direct::prepare(global)?,
        progress,
        limit: Semaphore::new(AT_A_TIME),
        asker: act::asker(),
        reason: args.reason,
        via: None,
    });
    let concluded = ending::conclude(&acting.each(specs, one).await);
    if without.is_empty() { concluded } else { bail!("{}", without.join("\n")) }
}

async fn one(acting: Arc<Acting>, name: NodeName, spec: NodeSpec) -> Ending {
    if spec.host.is_none() {
        return Ending::Left { why: "it has no host and is never deployed".into() };
    }
    let asker = acting.asker.clone();
    acting.switch(&name, &spec, "rolled back", |state| wish(state, asker)).await
}

fn wish(state: &NodeState, asker: String) -> Wish {
    let Some(previous) = act::before(state) else {
        let why = "its journal knows no switch that brought what it runs";
        return Wish::Nothing(Ending::failed("nothing to go back to", why));
    };
    let order = Order {
        toplevel: previous.clone(),
        expected: state.running.clone(),
        goal: Goal::Switch,
        revision: act::revision_of(previous, state),
        asker,
        // They belong to what is declared, and that is not what it goes back to.
        hooks: Vec::new(),
    };
    // What runs now is what Git wants: when Git wants something else, the controller takes over again.
    Wish::Switch { order, until: PinEnd::NextRelease(state.running.clone()) }
}
