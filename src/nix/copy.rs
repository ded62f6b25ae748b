//! Store paths → a node's store, over the connection that the caller keeps. Knows SSH only as `NIX_SSHOPTS`.
//!
//! Nothing is compressed on the way: each path is read once for each node and written as it is. What is to cross a slow line
//! compressed belongs into a binary cache (`publish.rs`), which is compressed once.
//!
//! First ssh-ng, whose number of round trips is constant; the legacy protocol (what `nix-copy-closure` speaks) only where
//! the other side does not speak ssh-ng, never after a stall or a broken connection: the next pass is the retry. Where paths are
//! signed, they are first brought without root's rights.

use std::time::Duration;

use tokio::process::Command;

use super::error::CopyFault;
use super::message::Said;
use super::progress::CopyProgress;
use super::watched::{self, Patience, Unfinished};
use super::{Nix, NixError};
use crate::model::store_path::StorePath;

/// No copy takes longer; what ends copies in practice is `copy_stall`.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Where paths are copied to, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyTarget {
    /// `host` or `user@host` as `ssh` understands it; `localhost` and `local` are this store: nothing to copy.
    pub host: String,
    /// Arguments for every `ssh`, for example `-F`, `/run/driftless/x.conf`, `-S`, `/run/driftless/x`. No blanks inside.
    pub ssh_options: Vec<String>,
    /// Put before the node's Nix program, for example `["sudo"]`: an SSH user who is not trusted there needs it.
    pub escalation: Vec<String>,
    /// Where the node gets paths from.
    pub substitute: Substitute,
}

/// Where the node gets paths from that a binary cache has as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Substitute {
    /// From us: the link to the node is faster than the node's to its caches.
    Never,
    /// From the node's own substituters, the rest from us.
    OnDestination,
}

impl CopyTarget {
    /// Whether Nix can pass its options on.
    pub(super) fn check(&self) -> Result<(), NixError> {
        match self.ssh_options.iter().find(|option| option.contains(char::is_whitespace)) {
            Some(option) => Err(NixError::SshOption { host: self.host.clone(), option: option.clone() }),
            None => Ok(()),
        }
    }
}

/// The two protocols of Nix over SSH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Daemon,
    Legacy,
}

impl Nix {
    /// Copies paths with everything they need. `progress` is told every half second how far it is. As with
    /// `nix-copy-closure`, paths need no signature if the user on the node is trusted.
    pub async fn copy(
        &self,
        target: &CopyTarget,
        paths: &[StorePath],
        mut progress: impl FnMut(CopyProgress),
    ) -> Result<(), NixError> {
        if matches!(target.host.as_str(), "localhost" | "local") || paths.is_empty() {
            return Ok(());
        }
        target.check()?;
        if self.config.signing_key_file.is_some() && !target.escalation.is_empty() {
            // What is signed needs no trust in whoever brings it, so no rights either.
            let plain = CopyTarget { escalation: Vec::new(), ..target.clone() };
            match self.copy_any(&plain, paths, &mut progress).await {
                Err(NixError::Copy {
                    fault: fault @ (CopyFault::Signature | CopyFault::Unsupported | CopyFault::Other),
                    host,
                    said,
                }) => {
                    let said = said.text();
                    tracing::info!(host, %fault, said, "the node does not take signed paths from its user, copying as root");
                }
                done => return done,
            }
        }
        self.copy_any(target, paths, &mut progress).await
    }

    async fn copy_any(
        &self,
        target: &CopyTarget,
        paths: &[StorePath],
        progress: &mut impl FnMut(CopyProgress),
    ) -> Result<(), NixError> {
        match self.copy_by(Protocol::Daemon, target, paths, progress).await {
            Err(NixError::Copy { fault: CopyFault::Unsupported, host, said }) => {
                tracing::warn!(
                    host,
                    said = said.text(),
                    "the node does not speak ssh-ng, copying by the legacy protocol"
                );
                self.copy_by(Protocol::Legacy, target, paths, progress).await
            }
            done => done,
        }
    }

    pub(super) fn copy_command(
        &self,
        protocol: Protocol,
        target: &CopyTarget,
        paths: &[StorePath],
    ) -> Command {
        let mut command = self.program("nix");
        command
            .args(["--extra-experimental-features", "nix-command", "copy", "--to", &url(protocol, target)])
            .args(["--no-check-sigs", "--log-format", "internal-json"])
            .env("NIX_SSHOPTS", target.ssh_options.join(" "));
        // Before 2.20 the flag is ignored over ssh-ng and the setting for builders taken instead (NixOS/nix#9591).
        match target.substitute {
            Substitute::Never => command.args(["--option", "builders-use-substitutes", "false"]),
            Substitute::OnDestination => {
                command.args(["--substitute-on-destination", "--option", "builders-use-substitutes", "true"])
            }
        };
        command.args(paths.iter().map(StorePath::as_str));
        command
    }

    async fn copy_by(
        &self,
        protocol: Protocol,
        target: &CopyTarget,
        paths: &[StorePath],
        progress: &mut impl FnMut(CopyProgress),
    ) -> Result<(), NixError> {
        let patience = Patience { longest: LONGEST, stall: self.config.copy_stall };
        let copied = watched::run(self.copy_command(protocol, target, paths), patience, progress).await;
        copied.map_err(|unfinished| unfinished.copying_to(&target.host))
    }
}

impl Unfinished {
    /// As the failure of a conversation between two stores.
    pub(super) fn copying_to(self, host: &str) -> NixError {
        let host = host.to_owned();
        match self {
            Self::Failed(said, tail) => NixError::Copy { host, fault: fault(&said), said: tail },
            Self::Stalled(after, said) => NixError::Copy { host, fault: CopyFault::Stalled { after }, said },
            Self::Command(source) => NixError::CopyRun { host, source },
        }
    }
}

pub(super) fn url(protocol: Protocol, target: &CopyTarget) -> String {
    let (scheme, program) = match protocol {
        Protocol::Daemon => ("ssh-ng", "nix-daemon"),
        Protocol::Legacy => ("ssh", "nix-store"),
    };
    let mut url = format!("{scheme}://{}", target.host);
    if !target.escalation.is_empty() {
        url.push_str("?remote-program=");
        for word in &target.escalation {
            url.push_str(&quoted(word));
            url.push_str("%20");
        }
        url.push_str(program);
    }
    url
}

/// Percent-encoding (RFC 3986) of all that is not certainly harmless in a query.
pub(super) fn quoted(word: &str) -> String {
    word.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'/' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// What kind of failure the last words tell of. The order matters: a full disk or a banner also ends connections.
pub(super) fn fault(said: &Said) -> CopyFault {
    let any = |texts: &[&str]| texts.iter().any(|text| said.contains(text));
    if any(&["lacks a valid signature", "lacks a signature by a trusted key"]) {
        CopyFault::Signature
    } else if any(&["No space left on device", "database or disk is full", "Disk quota exceeded"]) {
        CopyFault::NoSpace
    } else if any(&["SQLite"]) {
        // The node's database is sick, and its daemon hung up because of that.
        CopyFault::Other
    } else if said.lines().any(|line| line.starts_with("sudo: ") || line.starts_with("doas: ")) {
        CopyFault::Escalation
    } else if any(&["protocol mismatch", "serialised integer"]) {
        CopyFault::Banner { text: banner(said) }
    } else if any(&[
        "ssh: ",
        "Permission denied (",
        "Host key verification failed",
        "Connection closed by",
        "Connection reset",
        "Connection to ",
        "kex_exchange",
        "mux_client",
        "Control socket connect",
    ]) {
        CopyFault::Connection
    } else if said.lines().any(lacks_program)
        || any(&["unrecognised flag", "protocol too old", "protocol version"])
    {
        CopyFault::Unsupported
    } else if any(&[
        "unexpected end-of-file",
        "Broken pipe",
        "disconnected unexpectedly",
        "failed to start SSH connection",
    ]) {
        CopyFault::Connection
    } else {
        CopyFault::Other
    }
}

/// A shell, `env` or `sudo` on the node that does not find the Nix program.
fn lacks_program(line: &str) -> bool {
    ["nix-daemon", "nix-store"].iter().any(|program| line.contains(program))
        && ["not found", "No such file or directory"].iter().any(|text| line.contains(text))
}

/// What the login shell printed, as Nix quotes it: followed by the start of its own protocol and unprintable bytes.
fn banner(said: &Said) -> Option<String> {
    let all: Vec<&str> = said.lines().collect();
    let all = all.join("\n");
    let (_, quoted) = all.split_once(", got '")?;
    // "oixd" is the number by which a daemon greets (`WORKER_MAGIC_2`, little-endian).
    let quoted = quoted.split(['\'', '\0', '\u{fffd}']).next()?.trim();
    let text = quoted.strip_suffix("oixd").unwrap_or(quoted).trim();
    let text: String = text.chars().filter(|c| *c == '\n' || !c.is_control()).take(300).collect();
    (!text.is_empty()).then_some(text)
}
