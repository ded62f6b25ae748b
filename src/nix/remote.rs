//! Derivations → outputs in a node's own store, built by its own Nix. Only what to build crosses the wire, and log lines.
//!
//! Over ssh-ng alone: the node's daemon sees when we are gone and ends the build. Nothing is rooted here; the caller does
//! that on the node, before.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::process::Command;

use super::copy::{Protocol, fault, url};
use super::error::CopyFault;
use super::message::{Said, plain};
use super::progress::Line;
use super::watched::{self, Patience};
use super::{CopyTarget, Nix, NixError};
use crate::command::{self, CommandError, Tail};
use crate::model::store_path::DrvPath;

/// Derivations are small, and a system has thousands of them: no copy of them takes longer.
const LONGEST_COPY: Duration = Duration::from_secs(60 * 60);
/// How often progress is told.
const TICK: Duration = Duration::from_millis(500);
/// How much of a build log a person is shown.
const LOG_LINES: usize = 30;
/// How many derivations' logs are kept after they have ended: the one that failed is among the newest.
const LOGS: usize = 32;

/// `actBuild`: one derivation is being built; `actBuilds`: all of them.
const BUILD: u64 = 105;
const BUILDS: u64 = 104;
/// `resBuildLogLine`, `resProgress`.
const LOG_LINE: u64 = 101;
const PROGRESS: u64 = 105;

/// How far a build on a node is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildProgress {
    /// Derivations that are built.
    pub done: u64,
    /// Derivations that had to be, as far as Nix has said.
    pub total: u64,
    /// The one that is being built, by name; empty before the first.
    pub now: String,
}

impl Nix {
    /// Has a node build derivations, and everything they need that it does not get from its caches. `progress` is told
    /// every half second how far it is.
    pub async fn build_on(
        &self,
        target: &CopyTarget,
        derivations: &[DrvPath],
        mut progress: impl FnMut(BuildProgress),
    ) -> Result<(), NixError> {
        target.check()?;
        // A derivation needs no signature, so its bearer no rights: root's are only taken where the node wants that.
        let plain = CopyTarget { escalation: Vec::new(), ..target.clone() };
        let target = match self.copy_derivations(&plain, derivations).await {
            Ok(()) => &plain,
            Err(NixError::Copy { fault: CopyFault::Other | CopyFault::Signature, .. })
                if !target.escalation.is_empty() =>
            {
                self.copy_derivations(target, derivations).await?;
                target
            }
            Err(error) => return Err(error),
        };
        self.realise_on(target, derivations, &mut progress).await
    }

    async fn copy_derivations(&self, target: &CopyTarget, derivations: &[DrvPath]) -> Result<(), NixError> {
        let mut command = self.program("nix");
        let to = url(Protocol::Daemon, target);
        command
            .args(["--extra-experimental-features", "nix-command", "copy", "--derivation", "--to", &to])
            // No cache has them; asking would cost a round trip for each.
            .args(["--option", "builders-use-substitutes", "false"])
            .args(["--no-check-sigs", "--log-format", "internal-json"])
            .env("NIX_SSHOPTS", target.ssh_options.join(" "))
            .args(derivations.iter().map(DrvPath::as_str));
        let patience = Patience { longest: LONGEST_COPY, stall: self.config.copy_stall };
        let copied = watched::run(command, patience, &mut |_| {}).await;
        copied.map_err(|unfinished| unfinished.copying_to(&target.host))
    }

    async fn realise_on(
        &self,
        target: &CopyTarget,
        derivations: &[DrvPath],
        progress: &mut impl FnMut(BuildProgress),
    ) -> Result<(), NixError> {
        let heard = Mutex::new(Heard::default());
        let lock = || heard.lock().unwrap_or_else(PoisonError::into_inner);
        let deadline = self.config.build_timeout;
        let command = self.realise_command(target, derivations);
        let building = command::run_with(command, None, deadline, |line| lock().hear(line));
        tokio::pin!(building);
        let mut tick = tokio::time::interval(TICK);
        let outcome = loop {
            tokio::select! {
                outcome = &mut building => break outcome,
                _ = tick.tick() => progress(lock().progress.clone()),
            }
        };
        let host = target.host.clone();
        match outcome {
            Ok(_) => Ok(()),
            Err(CommandError::Failed { .. }) => Err(lock().failure(host)),
            Err(CommandError::Deadline { deadline, .. }) => {
                Err(NixError::RemoteDeadline { host, deadline, log: lock().newest_log() })
            }
            Err(
                source @ (CommandError::Missing { .. }
                | CommandError::Start { .. }
                | CommandError::Pipe { .. }),
            ) => Err(NixError::RemoteRun { host, source }),
        }
    }

    fn realise_command(&self, target: &CopyTarget, derivations: &[DrvPath]) -> Command {
        let mut command = self.program("nix-store");
        command
            .args(["--store", &url(Protocol::Daemon, target), "--log-format", "internal-json", "--realise"])
            .env("NIX_SSHOPTS", target.ssh_options.join(" "))
            .args(derivations.iter().map(DrvPath::as_str));
        command
    }
}

/// What a build said so far.
#[derive(Debug, Default)]
struct Heard {
    progress: BuildProgress,
    all: Option<u64>,
    /// Logs of what is being built, by activity.
    open: BTreeMap<u64, (Option<DrvPath>, VecDeque<String>)>,
    closed: VecDeque<(Option<DrvPath>, VecDeque<String>)>,
    said: Said,
}

impl Heard {
    fn hear(&mut self, line: &str) {
        let Some(json) = line.strip_prefix("@nix ") else { return self.said.hear(line) };
        match serde_json::from_str(json) {
            Err(_) => {}
            Ok(Line::Msg { msg }) => msg.lines().for_each(|line| self.said.hear(line)),
            Ok(Line::Start { id, kind: BUILDS, .. }) => self.all = Some(id),
            Ok(Line::Start { id, kind: BUILD, text }) => {
                let text = plain(&text);
                let drv = text.split('\'').find_map(|word| word.parse::<DrvPath>().ok());
                if let Some(drv) = &drv {
                    self.progress.now = drv.name().trim_end_matches(".drv").to_owned();
                }
                self.open.insert(id, (drv, VecDeque::new()));
            }
            Ok(Line::Stop { id }) => {
                if let Some(log) = self.open.remove(&id) {
                    if self.closed.len() == LOGS {
                        self.closed.pop_front();
                    }
                    self.closed.push_back(log);
                }
            }
            Ok(Line::Result { id, kind, fields }) => self.result(id, kind, &fields),
            Ok(Line::Start { .. }) => {}
        }
    }

    fn result(&mut self, id: u64, kind: u64, fields: &[serde_json::Value]) {
        let number = |at: usize| fields.get(at).and_then(serde_json::Value::as_u64);
        match (kind, number(0), number(1)) {
            (PROGRESS, Some(done), Some(expected)) if self.all == Some(id) => {
                (self.progress.done, self.progress.total) = (done, expected);
            }
            (LOG_LINE, _, _) => {
                let line = fields.first().and_then(serde_json::Value::as_str);
                if let (Some(line), Some((_, log))) = (line, self.open.get_mut(&id)) {
                    if log.len() == LOG_LINES {
                        log.pop_front();
                    }
                    log.push_back(plain(line).chars().filter(|c| !c.is_control()).collect());
                }
            }
            _ => {}
        }
    }

    fn failure(&self, host: String) -> NixError {
        let Some(failed) = self.said.failed_derivation() else {
            let fault = fault(&self.said);
            return NixError::RemoteCut { host, fault, said: self.said.end(LOG_LINES) };
        };
        let mut logs = self.open.values().chain(self.closed.iter().rev());
        let log = logs.find(|(drv, log)| drv.as_ref() == Some(&failed) && !log.is_empty());
        let log =
            log.map_or_else(|| self.said.end(LOG_LINES), |(_, log)| Tail(log.iter().cloned().collect()));
        NixError::RemoteBuild { host, failed, log }
    }

    /// The end of what is being built, or of everything.
    fn newest_log(&self) -> Tail {
        let log = self.open.values().map(|(_, log)| log).find(|log| !log.is_empty());
        log.map_or_else(|| self.said.end(LOG_LINES), |log| Tail(log.iter().cloned().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_on_a_node_tells_what_is_built_how_far_it_is_and_which_log_is_the_one_to_read() {
        let inner = "/nix/store/1np8rgj6028fivinag2cxnddadzzlplw-inner-1.2.drv";
        let mut heard = Heard::default();
        for line in [
            r#"@nix {"action":"start","id":2,"level":0,"text":"","type":104}"#.to_owned(),
            r#"@nix {"action":"result","fields":[1,3,1,0],"id":2,"type":105}"#.to_owned(),
            format!(r#"@nix {{"action":"start","id":5,"level":3,"text":"building '{inner}'","type":105}}"#),
            r#"@nix {"action":"result","fields":["oh \u001b[1mno"],"id":5,"type":101}"#.to_owned(),
        ] {
            heard.hear(&line);
        }
        let far = BuildProgress { done: 1, total: 3, now: "inner-1.2".into() };
        assert_eq!(heard.progress, far);
        heard.hear(r#"@nix {"action":"stop","id":5}"#);
        let blame = format!("error: builder for '{inner}' failed with exit code 3");
        heard.hear(&blame);
        let error = heard.failure("n1".into());
        assert_eq!(error.to_string(), format!("{inner} does not build on n1:\noh no"));
        assert!(!error.may_pass());
    }

    #[test]
    fn a_build_that_was_cut_short_is_nobodys_fault() {
        let mut heard = Heard::default();
        heard.hear("error: unexpected end-of-file");
        let error = heard.failure("n1".into());
        assert!(matches!(&error, NixError::RemoteCut { fault: CopyFault::Connection, .. }), "{error}");
        assert!(error.may_pass());
    }
}
