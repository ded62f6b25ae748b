//! Everything that can go wrong between the branch and its commits, each with what to do next.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::command::{CommandError, Tail};

/// The source could not be followed. No case loses what was fetched before.
///
/// URLs and stderr in here are already without credentials.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The configured branch cannot be a branch.
    #[error("`source.branch` is {branch:?}, which is not a valid Git branch name")]
    BranchName {
        /// As configured.
        branch: String,
    },
    /// No `git` to run.
    #[error("cannot fetch {url}")]
    NoGit {
        /// What was to be fetched.
        url: String,
        /// Why it did not start.
        #[source]
        source: Box<CommandError>,
    },
    /// There is nothing at the URL, or it is hidden from us: forges answer both alike.
    #[error("no repository at {url}; correct `source.url`, or give this host the right to read it")]
    NoRepository {
        /// What was to be fetched.
        url: String,
        /// What git said.
        #[source]
        source: Box<CommandError>,
    },
    /// The repository has no branch at all.
    #[error("the repository {url} is empty; push a first commit to its branch `{branch}`")]
    Empty {
        /// What was to be fetched.
        url: String,
        /// The branch that is followed.
        branch: String,
        /// What git said.
        #[source]
        source: Box<CommandError>,
    },
    /// The repository has branches, but not this one.
    #[error(
        "{url} has no branch `{branch}`; it has {}; correct `source.branch`, or push the branch",
        listed(has)
    )]
    NoBranch {
        /// What was to be fetched.
        url: String,
        /// The branch that is followed.
        branch: String,
        /// The branches there are, sorted.
        has: Vec<String>,
        /// What git said.
        #[source]
        source: Box<CommandError>,
    },
    /// The host answered and did not let us in, or is not who it was.
    #[error(
        "{url} refused us; check the deploy key, token or known_hosts of the user that driftless runs as \
         (nothing is ever prompted for)"
    )]
    Refused {
        /// What was to be fetched.
        url: String,
        /// What git said.
        #[source]
        source: Box<CommandError>,
    },
    /// The fetch did not end in time.
    #[error(
        "fetching {url} took longer than {} s; if it is only slow, raise `source.timeout`",
        deadline.as_secs()
    )]
    Deadline {
        /// What was to be fetched.
        url: String,
        /// `source.timeout`.
        deadline: Duration,
        /// What git said.
        #[source]
        source: Box<CommandError>,
    },
    /// Any other end of a fetch, mostly the network's; the next pass tries again.
    #[error("cannot fetch branch `{branch}` of {url}; it is tried again at the next poll")]
    Fetch {
        /// What was to be fetched.
        url: String,
        /// The branch that is followed.
        branch: String,
        /// What git said.
        #[source]
        source: Box<CommandError>,
    },
    /// Our own clone cannot be used.
    #[error("cannot use the clone {}; if it is damaged, move it away and it is fetched anew", path.display())]
    Clone {
        /// The bare repository in the state directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: git2::Error,
    },
    /// The clone could not be made.
    #[error("cannot create the clone {}", path.display())]
    Create {
        /// The bare repository in the state directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No such commit has been fetched.
    #[error(
        "no commit {text:?} was fetched from {url}; give at least four digits of a commit id of the branch"
    )]
    Unknown {
        /// What was asked for.
        text: String,
        /// What is followed.
        url: String,
    },
    /// Several commits begin like this.
    #[error("several commits begin with {text}; give more digits")]
    Ambiguous {
        /// What was asked for.
        text: String,
    },
    /// A file of the commit could not be written.
    #[error("cannot write the checkout {}", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The tree holds an entry that no checkout may have.
    #[error("commit {commit} holds the path {path:?}, which cannot be checked out; remove it in Git")]
    Entry {
        /// The commit.
        commit: String,
        /// Path in the tree.
        path: String,
    },
    /// The local repository cannot be watched; it is still polled.
    #[error("cannot watch {} for new commits; it is only polled", path.display())]
    Watch {
        /// The repository.
        path: PathBuf,
        /// Why, mostly the limit of inotify watches.
        #[source]
        source: notify::Error,
    },
    /// A task of ours ended before its time, as it does at shutdown.
    #[error("reading the clone was interrupted")]
    Interrupted {
        /// Why.
        #[source]
        source: tokio::task::JoinError,
    },
}

impl SourceError {
    /// What git last said, where it was run.
    pub fn tail(&self) -> Option<&Tail> {
        match self {
            Self::NoGit { source, .. }
            | Self::NoRepository { source, .. }
            | Self::Empty { source, .. }
            | Self::NoBranch { source, .. }
            | Self::Refused { source, .. }
            | Self::Deadline { source, .. }
            | Self::Fetch { source, .. } => source.tail(),
            Self::BranchName { .. }
            | Self::Clone { .. }
            | Self::Create { .. }
            | Self::Unknown { .. }
            | Self::Ambiguous { .. }
            | Self::Write { .. }
            | Self::Entry { .. }
            | Self::Watch { .. }
            | Self::Interrupted { .. } => None,
        }
    }
}

/// The first few branches, for a person who mistyped one.
fn listed(branches: &[String]) -> String {
    const SHOWN: usize = 8;
    let mut text = branches.iter().take(SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if branches.len() > SHOWN {
        text.push_str(&format!(" and {} more", branches.len() - SHOWN));
    }
    text
}
