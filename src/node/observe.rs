//! Reads of a node and small marks on it: state, logs, pins, forgiveness, commands for people.

use std::io::IsTerminal;
use std::time::Duration;

use super::frame::pin_end;
use super::protocol::Privilege;
use super::{Node, NodeError, Output};
use crate::model::journal::{Pin, SwitchId};
use crate::model::observed::NodeState;
use crate::model::store_path::StorePath;

/// Longest time for a small answer.
const ANSWER: Duration = Duration::from_secs(30);

impl Node {
    /// Reads the node's state: one exec on the kept connection, unprivileged.
    pub async fn observe(&self, deadline: Duration) -> Result<NodeState, NodeError> {
        let known = self.nix_version.lock().map(|known| known.clone()).unwrap_or_default();
        let mut arguments = vec!["observe"];
        if known.is_none() {
            arguments.push("nix");
        }
        let attempt = "observe";
        let reply = self.ask(attempt, Privilege::Login, &arguments, deadline).await?;
        let mut state = reply.node_state().map_err(|source| self.wrong_reply(attempt, source))?;
        let version = match known {
            None => state.nix_version.clone(),
            Some((boot, system, version)) if (&boot, &system) == (&state.boot_id, &state.running) => version,
            // Another boot or system: the next read asks again.
            Some(_) => None,
        };
        if let Ok(mut slot) = self.nix_version.lock() {
            *slot = version.clone().map(|_| (state.boot_id.clone(), state.running.clone(), version.clone()));
        }
        state.nix_version = version;
        Ok(state)
    }

    /// The log of one switch.
    pub async fn log(&self, id: &SwitchId) -> Result<String, NodeError> {
        let reply = self.ask_switch("read the log", id, "log", &[], ANSWER).await?;
        Ok(reply.all("log").collect::<Vec<_>>().join("\n"))
    }

    /// Keeps the controller off this node until the pin ends.
    pub async fn pin(&self, pin: &Pin) -> Result<(), NodeError> {
        let until = pin_end(&pin.until);
        self.ask("pin the node", Privilege::Root, &["pin", &pin.by, &until, &pin.reason], ANSWER)
            .await
            .map(|_| ())
    }

    /// Gives the node back to the controller.
    pub async fn unpin(&self) -> Result<(), NodeError> {
        self.ask("unpin the node", Privilege::Root, &["unpin"], ANSWER).await.map(|_| ())
    }

    /// Failures so far no longer count against their systems.
    pub async fn forgive(&self) -> Result<(), NodeError> {
        self.ask("forgive failures", Privilege::Root, &["forgive"], ANSWER).await.map(|_| ())
    }

    /// Runs a command on the node, as the user we log in as.
    pub async fn run(&self, words: &[String], deadline: Duration) -> Result<Output, NodeError> {
        let line = shlex::try_join(words.iter().map(String::as_str)).map_err(|error| NodeError::Script {
            node: self.name.clone(),
            attempt: "run a command",
            said: error.to_string(),
        })?;
        self.link.shell(&self.name, "run a command", &line, &[], deadline).await
    }

    /// The arguments of an interactive `ssh` to the node; `None` where the node is this machine.
    pub async fn ssh_arguments(&self) -> Result<Option<Vec<String>>, NodeError> {
        let Some((host, mut options)) = self.link.kept_options().await? else { return Ok(None) };
        // What was generated forbids a terminal; a person at one wants one, a script does not.
        let terminal = if std::io::stdin().is_terminal() { "-t" } else { "-T" };
        options.extend([terminal, "--"].map(str::to_owned));
        options.push(host);
        Ok(Some(options))
    }

    /// Every store path a store path on the node refers to, itself included.
    pub async fn closure(&self, of: &StorePath) -> Result<Vec<StorePath>, NodeError> {
        let attempt = "list a closure";
        let line = format!("nix-store --query --requisites {of}");
        let output = self.link.shell(&self.name, attempt, &line, &[], Duration::from_secs(60)).await?;
        if output.code != 0 {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(NodeError::Script { node: self.name.clone(), attempt, said });
        }
        Ok(String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| line.trim().parse().ok())
            .collect())
    }
}
