//! `driftless override`: in an emergency, windows do not count for a while.

use std::process::ExitCode;

use anyhow::{Result, bail};
use jiff::Timestamp;

use super::Global;
use super::steer::{self, End, Nobody};
use crate::model::intent::edit::{Edit, Open};
use crate::model::selector::Selector;

/// Arguments of `override`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Nodes whose windows do not count: names, globs, @tags, or as in '@web and not (web1 or db*)'
    #[arg(value_name = "NODES")]
    pub nodes: Selector,
    /// Why; others read it
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Until when, at most 7 days.
    #[command(flatten)]
    pub end: End,
}

/// Says it to the controller.
pub async fn run(global: &Global, args: Args) -> Result<ExitCode> {
    let Some(until) = args.end.at(Timestamp::now()) else {
        bail!("until when? give --for, for example `--for 1h`, or --until");
    };
    let edit = Edit::Override(Open { on: args.nodes, reason: args.reason, until });
    steer::say(global, edit, Nobody::Refused).await?;
    Ok(ExitCode::SUCCESS)
}
