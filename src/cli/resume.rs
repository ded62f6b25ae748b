//! `driftless resume`: the controller goes on with nodes that were suspended.

use std::process::ExitCode;

use anyhow::Result;

use super::Global;
use super::steer::{self, Nobody};
use crate::model::intent::SuspensionId;
use crate::model::intent::edit::{Edit, Resume};
use crate::model::selector::Selector;

/// Arguments of `resume`.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
pub struct Args {
    /// Nodes to go on with, as `suspend` takes them; others of the same suspension stay suspended
    #[arg(value_name = "NODES")]
    pub nodes: Option<Selector>,
    /// All nodes of this suspension, as `driftless status` names it
    #[arg(long, value_name = "ID")]
    pub id: Option<SuspensionId>,
    /// All nodes
    #[arg(long)]
    pub all: bool,
}

/// Says it, to the controller that runs or to the next one.
pub async fn run(global: &Global, args: Args) -> Result<ExitCode> {
    let resume = match (args.nodes, args.id, args.all) {
        (Some(nodes), _, _) => Resume::On(nodes),
        (None, Some(id), _) => Resume::Id(id),
        (None, None, true) => Resume::All,
        (None, None, false) => Resume::Unreadable,
    };
    steer::say(global, Edit::Resume(resume), Nobody::Kept).await?;
    Ok(ExitCode::SUCCESS)
}
