//! What can go wrong with the nix programs, as data. Says what was attempted and on what; decides nothing.

use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::command::{CommandError, Tail};
use crate::config::Bytes;
use crate::model::name::NodeName;
use crate::model::store_path::{DrvPath, StorePath};

/// A nix program did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum NixError {
    /// A file of ours cannot be read or written.
    #[error("cannot keep {} in the state directory", path.display())]
    State {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Nix refuses the expression.
    #[error("{of} does not evaluate{message}")]
    Evaluation {
        /// The node, or the deployment as a whole.
        of: Subject,
        /// Nix's own error, the reason first.
        message: Tail,
    },
    /// The evaluation ran into its deadline, was killed (out of memory) or never started.
    #[error("the evaluation of {of} was cut short")]
    EvaluationCut {
        /// The node, or the deployment as a whole.
        of: Subject,
        /// How.
        #[source]
        source: CommandError,
    },
    /// The evaluation wants more memory than it may have.
    #[error(
        "{of} does not evaluate within {memory} of memory, which is all that evaluations may have: raise `eval.memory`, or mend what makes it so large"
    )]
    EvaluationMemory {
        /// The node, or the deployment as a whole.
        of: Subject,
        /// So much it had.
        memory: Bytes,
    },
    /// The manifest is not what it has to be.
    #[error("what {of} evaluates to is not understood")]
    Manifest {
        /// The node, or the deployment as a whole.
        of: Subject,
        /// Where in it, and why.
        #[source]
        source: Misread,
    },
    /// The manifest is of another time.
    #[error("the deployment's manifest has version {found}, this driftless understands {expected}")]
    ManifestVersion {
        /// The version of the document.
        found: u32,
        /// The version that is understood.
        expected: u32,
    },
    /// A derivation does not build.
    #[error("{node}: {failed} does not build{log}")]
    Build {
        /// Whose system it belongs to.
        node: NodeName,
        /// The derivation that failed, perhaps deep below the system.
        failed: DrvPath,
        /// The end of its build log.
        log: Tail,
    },
    /// The build could not be made: deadline, no memory, no daemon, a substituter.
    #[error("the system of {node} was not built")]
    Realise {
        /// Whose system.
        node: NodeName,
        /// What happened.
        #[source]
        source: CommandError,
    },
    /// What was built is not what the evaluation announced.
    #[error("{node}: building made {}, announced was {expected}", found.display())]
    WrongOutput {
        /// Whose system.
        node: NodeName,
        /// The toplevel of the manifest.
        expected: StorePath,
        /// Where the GC root points to.
        found: PathBuf,
    },
    /// A closure did not reach a node.
    #[error("copying to {host} failed: {fault}{said}")]
    Copy {
        /// As `nix` was given it.
        host: String,
        /// What kind of failure.
        fault: CopyFault,
        /// What `nix` and `ssh` last said.
        said: Tail,
    },
    /// The copy could not be run.
    #[error("the copy to {host} could not be run")]
    CopyRun {
        /// As `nix` was given it.
        host: String,
        /// Why.
        #[source]
        source: CommandError,
    },
    /// Nix splits `NIX_SSHOPTS` at blanks, with no way to quote one in versions that are in use.
    #[error("the SSH option {option:?} for {host} contains a blank, which Nix cannot pass on")]
    SshOption {
        /// As `nix` was given it.
        host: String,
        /// The option.
        option: String,
    },
    /// A derivation does not build on the node.
    #[error("{failed} does not build on {host}{log}")]
    RemoteBuild {
        /// As `nix` was given it.
        host: String,
        /// The derivation that failed, perhaps deep below the system.
        failed: DrvPath,
        /// The end of its build log.
        log: Tail,
    },
    /// A build on a node took longer than it may.
    #[error("the build on {host} did not end within {} s{log}", deadline.as_secs())]
    RemoteDeadline {
        /// As `nix` was given it.
        host: String,
        /// `nix.build_timeout` of the configuration.
        deadline: Duration,
        /// What it last said.
        log: Tail,
    },
    /// A build on a node came to no end of its own.
    #[error("the build on {host} was cut short: {fault}{said}")]
    RemoteCut {
        /// As `nix` was given it.
        host: String,
        /// What kind of failure.
        fault: CopyFault,
        /// What `nix` and `ssh` last said.
        said: Tail,
    },
    /// The build on a node could not be run.
    #[error("the build on {host} could not be run")]
    RemoteRun {
        /// As `nix` was given it.
        host: String,
        /// Why.
        #[source]
        source: CommandError,
    },
    /// The signing key cannot be read.
    #[error("cannot read the signing key {}; correct nix.signing_key_file, or the file's owner and mode", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The signing key is none.
    #[error("{} is no signing key: {why}; `nix-store --generate-binary-cache-key` makes one", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: &'static str,
    },
    /// The store here does not take our signatures.
    #[error("cannot sign with {}{said}{hint}", key.display())]
    Sign {
        /// The key's file.
        key: PathBuf,
        /// What `nix` last said.
        said: Tail,
        /// What to do about it, where that is known.
        hint: &'static str,
    },
    /// Signing could not be run.
    #[error("cannot sign with {}", key.display())]
    SignRun {
        /// The key's file.
        key: PathBuf,
        /// Why.
        #[source]
        source: CommandError,
    },
    /// What was built did not get into the binary cache.
    #[error("cannot push to the binary cache {url}{}{said}", stalled.map(|after| format!(": nothing moved for {} s", after.as_secs())).unwrap_or_default())]
    CachePush {
        /// Where it is, without parameters.
        url: String,
        /// For how long nothing moved, where that ended it.
        stalled: Option<Duration>,
        /// What `nix` last said.
        said: Tail,
    },
    /// The push could not be run, or took longer than it may.
    #[error("cannot push to the binary cache {url}")]
    CachePushRun {
        /// Where it is, without parameters.
        url: String,
        /// Why.
        #[source]
        source: CommandError,
    },
    /// The local store does not answer a question.
    #[error("cannot list the closure of {path}")]
    Closure {
        /// The store path.
        path: StorePath,
        /// Why.
        #[source]
        source: CommandError,
    },
    /// The local store does not have it.
    #[error("cannot list the closure of {path}: it is not in the store here")]
    NotInStore {
        /// The store path.
        path: StorePath,
    },
    /// The local store's answer makes no sense.
    #[error("cannot list the closure of {path}: nix-store answered {answer:?}")]
    ClosureAnswer {
        /// The store path.
        path: StorePath,
        /// The first line that was not understood.
        answer: String,
    },
}

impl NixError {
    /// Whether it may be gone at the next try although nobody changes the deployment: this host's fault, not Nix's verdict.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::State { .. }
            | Self::EvaluationCut { .. }
            | Self::EvaluationMemory { .. }
            | Self::Realise { .. }
            | Self::Copy { .. }
            | Self::CopyRun { .. }
            | Self::RemoteDeadline { .. }
            | Self::RemoteCut { .. }
            | Self::RemoteRun { .. }
            | Self::KeyFile { .. }
            | Self::Sign { .. }
            | Self::SignRun { .. }
            | Self::CachePush { .. }
            | Self::CachePushRun { .. }
            | Self::Closure { .. }
            | Self::NotInStore { .. }
            | Self::ClosureAnswer { .. } => true,
            Self::Evaluation { .. }
            | Self::Manifest { .. }
            | Self::ManifestVersion { .. }
            | Self::Build { .. }
            | Self::RemoteBuild { .. }
            | Self::Key { .. }
            | Self::WrongOutput { .. }
            | Self::SshOption { .. } => false,
        }
    }

    /// Whether it evaluates, but to something that makes no sense.
    pub fn is_misread(&self) -> bool {
        matches!(self, Self::Manifest { .. })
    }

    /// Whether an evaluation ended as one does that has too little memory: it says so, or it was killed.
    pub(super) fn wants_memory(&self) -> bool {
        match self {
            Self::EvaluationMemory { .. } => true,
            Self::EvaluationCut { source: CommandError::Failed { status, .. }, .. } => {
                status.signal().is_some()
            }
            Self::State { .. }
            | Self::Evaluation { .. }
            | Self::EvaluationCut { .. }
            | Self::Manifest { .. }
            | Self::ManifestVersion { .. }
            | Self::Build { .. }
            | Self::Realise { .. }
            | Self::WrongOutput { .. }
            | Self::Copy { .. }
            | Self::CopyRun { .. }
            | Self::RemoteBuild { .. }
            | Self::RemoteDeadline { .. }
            | Self::RemoteCut { .. }
            | Self::RemoteRun { .. }
            | Self::Key { .. }
            | Self::KeyFile { .. }
            | Self::Sign { .. }
            | Self::SignRun { .. }
            | Self::CachePush { .. }
            | Self::CachePushRun { .. }
            | Self::SshOption { .. }
            | Self::Closure { .. }
            | Self::NotInStore { .. }
            | Self::ClosureAnswer { .. } => false,
        }
    }
}

/// A document that cannot be read: `rollout.windows[0].timeZone: ...`.
pub type Misread = serde_path_to_error::Error<serde_json::Error>;

/// What is evaluated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// All of it: no node can be blamed.
    Deployment,
    /// One node.
    Node(NodeName),
    /// Several at once; they are asked again, one by one.
    Nodes(usize),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deployment => write!(f, "the deployment"),
            Self::Node(name) => write!(f, "{name}"),
            Self::Nodes(count) => write!(f, "{count} nodes together"),
        }
    }
}

/// The kinds of failing copies that a person treats differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyFault {
    /// The node's Nix wants signatures from us: the SSH user is not trusted there.
    Signature,
    /// What is to make the node's Nix run as root does not.
    Escalation,
    /// No connection, or it broke.
    Connection,
    /// The login shell prints something where Nix expects its protocol.
    Banner {
        /// What it prints, where Nix tells.
        text: Option<String>,
    },
    /// A disk is full.
    NoSpace,
    /// The other side does not speak the protocol.
    Unsupported,
    /// Nothing moved for so long.
    Stalled {
        /// `nix.copy_stall` of the configuration.
        after: Duration,
    },
    /// Anything else; the text says.
    Other,
}

impl fmt::Display for CopyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signature => write!(
                f,
                "the node accepts only signed paths from this user (root, trusted-users or privilegeEscalationCommand help, or \
                 nix.signing_key_file here and its public key in the node's trusted-public-keys)"
            ),
            Self::Escalation => write!(
                f,
                "privilegeEscalationCommand does not start the node's Nix; it has to work without a password and without a terminal"
            ),
            Self::Connection => write!(f, "the connection failed"),
            Self::Banner { text: Some(text) } => {
                write!(f, "the login shell prints {text:?} where Nix expects its protocol")
            }
            Self::Banner { text: None } => {
                write!(f, "the login shell prints something where Nix expects its protocol")
            }
            Self::NoSpace => write!(f, "no space left on the node"),
            Self::Unsupported => write!(f, "the node's Nix does not speak the protocol"),
            Self::Stalled { after } => write!(f, "nothing moved for {} s", after.as_secs()),
            Self::Other => write!(f, "nix reports an error"),
        }
    }
}
