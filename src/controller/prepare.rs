//! From a revision to built systems: checkout, names, evaluation in chunks, each node's build as soon as it is known.
//!
//! Runs as one task; aborting it ends every program it started. What it finds is handed in step by step.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::affected;
use crate::config::SourceConfig;
use crate::error_chain::error_chain;
use crate::model::manifest::Names;
use crate::model::name::NodeName;
use crate::model::node::NodeSpec;
use crate::model::revision::Revision;
use crate::model::rollout::RolloutSpec;
use crate::model::snapshot::BlockedReason;
use crate::nix::{Deployment, Evaluated, Nix, NixError, Order, Place, Publication};
use crate::source::{Source, SourceError};

/// One thing that was found out about a revision.
#[derive(Debug)]
pub enum Prepared {
    /// The deployment can be read: these are its nodes.
    Named(Box<Names>),
    /// It cannot be read as a whole.
    Blocked(BlockedReason, Failure),
    /// A node's declaration, or why it does not evaluate. `None`: the node is disabled.
    Evaluated(NodeName, Result<Option<Arc<NodeSpec>>, Failure>),
    /// A node's system is built, rooted and published as far as it can be, or why it is not built.
    Built(NodeName, Result<Publication, Failure>),
    /// Every node has been built or has failed.
    Done,
}

/// A step that came to nothing.
#[derive(Debug)]
pub struct Failure {
    /// What was said, for people.
    pub said: String,
    /// What a further try would bring.
    pub again: Again,
}

/// What a further try of the same commit would bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// The same, unless something that the commit only refers to changes.
    Same,
    /// Perhaps something else: it is this host that failed.
    Perhaps,
}

impl From<NixError> for Failure {
    fn from(error: NixError) -> Self {
        let again = if error.may_pass() { Again::Perhaps } else { Again::Same };
        Self { said: error_chain(&error), again }
    }
}

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Self {
        Self { said: error_chain(&error), again: Again::Perhaps }
    }
}

/// What is to be prepared.
#[derive(Debug, Clone)]
pub struct Preparation {
    /// Where commits come from.
    pub source: Source,
    /// Who evaluates and builds.
    pub nix: Nix,
    /// The commit.
    pub revision: Revision,
    /// Which deployment it has, in which format.
    pub config: SourceConfig,
    /// Where GC roots go, a folder per node.
    pub roots: PathBuf,
}

/// Prepares a revision; `found` is called for every step.
pub async fn prepare(job: Preparation, found: impl Fn(Prepared)) {
    let deployment = match locate(&job).await {
        Ok(deployment) => deployment,
        Err(failure) => return found(Prepared::Blocked(BlockedReason::InvalidFile, failure)),
    };
    let names = match job.nix.names(&deployment).await {
        Ok(names) => names,
        Err(error) => return found(Prepared::Blocked(unreadable(&error), error.into())),
    };
    let order = order(&job, &names.nodes).await;
    let rollout = names.rollout.clone();
    found(Prepared::Named(Box::new(names)));
    let (out, mut evaluated) = mpsc::channel(16);
    let evaluate = job.nix.evaluate(&deployment, order, out);
    let build = async {
        let mut builds = JoinSet::new();
        let mut evaluating = true;
        // Neither waits for the other: what is built is told while the next evaluation still runs.
        while evaluating || !builds.is_empty() {
            tokio::select! {
                received = evaluated.recv(), if evaluating => match received {
                    None => evaluating = false,
                    Some((name, outcome)) => {
                        if let Some(spec) = told(&name, outcome, &rollout, &found) {
                            let (nix, root) = (job.nix.clone(), system_root(&job.roots, &name));
                            builds.spawn(async move {
                                let built = build(&nix, &name, &spec, &root).await;
                                (name, built)
                            });
                        }
                    }
                },
                Some(joined) = builds.join_next() => {
                    if let Ok((name, built)) = joined {
                        found(Prepared::Built(name, built));
                    }
                }
            }
        }
    };
    tokio::join!(evaluate, build);
    found(Prepared::Done);
}

/// Why a deployment without names is none.
fn unreadable(error: &NixError) -> BlockedReason {
    if error.is_misread() { BlockedReason::Misdeclared } else { BlockedReason::EvalFailed }
}

/// Hands in what a node evaluates to. Returns what is to be built.
fn told(
    name: &NodeName,
    outcome: Result<Evaluated, NixError>,
    rollout: &RolloutSpec,
    found: &impl Fn(Prepared),
) -> Option<Box<NodeSpec>> {
    let evaluated = |outcome| found(Prepared::Evaluated(name.clone(), outcome));
    match outcome {
        Err(error) => evaluated(Err(error.into())),
        Ok(Evaluated::Disabled) => evaluated(Ok(None)),
        Ok(Evaluated::NotDeployable(why)) => {
            for why in why {
                tracing::warn!(node = %name, "is not deployed: {why}");
            }
            evaluated(Ok(None));
        }
        Ok(Evaluated::Node(spec)) => {
            if !spec.unsupported.is_empty() {
                let ignored = spec.unsupported.len();
                tracing::warn!(node = %name, ignored, "has settings that are not heeded; `driftless check` lists them");
            }
            let spec = Box::new(spec.in_fleet(rollout));
            evaluated(Ok(Some(Arc::from(spec.clone()))));
            return Some(spec);
        }
    }
    None
}

/// The nodes that the commit touches come first.
async fn order(job: &Preparation, nodes: &BTreeSet<NodeName>) -> Order {
    let reads: BTreeMap<_, _> =
        nodes.iter().filter_map(|name| Some((name.clone(), job.nix.reads(name)?))).collect();
    let before: BTreeSet<&String> = reads.values().map(|reads| &reads.of).collect();
    let mut changed = affected::Changed::new();
    for of in before {
        match job.source.changed(of, &job.revision).await {
            Ok(Some(paths)) => {
                changed.insert(of.clone(), paths);
            }
            Ok(None) => {}
            Err(error) => {
                // Only the order is lost; what the clone lacks is said where it matters.
                tracing::debug!(error = error_chain(&error), "what a commit changes is not known");
            }
        }
    }
    affected::order(nodes, &reads, &changed)
}

/// Builds a node's system, and publishes it before the node is asked to take it.
async fn build(nix: &Nix, name: &NodeName, spec: &NodeSpec, root: &Path) -> Result<Publication, Failure> {
    nix.realise(name, spec, root).await?;
    if spec.builds_itself() || spec.host.is_none() {
        return Ok(Publication::NotAsked);
    }
    Ok(nix.publish(&spec.shipped()).await)
}

/// The GC root of a node's newest built system. (Its derivation's root is beside it.)
pub fn system_root(roots: &Path, node: &NodeName) -> PathBuf {
    roots.join(node.as_str()).join("system")
}

async fn locate(job: &Preparation) -> Result<Deployment, Failure> {
    let is_flake = job.config.deployment == ".";
    if is_flake {
        let url = job.source.flake_url(&job.revision)?;
        // A flake can read its own revision: the tree alone does not determine it.
        let cache_key = Some(job.revision.commit.to_string());
        let read_as = job.config.format;
        return Ok(Deployment { place: Place::Flake { url }, cache_key, top: None, read_as });
    }
    let tree = job.source.checkout(&job.revision).await?;
    let file = tree.join(&job.config.deployment);
    if !file.exists() {
        let commit = job.revision.commit.short();
        let said = format!(
            "commit {commit} has no file {}; correct source.deployment, or add the file",
            job.config.deployment
        );
        return Err(Failure { said, again: Again::Same });
    }
    let cache_key = Some(job.revision.tree.clone());
    Ok(Deployment { place: Place::File(file), cache_key, top: Some(tree), read_as: job.config.format })
}
