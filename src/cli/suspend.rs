//! `driftless suspend`: the controller looks at nodes, and does not touch them until somebody says so.

use std::process::ExitCode;

use anyhow::Result;
use jiff::Timestamp;

use super::Global;
use super::steer::{self, End, Nobody};
use crate::model::intent::edit::{Edit, Suspend};
use crate::model::selector::Selector;

/// Arguments of `suspend`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Nodes to leave alone: names, globs, @tags, or as in '@web and not (web1 or db*)'
    #[arg(value_name = "NODES")]
    pub nodes: Selector,
    /// Why; others read it
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Until when [default: until `driftless resume`].
    #[command(flatten)]
    pub end: End,
}

/// Says it, to the controller that runs or to the next one.
pub async fn run(global: &Global, args: Args) -> Result<ExitCode> {
    let until = args.end.at(Timestamp::now());
    let edit = Edit::Suspend(Suspend { on: args.nodes, reason: args.reason, until });
    steer::say(global, edit, Nobody::Kept).await?;
    Ok(ExitCode::SUCCESS)
}
