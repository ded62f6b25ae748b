//! Which fleet a verb is about: the one of a running controller, or a deployment given on the spot.
//!
//! Evaluates and looks where there is no controller; decides nothing.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::{Global, ask};
use crate::config::ServeConfig;
use crate::model::snapshot::Snapshot;
use crate::plan::selection::Selector;

/// Which fleet, and which of its nodes.
#[derive(Debug, Clone, clap::Args)]
pub struct FleetArgs {
    /// Only these nodes: names, globs and @tags, separated by commas
    #[arg(long, value_name = "NODES")]
    pub on: Option<Selector>,
    /// Where the fleet is declared.
    #[command(flatten)]
    pub declared: Declared,
}

/// Where a fleet is declared when no controller is asked.
#[derive(Debug, Clone, Default, clap::Args)]
#[group(multiple = false)]
pub struct Declared {
    /// Use this deployment file instead of a running controller
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Use this flake instead of a running controller
    #[arg(long, value_name = "URL")]
    pub flake: Option<String>,
    /// Use this release, as a deployment's ./result carries it
    #[arg(long, value_name = "FILE")]
    pub release: Option<PathBuf>,
}

/// Where a fleet is declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A deployment file.
    File(PathBuf),
    /// A flake.
    Flake(String),
    /// A manifest of systems that are built.
    Release(PathBuf),
}

impl Declared {
    /// What was named on the command line.
    pub fn named(&self) -> Option<Origin> {
        let file = self.file.clone().map(Origin::File);
        let flake = || self.flake.clone().map(Origin::Flake);
        let release = || self.release.clone().map(Origin::Release);
        file.or_else(flake).or_else(release)
    }

    /// What was named, else what the current directory declares.
    pub fn named_or_here(&self) -> Option<Origin> {
        self.named().or_else(|| here(Path::new(".")))
    }
}

fn here(directory: &Path) -> Option<Origin> {
    let file = directory.join("deployment.nix");
    if file.is_file() {
        Some(Origin::File(file))
    } else if directory.join("flake.nix").is_file() {
        Some(Origin::Flake(".".into()))
    } else {
        None
    }
}

/// The world as it is now, for a verb that looks: what was named, else the controller, else the current directory.
pub async fn snapshot(global: &Global, args: &FleetArgs) -> Result<Snapshot> {
    if let Some(origin) = args.declared.named() {
        return look(global, &origin, args).await;
    }
    let config = global.config_if_any()?;
    let socket = config.map_or_else(|| ServeConfig::default().socket, |config| config.serve.socket);
    match (ask::fleet(&socket).await, args.declared.named_or_here()) {
        (Ok(snapshot), _) => choose(snapshot, args),
        (Err(ask::AskError::NotRunning { .. }), Some(origin)) => look(global, &origin, args).await,
        (Err(error @ ask::AskError::NotRunning { .. }), None) => Err(error).context(
            "nothing to look at: start a controller with `driftless run`, or name a deployment with --file, --flake or --release",
        ),
        (Err(error), _) => Err(error.into()),
    }
}

async fn look(_global: &Global, origin: &Origin, _args: &FleetArgs) -> Result<Snapshot> {
    bail!("cannot look at {origin:?} without a controller yet")
}

/// Keeps the nodes that were asked for.
fn choose(mut snapshot: Snapshot, args: &FleetArgs) -> Result<Snapshot> {
    let Some(selector) = &args.on else { return Ok(snapshot) };
    let tags = |node: &crate::model::snapshot::NodeView| {
        node.spec.as_ref().map(|spec| spec.tags.clone()).unwrap_or_default()
    };
    let fleet = snapshot.nodes.iter().map(|(name, node)| (name.clone(), tags(node))).collect();
    let chosen = selector.select(&fleet)?;
    snapshot.nodes.retain(|name, _| chosen.contains(name));
    Ok(snapshot)
}
