//! Derivation → system in the store, with a GC root. Decides nothing about order; several nodes may build at a time.
//!
//! Nodes that share a derivation need no lock of ours: Nix locks output paths, the second build waits for the first, and is
//! made to look every second whether that has ended.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use super::message::Said;
use super::process::without_credentials;
use super::{Nix, NixError};
use crate::command::{self, CommandError, Tail};
use crate::model::name::NodeName;
use crate::model::node::NodeSpec;
use crate::model::store_path::{DrvPath, StorePath};

/// Making a root waits at most for a running garbage collection to let go of its lock.
pub(super) const ROOT_DEADLINE: Duration = Duration::from_secs(300);
/// Build logs are local files.
const LOG_DEADLINE: Duration = Duration::from_secs(30);
/// How much of a build log a person is shown.
const LOG_LINES: usize = 30;

impl Nix {
    /// Builds a node's system and what goes along with it, and points the GC root `root` at it (`root-closure...` at
    /// `closurePaths`). The root's folder is made. Waits while as many builds as configured are running.
    ///
    /// Of a node that builds its system itself, only what is needed here is built: the rest is its own affair, when it is
    /// deployed to.
    pub async fn realise(&self, node: &NodeName, spec: &NodeSpec, root: &Path) -> Result<(), NixError> {
        // Never closed; without a permit the build would merely be one too many.
        let _permit = self.builds.clone().acquire_owned().await;
        let folder = root.parent().unwrap_or(root);
        fs::create_dir_all(folder).map_err(|source| NixError::State { path: folder.to_owned(), source })?;
        if spec.builds_itself() {
            mark(root, &spec.toplevel).map_err(|source| NixError::State { path: root.to_owned(), source })?;
            self.keep_derivations(node, spec, root).await?;
            return self.realise_companions(node, spec, root).await;
        }

        let mut system = self.realisation();
        // A derivation may be collected once its output is there, and the output is all that is wanted.
        let built = in_store(spec.toplevel.as_str()) && !in_store(spec.drv.as_str());
        system.arg(if built { spec.toplevel.as_str() } else { spec.drv.as_str() });
        system.arg("--add-root").arg(root).arg("--indirect");
        self.build(node, system).await?;
        let found =
            fs::read_link(root).map_err(|source| NixError::State { path: root.to_owned(), source })?;
        if found != Path::new(spec.toplevel.as_str()) {
            return Err(NixError::WrongOutput { node: node.clone(), expected: spec.toplevel.clone(), found });
        }
        self.realise_companions(node, spec, root).await
    }

    /// Roots what a node is to build until it is its turn.
    async fn keep_derivations(&self, node: &NodeName, spec: &NodeSpec, root: &Path) -> Result<(), NixError> {
        if in_store(spec.toplevel.as_str()) && !in_store(spec.drv.as_str()) {
            // It is copied from here.
            return Ok(());
        }
        let imported = spec.closure_drvs.iter().chain([&spec.drv]).map(|drv| format!("(import {drv})"));
        let imported: Vec<String> = imported.collect();
        let mut command = self.program("nix-instantiate");
        // `nix-store --realise` would build it; importing a derivation gives it back as it is.
        command.arg("--add-root").arg(beside(root, "-derivations"));
        command.args(["--indirect", "-E", &format!("[ {} ]", imported.join(" "))]);
        let kept = command::run(command, ROOT_DEADLINE).await;
        kept.map(|_| ()).map_err(|source| NixError::Realise { node: node.clone(), source })
    }

    /// What is copied along with the system, and what is run here around its switch: built first, then rooted by path, because plain sources have no derivation.
    async fn realise_companions(
        &self,
        node: &NodeName,
        spec: &NodeSpec,
        root: &Path,
    ) -> Result<(), NixError> {
        let (closure_drvs, closure_paths) = if spec.builds_itself() {
            (&[][..], &[][..])
        } else {
            (&*spec.closure_drvs, &*spec.closure_paths)
        };
        let companions = closure_drvs.iter().chain(spec.hooks.iter().map(|hook| &hook.drv));
        let missing: Vec<_> = companions.filter(|drv| in_store(drv.as_str())).collect();
        if !missing.is_empty() {
            let mut build = self.realisation();
            build.args(missing.iter().map(|drv| drv.as_str()));
            self.build(node, build).await?;
        }
        // What is encrypted for whoever deploys is no part of the system, and must not be collected either.
        let encrypted = spec.secrets.values().filter_map(|secret| secret.ciphertext());
        let encrypted = encrypted.filter(|path| in_store(path.as_str())).map(|path| path.as_str());
        let paths = closure_paths.iter().chain(spec.hooks.iter().map(|hook| &hook.script));
        let paths: Vec<&str> = paths.map(|path| path.as_str()).chain(encrypted).collect();
        if paths.is_empty() {
            return Ok(());
        }
        let mut keep = self.realisation();
        keep.args(paths);
        keep.arg("--add-root").arg(beside(root, "-closure")).arg("--indirect");
        self.build(node, keep).await
    }

    pub(super) fn realisation(&self) -> Command {
        let mut command = self.program("nix-store");
        // Without a daemon this process is the one that builds.
        without_credentials(&mut command);
        // The log of what fails is read from Nix afterwards, not picked out of several builds' mingled output.
        command.args(["--realise", "--no-build-output"]);
        // The systems of a fleet share derivations, and by default a build that waits for another one looks every 5 s.
        if !self.config.options.contains_key("build-poll-interval") {
            command.args(["--option", "build-poll-interval", "1"]);
        }
        if let Some(builders) = &self.config.builders {
            command.args(["--option", "builders", builders.as_str()]);
            // What a cache has, they fetch themselves instead of waiting for it from here.
            if !self.config.options.contains_key("builders-use-substitutes") {
                command.args(["--option", "builders-use-substitutes", "true"]);
            }
        }
        command
    }

    async fn build(&self, node: &NodeName, command: Command) -> Result<(), NixError> {
        let mut said = Said::default();
        let deadline = self.config.build_timeout;
        let built = command::run_with(command, None, deadline, |line| said.hear(line)).await;
        if said.contains("ignoring the client-specified setting 'builders'") {
            tracing::warn!(%node, "the Nix daemon does not heed nix.builders: put this user into trusted-users, or the builders into this host's nix.conf");
        }
        match built {
            Ok(_) => Ok(()),
            Err(CommandError::Failed { argv, status, tail }) => match said.failed_derivation() {
                Some(failed) => {
                    let log = self.build_log(&failed).await.unwrap_or_else(|| said.end(LOG_LINES));
                    Err(NixError::Build { node: node.clone(), failed, log })
                }
                None => {
                    let source = CommandError::Failed { argv, status, tail };
                    Err(NixError::Realise { node: node.clone(), source })
                }
            },
            Err(source) => Err(NixError::Realise { node: node.clone(), source }),
        }
    }

    /// The end of a derivation's build log, where Nix has one that is not empty.
    async fn build_log(&self, drv: &DrvPath) -> Option<Tail> {
        // A log may be of any size.
        let mut command = self.talking_program("nix-store");
        command.args(["--read-log", drv.as_str()]);
        let mut said = Said::default();
        command::run_with(command, None, LOG_DEADLINE, |line| said.hear(line)).await.ok()?;
        let tail = said.end(LOG_LINES);
        (!tail.0.is_empty()).then_some(tail)
    }
}

/// Says of a system that it is not built here: a link to what is not there keeps nothing, and tells a successor that the
/// node is deployed to.
fn mark(root: &Path, toplevel: &StorePath) -> io::Result<()> {
    match fs::remove_file(root) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    std::os::unix::fs::symlink(toplevel.as_str(), root)
}

/// Whether the store has it, by the file: no process for a question that is asked for every node.
pub(super) fn in_store(path: &str) -> bool {
    Path::new(path).symlink_metadata().is_ok()
}

/// Another root in the same folder. Nix counts several up: `ROOT-closure`, `ROOT-closure-2`, ...
fn beside(root: &Path, suffix: &str) -> PathBuf {
    let mut name = root.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    root.with_file_name(name)
}
