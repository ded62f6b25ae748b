//! The way to a node: one generated ssh_config, one kept connection, and fresh logins for contact.
//!
//! The one place that starts the `ssh` program. Knows nothing of what is said over it.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use openssh::Session;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;
use tokio::sync::Mutex;

use super::{NodeError, Output};
use crate::command::{self, CommandError};
use crate::config::{SshConfig, UnknownHosts};
use crate::model::name::NodeName;
use crate::model::node::NodeSpec;

/// An unused connection is kept for so long, seconds: a crashed controller's successor finds it, then it ends by itself.
const PERSIST_SECONDS: u32 = 180;
/// More than the TCP deadline, because key exchange and login come after it.
const LOGIN: Duration = Duration::from_secs(30);

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
    config: PathBuf,
    socket: PathBuf,
    connect_timeout: Duration,
    escalation: Vec<String>,
    kept: Mutex<Option<Kept>>,
}

/// The kept connection and what was learnt when it was opened.
#[derive(Debug, Clone)]
struct Kept {
    session: Arc<Session>,
    /// Whom we log in as.
    user: String,
}

impl Link {
    /// Writes the node's ssh_config.
    pub fn new(
        node: &NodeName,
        spec: &NodeSpec,
        ssh: &SshConfig,
        runtime_dir: &Path,
    ) -> Result<Self, NodeError> {
        let host = spec.host.as_deref().unwrap_or("localhost");
        if matches!(host, "localhost" | "local") {
            return Ok(Self::Local { escalation: spec.privilege_escalation_command.clone() });
        }
        let (user, host) = match host.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, host),
        };
        let text = generate(node, spec, ssh, user, runtime_dir);
        let digest: String = Sha256::digest(format!("{node}\n{host}\n{text}")).iter().take(8).fold(
            String::new(),
            |mut hex, byte| {
                let _ = write!(hex, "{byte:02x}");
                hex
            },
        );
        let file = |suffix: &str| runtime_dir.join(format!("{digest}{suffix}"));
        let config = file(".conf");
        let written = private_dir(runtime_dir)
            .and_then(|()| private_file(&file(".keys"), &known_hosts(node, spec)))
            .and_then(|()| {
                private_file(&config, &text.replace("@KEYS@", &file(".keys").display().to_string()))
            });
        written.map_err(|source| NodeError::Runtime { node: node.clone(), path: config.clone(), source })?;
        Ok(Self::Ssh(Box::new(Ssh {
            node: node.clone(),
            host: host.to_owned(),
            config,
            socket: file(".sock"),
            connect_timeout: ssh.connect_timeout,
            escalation: spec.privilege_escalation_command.clone(),
            kept: Mutex::new(None),
        })))
    }

    /// Where the node is, for messages.
    pub fn destination(&self) -> &str {
        match self {
            Self::Local { .. } => "localhost",
            Self::Ssh(ssh) => &ssh.host,
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
        match tokio::time::timeout(deadline, run).await {
            Ok(outcome) => outcome,
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
                command.arg(&ssh.host).arg(line);
                let finished =
                    command::run(command, deadline).await.map_err(|error| ssh.connect_error(error))?;
                Ok(Output { code: 0, stdout: finished.stdout, stderr: finished.tail.text().into_bytes() })
            }
        }
    }

    /// What goes before a command that needs root on the node; connects to find out who we are there.
    pub async fn escalation(&self) -> Result<Vec<String>, NodeError> {
        match self {
            Self::Local { escalation } => {
                // The owner of /proc/self is the effective user of this process (proc(5)).
                let root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
                Ok(if root { Vec::new() } else { escalation.clone() })
            }
            Self::Ssh(ssh) => {
                let kept = ssh.kept().await?;
                Ok(if kept.user == "root" { Vec::new() } else { ssh.escalation.clone() })
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

    /// Drops the kept connection; the next use opens a new one.
    pub async fn forget(&self) {
        self.close().await;
    }

    /// Ends the kept connection.
    pub async fn close(&self) {
        let Self::Ssh(ssh) = self else { return };
        let kept = ssh.kept.lock().await.take();
        if kept.is_some() {
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
        match converse(&kept.session, line, input).await {
            Ok(output) => Ok(output),
            Err(source) => {
                let mut slot = self.kept.lock().await;
                if slot.as_ref().is_some_and(|now| Arc::ptr_eq(&now.session, &kept.session)) {
                    *slot = None;
                    self.stop_master().await;
                }
                Err(NodeError::Disconnected { node: self.node.clone(), attempt, source })
            }
        }
    }

    /// The kept connection; opened where there is none. A living one that an earlier controller left is taken over.
    async fn kept(&self) -> Result<Kept, NodeError> {
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
                    destination: self.host.clone(),
                    said: "the connection was opened and is gone again".into(),
                })?
            }
        };
        *slot = Some(kept.clone());
        Ok(kept)
    }

    async fn resume(&self) -> Option<Kept> {
        if !self.socket.exists() {
            return None;
        }
        let session = Session::resume_mux(self.socket.clone().into_boxed_path(), None);
        session.check().await.ok()?;
        let user = self.user().await.ok()?;
        Some(Kept { session: Arc::new(session), user })
    }

    /// Whom ssh would log in as, by its own account: the user's configuration may say so.
    async fn user(&self) -> Result<String, NodeError> {
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

    async fn start_master(&self) -> Result<(), NodeError> {
        // A socket that nobody answers on is left from a connection that died.
        let _ = fs::remove_file(&self.socket);
        let mut command = self.command();
        command.args(["-M", "-N", "-f", "-S"]).arg(&self.socket);
        command.args(["-o", &format!("ControlPersist={PERSIST_SECONDS}")]);
        command.args([
            "-o",
            &format!("ConnectTimeout={}", self.connect_timeout.as_secs().max(1)),
            "--",
            &self.host,
        ]);
        let deadline = self.connect_timeout + LOGIN;
        command::run(command, deadline).await.map(|_| ()).map_err(|error| self.connect_error(error))
    }

    async fn stop_master(&self) {
        let mut command = self.command();
        command.arg("-S").arg(&self.socket).args(["-O", "exit", "--", &self.host]);
        // It may be gone already, which is as good.
        let _ = command::run(command, Duration::from_secs(5)).await;
        let _ = fs::remove_file(&self.socket);
    }

    fn connect_error(&self, error: CommandError) -> NodeError {
        let node = self.node.clone();
        match error {
            CommandError::Start { .. } | CommandError::Pipe { .. } => {
                NodeError::Command { node, attempt: "run ssh", source: error }
            }
            CommandError::Deadline { deadline, .. } => {
                NodeError::Deadline { node, attempt: "log in", seconds: deadline.as_secs() }
            }
            CommandError::Failed { tail, .. } => {
                NodeError::Connect { node, destination: self.host.clone(), said: explain(&tail.text()) }
            }
        }
    }
}

/// ssh's words in one sentence, with what to do where we know it.
fn explain(said: &str) -> String {
    let line = |needle: &str| said.lines().find(|line| line.contains(needle)).map(str::trim);
    if line("REMOTE HOST IDENTIFICATION HAS CHANGED").is_some() {
        let offending = line("Offending").unwrap_or_default();
        return format!(
            "the host key has changed ({offending}); somebody may be in between. If the change was wanted, update hostKeys or known_hosts"
        );
    }
    if line("Host key verification failed").is_some() {
        return "the host key is not known; declare it in hostKeys, or add it to known_hosts".into();
    }
    if let Some(line) = line("Permission denied") {
        return format!("{line}; the node does not accept our key for this user");
    }
    let meaningful =
        said.lines().map(str::trim).rfind(|line| !line.is_empty() && !line.starts_with("Warning:"));
    meaningful.unwrap_or("ssh said nothing").to_owned()
}

async fn converse(session: &Session, line: &str, input: &[u8]) -> Result<Output, openssh::Error> {
    let mut child = session
        .raw_command(line)
        .stdin(openssh::Stdio::piped())
        .stdout(openssh::Stdio::piped())
        .stderr(openssh::Stdio::piped())
        .spawn()
        .await?;
    if let Some(mut stdin) = child.stdin().take() {
        // A command that ends without reading all of its input says so by its exit code.
        let _ = stdin.write_all(input).await;
        let _ = stdin.shutdown().await;
    }
    let output = child.wait_with_output().await?;
    Ok(Output { code: output.status.code().unwrap_or(255), stdout: output.stdout, stderr: output.stderr })
}

async fn local(
    node: &NodeName,
    attempt: &'static str,
    line: &str,
    input: &[u8],
    deadline: Duration,
) -> Result<Output, NodeError> {
    let failed = |source| NodeError::Command { node: node.clone(), attempt, source };
    let io = |source| failed(CommandError::Pipe { argv: "sh".into(), source });
    let mut command = command::command("sh");
    // What the controller itself was started from says nothing about how this node is reached.
    command
        .env_remove("SSH_CONNECTION")
        .arg("-c")
        .arg(line)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(io)?;
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(input).await;
    }
    let output = tokio::time::timeout(deadline, child.wait_with_output())
        .await
        .map_err(|_| NodeError::Deadline { node: node.clone(), attempt, seconds: deadline.as_secs() })?
        .map_err(io)?;
    Ok(Output { code: output.status.code().unwrap_or(255), stdout: output.stdout, stderr: output.stderr })
}

/// The node's ssh_config(5). The first value of a keyword wins, so what was declared comes before the user's own files.
fn generate(
    node: &NodeName,
    spec: &NodeSpec,
    ssh: &SshConfig,
    user: Option<&str>,
    runtime_dir: &Path,
) -> String {
    let mut lines = vec!["Host *".to_owned()];
    let mut put = |key: &str, value: &str| lines.push(format!("  {key} {value}"));
    put("BatchMode", "yes");
    if let Some(user) = user {
        put("User", user);
    }
    if let Some(port) = spec.port {
        put("Port", &port.to_string());
    }
    for (key, value) in &spec.ssh_options {
        put(key, value);
    }
    if let Some(identity) = &ssh.identity_file {
        put("IdentityFile", &quoted(identity));
        put("IdentitiesOnly", "yes");
    }
    if !spec.host_keys.is_empty() {
        put("HostKeyAlias", &format!("driftless-{node}"));
        put("UserKnownHostsFile", "\"@KEYS@\"");
        put("GlobalKnownHostsFile", "/dev/null");
    } else if let Some(file) = &ssh.known_hosts_file {
        put("UserKnownHostsFile", &quoted(file));
    }
    put(
        "StrictHostKeyChecking",
        match (ssh.unknown_hosts, spec.host_keys.is_empty()) {
            (UnknownHosts::TrustFirst, true) => "accept-new",
            (UnknownHosts::TrustFirst, false) | (UnknownHosts::Refuse, _) => "yes",
        },
    );
    // A dead peer is noticed within 45 s even where TCP would wait for hours.
    put("ServerAliveInterval", "15");
    put("ServerAliveCountMax", "3");
    put("ForwardAgent", "no");
    put("ForwardX11", "no");
    put("PermitLocalCommand", "no");
    put("RequestTTY", "no");
    if let Ok(home) = std::env::var("HOME") {
        put("Include", &format!("\"{home}/.ssh/config\""));
    }
    put("Include", "/etc/ssh/ssh_config");
    // The runtime directory is part of the text so that two controllers never share a socket's name.
    lines.push(format!("# {}", runtime_dir.display()));
    lines.join("\n") + "\n"
}

fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display())
}

fn known_hosts(node: &NodeName, spec: &NodeSpec) -> String {
    spec.host_keys.iter().map(|key| format!("driftless-{node} {key}\n")).collect()
}

fn private_dir(path: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn private_file(path: &Path, text: &str) -> std::io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ssh_says_becomes_one_sentence_with_a_way_out() {
        let changed = "@@@@\n@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nOffending ED25519 key in /k:1\nHost key verification failed.";
        assert!(explain(changed).contains("has changed (Offending ED25519 key in /k:1)"));
        assert!(explain("Host key verification failed.").contains("declare it in hostKeys"));
        assert!(explain("root@x: Permission denied (publickey).").contains("does not accept our key"));
        let slow = "ssh: connect to host 192.0.2.7 port 22: Connection timed out";
        assert_eq!(explain(slow), slow);
    }
}
