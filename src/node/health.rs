//! Health checks between contact and verdict: units and commands on the node, repeated until all pass or time is up.

use std::time::{Duration, Instant};

use super::Node;
use super::installed::{Program, Sure};
use super::protocol::Privilege;
use crate::error_chain::error_chain;
use crate::model::health::Checks;

/// Between two rounds of the checks that have not passed yet.
const PERIOD: Duration = Duration::from_secs(1);
/// Longest time for one check.
const ONE_CHECK: Duration = Duration::from_secs(15);
/// A failed check's output in the reason, characters.
const MOST_OUTPUT: usize = 300;

/// One check: its name in messages, the shell command that passes with exit code 0, and how driftless-node knows it.
struct Check {
    name: String,
    command: String,
    words: [String; 2],
}

impl Node {
    /// Waits until every check has passed once. The error is the reason of the reject: which check, and what it said.
    pub(super) async fn await_health(
        &self,
        checks: &Checks,
        within: Duration,
        show: impl Fn(String),
    ) -> Result<(), String> {
        let began = Instant::now();
        let mut open = listed(checks);
        let all = open.len();
        while let Some(check) = open.last() {
            show(format!("{}, {} of {all} passed", check.name, all - open.len()));
            // A check that hangs must leave time to say so.
            let longest = ONE_CHECK.min(within.saturating_sub(began.elapsed())).max(PERIOD);
            match self.passes(check, longest).await {
                Ok(()) => {
                    open.pop();
                }
                Err(said) if began.elapsed() + PERIOD > within => {
                    return Err(format!("{}: {said}", check.name));
                }
                Err(_) => {
                    tokio::time::sleep(PERIOD).await;
                    // The others may pass meanwhile.
                    open.rotate_right(1);
                }
            }
        }
        Ok(())
    }

    async fn passes(&self, check: &Check, longest: Duration) -> Result<(), String> {
        match self.link().program().await {
            (Program::Installed, Sure::Known) => self.passes_there(check, longest).await,
            (Program::Shell | Program::Installed, _) => self.passes_in_shell(&check.command, longest).await,
        }
    }

    /// By the node's own word for the check: what runs is what its system says, not what was sent.
    async fn passes_there(&self, check: &Check, longest: Duration) -> Result<(), String> {
        let words = ["check", &check.words[0], &check.words[1]];
        let attempt = "run a health check";
        // The node sees by itself what needs root.
        let asked = self.ask(attempt, Privilege::Login, &words, longest).await;
        let reply = asked.map_err(|error| error_chain(&error))?;
        match reply.get("code") {
            Some("0") => Ok(()),
            code => Err(failed(code.unwrap_or("unknown"), reply.get("said").unwrap_or_default())),
        }
    }

    async fn passes_in_shell(&self, command: &str, longest: Duration) -> Result<(), String> {
        let escalation = self.link().escalation().await.map_err(|error| error.to_string())?;
        let words = escalation.iter().map(String::as_str).chain(["sh", "-c", command]);
        let line = shlex::try_join(words).map_err(|error| error.to_string())?;
        let ran = self.link().shell(&self.name, "run a health check", &line, &[], longest).await;
        let output = ran.map_err(|error| error.to_string())?;
        if output.code == 0 {
            return Ok(());
        }
        let said = [output.stdout, output.stderr].concat();
        Err(failed(&output.code.to_string(), &String::from_utf8_lossy(&said)))
    }
}

fn failed(code: &str, said: &str) -> String {
    let said: String = said.trim().chars().take(MOST_OUTPUT).collect();
    format!("exit code {code}{}{said}", if said.is_empty() { "" } else { ": " })
}

fn listed(checks: &Checks) -> Vec<Check> {
    let commands = checks.commands.iter().map(|(name, command)| Check {
        name: format!("command {name}"),
        command: command.command.clone(),
        words: ["command".into(), name.clone()],
    });
    let units = checks.units.iter().map(|unit| {
        let quoted = shlex::try_quote(unit).map_or_else(|_| "''".into(), |quoted| quoted.into_owned());
        Check {
            name: format!("unit {unit}"),
            command: format!("systemctl is-active -- {quoted}"),
            words: ["unit".into(), unit.clone()],
        }
    });
    commands.chain(units).collect()
}
