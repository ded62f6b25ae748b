//! Brings the newest commit of the branch into the clone, and says in its own words what went wrong.
//!
//! Never judges the commit: whether it is signed, or descends from the last one, is asked later.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use tracing::{debug, warn};

use crate::command::{self, CommandError, Tail};
use crate::model::revision::Revision;

use super::{FORMER, HEAD, Source, SourceError, blocking, git, url};

/// Longest time for the clean-up of the clone; a cut one is resumed by the next.
const GC_DEADLINE: Duration = Duration::from_secs(10 * 60);

impl Source {
    /// Fetches the branch and gives its newest commit.
    ///
    /// A failed fetch leaves everything that was fetched before as it was; a damaged clone is begun anew.
    pub async fn fetch(&self) -> Result<Revision, SourceError> {
        let _one_at_a_time = self.fetching.lock().await;
        let source = self.clone();
        blocking(move || source.mend()).await?;
        let before = self.head()?;
        sweep(&self.clone, self.config.timeout);
        let refspec = format!("+refs/heads/{}:{HEAD}", self.config.branch);
        let fetch = git::fetch(&self.clone, &self.config.url, &refspec);
        if let Err(error) = command::run(fetch, self.config.timeout).await {
            return Err(self.explained(error).await);
        }
        let source = self.clone();
        let head = blocking(move || {
            let head = source.head_revision()?;
            if let Some(before) = before {
                source.keep_former(before, &head)?;
            }
            Ok(head)
        })
        .await?;
        if before.is_none_or(|before| before.to_string() != head.commit.as_str()) {
            self.tidy().await;
        }
        Ok(head)
    }

    /// Keeps a head that the new one does not contain reachable, so that it can still be deployed and is never pruned:
    /// it may be the last good release.
    fn keep_former(&self, before: git2::Oid, head: &Revision) -> Result<(), SourceError> {
        let kept = (|| {
            let clone = git2::Repository::open_bare(&self.clone)?;
            let now = git2::Oid::from_str(head.commit.as_str())?;
            if before != now && !clone.graph_descendant_of(now, before)? {
                clone.reference(
                    &format!("{FORMER}/{before}"),
                    before,
                    true,
                    "no longer part of the branch",
                )?;
            }
            Ok(())
        })();
        kept.map_err(|source| self.broken(source))
    }

    async fn tidy(&self) {
        if let Err(error) = command::run(git::gc(&self.clone, &self.config.url), GC_DEADLINE).await {
            warn!(error = %self.scrubbed(error), "the clone could not be tidied up; it only grows");
        }
    }

    /// What a failed fetch means, and what to do about it.
    pub(super) async fn explained(&self, error: CommandError) -> SourceError {
        let url = self.config.display_url();
        let branch = self.config.branch.clone();
        let source = Box::new(self.scrubbed(error));
        let said = source.tail().map(Tail::text).unwrap_or_default();
        if let CommandError::Missing { .. } = *source {
            return SourceError::NoGit { url, source };
        }
        if let CommandError::Deadline { deadline, .. } = *source {
            return SourceError::Deadline { url, deadline, source };
        }
        if said.contains("couldn't find remote ref") {
            return match self.branches().await {
                Ok(has) if has.is_empty() => SourceError::Empty { url, branch, source },
                Ok(has) => SourceError::NoBranch { url, branch, has, source },
                Err(_) => SourceError::Fetch { url, branch, source },
            };
        }
        let says = |signs: &[&str]| signs.iter().any(|sign| said.contains(sign));
        if says(&REFUSALS) {
            SourceError::Refused { url, source }
        } else if says(&ABSENCES) {
            SourceError::NoRepository { url, source }
        } else {
            SourceError::Fetch { url, branch, source }
        }
    }

    /// The branches of the remote repository, sorted.
    async fn branches(&self) -> Result<Vec<String>, CommandError> {
        let listed =
            command::run(git::branches(&self.clone, &self.config.url), self.config.timeout).await?.text();
        let mut names: Vec<String> =
            listed.lines().filter_map(|line| Some(line.split_once("\trefs/heads/")?.1.to_owned())).collect();
        names.sort();
        Ok(names)
    }

    /// The same error with nobody's credentials in it.
    fn scrubbed(&self, error: CommandError) -> CommandError {
        let scrub =
            |tail: Tail| Tail(tail.0.iter().map(|line| url::scrubbed(line, &self.config.url)).collect());
        match error {
            CommandError::Failed { argv, status, tail } => {
                CommandError::Failed { argv, status, tail: scrub(tail) }
            }
            CommandError::Deadline { argv, deadline, tail } => {
                CommandError::Deadline { argv, deadline, tail: scrub(tail) }
            }
            unspoken @ (CommandError::Missing { .. }
            | CommandError::Start { .. }
            | CommandError::Pipe { .. }) => unspoken,
        }
    }
}

/// What git, curl and ssh say when they are not let in.
const REFUSALS: [&str; 9] = [
    "Permission denied",
    "Host key verification failed",
    "REMOTE HOST IDENTIFICATION HAS CHANGED",
    "Authentication failed",
    "could not read Username",
    "could not read Password",
    "unable to get password from user",
    "Too many authentication failures",
    "The requested URL returned error: 403",
];

/// What git and the forges say when there is no such repository.
const ABSENCES: [&str; 6] = [
    "does not appear to be a git repository",
    "not found",
    "Repository not found",
    "does not exist",
    "could not be found",
    "no such repository",
];

/// Removes what a fetch leaves behind that was killed at its deadline: lock files, which would refuse every fetch to
/// come, and half-received packs. Nothing that is older than the deadline can still be in use.
fn sweep(clone: &Path, deadline: Duration) {
    let Some(before) = SystemTime::now().checked_sub(deadline) else { return };
    let locks = [format!("{HEAD}.lock"), "packed-refs.lock".to_owned(), "shallow.lock".to_owned()];
    let packs = fs::read_dir(clone.join("objects/pack")).into_iter().flatten().flatten();
    let half = packs
        .map(|entry| entry.path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("tmp_")));
    for path in locks.iter().map(|lock| clone.join(lock)).chain(half) {
        let old = fs::symlink_metadata(&path).and_then(|meta| meta.modified()).is_ok_and(|at| at < before);
        if old && fs::remove_file(&path).is_ok() {
            debug!(path = %path.display(), "removed what a killed fetch had left");
        }
    }
}
