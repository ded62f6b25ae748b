//! One node: how it is reached, what it says of itself, and how it is switched.
//!
//! The room talks to `switch.sh` on the node and decides nothing: whether to act is `plan`'s, whether to survive is the
//! node's own. A [`Node`] keeps one connection for everything except contact, which is proof only over a new one. A
//! node that a deployment moves is worked on where it answered last, and makes contact where it is declared.

mod answering;
mod any_shell;
mod build;
mod call;
mod conversation;
mod deploy;
mod follow;
mod frame;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod health;
mod hooks;
mod installed;
mod observe;
mod preflight;
mod protocol;
mod reboot;
mod refusal;
mod scripts;
mod secrets;
mod ssh;
mod ssh_config;
mod ssh_words;
mod ways;

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::config::SshConfig;
use crate::model::hook::HookPoint;
use crate::model::journal::SwitchId;
use crate::model::name::NodeName;
use crate::model::node::NodeSpec;
use crate::model::observed::BootId;
use crate::model::store_path::StorePath;
use crate::model::way::Way;
use crate::secrets::{Keyring, SecretError};

pub use deploy::Order;
pub use frame::FrameError;
pub use health::Checked;
pub use observe::{Aside, Look};
pub use reboot::Rebooted;
pub use refusal::Refusal;
use scripts::SECRETS_SH;
pub use scripts::SWITCH_SH;
pub use secrets::Brought;
use ssh::Link;
use ways::Ways;

/// A conversation with a node that failed.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The connection could not be opened.
    #[error("{node}: cannot connect to {destination}: {said}")]
    Connect {
        /// The node.
        node: NodeName,
        /// `user@host`, with the port where it is not 22.
        destination: String,
        /// What ssh said, and what to do about it.
        said: String,
    },
    /// ssh, or something else needed here, could not be run.
    #[error("{node}: cannot {attempt}")]
    Command {
        /// The node.
        node: NodeName,
        /// What was attempted.
        attempt: &'static str,
        /// Why not.
        #[source]
        source: crate::command::CommandError,
    },
    /// The connection broke while something ran on the node.
    #[error("{node}: lost the connection while trying to {attempt}")]
    Disconnected {
        /// The node.
        node: NodeName,
        /// What was attempted.
        attempt: &'static str,
        /// Why.
        #[source]
        source: openssh::Error,
    },
    /// The node did not answer in time.
    #[error("{node}: no answer within {seconds} s while trying to {attempt}")]
    Deadline {
        /// The node.
        node: NodeName,
        /// What was attempted.
        attempt: &'static str,
        /// The deadline, seconds.
        seconds: u64,
    },
    /// What is to make us root on the node does not.
    #[error(
        "{node}: cannot {attempt}: `{command}` does not make us root on {destination}: {said}; \
         privilegeEscalationCommand has to work without a password and without a terminal"
    )]
    NoRoot {
        /// The node.
        node: NodeName,
        /// What was attempted.
        attempt: &'static str,
        /// `privilegeEscalationCommand`.
        command: String,
        /// Where.
        destination: String,
        /// What it said.
        said: String,
    },
    /// The node answered something else than a reply.
    #[error("{node}: cannot {attempt}: the node's answer is not a reply of driftless{}", said_by(stderr))]
    Frame {
        /// The node.
        node: NodeName,
        /// What was attempted.
        attempt: &'static str,
        /// What it said on stderr.
        stderr: String,
        /// How the answer is wrong.
        #[source]
        source: FrameError,
    },
    /// The program that is installed there is of another version, and there is no shell.
    #[error(
        "{node}: cannot {attempt}: driftless-node on {destination} speaks protocol {theirs}, this driftless speaks {ours}, and \
         there is no shell behind this login; use a driftless of the node's version, or deploy to it once as root"
    )]
    Protocol {
        /// The node.
        node: NodeName,
        /// What was attempted.
        attempt: &'static str,
        /// Where.
        destination: String,
        /// The node's version.
        theirs: u32,
        /// Ours.
        ours: u32,
    },
    /// The machine is not a NixOS system.
    #[error("{node}: {destination} is not a NixOS machine (no /etc/NIXOS or no /run/current-system)")]
    NotNixos {
        /// The node.
        node: NodeName,
        /// Where it was reached.
        destination: String,
    },
    /// The node refused to start a switch, or was not asked to.
    #[error("{node}: {refusal}")]
    Refused {
        /// The node.
        node: NodeName,
        /// Why.
        refusal: Refusal,
    },
    /// The script on the node reports a failure of its own.
    #[error("{node}: cannot {attempt}: {said}")]
    Script {
        /// The node.
        node: NodeName,
        /// What was attempted.
        attempt: &'static str,
        /// Its words.
        said: String,
    },
    /// The closure does not fit.
    #[error(
        "{node}: the closure needs {} MiB more on {file_system} than the {} MiB that are free; collect garbage on the node",
        needed / MIB,
        free / MIB
    )]
    NoSpace {
        /// The node.
        node: NodeName,
        /// `/nix` or `/boot`.
        file_system: &'static str,
        /// Bytes missing on the node.
        needed: u64,
        /// Bytes free there.
        free: u64,
    },
    /// The closure could not be copied.
    #[error("{node}: cannot copy {toplevel}")]
    Copy {
        /// The node.
        node: NodeName,
        /// What was copied.
        toplevel: StorePath,
        /// Why not.
        #[source]
        source: crate::nix::NixError,
    },
    /// The node did not build its own system.
    #[error("{node}: cannot build {toplevel} there")]
    Build {
        /// The node.
        node: NodeName,
        /// What was to be built.
        toplevel: StorePath,
        /// Why not.
        #[source]
        source: crate::nix::NixError,
    },
    /// A secret of it cannot be had.
    #[error("{node}: cannot bring its secrets")]
    Secret {
        /// The node.
        node: NodeName,
        /// Which secret, and why not.
        #[source]
        source: Box<SecretError>,
    },
    /// A hook of the deployment failed.
    #[error("{node}: the hook {hook} {} failed{}", at.as_words(), consequence(*at))]
    Hook {
        /// The node.
        node: NodeName,
        /// Its name in `deployScriptPhases`.
        hook: String,
        /// When it ran.
        at: HookPoint,
        /// How, and what it said.
        #[source]
        source: crate::command::CommandError,
    },
    /// The switch runs (or ran) on the node, and it cannot be reached any more.
    #[error(
        "{node}: lost touch with switch {id} for {seconds} s; the node decides alone, its journal will say how"
    )]
    LostTouch {
        /// The node.
        node: NodeName,
        /// The switch.
        id: SwitchId,
        /// How long it was tried, seconds.
        seconds: u64,
        /// The last error.
        #[source]
        source: Box<NodeError>,
    },
    /// A file of the connection could not be written here.
    #[error("{node}: cannot write {}", path.display())]
    Runtime {
        /// The node.
        node: NodeName,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

const MIB: u64 = 1 << 20;

fn said_by(stderr: &str) -> String {
    if stderr.is_empty() { String::new() } else { format!(" (it said: {stderr})") }
}

fn consequence(at: HookPoint) -> &'static str {
    match at {
        HookPoint::BeforeCopy | HookPoint::BeforeSecrets | HookPoint::BeforeSwitch => {
            ", so the node was not switched"
        }
        HookPoint::AfterSwitch => "",
    }
}

impl NodeError {
    /// Whether the same question may get an answer in a moment: the connection broke, or a shell or sudo that is being
    /// replaced said something else.
    pub fn may_pass(&self) -> bool {
        self.is_connection() || matches!(self, Self::Frame { .. } | Self::NoRoot { .. })
    }

    /// Whether nothing that was asked reached the node, or its answer did not reach us.
    pub fn is_connection(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::Disconnected { .. }
            | Self::Deadline { .. }
            | Self::LostTouch { .. } => true,
            Self::Command { .. }
            | Self::NoRoot { .. }
            | Self::Frame { .. }
            | Self::Protocol { .. }
            | Self::NotNixos { .. }
            | Self::Refused { .. }
            | Self::Script { .. }
            | Self::NoSpace { .. }
            | Self::Copy { .. }
            | Self::Build { .. }
            | Self::Secret { .. }
            | Self::Hook { .. }
            | Self::Runtime { .. } => false,
        }
    }
}

/// One node and the kept connection to it.
#[derive(Debug)]
pub struct Node {
    name: NodeName,
    spec: NodeSpec,
    ways: Ways,
    /// What decrypts its secrets.
    keyring: Keyring,
    /// Version of the node's Nix, and the boot and system it was asked in: it cannot change within one.
    nix_version: Mutex<Option<(BootId, StorePath, Option<String>)>>,
}

/// What a command on a node did.
#[derive(Debug, Clone)]
pub struct Output {
    /// Its exit code, or 255 where a signal ended it.
    pub code: i32,
    /// All of stdout.
    pub stdout: Vec<u8>,
    /// All of stderr.
    pub stderr: Vec<u8>,
}

impl Node {
    /// Prepares the way to a node; nothing is connected yet. `runtime_dir` holds sockets, so its path must be short.
    pub fn new(
        name: &NodeName,
        spec: &NodeSpec,
        ssh: &SshConfig,
        runtime_dir: &Path,
    ) -> Result<Self, NodeError> {
        Self::moving(name, spec, None, ssh, runtime_dir)
    }

    /// The same for a node that may still be where it answered last.
    pub fn moving(
        name: &NodeName,
        spec: &NodeSpec,
        last: Option<&Way>,
        ssh: &SshConfig,
        runtime_dir: &Path,
    ) -> Result<Self, NodeError> {
        let ways = Ways::new(name, spec.way(), last, ssh, runtime_dir)?;
        let keyring = Keyring::default();
        Ok(Self { name: name.clone(), spec: spec.clone(), ways, keyring, nix_version: Mutex::new(None) })
    }

    /// The same node, its secrets decrypted with these identities.
    #[must_use]
    pub fn with_keyring(self, keyring: &Keyring) -> Self {
        Self { keyring: keyring.clone(), ..self }
    }

    /// Its name in the deployment.
    pub fn name(&self) -> &NodeName {
        &self.name
    }

    /// What the deployment declares.
    pub fn spec(&self) -> &NodeSpec {
        &self.spec
    }

    /// The connection that work goes over.
    fn link(&self) -> &Link {
        self.ways.working()
    }

    /// The way that answered last, where it is another than the declared one.
    pub fn last_way(&self) -> Option<&Way> {
        self.ways.last()
    }

    /// The same node with a new declaration: nobody has looked yet, but it is where its predecessor found it.
    pub fn go_on_like(&self, predecessor: &Self) {
        self.ways.work_over(predecessor.ways.which());
        let known = predecessor.nix_version.lock().map(|known| known.clone()).unwrap_or_default();
        if let Ok(mut slot) = self.nix_version.lock() {
            *slot = known;
        }
    }

    /// Ends the kept connections.
    pub async fn close(&self) {
        self.ways.close_except(None).await;
    }

    /// Ends the kept connections that its successor has no use for.
    pub async fn give_way_to(&self, successor: &Self) {
        self.ways.close_except(Some(&successor.ways)).await;
    }
}
