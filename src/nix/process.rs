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
const MIB: u64 = 1 << 20;
/// Less is Nix's own affair.
const LEAST_HEAP: u64 = 64 << 20;

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
            && let Some(heap) = self.heap(self.eval_memory())
        {
            command.env("GC_INITIAL_HEAP_SIZE", heap.to_string());
        }
        command
    }

    /// Bytes with which an evaluator starts: half of the memory, shared by all evaluators.
    fn heap(&self, most: Option<u64>) -> Option<u64> {
        let share = meminfo("MemAvailable:")? / 2 / (self.config.workers.max(1) as u64);
        let share = share.min(MOST_HEAP).min(most.map_or(MOST_HEAP, |most| most / 2));
        (share >= LEAST_HEAP).then_some(share)
    }

    /// The most that one evaluator may have, bytes. Without a bound, one node's endless list would take the memory from
    /// everything on this host before the kernel acts.
    fn eval_memory(&self) -> Option<u64> {
        match self.config.eval_memory_mib {
            Some(mib) => Some(mib.saturating_mul(MIB)),
            None => Some((meminfo("MemTotal:")? + meminfo("SwapTotal:")?) / 10 * 9),
        }
    }

    /// Bounds the memory of an evaluator that has just been started, and of what it starts. By its own data
    /// (getrlimit(2), RLIMIT_DATA): what it maps from files costs nobody anything.
    pub(super) fn bound_memory(&self, pid: u32) {
        let process = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
        let (Some(process), Some(most)) = (process, self.eval_memory()) else { return };
        let limit = rustix::process::Rlimit { current: Some(most), maximum: Some(most) };
        // A tighter one that was there before stays; a process that has ended already needs none.
        if let Err(error) = rustix::process::prlimit(Some(process), rustix::process::Resource::Data, limit) {
            tracing::debug!(%error, "the memory of an evaluator is not bounded");
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

/// An amount of `/proc/meminfo` (proc_meminfo(5)), bytes.
fn meminfo(name: &str) -> Option<u64> {
    amount(&std::fs::read_to_string("/proc/meminfo").ok()?, name)
}

fn amount(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    #[test]
    fn amounts_of_memory_are_read_in_bytes() {
        let text = "MemTotal: 9 kB\nMemAvailable:    2048 kB\nBuffers: 1 kB\n";
        assert_eq!(super::amount(text, "MemAvailable:"), Some(2 << 20));
        assert_eq!(super::amount(text, "SwapTotal:"), None);
    }
}
