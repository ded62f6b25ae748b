//! One evaluator: asked for the names, or for some nodes. What it may have, hears and says; who is asked next is not decided here.

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;

use serde::Deserialize;
use serde_json::Value;
use tokio::process::Command;

use super::error::Subject;
use super::evaluate::Evaluated;
use super::experience::Reads;
use super::message::Said;
use super::reading::{self, Reading};
use super::{Deployment, Nix, NixError, Place, Trace, files};
use crate::command::{self, CommandError};
use crate::config::Bytes;
use crate::model::manifest::{Names, VERSION};
use crate::model::name::NodeName;
use crate::model::node::Unsupported;

/// What came of asking about some nodes.
pub(super) struct Asked {
    /// One for each of them.
    pub(super) answers: Vec<(NodeName, Result<Evaluated, NixError>)>,
    /// Bytes that the evaluator allocated, where it says so.
    pub(super) allocated: Option<u64>,
    /// What it read of the repository, where something determines that.
    pub(super) reads: Option<Reads>,
}

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

/// What an evaluator counts (the variable NIX_SHOW_STATS_PATH), as far as it is of use here.
#[derive(Deserialize)]
struct Statistics {
    gc: Collector,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Collector {
    total_bytes: u64,
}

/// Lines of an evaluator that was cut short.
const LAST_WORDS: usize = 20;

impl Nix {
    /// Lists the nodes.
    pub(super) async fn ask_names(&self, deployment: &Deployment, memory: Bytes) -> Result<Names, NixError> {
        let mut command = self.manifest(deployment);
        command.args(["--argstr", "want", "names"]);
        let mut unread = Reading::of(None);
        let text = self.ask(command, Subject::Deployment, memory, &mut unread).await?;
        read(&text, Subject::Deployment)
    }

    /// Evaluates some nodes in one process.
    pub(super) async fn ask_nodes(
        &self,
        deployment: &Deployment,
        nodes: &[NodeName],
        memory: Bytes,
    ) -> Result<Asked, NixError> {
        let subject = match nodes {
            [one] => Subject::Node(one.clone()),
            many => Subject::Nodes(many.len()),
        };
        let mut command = self.manifest(deployment);
        let asked = Value::from(nodes.iter().map(NodeName::as_str).collect::<Vec<_>>()).to_string();
        command.args(["--argstr", "want", "nodes", "--argstr", "nodes", &asked]);
        // What nothing determines cannot be compared with a later commit.
        let of = deployment.cache_key.clone().filter(|_| self.eval.affected_first);
        if of.is_some() {
            command.arg(reading::VERBOSE);
        }
        // Without a name of its own nothing of it is left, however we end. (proc_pid_fd(5): whoever runs as our user opens it.)
        let statistics = tempfile::tempfile().ok();
        if let Some(file) = &statistics {
            let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
            command.env("NIX_SHOW_STATS", "1").env("NIX_SHOW_STATS_PATH", path);
        }
        let mut reading = Reading::of(deployment.top.as_deref());
        let text = self.ask(command, subject.clone(), memory, &mut reading).await?;
        let counted = statistics.and_then(|file| std::io::read_to_string(file).ok());
        let counted = counted.and_then(|text| serde_json::from_str::<Statistics>(&text).ok());
        Ok(Asked {
            answers: answers(read(&text, subject)?, nodes),
            allocated: counted.map(|counted| counted.gc.total_bytes),
            reads: of.map(|of| Reads { of, paths: reading.paths() }),
        })
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
        match self.trace {
            Trace::Reason => {}
            Trace::Whole => {
                command.arg("--show-trace");
            }
        }
        match &deployment.place {
            Place::File(path) => command.args(["--argstr", "deployment"]).arg(path),
            Place::Flake { url } => command
                .args(["--extra-experimental-features", "nix-command flakes"])
                .args(["--argstr", "flake", url]),
        };
        command
    }

    async fn ask(
        &self,
        mut command: Command,
        of: Subject,
        memory: Bytes,
        reading: &mut Reading,
    ) -> Result<Vec<u8>, NixError> {
        self.give_heap(&mut command, memory);
        let mut said = Said::default();
        let hear = |line: &str| {
            if reading.hear(line) {
                said.hear(line);
            }
        };
        let bound = |pid| super::process::bound_memory(pid, memory);
        let outcome = command::run_observed(command, None, self.eval.timeout, bound, hear).await;
        match outcome {
            Ok(finished) => Ok(finished.stdout),
            Err(CommandError::Failed { status, .. }) if status.code().is_some() => {
                if said.is_out_of_memory() {
                    return Err(NixError::EvaluationMemory { of, memory });
                }
                let message = match self.trace {
                    Trace::Reason => said.reason(),
                    Trace::Whole => said.whole(),
                };
                Err(NixError::Evaluation { of, message })
            }
            Err(source) => {
                let source = source.having_said(said.end(LAST_WORDS));
                Err(NixError::EvaluationCut { of, source })
            }
        }
    }
}

/// What a document says of each node that was asked for.
fn answers(document: Document, nodes: &[NodeName]) -> Vec<(NodeName, Result<Evaluated, NixError>)> {
    let Document { nodes: mut found, mut not_deployable } = document;
    let mut answer = |name: &NodeName| match found.remove(name.as_str()) {
        None => {
            let why = not_deployable.remove(name.as_str());
            Ok(why.map_or(Evaluated::Disabled, Evaluated::NotDeployable))
        }
        Some(value) => serde_path_to_error::deserialize(value)
            .map(Evaluated::Node)
            .map_err(|source| NixError::Manifest { of: Subject::Node(name.clone()), source }),
    };
    nodes.iter().map(|name| (name.clone(), answer(name))).collect()
}

/// Reads a document of ours, and says where in it a mistake is.
pub(super) fn read<T: serde::de::DeserializeOwned>(text: &[u8], of: Subject) -> Result<T, NixError> {
    let understood = |source| NixError::Manifest { of: of.clone(), source };
    let document: Value = serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_slice(text))
        .map_err(understood)?;
    let Head { version } = serde_path_to_error::deserialize(&document).map_err(understood)?;
    if version != VERSION {
        return Err(NixError::ManifestVersion { found: version, expected: VERSION });
    }
    serde_path_to_error::deserialize(document).map_err(understood)
}
