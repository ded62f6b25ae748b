//! Runs a deployment's hooks on this machine, with what nixus gives them: `HOST`, `OLDSYSTEM`, and an `ssh` that knows the
//! way to the node. Whether they may run is the plan's decision; a failed one is never repeated here.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tokio::process::Command;
use tokio::sync::watch;

use super::{Node, NodeError};
use crate::command::{self, CommandError};
use crate::error_chain::error_chain;
use crate::model::hook::{Hook, HookPoint};
use crate::model::journal::{Entry, Outcome};
use crate::model::observed::Stage;
use crate::model::store_path::StorePath;

/// What hooks log in and copy with. Each finds its ssh_config by a wrapper, because not every program that starts ssh can
/// be told by its environment.
const SSH_PROGRAMS: [&str; 3] = ["ssh", "scp", "sftp"];

/// What hooks are told beside the way to the node.
type Told = BTreeMap<&'static str, String>;

impl Node {
    /// Runs the hooks of one point before the switch from `running` to `toplevel`. The first that fails is the last.
    pub(super) async fn hooks_before(
        &self,
        hooks: &[Hook],
        point: HookPoint,
        (toplevel, running): (&StorePath, &StorePath),
        stage: &watch::Sender<Stage>,
    ) -> Result<(), NodeError> {
        self.run_hooks(hooks, point, self.told(toplevel, running), stage).await
    }

    /// Runs the hooks that come after a switch, which are told how it ended.
    pub async fn hooks_after(
        &self,
        hooks: &[Hook],
        entry: &Entry,
        stage: &watch::Sender<Stage>,
    ) -> Result<(), NodeError> {
        let mut told = self.told(&entry.system, &entry.previous);
        let outcome = entry.outcome.unwrap_or(Outcome::Interrupted);
        // nixus's word for it.
        let status = match outcome {
            Outcome::Succeeded | Outcome::Staged => "success",
            Outcome::RolledBack
            | Outcome::RollbackFailed
            | Outcome::CommitFailed
            | Outcome::Interfered
            | Outcome::Interrupted => "failure",
        };
        told.extend([("status", status.to_owned()), ("OUTCOME", outcome.as_str().to_owned())]);
        self.run_hooks(hooks, HookPoint::AfterSwitch, told, stage).await
    }

    fn told(&self, toplevel: &StorePath, running: &StorePath) -> Told {
        BTreeMap::from([
            ("NODE", self.name.to_string()),
            ("HOST", self.link().asked_for()),
            ("OLDSYSTEM", running.to_string()),
            ("NEWSYSTEM", toplevel.to_string()),
        ])
    }

    async fn run_hooks(
        &self,
        hooks: &[Hook],
        point: HookPoint,
        told: Told,
        stage: &watch::Sender<Stage>,
    ) -> Result<(), NodeError> {
        let hooks: Vec<&Hook> = hooks.iter().filter(|hook| hook.at == point).collect();
        if hooks.is_empty() {
            return Ok(());
        }
        let wrappers = self.wrappers().map_err(|source| NodeError::Runtime {
            node: self.name.clone(),
            path: std::env::temp_dir(),
            source,
        })?;
        for hook in hooks {
            self.run_hook(hook, &told, wrappers.path(), stage).await?;
        }
        Ok(())
    }

    async fn run_hook(
        &self,
        hook: &Hook,
        told: &Told,
        wrappers: &Path,
        stage: &watch::Sender<Stage>,
    ) -> Result<(), NodeError> {
        let show = |said: &str| {
            let (at, name, said) = (hook.at, hook.name.clone(), said.to_owned());
            stage.send_replace(Stage::Hook { at, name, said });
        };
        show("");
        tracing::info!(node = %self.name, hook = hook.name, at = hook.at.as_words(), "hook started");
        let command = program(hook.script.as_str(), told, wrappers);
        let hear = |line: &str| {
            tracing::info!(node = %self.name, hook = hook.name, "{line}");
            show(line);
        };
        let ended = command::run_with(command, None, self.spec.hook_timeout, hear).await;
        ended.map(drop).map_err(|source| NodeError::Hook {
            node: self.name.clone(),
            hook: hook.name.clone(),
            at: hook.at,
            source,
        })
    }

    /// A folder that comes first on the hooks' PATH. Empty where the node is this machine: ssh has no business there.
    fn wrappers(&self) -> io::Result<tempfile::TempDir> {
        let folder = tempfile::Builder::new().prefix("dl-hooks-").tempdir()?;
        let Some(config) = self.link().config() else { return Ok(folder) };
        let path = std::env::var("PATH").unwrap_or_default();
        for name in SSH_PROGRAMS {
            let wrapper = folder.path().join(name);
            let (path, config) = (quoted(&path), quoted(&config.display().to_string()));
            fs::write(
                &wrapper,
                format!("#!/bin/sh\nPATH={path}\nexport PATH\nexec {name} -F {config} \"$@\"\n"),
            )?;
            fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o700))?;
        }
        Ok(folder)
    }
}

impl NodeError {
    /// A failed hook in one line, with the last that it said; all of that is in the log.
    pub fn hook_in_one_line(&self) -> Option<String> {
        let Self::Hook { source, .. } = self else { return None };
        let how = match source {
            CommandError::Failed { status, .. } => status.to_string(),
            CommandError::Deadline { deadline, .. } => format!("did not end within {} s", deadline.as_secs()),
            CommandError::Missing { .. } | CommandError::Start { .. } | CommandError::Pipe { .. } => {
                error_chain(source)
            }
        };
        let last = source.tail().and_then(|tail| tail.0.iter().rfind(|line| !line.trim().is_empty()));
        Some(match last {
            Some(last) => format!("{self} ({how}): {last}"),
            None => format!("{self} ({how})"),
        })
    }
}

/// What a hook prints goes to stderr, of which the end is kept, whichever way it goes.
fn program(script: &str, told: &Told, wrappers: &Path) -> Command {
    let mut command = command::command("sh");
    command.args(["-c", "exec \"$0\" >&2", script]).envs(told);
    let own = std::env::var_os("PATH").unwrap_or_default();
    let path = std::iter::once(wrappers.to_owned()).chain(std::env::split_paths(&own));
    // A folder whose name has a colon cannot be on a PATH; ours has none.
    if let Ok(path) = std::env::join_paths(path) {
        command.env("PATH", path);
    }
    command
}

/// One word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
