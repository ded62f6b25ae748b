//! Our clone is a cache: where it is gone or damaged, an empty one takes its place and the next fetch fills it.
//!
//! Only what a person said of a commit is lost with it. The damaged one is kept aside, for whoever wants to look at it.

use std::fs;
use std::io;

use git2::{Repository, RepositoryInitOptions};
use tracing::warn;

use super::{Source, SourceError};

impl Source {
    /// Makes the clone usable, if it is not.
    pub(super) fn mend(&self) -> Result<(), SourceError> {
        if fs::symlink_metadata(&self.clone).is_ok() {
            let Err(error) = self.check() else { return Ok(()) };
            self.set_aside().map_err(|source| self.unmade(source))?;
            warn!(path = %self.clone.display(), error = error.message(), "the clone was damaged; it is fetched anew");
        }
        self.init()
    }

    /// Whether the newest commit can be read, if there is one. What is deeper down, git says.
    fn check(&self) -> Result<(), git2::Error> {
        let head = fs::read(self.clone.join("HEAD")).unwrap_or_default();
        if !head.starts_with(b"ref: ") {
            return Err(git2::Error::from_str("its HEAD is not a reference"));
        }
        let repository = Repository::open_bare(&self.clone)?;
        match repository.find_reference(super::HEAD) {
            Ok(head) => head.peel_to_tree().map(|_| ()),
            Err(error) if error.code() == git2::ErrorCode::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn set_aside(&self) -> io::Result<()> {
        let aside = self.clone.with_extension("git.damaged");
        match fs::remove_dir_all(&aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        fs::rename(&self.clone, aside)
    }

    /// Makes the empty clone in one step: a half-made one would be damaged.
    fn init(&self) -> Result<(), SourceError> {
        let state_dir = self.clone.parent().unwrap_or(&self.clone);
        fs::create_dir_all(state_dir).map_err(|source| self.unmade(source))?;
        let temporary = tempfile::Builder::new().prefix(".source-").tempdir_in(state_dir);
        let temporary = temporary.map_err(|source| self.unmade(source))?;
        let mut options = RepositoryInitOptions::new();
        options.bare(true).external_template(false);
        Repository::init_opts(temporary.path(), &options).map_err(|error| self.broken(error))?;
        match fs::rename(temporary.path(), &self.clone) {
            Ok(()) => {
                // The directory now has another name, under which it stays.
                let _ = temporary.keep();
                Ok(())
            }
            // Another driftless on the same state directory was faster.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            Err(error) => Err(self.unmade(error)),
        }
    }

    fn unmade(&self, source: io::Error) -> SourceError {
        SourceError::Create { path: self.clone.clone(), source }
    }
}
