//! `driftless accept-history`: a person says that a rewritten branch is meant. Runs where the controller runs.

use std::process::ExitCode;

use anyhow::Result;

use super::{Global, ask, output};
use crate::config;
use crate::source::Source;

/// Arguments of `accept-history`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The new head, as `driftless status` shows it
    #[arg(value_name = "COMMIT")]
    pub commit: String,
}

/// Accepts in the controller's clone, then wakes the controller.
pub async fn run(global: &Global, args: Args) -> Result<ExitCode> {
    let config = global.config()?;
    let state = config::state_dir(std::env::var("STATE_DIRECTORY").ok());
    let source = Source::open(&config.source, &state)?;
    let revision = source.resolve(&args.commit)?;
    source.accept_history(&revision)?;
    let (commit, subject) = (revision.commit.short(), &revision.subject);
    output::print(&format!("{commit} \"{subject}\" and what follows it is accepted.\n"))?;
    match ask::wake(&config.serve.socket).await {
        Ok(()) => output::print("The controller looks again.\n")?,
        Err(ask::AskError::NotRunning { .. }) => {
            output::print("No controller runs here; the next one follows it.\n")?
        }
        Err(error) => return Err(error.into()),
    }
    Ok(ExitCode::SUCCESS)
}
