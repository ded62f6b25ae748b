//! How the nix programs are started: which settings, which environment. Runs nothing itself.

use std::ffi::OsString;
use std::path::PathBuf;

use tokio::process::Command;

use super::{Nix, share};
use crate::command;
use crate::config::Bytes;

/// What is in the name of a variable that holds a credential, or the way to one. Code from the repository can read its
/// evaluator's environment, and a fixed-output derivation that of whoever builds it (`impureEnvVars`). The others stay:
/// deployments read variables, too.
const CREDENTIALS: [&str; 11] = [
    "TOKEN",
    "SECRET",
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "CREDENTIAL",
    "ASKPASS",
    "NETRC",
    "_KEY",
    "SSH_A",
    "GPG_A",
];

impl Nix {
    /// A nix program with the settings of the configuration.
    pub(super) fn program(&self, name: &str) -> Command {
        self.settled(command::command(name))
    }

    /// The same; what it writes to stdout goes to stderr, of which only the end is kept.
    pub(super) fn talking_program(&self, name: &str) -> Command {
        let mut command = command::command("sh");
        command.args(["-c", "exec \"$@\" >&2", "sh", name]);
        self.settled(command)
    }

    fn settled(&self, mut command: Command) -> Command {
        if let Some(search) = &self.search {
            command.env("PATH", search);
        }
        // Nix colours its errors even into a pipe where these are set.
        command.env_remove("CLICOLOR_FORCE").env("NO_COLOR", "1").env("TERM", "dumb");
        for (name, value) in &self.config.options {
            command.args(["--option", name, value]);
        }
        command
    }

    /// A program that runs Nix code from the repository: no agent, no keys, no passwords.
    pub(super) fn evaluator(&self) -> Command {
        let mut command = self.program("nix-instantiate");
        without_credentials(&mut command);
        command
            .env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes -o IdentityAgent=none -o IdentityFile=none -F none")
            .env("GIT_CONFIG_COUNT", "2")
            .env("GIT_CONFIG_KEY_0", "credential.helper")
            .env("GIT_CONFIG_VALUE_0", "")
            .env("GIT_CONFIG_KEY_1", "http.extraHeader")
            .env("GIT_CONFIG_VALUE_1", "")
            .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
            .env("AWS_CONFIG_FILE", "/dev/null")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .args(["--option", "netrc-file", "/dev/null", "--option", "access-tokens", ""])
            .args(["--option", "accept-flake-config", "false"]);
        if let Some(path) = &self.config.nix_path {
            command.env("NIX_PATH", path);
        }
        command
    }

    /// Starts an evaluator with the heap that goes with its memory. A larger one from the environment is somebody's will.
    pub(super) fn give_heap(&self, command: &mut Command, memory: Bytes) {
        if std::env::var_os("GC_INITIAL_HEAP_SIZE").is_none() {
            command.env("GC_INITIAL_HEAP_SIZE", share::heap(memory).0.to_string());
        }
    }

    /// `PATH` of our children.
    pub(super) fn search_path(&self) -> OsString {
        self.search.clone().or_else(|| std::env::var_os("PATH")).unwrap_or_default()
    }

    /// Where children find a program, with all links followed.
    pub(super) fn resolve(&self, program: &str) -> Option<PathBuf> {
        std::env::split_paths(&self.search_path())
            .map(|folder| folder.join(program))
            .find_map(|path| path.canonicalize().ok())
    }
}

/// Takes credentials out of what a program inherits.
pub(super) fn without_credentials(command: &mut Command) {
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_credential(&name.to_string_lossy())) {
        command.env_remove(name);
    }
    command.env_remove("GIT_SSH");
}

fn is_credential(variable: &str) -> bool {
    let name = variable.to_ascii_uppercase();
    // Git's own list of settings is replaced as a whole; `KEY` in it is no key.
    !name.starts_with("GIT_CONFIG_") && CREDENTIALS.iter().any(|word| name.contains(word))
}

/// Bounds the memory of an evaluator that has just been started, and of each process that it starts. By its own data
/// (getrlimit(2), RLIMIT_DATA): what it maps from files costs nobody anything. Its collector works harder near the bound
/// before it gives up, which it would not learn of from anyone who watches and kills.
pub(super) fn bound_memory(pid: u32, most: Bytes) {
    let process = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    let Some(process) = process else { return };
    let limit = rustix::process::Rlimit { current: Some(most.0), maximum: Some(most.0) };
    // A tighter one that was there before stays; a process that has ended already needs none.
    if let Err(error) = rustix::process::prlimit(Some(process), rustix::process::Resource::Data, limit) {
        tracing::debug!(%error, "the memory of an evaluator is not bounded");
    }
}

#[cfg(test)]
mod tests {
    use super::is_credential;

    #[test]
    fn variables_with_credentials_are_told_by_their_names() {
        let secret = [
            "SSH_AUTH_SOCK",
            "SSH_AGENT_PID",
            "SSH_ASKPASS",
            "GIT_ASKPASS",
            "NETRC",
            "GITHUB_TOKEN",
            "CI_JOB_TOKEN",
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "HCLOUD_TOKEN",
            "CREDENTIALS_DIRECTORY",
            "GPG_AGENT_INFO",
            "SOPS_AGE_KEY",
            "SOPS_AGE_KEY_FILE",
            "vault_token",
            "PGPASSWORD",
        ];
        let plain = [
            "PATH",
            "HOME",
            "NIX_PATH",
            "NIX_CONFIG",
            "NIX_SSL_CERT_FILE",
            "NIX_REMOTE",
            "USER",
            "LANG",
            "https_proxy",
            "XDG_CACHE_HOME",
            "TMPDIR",
            "KEYMAP",
        ];
        assert_eq!(secret.iter().find(|name| !is_credential(name)), None);
        assert_eq!(plain.iter().find(|name| is_credential(name)), None);
    }
}
