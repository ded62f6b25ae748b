//! The one place that builds `git` commands.
//!
//! A command made here prompts for nothing, runs nobody's hooks, and has no credentials in its arguments.

use std::ffi::OsStr;
use std::path::Path;

use tokio::process::Command;

use crate::command::command;

use super::url;

/// The remote's name. Its URL stands in no file of ours, which would keep the credentials of a URL that is no longer
/// configured.
const REMOTE: &str = "driftless-source";

/// What git takes from a caller's environment to find a repository: set where driftless is started from a hook, and
/// then about another repository than ours (git-rev-parse(1), `--local-env-vars`).
const ABOUT_ANOTHER_REPOSITORY: [&str; 10] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_COMMON_DIR",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_QUARANTINE_PATH",
    "GIT_NAMESPACE",
    "GIT_PREFIX",
    "GIT_SHALLOW_FILE",
];

/// `git` about the bare repository `clone`, with `url` as its remote.
pub fn git(clone: &Path, url: &str) -> Command {
    let mut git = command("git");
    for name in ABOUT_ANOTHER_REPOSITORY {
        git.env_remove(name);
    }
    // A desktop's password window would wait for nobody. GIT_ASKPASS stays: it is the documented way to hand git a
    // password from a file.
    git.env_remove("SSH_ASKPASS");
    if !chooses_ssh() {
        git.env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes");
    }
    configure(&mut git, url);
    git.arg("--git-dir").arg(clone);
    git
}

/// Settings for one command. They go through the environment (git-config(1), `GIT_CONFIG_COUNT`), where they follow those
/// that the caller may have put there: arguments are visible to every user, and fill every error.
fn configure(git: &mut Command, url: &str) {
    let remote = format!("remote.{REMOTE}.url");
    let settings = [
        (remote.as_str(), url),
        ("core.hooksPath", "/dev/null"),
        ("core.fsmonitor", "false"),
        // Nothing may outlive its deadline in the background.
        ("gc.autoDetach", "false"),
        ("maintenance.autoDetach", "false"),
    ];
    let present: usize =
        std::env::var("GIT_CONFIG_COUNT").ok().and_then(|count| count.parse().ok()).unwrap_or(0);
    for (at, (name, value)) in settings.iter().enumerate() {
        git.env(format!("GIT_CONFIG_KEY_{}", present + at), name);
        git.env(format!("GIT_CONFIG_VALUE_{}", present + at), value);
    }
    git.env("GIT_CONFIG_COUNT", (present + settings.len()).to_string());
}

/// `git fetch` of one refspec.
pub fn fetch(clone: &Path, url: &str, refspec: &str) -> Command {
    let mut git = git(clone, url);
    git.args(["fetch", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--no-auto-gc"]);
    git.args(["--no-show-forced-updates", "--no-progress"]);
    local_access(&mut git, url);
    git.args(["--", REMOTE, refspec]);
    git
}

/// `git ls-remote` of the branches.
pub fn branches(clone: &Path, url: &str) -> Command {
    let mut git = git(clone, url);
    git.args(["ls-remote", "--heads"]);
    local_access(&mut git, url);
    git.args(["--", REMOTE]);
    git
}

/// `git gc`, which does nothing unless there is much to do.
pub fn gc(clone: &Path, url: &str) -> Command {
    let mut git = git(clone, url);
    git.args(["gc", "--auto", "--quiet"]);
    git
}

/// Lets git read a local repository that another user owns: its path was configured by whoever runs us. git clears
/// `-c` settings for the serving side of a local fetch, which is why they have to be given there.
fn local_access(git: &mut Command, url: &str) {
    if url::local_path(url).is_some() {
        git.arg("--upload-pack=git -c safe.directory='*' upload-pack");
    }
}

/// Whether the user has said which ssh to use: by environment or by configuration, which our variable would override.
fn chooses_ssh() -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| value.as_os_str() != OsStr::new(""));
    set("GIT_SSH_COMMAND")
        || set("GIT_SSH")
        || git2::Config::open_default().is_ok_and(|config| config.get_entry("core.sshCommand").is_ok())
}
