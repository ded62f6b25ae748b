//! The nix programs: evaluate a deployment to its manifest, realise derivations, publish and copy closures, list closures.
//!
//! Every `nix*` process of driftless is started here. Nothing is decided and nothing is tried twice, with four exceptions
//! that belong to the way of asking: a failing evaluation is split until the broken node stands alone, so is a failing
//! question about several systems, a copy falls back to the legacy protocol where the other side does not speak the new one,
//! and signed paths are first brought without root's rights. Nodes are only touched by `copy` and `remote`.
//!
//! Under the state directory: `nix/HASH/` (our Nix files), `cache/` (manifests), `evaluated/` (what evaluations cost and
//! read), `gcroots/NODE/drv` (derivations between evaluation and build). Deleting any of it costs time, nothing else.

mod ask;
mod cache;
mod closure;
mod copy;
mod error;
mod evaluate;
mod experience;
mod files;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod graph;
mod memory;
mod message;
mod nar;
mod process;
mod progress;
mod publish;
mod queue;
mod reading;
mod realise;
mod remote;
mod root;
mod share;
#[cfg(test)]
mod tests;
mod together;
mod watched;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::sync::Semaphore;

use crate::config::{EvalConfig, NixConfig};
use crate::model::format::Format;

pub use closure::PathSize;
pub use copy::{CopyTarget, Substitute};
pub use error::{CopyFault, NixError};
pub use evaluate::Evaluated;
pub use experience::Reads;
pub use progress::CopyProgress;
pub use publish::Publication;
pub use queue::Order;
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
    /// The top of the repository, where its files are there: what is read below it is remembered.
    pub top: Option<PathBuf>,
    /// The format that it is read in; `None`: the one that is recognised.
    pub read_as: Option<Format>,
}

/// How much of Nix's trace an error has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Trace {
    /// The reason, and where it is.
    #[default]
    Reason,
    /// All of it.
    Whole,
}

impl Trace {
    /// As a flag of the command line says it.
    pub fn shown(flag: bool) -> Self {
        if flag { Self::Whole } else { Self::Reason }
    }
}

/// Access to the nix programs. Clones share their limits.
#[derive(Debug, Clone)]
pub struct Nix {
    config: Arc<NixConfig>,
    eval: Arc<EvalConfig>,
    trace: Trace,
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
    /// Writes our Nix files below the state directory, and evaluates as by default. Starts no program.
    pub fn new(config: &NixConfig, state: &Path) -> Result<Self, NixError> {
        // GC roots and the evaluator's arguments are absolute paths.
        let state =
            std::path::absolute(state).map_err(|source| NixError::State { path: state.into(), source })?;
        let manifest = files::write(&state)?;
        Ok(Self {
            config: Arc::new(config.clone()),
            eval: Arc::default(),
            trace: Trace::Reason,
            state: state.into(),
            manifest: manifest.into(),
            search: None,
            evaluations: Arc::new(Semaphore::new(EvalConfig::default().workers)),
            builds: Arc::new(Semaphore::new(config.builds.max(1))),
            queue: Arc::default(),
            closures: closure::Closures::default(),
            roots: Arc::default(),
        })
    }

    /// Evaluates as configured.
    #[must_use]
    pub fn evaluating(self, eval: &EvalConfig) -> Self {
        let evaluations = Arc::new(Semaphore::new(eval.workers.max(1)));
        Self { eval: Arc::new(eval.clone()), evaluations, ..self }
    }

    /// Has errors with so much of Nix's trace.
    #[must_use]
    pub fn tracing(self, trace: Trace) -> Self {
        Self { trace, ..self }
    }
}
