//! Writes the files of a commit below the state directory, exactly as they are in Git.
//!
//! No filter runs (line endings, LFS and other smudge filters would make what is evaluated depend on this host), and
//! what is there already is compared with the commit before it is trusted. Submodules are not fetched.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use git2::{ObjectType, Oid, Repository, Tree, TreeEntry};
use tracing::warn;

use crate::model::revision::Revision;

use super::{Source, SourceError, blocking};

/// How many checkouts stay, counted from the one used last: the head, the last good one, and one more for an evaluation
/// that is just being superseded.
const KEPT: usize = 3;

/// A half-written checkout that is older was left by a process that died.
const ABANDONED: Duration = Duration::from_secs(60 * 60);

/// Begins the names of checkouts that are being written or removed.
const TEMPORARY: &str = ".tmp-";

impl Source {
    /// A directory with exactly the files of the revision, for reading only. It stays while it is among the last three
    /// that were asked for; asking again is cheap.
    pub async fn checkout(&self, revision: &Revision) -> Result<PathBuf, SourceError> {
        let _one_at_a_time = self.exporting.lock().await;
        let (source, revision) = (self.clone(), revision.clone());
        blocking(move || source.export(&revision)).await
    }

    fn export(&self, revision: &Revision) -> Result<PathBuf, SourceError> {
        let commit = self.resolve(revision.commit.as_str())?.commit;
        let repository = self.repository()?;
        let tree = Oid::from_str(commit.as_str()).and_then(|id| repository.find_commit(id)?.tree());
        let tree = tree.map_err(|error| self.broken(error))?;
        let directory = self.checkouts.join(commit.as_str());
        let written = |source| SourceError::Write { path: directory.clone(), source };
        fs::create_dir_all(&self.checkouts).map_err(written)?;
        let export = Export { source: self, repository: &repository, commit: commit.as_str() };
        if export.matches(&tree, &directory)? {
            File::open(&directory).and_then(|it| it.set_modified(SystemTime::now())).map_err(written)?;
        } else {
            self.discard(&directory).map_err(written)?;
            export.place(&tree, &directory)?;
        }
        self.prune(&directory);
        Ok(directory)
    }

    /// Takes a directory out of the way at once, and then removes it.
    fn discard(&self, directory: &Path) -> io::Result<()> {
        if fs::symlink_metadata(directory).is_err() {
            return Ok(());
        }
        let aside = tempfile::Builder::new().prefix(TEMPORARY).tempdir_in(&self.checkouts)?;
        fs::rename(directory, aside.path().join("old"))?;
        aside.close()
    }

    /// Removes checkouts nobody has asked for lately. A failure costs space only.
    fn prune(&self, current: &Path) {
        let mut finished = Vec::new();
        for entry in fs::read_dir(&self.checkouts).into_iter().flatten().flatten() {
            let Ok(used) = entry.metadata().and_then(|meta| meta.modified()) else { continue };
            let path = entry.path();
            if !entry.file_name().as_bytes().starts_with(TEMPORARY.as_bytes()) {
                if path != current {
                    finished.push((used, path));
                }
            } else if used.elapsed().is_ok_and(|age| age > ABANDONED) {
                removed(fs::remove_dir_all(&path), &path);
            }
        }
        finished.sort_by_key(|(used, _)| std::cmp::Reverse(*used));
        for (_, path) in finished.into_iter().skip(KEPT - 1) {
            removed(self.discard(&path), &path);
        }
    }
}

fn removed(outcome: io::Result<()>, path: &Path) {
    if let Err(error) = outcome {
        warn!(path = %path.display(), %error, "an old checkout could not be removed");
    }
}

/// One commit on its way to disk.
struct Export<'a> {
    source: &'a Source,
    repository: &'a Repository,
    commit: &'a str,
}

/// What an entry of a tree becomes.
enum Kind {
    Directory,
    File {
        mode: u32,
    },
    Symlink,
    /// Left empty, as git leaves a submodule that was not asked for.
    Submodule,
}

impl Export<'_> {
    /// Writes the tree beside its place and moves it there in one step.
    fn place(&self, tree: &Tree<'_>, directory: &Path) -> Result<(), SourceError> {
        let written = |source| SourceError::Write { path: directory.to_owned(), source };
        let temporary =
            tempfile::Builder::new().prefix(TEMPORARY).tempdir_in(&self.source.checkouts).map_err(written)?;
        let new = temporary.path().join("new");
        let mut submodules = Vec::new();
        self.write(tree, &new, Path::new(""), &mut submodules)?;
        if !submodules.is_empty() {
            warn!(
                commit = self.commit,
                ?submodules,
                "submodules are not fetched, their directories are empty"
            );
        }
        match fs::rename(&new, directory) {
            // Another driftless on the same state directory was faster.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            other => other.map_err(written),
        }
    }

    fn write(
        &self,
        tree: &Tree<'_>,
        at: &Path,
        path: &Path,
        submodules: &mut Vec<String>,
    ) -> Result<(), SourceError> {
        directory(at).map_err(|source| SourceError::Write { path: at.to_owned(), source })?;
        for entry in tree {
            let (name, kind) = self.entry(&entry, path)?;
            let (target, path) = (at.join(&name), path.join(&name));
            let written = |source| SourceError::Write { path: target.clone(), source };
            match kind {
                Kind::Directory => self.write(&self.tree(&entry)?, &target, &path, submodules)?,
                Kind::File { mode } => file(&target, self.blob(&entry)?.content(), mode).map_err(written)?,
                Kind::Symlink => {
                    symlink(OsStr::from_bytes(self.blob(&entry)?.content()), &target).map_err(written)?;
                }
                Kind::Submodule => {
                    directory(&target).map_err(written)?;
                    submodules.push(path.display().to_string());
                }
            }
        }
        Ok(())
    }

    /// Whether the directory holds the tree and nothing else: a power cut may have emptied files, a person edited them.
    fn matches(&self, tree: &Tree<'_>, at: &Path) -> Result<bool, SourceError> {
        let Ok(listed) = fs::read_dir(at) else { return Ok(false) };
        let mut unexpected: BTreeSet<OsString> = listed.flatten().map(|entry| entry.file_name()).collect();
        for entry in tree {
            let (name, kind) = self.entry(&entry, Path::new(""))?;
            let target = at.join(&name);
            let Ok(meta) = fs::symlink_metadata(&target) else { return Ok(false) };
            let equal = match kind {
                Kind::Directory => meta.is_dir() && self.matches(&self.tree(&entry)?, &target)?,
                Kind::File { mode } => {
                    meta.is_file()
                        && meta.mode() & 0o777 == mode
                        && fs::read(&target).is_ok_and(|content| is(&entry, &content))
                }
                Kind::Symlink => fs::read_link(&target).is_ok_and(|to| is(&entry, to.as_os_str().as_bytes())),
                Kind::Submodule => fs::read_dir(&target).is_ok_and(|mut inside| inside.next().is_none()),
            };
            if !equal || !unexpected.remove(&name) {
                return Ok(false);
            }
        }
        Ok(unexpected.is_empty())
    }

    /// Name and kind of an entry. A tree can hold any bytes for a name; these would be written outside of the checkout,
    /// or be taken for a repository of their own.
    fn entry(&self, entry: &TreeEntry<'_>, parent: &Path) -> Result<(OsString, Kind), SourceError> {
        let name = entry.name_bytes();
        let refused = || SourceError::Entry {
            commit: self.commit.to_owned(),
            path: parent.join(OsStr::from_bytes(name)).display().to_string(),
        };
        if name.is_empty()
            || name.contains(&b'/')
            || matches!(name, b"." | b"..")
            || name.eq_ignore_ascii_case(b".git")
        {
            return Err(refused());
        }
        let kind = match entry.filemode() {
            0o040_000 => Kind::Directory,
            0o100_755 => Kind::File { mode: 0o755 },
            0o100_644 | 0o100_664 => Kind::File { mode: 0o644 },
            0o120_000 => Kind::Symlink,
            0o160_000 => Kind::Submodule,
            _ => return Err(refused()),
        };
        Ok((OsString::from_vec(name.to_owned()), kind))
    }

    fn tree(&self, entry: &TreeEntry<'_>) -> Result<Tree<'_>, SourceError> {
        self.repository.find_tree(entry.id()).map_err(|error| self.source.broken(error))
    }

    fn blob(&self, entry: &TreeEntry<'_>) -> Result<git2::Blob<'_>, SourceError> {
        self.repository.find_blob(entry.id()).map_err(|error| self.source.broken(error))
    }
}

/// Whether this content is the entry's blob.
fn is(entry: &TreeEntry<'_>, content: &[u8]) -> bool {
    Oid::hash_object(ObjectType::Blob, content).is_ok_and(|id| id == entry.id())
}

/// Modes are set explicitly: the umask of whoever starts us is no part of a commit.
fn directory(path: &Path) -> io::Result<()> {
    fs::create_dir(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o755))
}

fn file(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    // Never through an existing name: two entries of one name could otherwise write through a symlink.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(content)?;
    file.set_permissions(Permissions::from_mode(mode))
}
