//! `driftless logs`: what a switch said, from the node's own log.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use super::direct::Direct;
use super::fleet::Declared;
use super::{Global, fleet, output};
use crate::model::journal::SwitchId;
use crate::model::name::NodeName;
use crate::node::Node;

/// Arguments of `logs`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The node
    pub node: NodeName,
    /// The switch, as `driftless history` names it [default: the newest]
    pub switch: Option<SwitchId>,
    /// Which fleet.
    #[command(flatten)]
    pub declared: Declared,
}

/// Prints the log.
pub async fn run(global: &Global, args: Args) -> Result<ExitCode> {
    let (name, spec) = fleet::one(global, &args.node, args.declared).await?;
    let here = Direct::prepare(global)?;
    let node = here.node(&name, &spec)?;
    let log = read(&here, &node, args.switch).await;
    node.close().await;
    output::print(&log?)?;
    Ok(ExitCode::SUCCESS)
}

async fn read(here: &Direct, node: &Node, switch: Option<SwitchId>) -> Result<String> {
    let id = match switch {
        Some(id) => id,
        None => {
            let state = here.look(node).await?;
            let newest = state.journal.last().cloned();
            newest.with_context(|| format!("{} was never switched by driftless", node.name()))?.id
        }
    };
    let mut log = node.log(&id).await?;
    if log.is_empty() {
        bail!("switch {id} on {} has left no log", node.name());
    }
    if !log.ends_with('\n') {
        log.push('\n');
    }
    Ok(log)
}
