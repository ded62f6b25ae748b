//! `driftless sync`: the controller looks at everything now, and may be told that a commit is meant as it is. Runs where
//! the controller runs.

use std::process::ExitCode;

use anyhow::Result;

use super::{Global, ask, output};
use crate::config;
use crate::source::Source;

/// Arguments of `sync`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// This commit, and no other, may remove most of the nodes
    #[arg(long, value_name = "COMMIT")]
    pub allow_mass_removal: Option<String>,
}

/// Keeps what a person says in the controller's clone, then wakes the controller.
pub async fn run(global: &Global, args: Args) -> Result<ExitCode> {
    let config = global.config()?;
    let allowed = args.allow_mass_removal.is_some();
    if let Some(commit) = args.allow_mass_removal {
        let state = config::state_dir(std::env::var("STATE_DIRECTORY").ok());
        let source = Source::open(&config.source, &state)?;
        let revision = source.resolve(&commit)?;
        source.allow_removal(&revision)?;
        let (commit, subject) = (revision.commit.short(), &revision.subject);
        output::print(&format!("{commit} \"{subject}\" may remove most of the nodes.\n"))?;
    }
    // What was said is kept, whoever is there to hear it.
    match ask::wake(&config.serve.socket).await {
        Err(ask::AskError::NotRunning { .. }) if allowed => {
            output::print("No controller runs here; the next one follows it.\n")?
        }
        heard => {
            heard?;
            output::print("The controller looks again.\n")?
        }
    }
    Ok(ExitCode::SUCCESS)
}
