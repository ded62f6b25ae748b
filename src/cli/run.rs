//! `driftless run`: the controller, in the foreground.

use std::process::ExitCode;

use anyhow::{Result, bail};

use super::Global;

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs until it is told to stop.
pub async fn run(global: &Global, _args: Args) -> Result<ExitCode> {
    let _config = global.config()?;
    bail!("the controller is not part of this build yet")
}
