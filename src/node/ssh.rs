//! The way to a node: one generated ssh_config, one kept connection, and fresh logins for contact.
//!
//! The one place that starts the `ssh` program. Knows nothing of what is said over it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use openssh::Session;
use rand::Rng;
use tokio::sync::{Mutex, OnceCell};

use super::answering::{Answering, said};
use super::any_shell::for_any_shell;
use super::conversation::{converse, local};
use super::{NodeError, Output, ssh_config, ssh_words};
use crate::command::{self, CommandError};
use crate::config::SshConfig;
use crate::error_chain::error_chain;
use crate::model::name::NodeName;
use crate::model::way::Way;

/// An unused connection is kept for so long, seconds: a crashed controller's successor finds it, then it ends by itself.
const PERSIST_SECONDS: u32 = 180;
/// More than the TCP deadline, because key exchange and login come after it.
const LOGIN: Duration = Duration::from_secs(30);
/// How long a session is asked for that the node refuses.
const TURN: Duration = Duration::from_secs(3);

/// The way to a node.
#[derive(Debug)]
pub enum Link {
    /// The controller's own machine.
    Local {
        /// What goes before a command that needs root.
        escalation: Vec<String>,
    },
    /// Over SSH.
    Ssh(Box<Ssh>),
}

/// A node that is reached over SSH.
#[derive(Debug)]
pub struct Ssh {
    node: NodeName,
    /// What ssh is asked for, without the user.
    host: String,
    declared_user: Option<String>,
    /// Where that is, for messages.
    destination: String,
    config: PathBuf,
    socket: PathBuf,
    connect_timeout: Duration,
    escalation: Vec<String>,
    kept: Mutex<Option<Arc<Session>>>,
    user: OnceCell<String>,
    /// What answered there last.
    pub(super) answering: Answering,
}

impl Link {
    /// Writes the ssh_config of one way to a node.
    pub fn new(node: &NodeName, way: &Way, ssh: &SshConfig, runtime_dir: &Path) -> Result<Self, NodeError> {
        if matches!(way.host.as_str(), "localhost" | "local") {
            return Ok(Self::Local { escalation: way.escalation.clone() });
        }
        let (user, host) = match way.host.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, way.host.as_str()),
        };
        let (host, address) = ssh_config::alias(node, host);
        let text = ssh_config::generate(node, way, ssh, (user, &host, address.as_deref()), runtime_dir);
        let files = ssh_config::Files::write(node, way, &text, runtime_dir)?;
        Ok(Self::Ssh(Box::new(Ssh {
            node: node.clone(),
            host,
            declared_user: user.map(str::to_owned),
            destination: way.to_string(),
            config: files.config,
            socket: files.socket,
            connect_timeout: ssh.connect_timeout,
            escalation: way.escalation.clone(),
            kept: Mutex::new(None),
            user: OnceCell::new(),
            answering: Answering::default(),
        })))
    }

    /// Whether the node is this machine.
    pub fn is_local(&self) -> bool {
        matches!(self, Self::Local { .. })
    }

    /// Where the node is, for messages.
    pub fn destination(&self) -> &str {
        match self {
            Self::Local { .. } => "localhost",
            Self::Ssh(ssh) => &ssh.destination,
        }
    }

    /// Runs a POSIX shell command line on the node over the kept connection, with `input` on stdin.
    pub async fn shell(
        &self,
        node: &NodeName,
        attempt: &'static str,
        line: &str,
        input: &[u8],
        deadline: Duration,
    ) -> Result<Output, NodeError> {
        let run = async {
            match self {
                Self::Local { .. } => local(node, attempt, line, input, deadline).await,
                Self::Ssh(ssh) => ssh.shell(attempt, line, input).await,
            }
        };
        let began = Instant::now();
        match tokio::time::timeout(deadline, run).await {
            Ok(outcome) => {
                tracing::debug!(%node, attempt, took = ?began.elapsed(), "asked");
                outcome
            }
            Err(_) => {
                // A connection that is silent for so long is not kept for the next try.
                self.forget().await;
                Err(NodeError::Deadline { node: node.clone(), attempt, seconds: deadline.as_secs() })
            }
        }
    }

    /// Runs a shell command line over a *new* login: no kept connection, no control socket of the user's.
    pub async fn fresh_shell(
        &self,
        node: &NodeName,
        line: &str,
        deadline: Duration,
    ) -> Result<Output, NodeError> {
        match self {
            Self::Local { .. } => local(node, "make contact", line, &[], deadline).await,
            Self::Ssh(ssh) => {
                let mut command = ssh.command();
                command.args([
                    "-o",
                    "ControlPath=none",
                    "-o",
                    "ControlMaster=no",
                    "-o",
                    "ConnectTimeout=5",
                    "--",
                ]);
                command.arg(&ssh.host).arg(for_any_shell(line));
                said(command::run(command, deadline).await).map_err(|error| ssh.connect_error(error))
            }
        }
    }

    /// What goes before a command that needs root on the node. Connects to nothing: contact asks for it, too.
    pub async fn escalation(&self) -> Result<Vec<String>, NodeError> {
        match self {
            Self::Local { escalation } => {
                // The owner of /proc/self is the effective user of this process (proc(5)).
                let root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
                Ok(if root { Vec::new() } else { escalation.clone() })
            }
            Self::Ssh(ssh) => {
                let user = ssh.user().await?;
                Ok(if user == "root" { Vec::new() } else { ssh.escalation.clone() })
            }
        }
    }

    /// For Nix and for people: ssh options that use the kept connection, and the host. `None` is this machine.
    pub async fn kept_options(&self) -> Result<Option<(String, Vec<String>)>, NodeError> {
        match self {
            Self::Local { .. } => Ok(None),
            Self::Ssh(ssh) => {
                ssh.kept().await?;
                let options = vec![
                    "-F".into(),
                    ssh.config.display().to_string(),
                    "-S".into(),
                    ssh.socket.display().to_string(),
                ];
                Ok(Some((ssh.host.clone(), options)))
            }
        }
    }

    /// The ssh_config of this way; `None` is this machine.
    pub fn config(&self) -> Option<&Path> {
        match self {
            Self::Local { .. } => None,
            Self::Ssh(ssh) => Some(&ssh.config),
        }
    }

    /// What ssh is asked for with that configuration: `[user@]host`.
    pub fn asked_for(&self) -> String {
        match self {
            Self::Local { .. } => "localhost".into(),
            Self::Ssh(ssh) => match &ssh.declared_user {
                Some(user) => format!("{user}@{}", ssh.host),
                None => ssh.host.clone(),
            },
        }
    }

    /// Whether both use the same kept connection.
    pub fn shares_with(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Ssh(one), Self::Ssh(other)) => one.socket == other.socket,
            (Self::Local { .. }, Self::Local { .. } | Self::Ssh(_)) | (Self::Ssh(_), Self::Local { .. }) => {
                false
            }
        }
    }

    /// Drops the kept connection; the next use opens a new one.
    pub async fn forget(&self) {
        self.close().await;
    }

    /// Ends the kept connection.
    pub async fn close(&self) {
        let Self::Ssh(ssh) = self else { return };
        let kept = ssh.kept.lock().await.take();
        // Somebody who was cut off while opening it may have left one, too.
        if kept.is_some() || ssh.socket.exists() {
            ssh.stop_master().await;
        }
    }
}

impl Ssh {
    fn command(&self) -> tokio::process::Command {
        let mut command = command::command("ssh");
        command.arg("-F").arg(&self.config);
        command
    }

    async fn shell(&self, attempt: &'static str, line: &str, input: &[u8]) -> Result<Output, NodeError> {
        let kept = self.kept().await?;
        match self.converse_in_turn(&kept, line, input).await {
            Ok(output) => Ok(output),
            Err(source) => {
                let mut slot = self.kept.lock().await;
                // A node that refuses another session is well; somebody else is talking on the connection.
                let is_broken = !is_refused(&source);
                if is_broken && slot.as_ref().is_some_and(|now| Arc::ptr_eq(now, &kept)) {
                    *slot = None;
                    self.stop_master().await;
                }
                Err(NodeError::Disconnected { node: self.node.clone(), attempt, source })
            }
        }
    }

    /// A node that allows few sessions (sshd_config(5), MaxSessions) may not have noticed the end of the one before. It
    /// refuses then without having started anything, so asking again is safe.
    async fn converse_in_turn(
        &self,
        session: &Session,
        line: &str,
        input: &[u8],
    ) -> Result<Output, openssh::Error> {
        let began = Instant::now();
        loop {
            match converse(session, line, input).await {
                Err(error) if is_refused(&error) && began.elapsed() < TURN => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                ended => return ended,
            }
        }
    }

    /// The kept connection; opened where there is none. A living one that an earlier controller left is taken over.
    async fn kept(&self) -> Result<Arc<Session>, NodeError> {
        let mut slot = self.kept.lock().await;
        if let Some(kept) = slot.as_ref() {
            return Ok(kept.clone());
        }
        let kept = match self.resume().await {
            Some(kept) => kept,
            None => {
                self.start_master().await?;
                self.resume().await.ok_or_else(|| NodeError::Connect {
                    node: self.node.clone(),
                    destination: self.destination.clone(),
                    said: "the connection was opened and is gone again".into(),
                })?
            }
        };
        *slot = Some(kept.clone());
        Ok(kept)
    }

    async fn resume(&self) -> Option<Arc<Session>> {
        if !self.socket.exists() {
            return None;
        }
        let session = Session::resume_mux(self.socket.clone().into_boxed_path(), None);
        session.check().await.ok()?;
        Some(Arc::new(session))
    }

    /// Whom we log in as.
    pub(super) async fn user(&self) -> Result<&String, NodeError> {
        // What is declared comes first in the generated configuration, where the first value wins.
        match &self.declared_user {
            Some(declared) => Ok(declared),
            None => self.user.get_or_try_init(|| self.ask_user()).await,
        }
    }

    /// Whom ssh would log in as, by its own account: the user's configuration may say so.
    async fn ask_user(&self) -> Result<String, NodeError> {
        let mut command = self.command();
        command.args(["-G", "--", &self.host]);
        let finished = command::run(command, LOGIN).await.map_err(|source| NodeError::Command {
            node: self.node.clone(),
            attempt: "ask ssh for its settings",
            source,
        })?;
        let text = finished.text();
        Ok(text.lines().find_map(|line| line.strip_prefix("user ")).unwrap_or("root").to_owned())
    }

    /// Opens the connection under a name of its own and then puts it in place. Two logins at once (that of a controller
    /// which was killed meanwhile, and its successor's) would otherwise meet at one name: the later ssh says "already exists,
    /// disabling multiplexing" and keeps a connection that nobody can use or end. One that never came into place ends by itself, or with the next.
    async fn start_master(&self) -> Result<(), NodeError> {
        self.end_lost().await;
        let mut attempt = self.socket.clone().into_os_string();
        attempt.push(format!(".{:08x}", rand::rng().random::<u32>()));
        let mut command = self.command();
        command.args(["-M", "-N", "-f", "-S"]).arg(&attempt);
        command.args(["-o", &format!("ControlPersist={PERSIST_SECONDS}")]);
        command.args([
            "-o",
            &format!("ConnectTimeout={}", self.connect_timeout.as_secs().max(1)),
            "--",
            &self.host,
        ]);
        let deadline = self.connect_timeout + LOGIN;
        command::run(command, deadline).await.map_err(|error| self.connect_error(error))?;
        fs::rename(&attempt, &self.socket).map_err(|source| NodeError::Runtime {
            node: self.node.clone(),
            path: self.socket.clone(),
            source,
        })
    }

    /// Connections that were opened and never put in place, as a login does whose controller is killed.
    async fn end_lost(&self) {
        let Some((folder, name)) = self.socket.parent().zip(self.socket.file_name()) else { return };
        let lost = format!("{}.", name.to_string_lossy());
        let all = fs::read_dir(folder).into_iter().flatten().flatten();
        for entry in all.filter(|entry| entry.file_name().to_string_lossy().starts_with(&lost)) {
            self.end(&entry.path()).await;
        }
    }

    async fn stop_master(&self) {
        self.end(&self.socket).await;
        self.end_lost().await;
    }

    async fn end(&self, socket: &Path) {
        let mut command = self.command();
        command.arg("-S").arg(socket).args(["-O", "exit", "--", &self.host]);
        // It may be gone already, which is as good.
        let _ = command::run(command, Duration::from_secs(5)).await;
        let _ = fs::remove_file(socket);
    }

    fn connect_error(&self, error: CommandError) -> NodeError {
        let node = self.node.clone();
        match error {
            CommandError::Missing { .. } | CommandError::Start { .. } | CommandError::Pipe { .. } => {
                NodeError::Command { node, attempt: "run ssh", source: error }
            }
            CommandError::Deadline { deadline, .. } => {
                NodeError::Deadline { node, attempt: "log in", seconds: deadline.as_secs() }
            }
            CommandError::Failed { tail, .. } => NodeError::Connect {
                node,
                destination: self.destination.clone(),
                said: ssh_words::explain(&tail.text()),
            },
        }
    }
}

/// Whether the node refused another session on a connection that is well.
fn is_refused(error: &openssh::Error) -> bool {
    error_chain(error).contains("Session open refused")
}
