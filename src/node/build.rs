//! A system that its node builds itself (`buildOnTarget`): rooted there before it exists, built from the derivation that
//! was evaluated here. What the store here has all of is copied instead, like any other system.

use tokio::sync::watch;

use super::preflight::PREPARE;
use super::{Node, NodeError};
use crate::model::journal::SwitchId;
use crate::model::observed::Stage;
use crate::model::store_path::{DrvPath, StorePath};
use crate::nix::{Nix, NixError};

impl Node {
    /// Whether a system is this node's own to build.
    pub(super) fn builds(&self, nix: &Nix, toplevel: &StorePath) -> bool {
        let here = || self.spec.shipped().iter().all(|path| nix.has(path));
        self.spec.builds_itself() && *toplevel == self.spec.toplevel && !here()
    }

    /// Roots a system on the node and has it built there, with what goes along with it.
    pub(super) async fn build_there(
        &self,
        nix: &Nix,
        toplevel: &StorePath,
        id: &SwitchId,
        stage: &watch::Sender<Stage>,
    ) -> Result<(), NodeError> {
        let wanted = self.spec.shipped();
        let verb = ["prepare", id.as_str(), toplevel.as_str()];
        let reply = self.ask_about("prepare the build", &verb, &wanted, PREPARE).await?;
        let missing: Vec<&StorePath> = wanted
            .iter()
            .filter(|path| reply.all("missing").any(|missing| missing == path.as_str()))
            .collect();
        // Nobody knows how much a build needs before it is done.
        self.preflight(&[], &reply)?;
        let Some(target) = self.copy_target().await?.filter(|_| !missing.is_empty()) else { return Ok(()) };
        stage.send_replace(Stage::Building { done: 0, total: 0, now: String::new() });
        let failed =
            |source| NodeError::Build { node: self.name.clone(), toplevel: toplevel.clone(), source };
        let derivations: Vec<DrvPath> =
            self.spec.closure_drvs.iter().chain([&self.spec.drv]).cloned().collect();
        nix.build_on(&target, &derivations, |progress| {
            let (done, total, now) = (progress.done, progress.total, progress.now);
            stage.send_replace(Stage::Building { done, total, now });
        })
        .await
        .map_err(failed)?;
        // Sources have no derivation: they are here since the evaluation.
        let sources: Vec<StorePath> =
            missing.into_iter().filter(|path| *path != toplevel && nix.has(path)).cloned().collect();
        nix.copy(&target, &sources, |_| {}).await.map_err(failed)
    }
}

impl NodeError {
    /// Whether a node does not build its own system, and would not at the next try either.
    pub fn is_broken_build(&self) -> bool {
        matches!(self, Self::Build { source: NixError::RemoteBuild { .. }, .. })
    }
}
