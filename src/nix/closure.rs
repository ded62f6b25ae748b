//! What belongs to a store path, with sizes. Only reads the local store.

use std::time::Duration;

use super::{Nix, NixError};
use crate::command;
use crate::model::store_path::StorePath;

/// A desktop's closure has some 3 000 paths, and the answer comes from SQLite.
const DEADLINE: Duration = Duration::from_secs(120);
/// Paths per process: about 80 KiB of the 2 MiB that arguments may have (execve(2)).
const BATCH: usize = 1_000;

/// One path of a closure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathSize {
    /// The path.
    pub path: StorePath,
    /// Size of its NAR, bytes: about what it takes on a disk, and exactly what is copied.
    pub nar_bytes: u64,
}

impl Nix {
    /// Everything that a store path of the local store needs, itself included; what is referred to comes first.
    pub async fn requisites(&self, path: &StorePath) -> Result<Vec<StorePath>, NixError> {
        let paths = self.query(path, &["--requisites"], std::slice::from_ref(path)).await?;
        paths
            .lines()
            // Systems that can rebuild themselves offline refer to derivations: text files of no size.
            .filter(|line| !line.ends_with(".drv"))
            .map(|line| {
                line.parse::<StorePath>()
                    .map_err(|_| NixError::ClosureAnswer { path: path.clone(), answer: line.into() })
            })
            .collect()
    }

    /// The same with sizes.
    pub async fn closure(&self, path: &StorePath) -> Result<Vec<PathSize>, NixError> {
        // `nix path-info --json` would be one process, but its JSON changed with 2.19 and it is still experimental.
        let paths = self.requisites(path).await?;
        let mut closure = Vec::with_capacity(paths.len());
        for batch in paths.chunks(BATCH) {
            let answer = self.query(path, &["--size"], batch).await?;
            // One line for each path, in the order of the arguments.
            let sizes: Vec<&str> = answer.lines().collect();
            if sizes.len() != batch.len() {
                let answer = format!("{} sizes for {} paths", sizes.len(), batch.len());
                return Err(NixError::ClosureAnswer { path: path.clone(), answer });
            }
            for (each, size) in batch.iter().zip(sizes) {
                let nar_bytes = size
                    .trim()
                    .parse()
                    .map_err(|_| NixError::ClosureAnswer { path: path.clone(), answer: size.into() })?;
                closure.push(PathSize { path: each.clone(), nar_bytes });
            }
        }
        Ok(closure)
    }

    async fn query(&self, of: &StorePath, what: &[&str], paths: &[StorePath]) -> Result<String, NixError> {
        let mut command = self.program("nix-store");
        command.arg("--query").args(what).args(paths.iter().map(StorePath::as_str));
        match command::run(command, DEADLINE).await {
            Ok(finished) => Ok(finished.text()),
            Err(source) => Err(NixError::Closure { path: of.clone(), source }),
        }
    }
}
