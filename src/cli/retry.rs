//! `driftless retry`: gives nodes back to the controller. Failures so far no longer count, and pins end.

use std::process::ExitCode;

use anyhow::{Result, bail};

use super::direct::Direct;
use super::fleet::{Declared, FleetArgs};
use super::{Global, ask, fleet, output};
use crate::error_chain::error_chain;
use crate::model::selector::Selector;
use crate::node::{Node, NodeError};

/// Arguments of `retry`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Nodes to retry: names, globs, @tags, '@web and not (web1 or db*)'
    #[arg(value_name = "NODES")]
    pub nodes: Selector,
    /// Which fleet.
    #[command(flatten)]
    pub declared: Declared,
}

/// Forgives and unpins on the nodes, then wakes the controller.
pub async fn run(global: &Global, args: Args) -> Result<ExitCode> {
    let fleet = FleetArgs { on: Some(args.nodes), declared: args.declared };
    let fleet::Chosen { specs, without: mut failures } = fleet::specs(global, &fleet).await?;
    let here = Direct::prepare(global)?;
    for (name, spec) in specs.iter().filter(|(_, spec)| spec.host.is_some()) {
        let node = here.node(name, spec)?;
        match given_back(&node).await {
            Ok(()) => {
                output::print(&format!("{name}: earlier failures no longer count, and no pin holds it\n"))?
            }
            Err(error) => failures.push(error_chain(&error)),
        }
        node.close().await;
    }
    if !failures.is_empty() {
        bail!("{}", failures.join("\n"));
    }
    match ask::wake(&fleet::socket(global)?).await {
        Ok(()) => output::print("The controller looks again.\n")?,
        Err(ask::AskError::NotRunning { .. }) => output::print("No controller runs here: deploy again.\n")?,
        Err(error) => return Err(error.into()),
    }
    Ok(ExitCode::SUCCESS)
}

async fn given_back(node: &Node) -> Result<(), NodeError> {
    node.forgive().await?;
    node.unpin().await
}
