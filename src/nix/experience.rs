//! What earlier evaluations of a node showed: how much it allocates, and which files of the repository it reads.
//!
//! Decides nothing, and no result depends on it: without it evaluations are slower, or come in another order.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Nix;
use crate::model::name::NodeName;

/// What is remembered of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Experience {
    /// Bytes that its evaluation allocated, the dead ones included.
    pub(super) allocated: Option<u64>,
    /// With so much memory it did not end, bytes.
    pub(super) too_little: Option<u64>,
    /// What was read.
    pub(super) reads: Option<Reads>,
}

/// The files that a node's evaluation read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reads {
    /// The `cache_key` of the deployment that was evaluated.
    pub of: String,
    /// Paths below the top of the repository; a directory stands for all that is in it. Those of the nodes that were
    /// evaluated in the same process are among them.
    pub paths: BTreeSet<String>,
}

impl Nix {
    /// Which files a node's last evaluation read, where that is known and counts.
    pub fn reads(&self, node: &NodeName) -> Option<Reads> {
        self.eval.affected_first.then(|| self.experience(node).reads)?
    }

    pub(super) fn experience(&self, node: &NodeName) -> Experience {
        let known = fs::read(self.experience_file(node)).ok();
        known.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    /// Remembers what one evaluation added to what was known before.
    pub(super) fn learn(&self, node: &NodeName, change: impl FnOnce(&mut Experience)) {
        let known = self.experience(node);
        let mut new = known.clone();
        change(&mut new);
        if new == known {
            return;
        }
        let path = self.experience_file(node);
        let written = || -> std::io::Result<()> {
            let folder = path.parent().unwrap_or(&self.state);
            fs::create_dir_all(folder)?;
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(&serde_json::to_vec(&new)?)?;
            file.persist(&path)?;
            Ok(())
        };
        if let Err(error) = written() {
            tracing::debug!(%node, %error, "what its evaluation showed is not remembered");
        }
    }

    fn experience_file(&self, node: &NodeName) -> PathBuf {
        self.state.join("evaluated").join(format!("{node}.json"))
    }
}
