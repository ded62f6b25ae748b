//! The release in force, kept in the state directory so that a successor can act before it has fetched or evaluated.
//!
//! A switch that waits for its verdict on a node does not wait for an evaluation. The file is only a cache: deleted or
//! unreadable, the newest commit is evaluated instead.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::model::release::{NodeRelease, Progress, Release};
use crate::model::revision::Revision;

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
    kept: Option<Memory>,
}

impl MemoryFile {
    /// Of a state directory.
    pub fn of(state_dir: &Path) -> Self {
        Self { path: state_dir.join("release.json"), kept: None }
    }

    /// Reads what a predecessor left; systems that are gone from the store are forgotten.
    pub fn load(&mut self) -> Option<Memory> {
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

    /// Writes what a successor needs, if it is another than before.
    pub fn keep(&mut self, memory: Memory) {
        if self.kept.as_ref() == Some(&memory) {
            return;
        }
        if let Err(error) = write(&self.path, &memory) {
            tracing::warn!(path = %self.path.display(), %error, "not kept; a restart would evaluate first");
        }
        // Kept or not, the same is not tried in every pass.
        self.kept = Some(memory);
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

    #[test]
    fn what_was_kept_is_read_back_and_rubbish_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let release = Release { revision: None, nodes: BTreeMap::new(), rollout: RolloutSpec::default() };
        let memory = Memory { release, last_good: None };
        MemoryFile::of(dir.path()).keep(memory.clone());
        assert_eq!(MemoryFile::of(dir.path()).load(), Some(memory));
        fs::write(dir.path().join("release.json"), "{").unwrap();
        assert_eq!(MemoryFile::of(dir.path()).load(), None);
    }
}
