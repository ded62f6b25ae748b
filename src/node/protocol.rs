//! How the verbs of `switch.sh` and `secrets.sh` are called: who answers, privileges, deadlines. Decides nothing.

use std::time::Duration;

use rand::Rng;

use super::any_shell::is_for_any_shell;
use super::call::{Call, Of};
use super::frame::{FrameError, Reply};
use super::installed::{self, Heard, Program, Sure};
use super::ssh::Link;
use super::{Node, NodeError, Output};
use crate::model::journal::SwitchId;
use crate::model::store_path::StorePath;

pub use super::call::Privilege;

/// Longest time for a new login to say its word.
const CONTACT: Duration = Duration::from_secs(20);

/// Which connection a call goes over.
#[derive(Debug, Clone, Copy)]
enum Over {
    /// The kept one; no answer may take longer.
    Kept(Duration),
    /// A new login.
    Fresh,
}

/// What came of one try: who was asked, in which frame, by what means of becoming root.
struct Tried {
    frame: String,
    escalation: Vec<String>,
    output: Output,
    heard: Heard,
}

impl Node {
    /// Calls one verb of `switch.sh`.
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
        let call = Call::new(Of::Node(privilege), arguments);
        self.converse(link, attempt, &call, Over::Kept(deadline)).await
    }

    /// Calls a verb that looks at a list of paths.
    pub(super) async fn ask_about(
        &self,
        attempt: &'static str,
        arguments: &[&str],
        paths: &[StorePath],
        deadline: Duration,
    ) -> Result<Reply, NodeError> {
        let call = Call::new(Of::Paths(paths), arguments);
        self.converse(self.link(), attempt, &call, Over::Kept(deadline)).await
    }

    /// Calls `start`, which keeps the script it came with.
    pub(super) async fn ask_start(
        &self,
        arguments: &[String],
        deadline: Duration,
    ) -> Result<Reply, NodeError> {
        let words: Vec<&str> = std::iter::once("start").chain(arguments.iter().map(String::as_str)).collect();
        let call = Call::new(Of::Start, &words);
        self.converse(self.link(), "start the switch", &call, Over::Kept(deadline)).await
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
        let call = Call::of_switch(id, Of::Switch, verb, arguments);
        self.converse(self.link(), attempt, &call, Over::Kept(deadline)).await
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
        let call = Call::of_switch(id, Of::Contact, verb, std::slice::from_ref(&nonce));
        self.converse(link, "make contact", &call, Over::Fresh).await
    }

    /// Calls a verb of `secrets.sh`, which reads `message`.
    pub(super) async fn ask_secrets(
        &self,
        attempt: &'static str,
        arguments: &[&str],
        message: &[u8],
        deadline: Duration,
    ) -> Result<Reply, NodeError> {
        let call = Call::new(Of::Secrets(message), arguments);
        self.converse(self.link(), attempt, &call, Over::Kept(deadline)).await
    }

    /// Asks whoever answers on the node; where that turns out to be the other one, which has done nothing, asks that one.
    async fn converse(
        &self,
        link: &Link,
        attempt: &'static str,
        call: &Call<'_>,
        over: Over,
    ) -> Result<Reply, NodeError> {
        let (program, sure) = link.program().await;
        let first = self.try_once(link, attempt, call, over, (program, sure)).await?;
        match first.heard {
            Heard::Answer => self.understood(link, attempt, program, first),
            Heard::Refused(said) => Err(self.refused(attempt, said)),
            Heard::Elsewhere | Heard::Protocol(_) => {
                let other = program.other();
                let second = self.try_once(link, attempt, call, over, (other, Sure::Known)).await?;
                match (first.heard, second.heard.clone()) {
                    // Neither a shell nor a program of our version.
                    (Heard::Protocol(theirs), Heard::Elsewhere) | (_, Heard::Protocol(theirs)) => {
                        Err(self.other_protocol(attempt, theirs))
                    }
                    (_, Heard::Refused(said)) => Err(self.refused(attempt, said)),
                    (_, Heard::Answer | Heard::Elsewhere) => self.understood(link, attempt, other, second),
                }
            }
        }
    }

    async fn try_once(
        &self,
        link: &Link,
        attempt: &'static str,
        call: &Call<'_>,
        over: Over,
        asked: (Program, Sure),
    ) -> Result<Tried, NodeError> {
        let frame = random_hex();
        let mut escalation = Vec::new();
        let (line, input) = match asked.0 {
            Program::Installed => call.for_installed(&frame),
            Program::Shell => {
                if call.privilege() == Privilege::Root {
                    escalation = link.escalation().await?;
                }
                let (words, input) = call.for_shell(&frame, &escalation);
                (self.line(attempt, &words)?, input)
            }
        };
        let output = match over {
            Over::Kept(deadline) => link.shell(&self.name, attempt, &line, &input, deadline).await?,
            Over::Fresh => link.fresh_shell(&self.name, &line, CONTACT).await?,
        };
        let framed = !matches!(Reply::parse(&output.stdout, &frame), Err(FrameError::NoFrame { .. }));
        let heard = installed::heard(asked, framed, &output);
        Ok(Tried { frame, escalation, output, heard })
    }

    fn understood(
        &self,
        link: &Link,
        attempt: &'static str,
        program: Program,
        tried: Tried,
    ) -> Result<Reply, NodeError> {
        let reply = self.reply(attempt, &tried.output, &tried.frame, &tried.escalation);
        if !matches!(&reply, Err(NodeError::Frame { .. } | NodeError::NoRoot { .. })) {
            link.learn(program);
        }
        // A shell on a node that has the program as well: from now on it is not sent what it has.
        if let Ok(reply) = &reply
            && reply.get("protocol") == Some(installed::PROTOCOL.to_string().as_str())
        {
            link.learn(Program::Installed);
        }
        reply
    }

    fn refused(&self, attempt: &'static str, said: String) -> NodeError {
        let said = format!("{} refused it: {said}", installed::NAME);
        NodeError::Script { node: self.name.clone(), attempt, said }
    }

    fn other_protocol(&self, attempt: &'static str, theirs: u32) -> NodeError {
        let (node, destination) = (self.name.clone(), self.link().destination().to_owned());
        NodeError::Protocol { node, attempt, destination, theirs, ours: installed::PROTOCOL }
    }

    pub(super) fn line(&self, attempt: &'static str, words: &[String]) -> Result<String, NodeError> {
        command_line(words).map_err(|error| NodeError::Script {
            node: self.name.clone(),
            attempt,
            said: format!("an argument cannot be given to a shell: {error}"),
        })
    }

    fn reply(
        &self,
        attempt: &'static str,
        output: &Output,
        frame: &str,
        escalation: &[String],
    ) -> Result<Reply, NodeError> {
        let node = self.name.clone();
        let reply = Reply::parse(&output.stdout, frame).map_err(|source| {
            let stderr: String = String::from_utf8_lossy(&output.stderr).trim().chars().take(500).collect();
            // Nothing of the script came, and what stands before its shell has failed, or is not there.
            let absent = escalation.first().is_some_and(|program| stderr.contains(&format!("{program}: ")));
            let failed = output.code != 0 && (absent || !stderr.starts_with("sh: "));
            let no_root = !escalation.is_empty() && failed;
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

/// For the shell that a command line is given to: no shell has to wait for another one, or to start one for what it can do
/// itself.
fn command_line(words: &[String]) -> Result<String, shlex::QuoteError> {
    let joined = |words: &[String]| shlex::try_join(words.iter().map(String::as_str));
    let line = joined(words)?;
    match words {
        // Any login shell starts this one itself.
        [sh, ..] if sh == "sh" && is_for_any_shell(&line) => Ok(format!("exec {line}")),
        // Else there is a shell already by then, which goes on.
        [sh, c, code, name, arguments @ ..] if sh == "sh" && c == "-c" && name == "sh" => {
            Ok(format!("set -- {}\n{code}", joined(arguments)?))
        }
        // Of an escalation that is missing, `exec` would speak in its own name.
        [sh, ..] if sh == "sh" => Ok(format!("exec {line}")),
        _ => Ok(line),
    }
}

/// 128 random bits: names a reply, or proves that a contact is ours.
pub fn random_hex() -> String {
    format!("{:032x}", rand::rng().random::<u128>())
}
