//! Deployment → manifest: the names, then nodes in chunks, several processes at a time. Builds nothing.
//!
//! A chunk that fails, for whatever reason, is split until the broken node stands alone with its own error. One big
//! evaluation would be the slowest way and the only one in which a node can break another.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::PoisonError;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::cache::Cache;
use super::error::Subject;
use super::message::Said;
use super::{Deployment, Nix, NixError, Place, files};
use crate::command::{self, CommandError};
use crate::model::manifest::{Names, VERSION};
use crate::model::name::NodeName;
use crate::model::node::{NodeSpec, Unsupported};
use crate::model::store_path::DrvPath;

/// What one node evaluates to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Evaluated {
    /// It is to be deployed.
    Node(Box<NodeSpec>),
    /// `enabled = false`: it is no part of the fleet. (The names are listed without evaluating any node.)
    Disabled,
    /// Another tool's node that driftless cannot deploy, and why; it is no part of the fleet either.
    NotDeployable(Vec<Unsupported>),
}

/// One node's evaluation.
type Answer = (NodeName, Result<Evaluated, NixError>);

/// A finished chunk: whom it was about, and what came of it.
type Chunk = (Vec<NodeName>, Result<Vec<Answer>, NixError>);

/// The manifest with its nodes still unread, so that one unreadable node does not spoil the others.
#[derive(Deserialize)]
pub(super) struct Document {
    pub(super) nodes: BTreeMap<String, Value>,
    #[serde(default, rename = "notDeployable")]
    not_deployable: BTreeMap<String, Vec<Unsupported>>,
}

/// All that can be read of a manifest of any version.
#[derive(Deserialize)]
struct Head {
    version: u32,
}

impl Nix {
    /// Lists the nodes of a deployment without evaluating any. Costs no process where the cache knows it.
    pub async fn names(&self, deployment: &Deployment) -> Result<Names, NixError> {
        let cache = self.cache(deployment);
        if let Some(names) = cache.as_ref().and_then(Cache::names) {
            return Ok(names);
        }
        let mut command = self.manifest(deployment);
        command.args(["--argstr", "want", "names"]);
        let text = self.ask(command, Subject::Deployment).await?;
        let names: Names = read(&text, Subject::Deployment)?;
        if let Some(cache) = cache {
            cache.keep_names(&names);
        }
        Ok(names)
    }

    /// Evaluates nodes and sends each result as soon as its chunk is done, the cached ones at once. Returns when every
    /// node was sent, or when nobody listens any more. Dropping the future ends the evaluators.
    pub async fn evaluate(
        &self,
        deployment: &Deployment,
        nodes: BTreeSet<NodeName>,
        out: mpsc::Sender<(NodeName, Result<Evaluated, NixError>)>,
    ) {
        let cache = self.cache(deployment);
        let mut unknown = Vec::new();
        for name in nodes {
            match cache.as_ref().and_then(|cache| cache.node(&name)) {
                None => unknown.push(name),
                Some(known) => {
                    if out.send((name, Ok(known))).await.is_err() {
                        return;
                    }
                }
            }
        }
        let mut running: JoinSet<Chunk> = JoinSet::new();
        for chunk in unknown.chunks(self.chunk_size(unknown.len())) {
            running.spawn(self.clone().chunk(deployment.clone(), chunk.to_vec()));
        }
        while let Some(joined) = running.join_next().await {
            let (asked, outcome) = match joined {
                Ok(chunk) => chunk,
                Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
                Err(_) => continue,
            };
            let answers = match outcome {
                Ok(answers) => answers,
                Err(_) if asked.len() > 1 => {
                    for half in asked.chunks(asked.len().div_ceil(2)) {
                        running.spawn(self.clone().chunk(deployment.clone(), half.to_vec()));
                    }
                    continue;
                }
                Err(error) => asked.into_iter().zip([Err(error)]).collect(),
            };
            for (name, answer) in answers {
                if let (Some(cache), Ok(evaluated)) = (&cache, &answer) {
                    cache.keep_node(&name, evaluated);
                }
                if out.send((name, answer)).await.is_err() {
                    return;
                }
            }
        }
    }

    /// Few nodes are spread over the workers rather than put in one process.
    fn chunk_size(&self, nodes: usize) -> usize {
        nodes.div_ceil(self.config.workers.max(1)).clamp(1, self.config.chunk.max(1))
    }

    async fn chunk(self, deployment: Deployment, nodes: Vec<NodeName>) -> Chunk {
        // The semaphore is never closed; if it were, evaluating without a permit would still be right.
        let permit = self.evaluations.clone().acquire_owned().await;
        let answers = self.evaluate_together(&deployment, &nodes).await;
        drop(permit);
        (nodes, answers)
    }

    async fn evaluate_together(
        &self,
        deployment: &Deployment,
        nodes: &[NodeName],
    ) -> Result<Vec<Answer>, NixError> {
        let subject = match nodes {
            [one] => Subject::Node(one.clone()),
            many => Subject::Nodes(many.len()),
        };
        let mut command = self.manifest(deployment);
        let asked = Value::from(nodes.iter().map(NodeName::as_str).collect::<Vec<_>>()).to_string();
        command.args(["--argstr", "want", "nodes", "--argstr", "nodes", &asked]);
        let text = self.ask(command, subject.clone()).await?;
        let Document { nodes: mut found, mut not_deployable } = read(&text, subject)?;
        let mut answers = Vec::with_capacity(nodes.len());
        for name in nodes {
            let answer = match found.remove(name.as_str()) {
                None => Ok(not_deployable
                    .remove(name.as_str())
                    .map_or(Evaluated::Disabled, Evaluated::NotDeployable)),
                Some(value) => serde_json::from_value(value)
                    .map(Evaluated::Node)
                    .map_err(|source| NixError::Manifest { of: Subject::Node(name.clone()), source }),
            };
            if let Ok(Evaluated::Node(spec)) = &answer {
                self.root_derivation(name, &spec.drv).await;
            }
            answers.push((name.clone(), answer));
        }
        Ok(answers)
    }

    /// Keeps a node's newest derivation from being collected before it is built, and makes a cached evaluation last.
    async fn root_derivation(&self, node: &NodeName, drv: &DrvPath) {
        let root = self.state.join("gcroots").join(node.as_str()).join("drv");
        if std::fs::read_link(&root).is_ok_and(|known| known == Path::new(drv.as_str())) {
            return;
        }
        let made = async {
            if let Some(folder) = root.parent() {
                std::fs::create_dir_all(folder).map_err(|error| error.to_string())?;
            }
            if self.roots.lock().unwrap_or_else(PoisonError::into_inner).contains(&root) {
                return point(&root, drv).map_err(|error| error.to_string());
            }
            self.add_derivation_root(&root, drv).await.map_err(|error| error.to_string())?;
            self.roots.lock().unwrap_or_else(PoisonError::into_inner).insert(root.clone());
            Ok(())
        };
        if let Err(error) = made.await {
            // The build follows within seconds, and says so itself if the derivation is gone by then.
            tracing::warn!(%node, %drv, error, "the derivation has no GC root");
        }
    }

    async fn add_derivation_root(&self, root: &Path, drv: &DrvPath) -> Result<(), CommandError> {
        let mut command = self.program("nix-instantiate");
        // `nix-store --realise` would build it; importing a derivation gives it back as it is.
        command.arg("--add-root").arg(root).args(["--indirect", "-E", &format!("import {drv}")]);
        command::run(command, super::realise::ROOT_DEADLINE).await.map(|_| ())
    }

    /// The evaluator, about to be asked for a part of the manifest.
    fn manifest(&self, deployment: &Deployment) -> Command {
        if let Err(error) = files::write(&self.state) {
            // The evaluator says that they are missing, and is asked again.
            tracing::warn!(error = &error as &dyn std::error::Error, "our Nix files cannot be put back");
        }
        let mut command = self.evaluator();
        command.args(["--eval", "--strict", "--json", "--read-write-mode"]).arg(&*self.manifest);
        if let Some(format) = deployment.read_as {
            command.args(["--argstr", "format", format.as_str()]);
        }
        match &deployment.place {
            Place::File(path) => command.args(["--argstr", "deployment"]).arg(path),
            Place::Flake { url } => command
                .args(["--extra-experimental-features", "nix-command flakes"])
                .args(["--option", "accept-flake-config", "false"])
                .args(["--argstr", "flake", url]),
        };
        command
    }

    async fn ask(&self, command: Command, of: Subject) -> Result<Vec<u8>, NixError> {
        let mut said = Said::default();
        let (deadline, bound) = (self.config.eval_timeout, |pid| self.bound_memory(pid));
        let outcome = command::run_observed(command, None, deadline, bound, |line| said.hear(line)).await;
        match outcome {
            Ok(finished) => Ok(finished.stdout),
            Err(CommandError::Failed { status, .. }) if status.code().is_some() => {
                Err(NixError::Evaluation { of, message: said.reason() })
            }
            Err(source) => Err(NixError::EvaluationCut { of, source }),
        }
    }
}

/// An indirect root is where Nix follows a link to (nix-store(1), `--indirect`): known once, it only has to point elsewhere.
fn point(root: &Path, drv: &DrvPath) -> std::io::Result<()> {
    let new = root.with_extension("new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    std::os::unix::fs::symlink(drv.as_str(), &new)?;
    std::fs::rename(&new, root)
}

pub(super) fn read<T: serde::de::DeserializeOwned>(text: &[u8], of: Subject) -> Result<T, NixError> {
    let understood = |source| NixError::Manifest { of: of.clone(), source };
    let Head { version } = serde_json::from_slice(text).map_err(understood)?;
    if version != VERSION {
        return Err(NixError::ManifestVersion { found: version, expected: VERSION });
    }
    serde_json::from_slice(text).map_err(understood)
}
