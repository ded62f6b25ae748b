//! What belongs to a store path, and how big that is. Only reads the local store.
//!
//! A process answers in 25 ms of processor time, nearly all of which it takes to start: nodes that are deployed at the same
//! moment share one for each of both questions.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;

use super::graph::Graph;
use super::together::Together;
use super::{Nix, NixError, nar};
use crate::command;
use crate::model::store_path::StorePath;

/// A desktop's closure has some 3 000 paths, and the answer comes from SQLite.
const DEADLINE: Duration = Duration::from_secs(120);
/// Paths per process: about 80 KiB of the 2 MiB that arguments may have (execve(2)).
const BATCH: usize = 1_000;
/// Systems per process. A desktop's graph is 3 MiB of text, and what systems share is told once.
const SYSTEMS: usize = 50;

/// Files that are looked at before a program is asked, whose start takes about as long.
const FILES: usize = 2_000;
/// Longest time for that.
const LOOKING: Duration = Duration::from_secs(5);

/// Closures that are remembered. A switch asks twice for each of its two; a desktop's takes 300 KiB.
const REMEMBERED: usize = 32;
/// Sizes that are remembered, at the least, and twice as many at the most: the paths of a few desktops, 2 MiB.
const REMEMBERED_SIZES: usize = 10_000;

/// What is known of the store, and who asks it: a valid path never changes, nor does what it refers to.
#[derive(Debug, Clone, Default)]
pub struct Closures {
    known: Arc<Mutex<VecDeque<(StorePath, Requisites)>>>,
    known_sizes: Arc<Mutex<Sizes>>,
    systems: Arc<Together<StorePath, Listed, NixError>>,
    parts: Arc<Together<Arc<Parts>, HashMap<StorePath, u64>, NixError>>,
}

/// Asked for once, also by several at a time.
type Requisites = Arc<OnceCell<Arc<Vec<StorePath>>>>;

/// Closures of several systems, or what is wrong with the answer for that one.
type Listed = HashMap<StorePath, Result<Arc<Vec<StorePath>>, String>>;

/// Paths whose sizes are wanted.
#[derive(Debug)]
struct Parts {
    /// What they belong to, for errors.
    whole: StorePath,
    paths: Vec<StorePath>,
}

impl Closures {
    /// The newest are kept.
    fn of(&self, path: &StorePath) -> Requisites {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
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

    fn sizes(&self) -> MutexGuard<'_, Sizes> {
        self.known_sizes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// NAR sizes, bytes. The newest are kept, in two halves of which the older one is forgotten as a whole.
#[derive(Debug, Default)]
struct Sizes {
    newer: HashMap<StorePath, u64>,
    older: HashMap<StorePath, u64>,
}

impl Sizes {
    fn get(&self, path: &StorePath) -> Option<u64> {
        self.newer.get(path).or_else(|| self.older.get(path)).copied()
    }

    fn keep(&mut self, path: StorePath, nar_bytes: u64) {
        if self.newer.len() >= REMEMBERED_SIZES {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(path, nar_bytes);
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
        if !self.has(path) {
            return Err(NixError::NotInStore { path: path.clone() });
        }
        let known = self.closures.of(path);
        known.get_or_try_init(|| self.ask_requisites(path)).await.cloned()
    }

    /// Without what is remembered, and without a look at the files.
    pub(super) async fn ask_requisites(&self, path: &StorePath) -> Result<Arc<Vec<StorePath>>, NixError> {
        let nix = self.clone();
        let run = |systems| async move { nix.list(systems).await };
        let listed = self.closures.systems.ask(path.clone(), run).await?;
        let closure = listed.get(path).cloned().unwrap_or_else(|| Err("nothing".into()));
        closure.map_err(|answer| NixError::ClosureAnswer { path: path.clone(), answer })
    }

    /// The closures of several systems. `--requisites` would tell them as one, `--graph` tells them apart.
    async fn list(&self, systems: Vec<StorePath>) -> Result<Listed, NixError> {
        let mut listed = Listed::new();
        for batch in systems.chunks(SYSTEMS) {
            let Some(first) = batch.first() else { continue };
            let answer = self.query(first, "--graph", batch).await?;
            let graph = Graph::read(&answer);
            listed.extend(batch.iter().map(|path| (path.clone(), graph.closure(path).map(Arc::new))));
        }
        Ok(listed)
    }

    /// How big each of these parts of `whole` is, for the message where that cannot be told.
    pub async fn sizes(&self, whole: &StorePath, paths: &[StorePath]) -> Result<Vec<PathSize>, NixError> {
        let mut sizes = self.remembered(paths);
        let unknown: Vec<_> = paths.iter().filter(|path| !sizes.contains_key(path)).cloned().collect();
        if !unknown.is_empty() {
            let nix = self.clone();
            let run = |parts| async move { nix.measure(parts).await };
            let parts = Arc::new(Parts { whole: whole.clone(), paths: unknown });
            let measured = self.closures.parts.ask(parts.clone(), run).await?;
            let found = |path: &StorePath| Some((path.clone(), *measured.get(path)?));
            sizes.extend(parts.paths.iter().filter_map(found));
        }
        let size = |path: &StorePath| match sizes.get(path) {
            Some(nar_bytes) => Ok(PathSize { path: path.clone(), nar_bytes: *nar_bytes }),
            None => {
                Err(NixError::ClosureAnswer { path: whole.clone(), answer: format!("no size of {path}") })
            }
        };
        paths.iter().map(size).collect()
    }

    /// The sizes of all that is wanted, by as few processes as can be: most of it is often the same.
    async fn measure(&self, wanted: Vec<Arc<Parts>>) -> Result<HashMap<StorePath, u64>, NixError> {
        let Some(first) = wanted.first() else { return Ok(HashMap::new()) };
        let paths: BTreeSet<&StorePath> = wanted.iter().flat_map(|parts| &parts.paths).collect();
        // Others may have asked for it since: while they did, these were waiting.
        let mut sizes = self.remembered(paths.iter().copied());
        let unknown = paths.iter().filter(|path| !sizes.contains_key(**path)).map(|path| (*path).clone());
        for (path, nar_bytes) in look(unknown.collect()).await {
            self.closures.sizes().keep(path.clone(), nar_bytes);
            sizes.insert(path, nar_bytes);
        }
        let unknown: Vec<StorePath> =
            paths.into_iter().filter(|path| !sizes.contains_key(*path)).cloned().collect();
        for batch in unknown.chunks(BATCH) {
            // `nix path-info --json` would tell it together with the requisites, but its JSON changed with 2.19 and it is
            // still experimental.
            let answer = self.query(&first.whole, "--size", batch).await?;
            let measured = read_sizes(&answer, batch)
                .map_err(|answer| NixError::ClosureAnswer { path: first.whole.clone(), answer })?;
            let mut known = self.closures.sizes();
            for (path, nar_bytes) in batch.iter().zip(measured) {
                known.keep(path.clone(), nar_bytes);
                sizes.insert(path.clone(), nar_bytes);
            }
        }
        Ok(sizes)
    }

    /// What is known of those that are there still: one that was collected may come back as another build of it.
    fn remembered<'a>(&self, paths: impl IntoIterator<Item = &'a StorePath>) -> HashMap<StorePath, u64> {
        let known: Vec<_> = {
            let sizes = self.closures.sizes();
            paths.into_iter().filter_map(|path| Some((path, sizes.get(path)?))).collect()
        };
        known
            .into_iter()
            .filter(|(path, _)| self.has(path))
            .map(|(path, size)| (path.clone(), size))
            .collect()
    }

    async fn query(&self, of: &StorePath, what: &str, paths: &[StorePath]) -> Result<String, NixError> {
        let mut command = self.program("nix-store");
        command.args(["--query", what]).args(paths.iter().map(StorePath::as_str));
        match command::run(command, DEADLINE).await {
            Ok(finished) => Ok(finished.text()),
            Err(source) => Err(NixError::Closure { path: of.clone(), source }),
        }
    }
}

/// The sizes of those that are soon looked at. The disk may be slow.
async fn look(paths: Vec<StorePath>) -> Vec<(StorePath, u64)> {
    let look = move || {
        let mut files = FILES;
        let size = |path: StorePath| Some((path.clone(), nar::size(&path, &mut files)?));
        paths.into_iter().filter_map(size).collect()
    };
    // Where the store hangs, the program that is asked instead has a deadline as well.
    let looked = tokio::time::timeout(LOOKING, tokio::task::spawn_blocking(look)).await;
    looked.ok().and_then(Result::ok).unwrap_or_default()
}

/// One line for each path, in the order of the arguments. Otherwise what is wrong with them.
fn read_sizes(answer: &str, paths: &[StorePath]) -> Result<Vec<u64>, String> {
    let lines: Vec<&str> = answer.lines().collect();
    if lines.len() != paths.len() {
        return Err(format!("{} sizes for {} paths", lines.len(), paths.len()));
    }
    lines.into_iter().map(|line| line.trim().parse().map_err(|_| line.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(number: usize) -> StorePath {
        format!("/nix/store/{}-{number}", "a".repeat(32)).parse().unwrap()
    }

    #[test]
    fn sizes_come_in_the_order_of_the_paths_or_not_at_all() {
        assert_eq!(read_sizes("12\n 7\n", &[path(0), path(1)]), Ok(vec![12, 7]));
        assert_eq!(read_sizes("12\n", &[path(0), path(1)]), Err("1 sizes for 2 paths".into()));
        assert_eq!(read_sizes("many\n", &[path(0)]), Err("many".into()));
    }

    #[test]
    fn the_newest_sizes_are_remembered() {
        let mut sizes = Sizes::default();
        for number in 0..3 * REMEMBERED_SIZES {
            sizes.keep(path(number), number as u64);
            assert!(sizes.newer.len() + sizes.older.len() <= 2 * REMEMBERED_SIZES);
        }
        let newest = 2 * REMEMBERED_SIZES..3 * REMEMBERED_SIZES;
        assert!(newest.clone().all(|number| sizes.get(&path(number)) == Some(number as u64)));
        assert_eq!(sizes.get(&path(0)), None);
    }
}
