//! Reads of a node and small marks on it: state, logs, pins, forgiveness, commands for people.

use std::io::IsTerminal;
use std::pin::pin;
use std::time::Duration;

use super::frame::pin_end;
use super::installed::{Program, Sure};
use super::protocol::Privilege;
use super::{Node, NodeError, Output, Refusal};
use crate::error_chain::error_chain;
use crate::model::intent::{SuspensionId, SuspensionMark};
use crate::model::journal::{Pin, SwitchId};
use crate::model::observed::{BootId, NodeState};
use crate::model::store_path::StorePath;
use crate::model::way::{Way, Which};
use crate::plan::ways;

/// Longest time for a small answer.
const ANSWER: Duration = Duration::from_secs(30);
/// How long the declared way is waited for where the other one has answered and a switch waits there.
const HASTE: Duration = Duration::from_secs(2);

/// What one way led to.
type Seen = Result<NodeState, NodeError>;

/// What a look at a node found.
#[derive(Debug)]
pub struct Look {
    /// The way that counts.
    pub way: Way,
    /// What was found there.
    pub outcome: Seen,
    /// What was found on the other way, where there are two and it was waited for.
    pub aside: Option<Aside>,
}

/// The way that does not count.
#[derive(Debug)]
pub struct Aside {
    /// The way.
    pub way: Way,
    /// Why it does not.
    pub said: String,
}

impl Node {
    /// Reads the node's state where it is declared and, while it does not answer there, where it answered last. Work goes
    /// from then on over the way that counts.
    pub async fn look(&self, deadline: Duration) -> Look {
        let declared = self.ways.declared().clone();
        let Some(last) = self.ways.last().cloned() else {
            return Look { way: declared, outcome: self.observe(deadline).await, aside: None };
        };
        let (declared_seen, last_seen) = self.look_at_both(deadline).await;
        let machine = self.spec.machine_id.as_ref();
        let last_state = last_seen.as_ref().and_then(|seen| seen.as_ref().ok());
        let which = ways::choose(machine, declared_seen.as_ref().ok(), last_state);
        self.ways.work_over(which);
        let said = |seen: &Seen| match seen {
            Ok(state) => match &state.machine_id {
                Some(machine) => format!("the machine there is {machine}"),
                None => "the machine there has no machine id".into(),
            },
            Err(error) => self.without_name(error),
        };
        match (which, last_seen) {
            (Which::Last, Some(last_seen)) => {
                let aside = Aside { said: said(&declared_seen), way: declared };
                Look { way: last, outcome: last_seen, aside: Some(aside) }
            }
            (Which::Declared | Which::Last, last_seen) => {
                let aside = last_seen.map(|seen| Aside { said: said(&seen), way: last });
                Look { way: declared, outcome: declared_seen, aside }
            }
        }
    }

    /// What is found on the declared way and on the last one, as soon as it is clear which counts: a switch that waits for
    /// contact has no time to lose on the way that its node has left.
    async fn look_at_both(&self, deadline: Duration) -> (Seen, Option<Seen>) {
        let attempt = "observe";
        // As root: who cannot act on the node there has not moved.
        let mut declared = pin!(self.observe_over(Which::Declared, Privilege::Root, deadline));
        let mut last = pin!(self.observe_over(Which::Last, Privilege::Login, deadline));
        tokio::select! {
            seen = &mut declared => match seen {
                Ok(state) if ways::is_it(self.spec.machine_id.as_ref(), &state) => (Ok(state), None),
                seen => (seen, Some(last.await)),
            },
            seen = &mut last => {
                let moves = seen.as_ref().is_ok_and(|state| state.live_switch().is_some());
                let patience = if moves { HASTE.min(deadline) } else { deadline };
                let late = |_| Err(NodeError::Deadline {
                    node: self.name.clone(),
                    attempt,
                    seconds: patience.as_secs(),
                });
                (tokio::time::timeout(patience, declared).await.unwrap_or_else(late), Some(seen))
            }
        }
    }

    /// An error's words where the node is the subject already.
    pub fn without_name(&self, error: &NodeError) -> String {
        let said = error_chain(error);
        said.strip_prefix(&format!("{}: ", self.name)).unwrap_or(&said).to_owned()
    }

    /// Reads the node's state: one exec on the kept connection, unprivileged.
    pub async fn observe(&self, deadline: Duration) -> Result<NodeState, NodeError> {
        self.observe_over(self.ways.which(), Privilege::Login, deadline).await
    }

    async fn observe_over(
        &self,
        which: Which,
        privilege: Privilege,
        deadline: Duration,
    ) -> Result<NodeState, NodeError> {
        let known = self.nix_version.lock().map(|known| known.clone()).unwrap_or_default();
        let mut arguments = vec!["observe"];
        if known.is_none() {
            arguments.push("nix");
        }
        let attempt = "observe";
        let reply = self.ask_over(self.ways.link(which), attempt, privilege, &arguments, deadline).await?;
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

    /// Writes on the node that a person wants it left alone, should whoever knows it forget it.
    pub async fn mark_suspended(&self, mark: &SuspensionMark) -> Result<(), NodeError> {
        let until = mark.until.map_or_else(|| "-".into(), |until| until.as_second().to_string());
        let words = ["suspend", mark.id.as_str(), &mark.by, &until, &mark.reason];
        self.ask("mark the node as suspended", Privilege::Root, &words, ANSWER).await.map(|_| ())
    }

    /// Takes such a mark away.
    pub async fn unmark_suspended(&self, id: &SuspensionId) -> Result<(), NodeError> {
        let words = ["unsuspend", id.as_str()];
        self.ask("take the mark of a suspension away", Privilege::Root, &words, ANSWER).await.map(|_| ())
    }

    /// Failures so far no longer count against their systems.
    pub async fn forgive(&self) -> Result<(), NodeError> {
        self.ask("forgive failures", Privilege::Root, &["forgive"], ANSWER).await.map(|_| ())
    }

    /// Reboots the node, unless it has booted since it was seen or is being switched. It may be gone before it has said so.
    /// `into`: what it has to come back with; the node remembers that it was told so.
    pub async fn reboot(&self, seen: &BootId, into: Option<&StorePath>) -> Result<(), NodeError> {
        let attempt = "reboot the node";
        let words: Vec<&str> =
            ["reboot", seen.as_str()].into_iter().chain(into.map(StorePath::as_str)).collect();
        let reply = self.ask(attempt, Privilege::Root, &words, ANSWER).await?;
        match reply.get("refused") {
            None => Ok(()),
            Some("busy") => Err(NodeError::Refused { node: self.name.clone(), refusal: Refusal::Busy }),
            Some(said) => {
                let refusal = match said.split_once(' ') {
                    Some(("unwritable", what)) => Refusal::Unwritable { what: what.to_owned() },
                    Some(_) | None => Refusal::Other(said.to_owned()),
                };
                Err(NodeError::Refused { node: self.name.clone(), refusal })
            }
        }
    }

    /// Runs a command on the node, as the user we log in as.
    pub async fn run(&self, words: &[String], deadline: Duration) -> Result<Output, NodeError> {
        let line = shlex::try_join(words.iter().map(String::as_str)).map_err(|error| NodeError::Script {
            node: self.name.clone(),
            attempt: "run a command",
            said: error.to_string(),
        })?;
        self.link().shell(&self.name, "run a command", &line, &[], deadline).await
    }

    /// The arguments of an interactive `ssh` to the node; `None` where the node is this machine.
    pub async fn ssh_arguments(&self) -> Result<Option<Vec<String>>, NodeError> {
        let Some((host, mut options)) = self.link().kept_options().await? else { return Ok(None) };
        // What was generated forbids a terminal; a person at one wants one, a script does not.
        let terminal = if std::io::stdin().is_terminal() { "-t" } else { "-T" };
        options.extend([terminal, "--"].map(str::to_owned));
        options.push(host);
        Ok(Some(options))
    }

    /// Every store path a store path on the node refers to, itself included.
    pub async fn closure(&self, of: &StorePath) -> Result<Vec<StorePath>, NodeError> {
        let attempt = "list a closure";
        if let (Program::Installed, Sure::Known) = self.link().program().await {
            let paths = ["closure", of.as_str()];
            let reply = self.ask(attempt, Privilege::Login, &paths, Duration::from_secs(60)).await?;
            return Ok(reply.all("path").filter_map(|path| path.parse().ok()).collect());
        }
        let line = format!("nix-store --query --requisites {of}");
        let output = self.link().shell(&self.name, attempt, &line, &[], Duration::from_secs(60)).await?;
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
