//! GC roots of derivations between evaluation and build: `gcroots/NODE/drv` below the state directory.

use std::path::Path;
use std::sync::PoisonError;

use super::evaluate::Evaluated;
use super::{Nix, NixError};
use crate::command::{self, CommandError};
use crate::model::name::NodeName;
use crate::model::store_path::DrvPath;

impl Nix {
    /// Roots what a chunk evaluated to.
    pub(super) async fn root_derivations(&self, answers: &[(NodeName, Result<Evaluated, NixError>)]) {
        for (name, answer) in answers {
            if let Ok(Evaluated::Node(spec)) = answer {
                self.root_derivation(name, &spec.drv).await;
            }
        }
    }

    /// Keeps a node's newest derivation from being collected before it is built, and makes a cached evaluation last.
    async fn root_derivation(&self, node: &NodeName, drv: &DrvPath) {
        let root = self.state.join("gcroots").join(node.as_str()).join("drv");
        if std::fs::read_link(&root).is_ok_and(|known| known == Path::new(drv.as_str())) {
            return;
        }
        let made = async {
            if let Some(folder) = root.parent() {
                std::fs::create_dir_all(folder).map_err(|error| error.to_string())?;
            }
            if self.roots.lock().unwrap_or_else(PoisonError::into_inner).contains(&root) {
                return point(&root, drv).map_err(|error| error.to_string());
            }
            self.add_derivation_root(&root, drv).await.map_err(|error| error.to_string())?;
            self.roots.lock().unwrap_or_else(PoisonError::into_inner).insert(root.clone());
            Ok(())
        };
        if let Err(error) = made.await {
            // The build follows within seconds, and says so itself if the derivation is gone by then.
            tracing::warn!(%node, %drv, error, "the derivation has no GC root");
        }
    }

    async fn add_derivation_root(&self, root: &Path, drv: &DrvPath) -> Result<(), CommandError> {
        let mut command = self.program("nix-instantiate");
        // `nix-store --realise` would build it; importing a derivation gives it back as it is.
        command.arg("--add-root").arg(root).args(["--indirect", "-E", &format!("import {drv}")]);
        command::run(command, super::realise::ROOT_DEADLINE).await.map(|_| ())
    }
}

/// An indirect root is where Nix follows a link to (nix-store(1), `--indirect`): known once, it only has to point elsewhere.
fn point(root: &Path, drv: &DrvPath) -> std::io::Result<()> {
    let new = root.with_extension("new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    std::os::unix::fs::symlink(drv.as_str(), &new)?;
    std::fs::rename(&new, root)
}
