//! The nix programs: evaluate a deployment to its manifest, realise derivations, publish and copy closures, list closures.
//!
//! Every `nix*` process of driftless is started here. Nothing is decided and nothing is tried twice, with three exceptions
//! that belong to the way of asking: a failing evaluation is split until the broken node stands alone, a copy falls back to
//! the legacy protocol where the other side does not speak the new one, and signed paths are first brought without root's
//! rights. Nodes are only touched by `copy` and `remote`.
//!
//! Under the state directory: `nix/HASH/` (our Nix files), `cache/` (manifests), `gcroots/NODE/drv` (derivations between
//! evaluation and build). Deleting any of it costs time, nothing else.

mod cache;
mod closure;
mod copy;
mod error;
mod evaluate;
mod files;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod message;
mod process;
mod progress;
mod publish;
mod realise;
mod remote;
#[cfg(test)]
mod tests;
mod watched;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::sync::Semaphore;

use crate::config::NixConfig;
use crate::model::format::Format;

pub use closure::PathSize;
pub use copy::{CopyTarget, Substitute};
pub use error::{CopyFault, NixError};
pub use evaluate::Evaluated;
pub use progress::CopyProgress;
pub use publish::Publication;
pub use remote::BuildProgress;

/// Where a deployment is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A Nix file, by absolute path.
    File(PathBuf),
    /// A flake, by a URL that `builtins.getFlake` understands, best with a `rev`.
    Flake {
        /// For example `git+file:///srv/infra?rev=...`.
        url: String,
    },
}

/// What is evaluated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// Where it is found.
    pub place: Place,
    /// What fully determines its content: a tree id for a file, a commit id for a flake (which can read `self.rev`).
    /// `None`: nothing does (a dirty work tree), and nothing is cached.
    pub cache_key: Option<String>,
    /// The format that it is read in; `None`: the one that is recognised.
    pub read_as: Option<Format>,
}

/// Access to the nix programs. Clones share their limits.
#[derive(Debug, Clone)]
pub struct Nix {
    config: Arc<NixConfig>,
    state: Arc<Path>,
    manifest: Arc<Path>,
    /// `PATH` of the programs, where it is not our own.
    search: Option<OsString>,
    evaluations: Arc<Semaphore>,
    builds: Arc<Semaphore>,
    queue: Arc<publish::Queue>,
    closures: closure::Closures,
    /// Indirect roots that this process has made known to Nix.
    roots: Arc<Mutex<BTreeSet<PathBuf>>>,
}

impl Nix {
    /// Writes our Nix files below the state directory. Starts no program.
    pub fn new(config: &NixConfig, state: &Path) -> Result<Self, NixError> {
        // GC roots and the evaluator's arguments are absolute paths.
        let state =
            std::path::absolute(state).map_err(|source| NixError::State { path: state.into(), source })?;
        let manifest = files::write(&state)?;
        Ok(Self {
            config: Arc::new(config.clone()),
            state: state.into(),
            manifest: manifest.into(),
            search: None,
            evaluations: Arc::new(Semaphore::new(config.workers.max(1))),
            builds: Arc::new(Semaphore::new(config.builds.max(1))),
            queue: Arc::default(),
            closures: closure::Closures::default(),
            roots: Arc::default(),
        })
    }
}
