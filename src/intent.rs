//! What people want of a running controller, kept in `intent.json` of the state directory. Carries; what may be said and what
//! becomes of it is `model::intent`'s.
//!
//! The file is the only copy of approvals, and suspensions are written on the nodes too. A file that cannot be read is never
//! taken for an empty one, and never written over before a person has said `driftless resume`: then it is set aside.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Deserialize;
use tempfile::NamedTempFile;

use crate::model::intent::{Intent, VERSION};

/// An intent that cannot be read, or kept.
#[derive(Debug, thiserror::Error)]
pub enum IntentError {
    /// The file is there and cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not what this program writes.
    #[error("{} is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        #[source]
        source: serde_json::Error,
    },
    /// Another program has written it.
    #[error(
        "{} is of version {version}, and this program understands {VERSION}: it was written by a newer driftless",
        path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// What it says.
        version: u32,
    },
    /// It cannot be written.
    #[error("cannot write {}; nothing was changed", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What cannot be read could not be set aside.
    #[error("cannot set {} aside; nothing was changed", path.display())]
    Aside {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// All that can be read of an intent of any version.
#[derive(Deserialize)]
struct Head {
    version: u32,
}

/// Where intent is kept.
#[derive(Debug, Clone)]
pub struct IntentFile {
    path: PathBuf,
}

impl IntentFile {
    /// Of a state directory.
    pub fn of(state_dir: &Path) -> Self {
        Self { path: state_dir.join("intent.json") }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads what people have said; nothing where there is no file.
    pub fn load(&self) -> Result<Intent, IntentError> {
        let path = || self.path.clone();
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Intent::default()),
            Err(source) => return Err(IntentError::Read { path: path(), source }),
        };
        let damaged = |source| IntentError::Damaged { path: path(), source };
        let head: Head = serde_json::from_slice(&text).map_err(damaged)?;
        if head.version != VERSION {
            return Err(IntentError::Version { path: path(), version: head.version });
        }
        serde_json::from_slice(&text).map_err(damaged)
    }

    /// Writes it: whole or not at all, also over a power cut.
    pub fn store(&self, intent: &Intent) -> Result<(), IntentError> {
        let written = self.written(intent).and_then(|file| self.put(file));
        written.map_err(|source| IntentError::Write { path: self.path.clone(), source })
    }

    /// The same in the place of what could not be read. That is set aside under a name that says when; whoever wants to may
    /// still mend it.
    pub fn store_beside_unreadable(&self, intent: &Intent, now: Timestamp) -> Result<(), IntentError> {
        let cannot_write = |source| IntentError::Write { path: self.path.clone(), source };
        // First what may fail for want of space.
        let file = self.written(intent).map_err(cannot_write)?;
        let name = format!("intent.json.unreadable-{}", now.strftime("%Y%m%dT%H%M%SZ"));
        match fs::rename(&self.path, self.path.with_file_name(name)) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(IntentError::Aside { path: self.path.clone(), source });
            }
            // Somebody may have taken it away already.
            Ok(()) | Err(_) => {}
        }
        self.put(file).map_err(cannot_write)
    }

    /// On the disk, under another name.
    fn written(&self, intent: &Intent) -> io::Result<NamedTempFile> {
        let folder = self.folder();
        fs::create_dir_all(folder)?;
        let mut file = NamedTempFile::new_in(folder)?;
        file.write_all(&serde_json::to_vec_pretty(intent)?)?;
        // Root may have said it while the controller of another user did not run.
        let owner = fs::metadata(folder)?;
        if file.as_file().metadata()?.uid() != owner.uid() {
            fchown(file.as_file(), Some(owner.uid()), Some(owner.gid()))?;
        }
        file.as_file().sync_all()?;
        Ok(file)
    }

    fn put(&self, file: NamedTempFile) -> io::Result<()> {
        file.persist(&self.path)?;
        // The name too: what somebody was told is kept must be found after a power cut.
        fs::File::open(self.folder())?.sync_all()
    }

    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::intent::{Suspension, SuspensionId};

    fn some() -> Intent {
        let since = "2026-11-22T12:00:00Z".parse().unwrap();
        let (by, reason) = ("alice@laptop".to_owned(), "disk \"swap\"".to_owned());
        let suspension = Suspension { on: "@web".parse().unwrap(), by, reason, since, until: None };
        Intent { suspensions: [(SuspensionId::new(since, 7), suspension)].into(), ..Intent::default() }
    }

    #[test]
    fn what_was_said_is_read_back_and_no_file_means_nothing_was() {
        let dir = tempfile::tempdir().unwrap();
        let file = IntentFile::of(&dir.path().join("not-there-yet"));
        assert_eq!(file.load().unwrap(), Intent::default());
        file.store(&some()).unwrap();
        assert_eq!(file.load().unwrap(), some());
    }

    #[test]
    fn what_cannot_be_understood_is_no_empty_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = IntentFile::of(dir.path());
        for rubbish in ["", "{", "[]", "{\"version\": 1, \"suspensions\": 3}", "{\"version\":1,\"more\":1}"] {
            fs::write(file.path(), rubbish).unwrap();
            assert!(matches!(file.load(), Err(IntentError::Damaged { .. })), "{rubbish}");
        }
        fs::write(file.path(), "{\"version\": 2, \"whatever\": true}").unwrap();
        assert!(file.load().unwrap_err().to_string().contains("of version 2"));
        fs::remove_file(file.path()).unwrap();
        fs::create_dir(file.path()).unwrap();
        assert!(matches!(file.load(), Err(IntentError::Read { .. })));
    }

    #[test]
    fn what_cannot_be_read_is_set_aside_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let file = IntentFile::of(dir.path());
        fs::write(file.path(), "{").unwrap();
        let at = |text: &str| format!("2026-11-22T{text}Z").parse().unwrap();
        file.store_beside_unreadable(&some(), at("12:00:00")).unwrap();
        assert_eq!(file.load().unwrap(), some());
        let aside = dir.path().join("intent.json.unreadable-20261122T120000Z");
        assert_eq!(fs::read_to_string(aside).unwrap(), "{");
        fs::remove_file(file.path()).unwrap();
        file.store_beside_unreadable(&some(), at("12:00:01")).unwrap();
        assert_eq!(file.load().unwrap(), some());
    }

    #[test]
    fn a_disk_that_takes_nothing_leaves_what_was_said_before() {
        let dir = tempfile::tempdir().unwrap();
        let file = IntentFile::of(&dir.path().join("file").join("below"));
        fs::write(dir.path().join("file"), "no directory").unwrap();
        let error = file.store(&some()).unwrap_err().to_string();
        assert!(error.ends_with("nothing was changed"), "{error}");
    }
}
