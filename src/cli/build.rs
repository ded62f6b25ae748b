//! `driftless build`: builds the systems here and prints where they are. Touches no node.

use std::process::ExitCode;

use anyhow::{Context, Result};

use super::direct::Direct;
use super::fleet::FleetArgs;
use super::progress::{Ended, Progress, Show};
use super::{Global, output};
use crate::model::release::{Progress as Built, Release};

/// Arguments of `build`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which deployment, which nodes.
    #[command(flatten)]
    pub fleet: FleetArgs,
}

/// Builds; prints `node path` for each that builds.
pub async fn run(global: &Global, args: Args) -> Result<ExitCode> {
    let origin = args.fleet.declared.named_or_here().context(super::NO_DEPLOYMENT)?;
    let here = Direct::prepare(global)?;
    let mut release = here.evaluate(&origin, args.fleet.on.as_ref()).await?;
    let progress = Progress::new(release.nodes.keys(), Show::Stages);
    here.realise_all(&mut release, &progress).await;
    end(&release, &progress);
    progress.close();
    let mut text = String::new();
    for (name, node) in &release.nodes {
        if let (Built::Built, Some(spec)) = (&node.progress, &node.spec)
            && !spec.builds_itself()
        {
            text.push_str(&format!("{name} {}\n", spec.toplevel));
        }
    }
    output::print(&text)?;
    let failures = failures(&release);
    match failures.as_slice() {
        [] => Ok(ExitCode::SUCCESS),
        failures => Err(anyhow::anyhow!("{}", failures.join("\n"))),
    }
}

/// The last line of each node.
fn end(release: &Release, progress: &Progress) {
    for (name, node) in &release.nodes {
        match &node.progress {
            Built::Built if node.spec.as_ref().is_some_and(|spec| spec.builds_itself()) => {
                progress.end(name, Ended::Well, "left to the node: buildOnTarget");
            }
            Built::Built => progress.end(name, Ended::Well, "built"),
            Built::NotEvaluated { .. } => progress.end(name, Ended::Badly, "does not evaluate"),
            Built::NotBuilt { .. } => progress.end(name, Ended::Badly, "does not build"),
            Built::Evaluating | Built::Building => {}
        }
    }
}

/// What went wrong with each node that has no system.
pub fn failures(release: &Release) -> Vec<String> {
    let failure =
        |(name, node): (&crate::model::name::NodeName, &crate::model::release::NodeRelease)| match &node
            .progress
        {
            Built::NotEvaluated { error } => Some(format!("{name} does not evaluate: {error}")),
            Built::NotBuilt { error } => Some(format!("{name} does not build: {error}")),
            Built::Evaluating | Built::Building | Built::Built => None,
        };
    release.nodes.iter().filter_map(failure).collect()
}
