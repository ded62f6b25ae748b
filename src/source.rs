//! The Git side: fetches the branch, answers what its commits are, and writes out their files.
//!
//! The network is the `git` program's (its credential helpers, ssh configuration and proxies keep working); everything
//! after the fetch is read from our own bare clone. Never evaluates, never decides whether a commit may be deployed,
//! and never writes to the repository that is followed.

mod changed;
mod checkout;
mod error;
mod fetch;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod git;
mod mend;
mod url;
mod watch;

#[cfg(test)]
mod tests;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use git2::{ErrorCode, Oid, Repository};
use jiff::Timestamp;

use crate::config::SourceConfig;
use crate::model::revision::{CommitId, Revision};

pub use error::SourceError;
pub use watch::{Watch, watch};

/// Where the branch stands in the clone. The name does not depend on the branch, so that another branch or URL in the
/// configuration needs no other clone.
const HEAD: &str = "refs/driftless/head";

/// Heads that were rewritten away; one reference each.
const FORMER: &str = "refs/driftless/former";

/// The newest history that a person accepted although it was rewritten.
const ACCEPTED: &str = "refs/driftless/accepted";

/// The commit of which a person said last that it may remove most of the fleet.
const REMOVAL_ALLOWED: &str = "refs/driftless/removal-allowed";

/// How a new head relates to the revision in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lineage {
    /// It has the revision in force among its ancestors, or a person accepted that it has not.
    Continued,
    /// It has not: somebody rewrote the branch, or an old commit is being replayed.
    Rewritten,
}

/// The followed branch and our clone of it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Source {
    config: Arc<SourceConfig>,
    clone: PathBuf,
    checkouts: PathBuf,
    fetching: Arc<tokio::sync::Mutex<()>>,
    exporting: Arc<tokio::sync::Mutex<()>>,
}

impl Source {
    /// Opens the clone under the state directory, making an empty one at the first start. Reaches for no network.
    pub fn open(config: &SourceConfig, state_dir: &Path) -> Result<Self, SourceError> {
        let branch = config.branch.clone();
        if !git2::Reference::is_valid_name(&format!("refs/heads/{branch}")) {
            return Err(SourceError::BranchName { branch });
        }
        let clone = state_dir.join("source.git");
        let create = |source| SourceError::Create { path: clone.clone(), source };
        fs::create_dir_all(state_dir).map_err(create)?;
        let state_dir = fs::canonicalize(state_dir).map_err(create)?;
        let clone = state_dir.join("source.git");
        let source = Self {
            config: Arc::new(config.clone()),
            checkouts: state_dir.join("checkouts"),
            clone,
            fetching: Arc::default(),
            exporting: Arc::default(),
        };
        source.mend()?;
        Ok(source)
    }

    /// The commit with this id or unambiguous beginning of one, at least four digits.
    pub fn resolve(&self, text: &str) -> Result<Revision, SourceError> {
        let unknown = || SourceError::Unknown { text: text.to_owned(), url: self.config.display_url() };
        if !(4..=64).contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(unknown());
        }
        let repository = self.repository()?;
        let found = repository.find_commit_by_prefix(text);
        match found {
            Ok(commit) => self.revision(&commit),
            Err(error) if error.code() == ErrorCode::Ambiguous => {
                Err(SourceError::Ambiguous { text: text.to_owned() })
            }
            // libgit2 calls an object of another kind invalid rather than not found.
            Err(error) if matches!(error.code(), ErrorCode::NotFound | ErrorCode::InvalidSpec) => {
                Err(unknown())
            }
            Err(error) => Err(self.broken(error)),
        }
    }

    /// Whether `newer` is `older` or has it among its ancestors.
    ///
    /// The clone is never shallow: an `older` that it does not have is nobody's ancestor, and the answer is no.
    pub fn descends(&self, newer: &CommitId, older: &CommitId) -> Result<bool, SourceError> {
        let newer = self.resolve(newer.as_str())?.commit;
        let repository = self.repository()?;
        let answer = || {
            let (newer, older) = (Oid::from_str(newer.as_str())?, Oid::from_str(older.as_str())?);
            match repository.find_commit(older) {
                Ok(_) => Ok(newer == older || repository.graph_descendant_of(newer, older)?),
                Err(error) if error.code() == ErrorCode::NotFound => Ok(false),
                Err(error) => Err(error),
            }
        };
        answer().map_err(|error| self.broken(error))
    }

    /// How a new head relates to the revision in force. A person may have accepted a history that was rewritten.
    pub fn lineage(&self, head: &CommitId, in_force: &CommitId) -> Result<Lineage, SourceError> {
        if self.descends(head, in_force)? {
            return Ok(Lineage::Continued);
        }
        match self.said(ACCEPTED)? {
            Some(accepted) if self.descends(head, &accepted)? => Ok(Lineage::Continued),
            Some(_) | None => Ok(Lineage::Rewritten),
        }
    }

    /// From now on heads may continue from this commit, whatever was in force before.
    pub fn accept_history(&self, revision: &Revision) -> Result<(), SourceError> {
        self.say(ACCEPTED, revision, "accepted by a person")
    }

    /// This commit, and no other, may remove most of the fleet.
    pub fn allow_removal(&self, revision: &Revision) -> Result<(), SourceError> {
        self.say(REMOVAL_ALLOWED, revision, "mass removal allowed by a person")
    }

    /// Whether a person said that this commit may remove most of the fleet.
    pub fn allows_removal(&self, commit: &CommitId) -> Result<bool, SourceError> {
        Ok(self.said(REMOVAL_ALLOWED)?.as_ref() == Some(commit))
    }

    /// Keeps what a person says of a commit. In the clone it outlives restarts, and the commit cannot be pruned.
    fn say(&self, reference: &str, revision: &Revision, message: &str) -> Result<(), SourceError> {
        let repository = self.repository()?;
        let keep = || {
            let commit = Oid::from_str(revision.commit.as_str())?;
            repository.reference(reference, commit, true, message).map(|_| ())
        };
        keep().map_err(|error| self.broken(error))
    }

    fn said(&self, reference: &str) -> Result<Option<CommitId>, SourceError> {
        let repository = self.repository()?;
        match repository.find_reference(reference).and_then(|reference| reference.peel_to_commit()) {
            Ok(commit) => Ok(commit.id().to_string().parse().ok()),
            Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
            Err(error) => Err(self.broken(error)),
        }
    }

    /// The flake reference of a fetched revision, as `nix` and `builtins.getFlake` take it.
    ///
    /// Nix fetches `ref` and looks for `rev` in it, so the reference has to be one that contains the commit; without
    /// any it would take `HEAD`, which our clone does not have.
    pub fn flake_url(&self, revision: &Revision) -> Result<String, SourceError> {
        let reference = self.containing(&revision.commit)?;
        let path = url::encoded(self.clone.as_os_str().as_bytes());
        Ok(format!("git+file://{path}?ref={reference}&rev={}", revision.commit))
    }

    /// A reference of the clone from which the commit can be reached.
    fn containing(&self, commit: &CommitId) -> Result<String, SourceError> {
        let repository = self.repository()?;
        let search = || {
            let wanted = Oid::from_str(commit.as_str())?;
            let former = repository.references_glob(&format!("{FORMER}/*"))?;
            for reference in repository.find_reference(HEAD).into_iter().map(Ok).chain(former) {
                let reference = reference?;
                let tip = reference.peel_to_commit()?.id();
                if tip == wanted || repository.graph_descendant_of(tip, wanted)? {
                    return Ok(Some(String::from_utf8_lossy(reference.name_bytes()).into_owned()));
                }
            }
            Ok(None)
        };
        search()
            .map_err(|error| self.broken(error))?
            .ok_or_else(|| SourceError::Unknown { text: commit.to_string(), url: self.config.display_url() })
    }

    /// The newest commit that was fetched, if any ever was.
    fn head(&self) -> Result<Option<Oid>, SourceError> {
        match self.repository()?.refname_to_id(HEAD) {
            Ok(head) => Ok(Some(head)),
            Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
            Err(error) => Err(self.broken(error)),
        }
    }

    fn head_revision(&self) -> Result<Revision, SourceError> {
        let repository = self.repository()?;
        let head = repository.find_reference(HEAD).and_then(|head| head.peel_to_commit());
        self.revision(&head.map_err(|error| self.broken(error))?)
    }

    fn revision(&self, commit: &git2::Commit<'_>) -> Result<Revision, SourceError> {
        let author = commit.author();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let id = commit.id().to_string();
        Ok(Revision {
            commit: id
                .parse()
                .map_err(|_| self.broken(git2::Error::from_str("an object id of unknown length")))?,
            tree: commit.tree_id().to_string(),
            subject: text(commit.summary_bytes().unwrap_or_default()),
            author: format!("{} <{}>", text(author.name_bytes()), text(author.email_bytes())),
            // A commit may carry any number for a time; one that no calendar has is shown as the epoch.
            committed_at: Timestamp::from_second(commit.time().seconds()).unwrap_or(Timestamp::UNIX_EPOCH),
        })
    }

    fn repository(&self) -> Result<Repository, SourceError> {
        Repository::open_bare(&self.clone).map_err(|error| self.broken(error))
    }

    fn broken(&self, source: git2::Error) -> SourceError {
        SourceError::Clone { path: self.clone.clone(), source }
    }
}

/// Runs work that reads and writes the disk away from the threads that serve everyone.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SourceError> + Send + 'static,
) -> Result<T, SourceError> {
    tokio::task::spawn_blocking(work).await.map_err(|source| SourceError::Interrupted { source })?
}
