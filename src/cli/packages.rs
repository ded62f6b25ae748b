//! Which packages differ between what a node runs and what it should run, asked from here.

use std::sync::Arc;

use anyhow::Context;

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
    let spec = view.spec.as_ref()?;
    if !here.nix.has(desired) && !spec.builds_itself() {
        return None;
    }
    let node = here.node(name, spec).ok()?;
    let diff = between(here, &node, running, desired).await;
    node.close().await;
    diff.inspect_err(|error| tracing::warn!(node = %name, "packages cannot be compared: {error:#}")).ok()
}

/// The difference between a system that runs on a node and one that is in the store here, or in the node's.
pub async fn between(
    here: &Direct,
    node: &Node,
    running: &StorePath,
    desired: &StorePath,
) -> anyhow::Result<PackageDiff> {
    let new = if here.nix.has(desired) {
        here.nix.requisites(desired).await?
    } else {
        let there = node.closure(desired).await;
        Arc::new(there.context("the node builds its system itself, and has not done so yet")?)
    };
    let old = node.closure(running).await?;
    Ok(PackageDiff::between(&old, &new))
}
