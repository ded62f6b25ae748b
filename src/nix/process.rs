//! How the nix programs are started: which settings, which environment. Runs nothing itself.

use std::ffi::OsString;
use std::path::PathBuf;

use tokio::process::Command;

use super::Nix;
use crate::command;

/// Ways for a program to use a person's credentials. Evaluation runs code from the repository.
const CREDENTIALS: [&str; 14] = [
    "SSH_AUTH_SOCK",
    "SSH_AGENT_PID",
    "SSH_ASKPASS",
    "GIT_ASKPASS",
    "GIT_SSH",
    "NETRC",
    "GITHUB_TOKEN",
    "GH_TOKEN",
    "GITLAB_TOKEN",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "GPG_AGENT_INFO",
    "CREDENTIALS_DIRECTORY",
];

/// More initial heap does not make evaluations faster (measured on real NixOS systems, two at a time).
const MOST_HEAP: u64 = 2 << 30;
/// Less is Nix's own affair.
const LEAST_HEAP: u64 = 64 << 20;

impl Nix {
    /// A nix program with the settings of the configuration.
    pub(super) fn program(&self, name: &str) -> Command {
        let mut command = command::command(name);
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
        for name in CREDENTIALS {
            command.env_remove(name);
        }
        command
            .env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes -o IdentityAgent=none -o IdentityFile=none -F none")
            .env("GIT_CONFIG_COUNT", "1")
            .env("GIT_CONFIG_KEY_0", "credential.helper")
            .env("GIT_CONFIG_VALUE_0", "")
            .args(["--option", "netrc-file", "/dev/null", "--option", "access-tokens", ""]);
        if let Some(path) = &self.config.nix_path {
            command.env("NIX_PATH", path);
        }
        if std::env::var_os("GC_INITIAL_HEAP_SIZE").is_none()
            && let Some(heap) = self.heap()
        {
            command.env("GC_INITIAL_HEAP_SIZE", heap.to_string());
        }
        command
    }

    /// Bytes with which an evaluator starts: half of the memory, shared by all evaluators.
    fn heap(&self) -> Option<u64> {
        let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
        let share = available(&meminfo)? / 2 / (self.config.workers.max(1) as u64);
        (share >= LEAST_HEAP).then_some(share.min(MOST_HEAP))
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

/// MemAvailable of `/proc/meminfo` (proc_meminfo(5)), bytes.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    #[test]
    fn available_memory_is_read_in_bytes() {
        assert_eq!(
            super::available("MemTotal: 9 kB\nMemAvailable:    2048 kB\nBuffers: 1 kB\n"),
            Some(2 << 20)
        );
        assert_eq!(super::available("MemTotal: 9 kB\n"), None);
    }
}
