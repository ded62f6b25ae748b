//! The release in force, kept in the state directory so that a successor can act before it has fetched or evaluated.
//!
//! A switch that waits for its verdict on a node does not wait for an evaluation. The file is only a cache: deleted or
//! unreadable, the newest commit is evaluated instead, and nodes are looked for only where they are declared. It is written beside the loop, which never waits for a disk.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::model::name::NodeName;
use crate::model::observed::Begun;
use crate::model::release::{NodeRelease, Progress, Release};
use crate::model::revision::Revision;
use crate::model::way::Way;
use crate::reconcile::{Left, Reconciler};

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
    /// What nobody else knows.
    #[serde(flatten)]
    pub left: Left,
}

/// What is kept, as it is now.
#[derive(Debug, Clone, Copy)]
pub struct Now<'a> {
    /// The release in force.
    pub release: &'a Release,
    /// Newest revision that evaluated.
    pub last_good: Option<&'a Revision>,
    /// The way over which each node answered last.
    pub ways: &'a BTreeMap<NodeName, Way>,
    /// What was begun on nodes.
    pub begun: &'a BTreeMap<NodeName, Begun>,
}

impl<'a> Now<'a> {
    /// With what the loop alone knows.
    pub fn of(release: &'a Release, last_good: Option<&'a Revision>, reconciler: &'a Reconciler) -> Self {
        Self { release, last_good, ways: reconciler.ways(), begun: reconciler.begun() }
    }
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
    pub fn keep(&mut self, now: Now<'_>) {
        let busy = self.writing.as_ref().is_some_and(|writing| !writing.is_finished());
        if busy || self.written.is_some_and(|at| at.elapsed() < PAUSE) || self.has(now) {
            return;
        }
        let memory = self.take(now);
        let path = self.path.clone();
        self.writing = Some(tokio::task::spawn_blocking(move || keep(&path, &memory)));
    }

    /// Writes what is not written yet, before the controller ends.
    pub async fn flush(&mut self, now: Now<'_>) {
        if let Some(writing) = self.writing.take() {
            // A panic in it was reported where it happened.
            let _ = writing.await;
        }
        if !self.has(now) {
            let memory = self.take(now);
            keep(&self.path, &memory);
        }
    }

    fn has(&self, Now { release, last_good, ways, begun }: Now<'_>) -> bool {
        self.kept.as_ref().is_some_and(|kept| {
            kept.release == *release
                && kept.last_good.as_ref() == last_good
                && kept.left.ways == *ways
                && kept.left.begun == *begun
        })
    }

    /// Kept or not in the end, the same is not tried in every pass.
    fn take(&mut self, Now { release, last_good, ways, begun }: Now<'_>) -> Arc<Memory> {
        let (release, last_good) = (release.clone(), last_good.cloned());
        let left = Left { ways: ways.clone(), begun: begun.clone() };
        let memory = Arc::new(Memory { release, last_good, left });
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
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(&serde_json::to_vec(memory)?)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::rollout::RolloutSpec;

    fn now<'a>(release: &'a Release, left: &'a Left) -> Now<'a> {
        Now { release, last_good: None, ways: &left.ways, begun: &left.begun }
    }

    #[tokio::test]
    async fn what_was_kept_is_read_back_and_rubbish_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let release = Release { revision: None, nodes: BTreeMap::new(), rollout: RolloutSpec::default() };
        let mut file = MemoryFile::of(dir.path());
        let way = crate::model::sample::spec("web1").way();
        let ways = BTreeMap::from([("web1".parse().unwrap(), way)]);
        let left = Left { ways, ..Left::default() };
        file.keep(now(&release, &left));
        file.flush(now(&release, &left)).await;
        let kept = Memory { release, last_good: None, left };
        assert_eq!(MemoryFile::of(dir.path()).load(), Some(kept.clone()));
        let mut older = serde_json::to_value(&kept).unwrap();
        older.as_object_mut().unwrap().remove("ways");
        fs::write(dir.path().join("release.json"), older.to_string()).unwrap();
        let read = MemoryFile::of(dir.path()).load().unwrap();
        assert_eq!(read, Memory { left: Left::default(), ..kept }, "what an older controller kept is read");
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
        let (mut file, none) = (MemoryFile::of(dir.path()), Left::default());
        for n in 1..100 {
            file.keep(now(&release(n), &none));
        }
        file.flush(now(&release(1), &none)).await;
        assert_eq!(MemoryFile::of(dir.path()).load().unwrap().release, release(1), "the first was enough");
        file.flush(now(&release(100), &none)).await;
        assert_eq!(MemoryFile::of(dir.path()).load().unwrap().release, release(100));
    }
}
