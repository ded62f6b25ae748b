//! One controller per state directory: a kernel lock, so that a crash never leaves it behind.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a lock may outlive its controller.
const MOMENT: Duration = Duration::from_secs(1);

/// A state directory that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It cannot be written.
    #[error("cannot use the state directory {}; create it, or set STATE_DIRECTORY", path.display())]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another controller has it.
    #[error("another controller runs with the state directory {}", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
}

/// Holds the state directory for as long as it lives.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

/// Creates the state directory where it is missing, and takes it.
pub fn take(path: &Path) -> Result<StateLock, StateError> {
    let unusable = |source| StateError::Unusable { path: path.to_owned(), source };
    fs::create_dir_all(path).map_err(unusable)?;
    let file = File::create(path.join("lock")).map_err(unusable)?;
    leave_to_owner(&file, path).map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => Ok(StateLock { _file: file }),
        Err(TryLockError::WouldBlock) => Err(StateError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(unusable(source)),
    }
}

/// The same where one before may just have been killed: what it was about to start shares its lock until it is another
/// program (fork(2), flock(2)).
pub async fn take_over(path: &Path) -> Result<StateLock, StateError> {
    let began = Instant::now();
    loop {
        match take(path) {
            Err(StateError::InUse { .. }) if began.elapsed() < MOMENT => {
                tokio::time::sleep(MOMENT / 20).await
            }
            taken => return taken,
        }
    }
}

/// Root may say something while the controller of another user does not run; that one has to get in again.
fn leave_to_owner(file: &File, folder: &Path) -> io::Result<()> {
    let (mine, owner) = (file.metadata()?, fs::metadata(folder)?);
    if mine.uid() == 0 && owner.uid() != 0 {
        fchown(file, Some(owner.uid()), Some(owner.gid()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lock_that_outlives_its_controller_for_a_moment_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let shared = take(dir.path()).unwrap();
        let freed = async {
            tokio::time::sleep(MOMENT / 5).await;
            drop(shared);
        };
        let (taken, ()) = tokio::join!(take_over(dir.path()), freed);
        let taken = taken.unwrap();
        assert!(matches!(take_over(dir.path()).await, Err(StateError::InUse { .. })));
        drop(taken);
    }

    #[test]
    fn a_second_controller_is_refused_until_the_first_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let first = take(dir.path()).unwrap();
        assert!(matches!(take(dir.path()), Err(StateError::InUse { .. })));
        drop(first);
        assert!(take(dir.path()).is_ok());
    }
}
