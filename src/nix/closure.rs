//! What belongs to a store path, and how big that is. Only reads the local store.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;

use super::{Nix, NixError};
use crate::command;
use crate::model::store_path::StorePath;

/// A desktop's closure has some 3 000 paths, and the answer comes from SQLite.
const DEADLINE: Duration = Duration::from_secs(120);
/// Paths per process: about 80 KiB of the 2 MiB that arguments may have (execve(2)).
const BATCH: usize = 1_000;

/// Closures that are remembered. A switch asks twice for each of its two; a desktop's takes 300 KiB.
const REMEMBERED: usize = 32;

/// What is known of the store: a valid path never changes, nor does what it refers to.
#[derive(Debug, Clone, Default)]
pub struct Closures(Arc<Mutex<VecDeque<(StorePath, Requisites)>>>);

/// Asked for once, also by several at a time.
type Requisites = Arc<OnceCell<Arc<Vec<StorePath>>>>;

impl Closures {
    /// The newest are kept.
    fn of(&self, path: &StorePath) -> Requisites {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, closure)) = known.iter().find(|(known, _)| known == path) {
            return closure.clone();
        }
        if known.len() == REMEMBERED {
            known.pop_front();
        }
        let closure = Requisites::default();
        known.push_back((path.clone(), closure.clone()));
        closure
    }
}

/// One path of a closure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathSize {
    /// The path.
    pub path: StorePath,
    /// Size of its NAR, bytes: about what it takes on a disk, and exactly what is copied.
    pub nar_bytes: u64,
}

impl Nix {
    /// Whether the store here has a path.
    pub fn has(&self, path: &StorePath) -> bool {
        super::realise::in_store(path.as_str())
    }

    /// Everything that a store path of the local store needs, itself included; what is referred to comes first.
    pub async fn requisites(&self, path: &StorePath) -> Result<Arc<Vec<StorePath>>, NixError> {
        // What has been collected since is not there, whatever was known of it.
        if Path::new(path.as_str()).symlink_metadata().is_err() {
            return Err(NixError::NotInStore { path: path.clone() });
        }
        let known = self.closures.of(path);
        known.get_or_try_init(|| async { self.ask_requisites(path).await.map(Arc::new) }).await.cloned()
    }

    async fn ask_requisites(&self, path: &StorePath) -> Result<Vec<StorePath>, NixError> {
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

    /// How big each of these parts of `whole` is, for the message where that cannot be told.
    pub async fn sizes(&self, whole: &StorePath, paths: &[StorePath]) -> Result<Vec<PathSize>, NixError> {
        // `nix path-info --json` would tell it together with the requisites, but its JSON changed with 2.19 and it is
        // still experimental.
        let mut sizes = Vec::with_capacity(paths.len());
        for batch in paths.chunks(BATCH) {
            let answer = self.query(whole, &["--size"], batch).await?;
            // One line for each path, in the order of the arguments.
            let lines: Vec<&str> = answer.lines().collect();
            if lines.len() != batch.len() {
                let answer = format!("{} sizes for {} paths", lines.len(), batch.len());
                return Err(NixError::ClosureAnswer { path: whole.clone(), answer });
            }
            for (each, size) in batch.iter().zip(lines) {
                let nar_bytes = size
                    .trim()
                    .parse()
                    .map_err(|_| NixError::ClosureAnswer { path: whole.clone(), answer: size.into() })?;
                sizes.push(PathSize { path: each.clone(), nar_bytes });
            }
        }
        Ok(sizes)
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
