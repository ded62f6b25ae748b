//! The release in force, kept in the state directory so that a successor can act before it has fetched or evaluated.
//!
//! A switch that waits for its verdict on a node does not wait for an evaluation. The file is only a cache: deleted or
//! unreadable, the newest commit is evaluated instead. It is written beside the loop, which never waits for a disk.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::model::release::{NodeRelease, Progress, Release};
use crate::model::revision::Revision;

/// Between two writes: each node that is built changes the release, and a restart in between costs an evaluation at most.
const PAUSE: Duration = Duration::from_secs(1);

/// What a successor starts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Memory {
    /// The release in force.
    pub release: Release,
    /// Newest revision that evaluated.
    pub last_good: Option<Revision>,
}

/// Where the release in force is kept.
#[derive(Debug)]
pub struct MemoryFile {
    path: PathBuf,
    /// As last written, or tried to.
    kept: Option<Arc<Memory>>,
    written: Option<Instant>,
    writing: Option<tokio::task::JoinHandle<()>>,
}

impl MemoryFile {
    /// Of a state directory.
    pub fn of(state_dir: &Path) -> Self {
        Self { path: state_dir.join("release.json"), kept: None, written: None, writing: None }
    }

    /// Reads what a predecessor left; systems that are gone from the store are forgotten.
    pub fn load(&self) -> Option<Memory> {
        let text = fs::read(&self.path).ok()?;
        match serde_json::from_slice::<Memory>(&text) {
            Ok(mut memory) => {
                memory.release.nodes.values_mut().for_each(forget_what_is_gone);
                Some(memory)
            }
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "not read; the newest commit is evaluated instead");
                None
            }
        }
    }

    /// Has written what a successor needs, if it is another than before and the last write is not quite recent.
    pub fn keep(&mut self, release: &Release, last_good: Option<&Revision>) {
        let busy = self.writing.as_ref().is_some_and(|writing| !writing.is_finished());
        if busy || self.written.is_some_and(|at| at.elapsed() < PAUSE) || self.has(release, last_good) {
            return;
        }
        let memory = self.take(release, last_good);
        let path = self.path.clone();
        self.writing = Some(tokio::task::spawn_blocking(move || keep(&path, &memory)));
    }

    /// Writes what is not written yet, before the controller ends.
    pub async fn flush(&mut self, release: &Release, last_good: Option<&Revision>) {
        if let Some(writing) = self.writing.take() {
            // A panic in it was reported where it happened.
            let _ = writing.await;
        }
        if !self.has(release, last_good) {
            let memory = self.take(release, last_good);
            keep(&self.path, &memory);
        }
    }

    fn has(&self, release: &Release, last_good: Option<&Revision>) -> bool {
        self.kept
            .as_ref()
            .is_some_and(|kept| kept.release == *release && kept.last_good.as_ref() == last_good)
    }

    /// Kept or not in the end, the same is not tried in every pass.
    fn take(&mut self, release: &Release, last_good: Option<&Revision>) -> Arc<Memory> {
        let memory = Arc::new(Memory { release: release.clone(), last_good: last_good.cloned() });
        (self.kept, self.written) = (Some(Arc::clone(&memory)), Some(Instant::now()));
        memory
    }
}

fn keep(path: &Path, memory: &Memory) {
    if let Err(error) = write(path, memory) {
        tracing::warn!(path = %path.display(), %error, "not kept; a restart would evaluate first");
    }
}

fn forget_what_is_gone(node: &mut NodeRelease) {
    node.last_good = node.last_good.take().filter(|system| Path::new(system.as_str()).exists());
    let built = matches!(node.progress, Progress::Built);
    let there = node.spec.as_ref().is_some_and(|spec| Path::new(spec.toplevel.as_str()).exists());
    if built && !there {
        node.progress = Progress::Evaluating;
    }
}

/// Whole or not at all, also over a power cut.
fn write(path: &Path, memory: &Memory) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(&serde_json::to_vec(memory)?)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::manifest::RolloutSpec;

    #[tokio::test]
    async fn what_was_kept_is_read_back_and_rubbish_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let release = Release { revision: None, nodes: BTreeMap::new(), rollout: RolloutSpec::default() };
        let mut file = MemoryFile::of(dir.path());
        file.keep(&release, None);
        file.flush(&release, None).await;
        assert_eq!(MemoryFile::of(dir.path()).load(), Some(Memory { release, last_good: None }));
        fs::write(dir.path().join("release.json"), "{").unwrap();
        assert_eq!(MemoryFile::of(dir.path()).load(), None);
    }

    #[tokio::test]
    async fn a_release_that_changes_in_every_pass_is_written_once_a_second_and_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let release = |n: u32| {
            let rollout = RolloutSpec { max_in_flight: n, ..RolloutSpec::default() };
            Release { revision: None, nodes: BTreeMap::new(), rollout }
        };
        let mut file = MemoryFile::of(dir.path());
        for n in 1..100 {
            file.keep(&release(n), None);
        }
        file.flush(&release(1), None).await;
        assert_eq!(MemoryFile::of(dir.path()).load().unwrap().release, release(1), "the first was enough");
        file.flush(&release(100), None).await;
        assert_eq!(MemoryFile::of(dir.path()).load().unwrap().release, release(100));
    }
}
