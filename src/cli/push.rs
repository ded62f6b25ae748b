//! `driftless push`: copies the systems to the nodes, so that a later deployment is quick. Switches nothing.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::sync::watch;

use super::act::Acting;
use super::direct::Direct;
use super::ending::{self, Ending};
use super::fleet::FleetArgs;
use super::{Global, deploy};
use crate::model::name::NodeName;
use crate::model::observed::Stage;
use crate::model::release::NodeRelease;

/// Arguments of `push`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which deployment, which nodes.
    #[command(flatten)]
    pub fleet: FleetArgs,
}

/// Copies; an error names the nodes that failed.
pub async fn run(global: &Global, args: Args) -> Result<ExitCode> {
    let origin = args.fleet.declared.named_or_here().context(super::NO_DEPLOYMENT)?;
    let here = Direct::prepare(global)?;
    let release = here.evaluate(&origin, args.fleet.on.as_ref()).await?;
    let acting = Arc::new(deploy::acting(here, &release, String::new()));
    ending::conclude(&acting.each(release.nodes, one).await)
}

async fn one(acting: Arc<Acting>, name: NodeName, node: NodeRelease) -> Ending {
    let spec = match deploy::built(&acting, &name, node).await {
        Ok(spec) => spec,
        Err(ending) => return ending,
    };
    // Never closed; without a permit the copy would merely be one too many.
    let _permit = acting.limit.acquire().await;
    let node = match acting.here.node(&name, &spec) {
        Ok(node) => node,
        Err(error) => return Ending::of_error(&name, error),
    };
    let (sender, stages) = watch::channel(Stage::Preparing);
    let push = async {
        let pushed = node.push(&acting.here.nix, &spec.toplevel, &sender).await;
        drop(sender);
        pushed
    };
    let (pushed, ()) = tokio::join!(push, acting.progress.follow(&name, stages));
    node.close().await;
    match pushed {
        Ok(()) => Ending::Done { word: "copied", detail: String::new() },
        Err(error) => Ending::of_error(&name, error),
    }
}
