//! Wakes the controller when a branch of a local repository moves.
//!
//! Carries no data and promises nothing: the poll is what makes sure that no commit is missed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{Notify, mpsc};
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::SourceError;
use super::url::local_path;

/// How often a repository that was removed or replaced is looked for: inotify follows the directory, not its name.
const LOOK: Duration = Duration::from_secs(1);

/// Watches for as long as it lives.
#[derive(Debug)]
pub struct Watch {
    _task: AbortOnDropHandle<()>,
}

/// Watches the branches of a local repository and calls `wake.notify_one()` after each change; `None` where the URL is
/// not local. A repository that is not there (yet, or for a while) is watched from the moment it is. Must be called
/// from within a tokio runtime.
pub fn watch(url: &str, wake: Arc<Notify>) -> Result<Option<Watch>, SourceError> {
    let Some(path) = local_path(url) else { return Ok(None) };
    let (events, mut heard) = mpsc::unbounded_channel();
    let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        // Our own fetches read the repository; being woken by them would fetch for ever. An error means lost events.
        if event.as_ref().map_or(true, moves_a_branch) {
            let _ = events.send(());
        }
    });
    let watcher = watcher.map_err(|source| SourceError::Watch { path: path.clone(), source })?;
    let mut storage = Storage { path, watcher, watched: None };
    storage.follow()?;
    let task = tokio::spawn(async move {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let moved = tokio::select! {
                event = heard.recv() => match event {
                    Some(()) => true,
                    None => return,
                },
                _ = look.tick() => false,
            };
            // Several events make one wake-up: a commit alone touches a lock file, a log and the branch.
            while heard.try_recv().is_ok() {}
            let replaced = storage.follow().unwrap_or_else(|error| {
                debug!(%error, "the repository is only polled for now");
                false
            });
            if moved || replaced {
                wake.notify_one();
            }
        }
    });
    Ok(Some(Watch { _task: AbortOnDropHandle::new(task) }))
}

/// The directories in which a repository keeps its branches.
struct Storage {
    path: PathBuf,
    watcher: RecommendedWatcher,
    watched: Option<Watched>,
}

/// What is watched now: the directories, and which ones these names were then.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Watched(Vec<(PathBuf, RecursiveMode, u64, u64)>);

impl Storage {
    /// Watches what the repository's path names now, and says whether that is another one than before.
    fn follow(&mut self) -> Result<bool, SourceError> {
        let now = git_dir(&self.path).map(|git_dir| Watched::of(&git_dir));
        if now == self.watched {
            return Ok(false);
        }
        for (path, ..) in self.watched.take().into_iter().flat_map(|watched| watched.0) {
            // It is mostly gone; then there is nothing to stop.
            let _ = self.watcher.unwatch(&path);
        }
        let Some(now) = now else { return Ok(false) };
        for (path, mode, ..) in &now.0 {
            self.watcher
                .watch(path, *mode)
                .map_err(|source| SourceError::Watch { path: self.path.clone(), source })?;
        }
        self.watched = Some(now);
        Ok(true)
    }
}

impl Watched {
    fn of(git_dir: &Path) -> Self {
        let places = [
            // `HEAD` and `packed-refs`; objects lie deeper and are not looked at.
            (git_dir.to_owned(), RecursiveMode::NonRecursive),
            (git_dir.join("refs"), RecursiveMode::Recursive),
            (git_dir.join("reftable"), RecursiveMode::Recursive),
        ];
        Self(
            places
                .into_iter()
                .filter_map(|(path, mode)| {
                    let meta = fs::metadata(&path).ok()?;
                    Some((path, mode, meta.dev(), meta.ino()))
                })
                .collect(),
        )
    }
}

/// The directory with the branches of the repository at this path: itself where it is bare, else `.git`, which may be a
/// file that points elsewhere (gitrepository-layout(5), `gitdir` and `commondir`).
fn git_dir(path: &Path) -> Option<PathBuf> {
    let with_suffix = PathBuf::from(format!("{}.git", path.display()));
    // The order in which git looks (git's path.c, `enter_repo`).
    let candidates = [path.join(".git"), path.to_owned(), with_suffix.join(".git"), with_suffix];
    let git_dir = candidates.into_iter().filter_map(pointed_to).find(|dir| dir.join("HEAD").is_file())?;
    match fs::read_to_string(git_dir.join("commondir")) {
        Ok(common) => Some(git_dir.join(common.trim_end())),
        Err(_) => Some(git_dir),
    }
}

/// A `.git` file names the directory; a directory is itself.
fn pointed_to(path: PathBuf) -> Option<PathBuf> {
    if path.is_dir() {
        return Some(path);
    }
    let text = fs::read_to_string(&path).ok()?;
    Some(path.parent()?.join(text.strip_prefix("gitdir:")?.trim()))
}

/// Whether a branch may have moved: reading does not count, nor do the lock files that come before.
fn moves_a_branch(event: &Event) -> bool {
    let changed = match event.kind {
        EventKind::Access(_) => false,
        EventKind::Any
        | EventKind::Create(_)
        | EventKind::Modify(_)
        | EventKind::Remove(_)
        | EventKind::Other => true,
    };
    changed && (event.paths.is_empty() || event.paths.iter().any(|path| holds_branches(path)))
}

fn holds_branches(path: &Path) -> bool {
    let lock = path.extension().is_some_and(|extension| extension == "lock");
    let inside = |part: &str| path.components().any(|component| component.as_os_str() == part);
    let named = |name: &str| path.file_name().is_some_and(|file| file == name);
    !lock && (inside("refs") || inside("reftable") || named("HEAD") || named("packed-refs"))
}
