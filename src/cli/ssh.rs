//! `driftless ssh`: a terminal on a node, reached exactly as a deployment reaches it.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use super::direct::Direct;
use super::fleet::Declared;
use super::{Global, fleet};
use crate::model::name::NodeName;

/// Arguments of `ssh`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The node
    pub node: NodeName,
    /// Which fleet.
    #[command(flatten)]
    pub declared: Declared,
    /// Run this instead of a shell
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// Hands the terminal to ssh; its exit code is ours.
pub async fn run(global: &Global, args: Args) -> Result<ExitCode> {
    let (name, spec) = fleet::one(global, &args.node, args.declared).await?;
    if spec.host.is_none() {
        bail!("{name} has no host");
    }
    let here = Direct::prepare(global)?;
    let node = here.node(&name, &spec)?;
    let Some(arguments) = node.ssh_arguments().await? else {
        bail!("{name} is this machine: no ssh is needed");
    };
    // A person's terminal, not a child of the program: no deadline, own environment.
    let ended = Command::new("ssh").args(arguments).args(args.command).kill_on_drop(true).status().await;
    node.close().await;
    let code = ended.context("cannot run ssh")?.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
