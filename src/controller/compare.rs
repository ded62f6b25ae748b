//! Works out beside the loop which packages differ between what a node runs and what it should run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Desk, News};
use crate::model::name::NodeName;
use crate::model::packages::PackageDiff;
use crate::model::snapshot::NodeView;
use crate::model::store_path::StorePath;
use crate::nix::Nix;
use crate::node::Node;

/// Two systems.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    /// What the node runs.
    pub running: StorePath,
    /// What it should run.
    pub desired: StorePath,
}

impl Pair {
    /// What a node runs and what it should run, where both are known.
    pub fn of(view: &NodeView) -> Option<Self> {
        let running = view.observation.as_ref()?.state.as_ref()?.running.clone();
        Some(Self { running, desired: view.desired.clone()? })
    }
}

/// Differences that are known, and those being worked out. Closures never change, so each pair is compared once.
#[derive(Debug, Default)]
pub struct Comparisons {
    known: BTreeMap<Pair, Option<PackageDiff>>,
    asked: BTreeSet<Pair>,
}

impl Comparisons {
    /// The difference, if it is known already; otherwise it is asked for.
    pub fn of(&mut self, pair: Pair, node: &Arc<Node>, nix: &Nix, desk: &Desk) -> Option<PackageDiff> {
        if let Some(known) = self.known.get(&pair) {
            return known.clone();
        }
        if self.asked.insert(pair.clone()) {
            let (node, nix, desk) = (node.clone(), nix.clone(), desk.clone());
            tokio::spawn(async move {
                let packages = compare(&pair, &node, &nix).await;
                desk.hand_in(News::Compared { pair, packages });
            });
        }
        None
    }

    /// Takes in a difference; `None` where it could not be worked out.
    pub fn take_in(&mut self, pair: Pair, packages: Option<PackageDiff>) {
        self.asked.remove(&pair);
        self.known.insert(pair, packages);
    }

    /// Forgets what no node shows any more.
    pub fn forget_unused(&mut self, views: &BTreeMap<NodeName, NodeView>) {
        let shown: BTreeSet<Pair> = views.values().filter_map(Pair::of).collect();
        self.known.retain(|pair, _| shown.contains(pair));
    }
}

async fn compare(pair: &Pair, node: &Node, nix: &Nix) -> Option<PackageDiff> {
    let desired = nix.closure(&pair.desired).await.ok()?;
    let desired: Vec<StorePath> = desired.into_iter().map(|path| path.path).collect();
    let running = node.closure(&pair.running).await.ok()?;
    Some(PackageDiff::between(&running, &desired))
}
