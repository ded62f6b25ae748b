//! How the verbs of `switch.sh` are called: command lines, privileges, deadlines. Decides nothing.

use std::time::Duration;

use rand::Rng;

use super::frame::{FrameError, Reply};
use super::ssh::Link;
use super::{Node, NodeError, Output, SWITCH_SH};
use crate::model::journal::SwitchId;
use crate::model::store_path::StorePath;

/// Where each switch keeps the script it was started with.
const JOURNAL: &str = "/var/lib/driftless-node/switches";

/// Keeps the script that comes on stdin, then becomes it. `$1` is the frame, `$3` the switch's id.
const SAVE: &str = r#"umask 077
f=/run/driftless-node/start-$3.sh
{ [ -d /run/driftless-node ] || { mkdir -p /run/driftless-node && chmod 0755 /run/driftless-node; }; } && cat >"$f" &&
exec sh "$f" "$@"
rm -f "$f"
printf '\ndriftless/1 %s\nrefused unwritable %s\nend %s\n' "$1" "$f" "$1""#;

/// Becomes the script that comes on stdin. `sh -s` would do, but a shell must not read more of a pipe than it has executed:
/// bash, which is NixOS' sh, asks for every byte by itself, 50 000 times.
const READ: &str = r#"eval "$(cat)""#;

/// Hands the login's own SSH_CONNECTION on, before an escalation drops it from the environment.
const WITH_CONNECTION: &str = r#"exec "$@" "${SSH_CONNECTION-}""#;
const WITH_SSH_FROM: &str = r#"exec "$@" "ssh-from=${SSH_CONNECTION-}""#;

/// Who a verb runs as on the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// Whoever we log in as: reading needs no more, and sudo logs every call.
    Login,
    /// root, by the node's escalation command where the login is not root.
    Root,
}

impl Node {
    /// Sends the script along and calls one verb of it.
    pub(super) async fn ask(
        &self,
        attempt: &'static str,
        privilege: Privilege,
        arguments: &[&str],
        deadline: Duration,
    ) -> Result<Reply, NodeError> {
        self.ask_over(self.link(), attempt, privilege, arguments, deadline).await
    }

    /// The same over one connection, whichever work goes over.
    pub(super) async fn ask_over(
        &self,
        link: &Link,
        attempt: &'static str,
        privilege: Privilege,
        arguments: &[&str],
        deadline: Duration,
    ) -> Result<Reply, NodeError> {
        let frame = random_hex();
        let escalation = match privilege {
            Privilege::Login => Vec::new(),
            Privilege::Root => link.escalation().await?,
        };
        let mut words = escalation.clone();
        words.extend(["sh", "-c", READ, "sh", &frame].map(str::to_owned));
        words.extend(arguments.iter().map(|word| (*word).to_owned()));
        let line = self.line(attempt, &words)?;
        let output = link.shell(&self.name, attempt, &line, SWITCH_SH.as_bytes(), deadline).await?;
        self.reply(attempt, &output, &frame, &escalation)
    }

    /// Sends the script along with a list of paths, and calls a verb that looks at them. By stdin: a closure is longer than
    /// one argument may be (execve(2), MAX_ARG_STRLEN).
    pub(super) async fn ask_about(
        &self,
        attempt: &'static str,
        arguments: &[&str],
        paths: &[StorePath],
        deadline: Duration,
    ) -> Result<Reply, NodeError> {
        let frame = random_hex();
        let escalation = self.link().escalation().await?;
        let mut words = escalation.clone();
        words.extend(["sh", "-c", READ, "sh", &frame].map(str::to_owned));
        words.extend(arguments.iter().map(|word| (*word).to_owned()));
        let line = self.line(attempt, &words)?;
        // No character of a store path means anything to a shell.
        let paths: Vec<&str> = paths.iter().map(StorePath::as_str).collect();
        let input = format!("WANTED='{}'\n{SWITCH_SH}", paths.join("\n"));
        let output = self.link().shell(&self.name, attempt, &line, input.as_bytes(), deadline).await?;
        self.reply(attempt, &output, &frame, &escalation)
    }

    /// Calls `start`, which keeps the script it came with.
    pub(super) async fn ask_start(
        &self,
        arguments: &[String],
        deadline: Duration,
    ) -> Result<Reply, NodeError> {
        let attempt = "start the switch";
        let frame = random_hex();
        let mut words = ["sh", "-c", WITH_SSH_FROM, "sh"].map(str::to_owned).to_vec();
        let escalation = self.link().escalation().await?;
        words.extend(escalation.iter().cloned());
        words.extend(["sh", "-c", SAVE, "sh", &frame, "start"].map(str::to_owned));
        words.extend(arguments.iter().cloned());
        let line = self.line(attempt, &words)?;
        let output = self.link().shell(&self.name, attempt, &line, SWITCH_SH.as_bytes(), deadline).await?;
        self.reply(attempt, &output, &frame, &escalation)
    }

    /// Calls a verb of the script that a switch was started with.
    pub(super) async fn ask_switch(
        &self,
        attempt: &'static str,
        id: &SwitchId,
        verb: &str,
        arguments: &[&str],
        deadline: Duration,
    ) -> Result<Reply, NodeError> {
        let frame = random_hex();
        let escalation = self.link().escalation().await?;
        let mut words = escalation.clone();
        words.extend(switch_words(id, &frame, verb));
        words.extend(arguments.iter().map(|word| (*word).to_owned()));
        let line = self.line(attempt, &words)?;
        let output = self.link().shell(&self.name, attempt, &line, &[], deadline).await?;
        self.reply(attempt, &output, &frame, &escalation)
    }

    /// Logs in anew and says so to the switch: the proof that the node can be reached in this way. `verb` is `contact`;
    /// `vouch`, which accepts the switch as well; or `recontact`, which counts only after a rollback.
    pub(super) async fn ask_contact(
        &self,
        link: &Link,
        verb: &str,
        id: &SwitchId,
        nonce: &str,
    ) -> Result<Reply, NodeError> {
        let attempt = "make contact";
        let frame = random_hex();
        let mut words = ["sh", "-c", WITH_CONNECTION, "sh"].map(str::to_owned).to_vec();
        let escalation = link.escalation().await?;
        words.extend(escalation.iter().cloned());
        words.extend(switch_words(id, &frame, verb));
        words.push(nonce.to_owned());
        let line = self.line(attempt, &words)?;
        let output = link.fresh_shell(&self.name, &line, Duration::from_secs(20)).await?;
        self.reply(attempt, &output, &frame, &escalation)
    }

    pub(super) fn line(&self, attempt: &'static str, words: &[String]) -> Result<String, NodeError> {
        // No shell has to wait for another one. (Of an escalation that is missing, `exec` would speak in its own name.)
        let exec = words.first().filter(|word| *word == "sh").map(|_| "exec");
        shlex::try_join(exec.into_iter().chain(words.iter().map(String::as_str))).map_err(|error| {
            NodeError::Script {
                node: self.name.clone(),
                attempt,
                said: format!("an argument cannot be given to a shell: {error}"),
            }
        })
    }

    pub(super) fn reply(
        &self,
        attempt: &'static str,
        output: &Output,
        frame: &str,
        escalation: &[String],
    ) -> Result<Reply, NodeError> {
        let node = self.name.clone();
        let reply = Reply::parse(&output.stdout, frame).map_err(|source| {
            let stderr: String = String::from_utf8_lossy(&output.stderr).trim().chars().take(500).collect();
            // Nothing of the script came, and what stands before its shell has failed.
            let no_root = !escalation.is_empty() && output.code != 0 && !stderr.starts_with("sh: ");
            match source {
                FrameError::NoFrame { ref noise } if no_root => {
                    let destination = self.link().destination().to_owned();
                    let said = [stderr, noise.clone()].into_iter().find(|said| !said.is_empty());
                    let said = said.unwrap_or_else(|| format!("exit code {}", output.code));
                    NodeError::NoRoot { node, attempt, command: escalation.join(" "), destination, said }
                }
                FrameError::NoFrame { .. }
                | FrameError::CutShort { .. }
                | FrameError::Missing { .. }
                | FrameError::Wrong { .. } => NodeError::Frame { node, attempt, stderr, source },
            }
        })?;
        match reply.get("error") {
            None => Ok(reply),
            Some("not-nixos") => Err(NodeError::NotNixos {
                node: self.name.clone(),
                destination: self.link().destination().to_owned(),
            }),
            Some(said) => Err(NodeError::Script { node: self.name.clone(), attempt, said: said.to_owned() }),
        }
    }

    pub(super) fn wrong_reply(&self, attempt: &'static str, source: FrameError) -> NodeError {
        NodeError::Frame { node: self.name.clone(), attempt, stderr: String::new(), source }
    }
}

fn switch_words(id: &SwitchId, frame: &str, verb: &str) -> Vec<String> {
    vec![
        "sh".into(),
        format!("{JOURNAL}/{id}/switch.sh"),
        frame.to_owned(),
        verb.to_owned(),
        id.as_str().to_owned(),
    ]
}

/// 128 random bits: names a reply, or proves that a contact is ours.
pub fn random_hex() -> String {
    format!("{:032x}", rand::rng().random::<u128>())
}
