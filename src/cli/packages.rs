//! Which packages differ between what a node runs and what it should run, asked from here.

use std::path::Path;

use super::direct::Direct;
use crate::model::name::NodeName;
use crate::model::packages::PackageDiff;
use crate::model::snapshot::NodeView;
use crate::model::store_path::StorePath;
use crate::node::Node;

/// The difference of one node in a snapshot; `None` where there is none, where the new system is not built here, or where
/// one side cannot be read, which is logged.
pub async fn of(here: &Direct, name: &NodeName, view: &NodeView) -> Option<PackageDiff> {
    let running = &view.observation.as_ref()?.state.as_ref()?.running;
    let desired = view.desired.as_ref().filter(|desired| *desired != running)?;
    if !Path::new(desired.as_str()).exists() {
        return None;
    }
    let node = here.node(name, view.spec.as_ref()?).ok()?;
    let diff = between(here, &node, running, desired).await;
    node.close().await;
    diff.inspect_err(|error| tracing::warn!(node = %name, "packages cannot be compared: {error:#}")).ok()
}

/// The difference between a system that runs on a node and one that is in the store here.
pub async fn between(
    here: &Direct,
    node: &Node,
    running: &StorePath,
    desired: &StorePath,
) -> anyhow::Result<PackageDiff> {
    let new = here.nix.requisites(desired).await?;
    let old = node.closure(running).await?;
    Ok(PackageDiff::between(&old, &new))
}
