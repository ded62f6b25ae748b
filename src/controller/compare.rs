//! Works out beside the loop which packages differ between what a node runs and what it should run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use super::{Desk, News};
use crate::model::name::NodeName;
use crate::model::packages::PackageDiff;
use crate::model::snapshot::NodeView;
use crate::model::store_path::StorePath;
use crate::nix::Nix;
use crate::node::Node;
use crate::reconcile::Reconciler;

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

/// Comparisons at a time: each may run processes here and on the node, and a commit may ask for one of every node.
const AT_A_TIME: usize = 4;
/// A difference that could not be worked out (the node was away, its store busy) is worked out anew after this.
const AGAIN: Duration = Duration::from_secs(300);

/// Differences that are known, and those being worked out. Closures never change, so each pair is compared once.
#[derive(Debug)]
pub struct Comparisons {
    known: BTreeMap<Pair, Known>,
    /// Ended with this value: nothing is asked of a node after a shutdown.
    asked: BTreeMap<Pair, AbortOnDropHandle<()>>,
    places: Arc<Semaphore>,
}

#[derive(Debug)]
enum Known {
    Difference(PackageDiff),
    NotSince(Instant),
}

impl Default for Comparisons {
    fn default() -> Self {
        let places = Arc::new(Semaphore::new(AT_A_TIME));
        Self { known: BTreeMap::new(), asked: BTreeMap::new(), places }
    }
}

impl Comparisons {
    /// Shows the differences that are known, and asks for those of nodes whose difference nobody knows yet. The next pass
    /// shows what came of it.
    pub fn show(
        &mut self,
        world: &mut Reconciler,
        nodes: impl Fn(&NodeName) -> Option<Arc<Node>>,
        nix: &Nix,
        desk: &Desk,
    ) {
        for (name, view) in world.views_mut() {
            let Some(pair) = Pair::of(view) else { continue };
            let answers = view.observation.as_ref().is_some_and(|seen| seen.contact.is_reachable());
            if view.packages.is_none()
                && answers
                && pair.running != pair.desired
                && let Some(node) = nodes(name)
            {
                Arc::make_mut(view).packages = self.of(pair, &node, nix, desk);
            }
        }
        self.forget_unused(world.views());
    }

    /// The difference, if it is known already; otherwise it is asked for.
    fn of(&mut self, pair: Pair, node: &Arc<Node>, nix: &Nix, desk: &Desk) -> Option<PackageDiff> {
        match self.known.get(&pair) {
            Some(Known::Difference(packages)) => return Some(packages.clone()),
            Some(Known::NotSince(tried)) if tried.elapsed() < AGAIN => return None,
            Some(Known::NotSince(_)) | None => {}
        }
        if !self.asked.contains_key(&pair) {
            let (node, nix, desk) = (node.clone(), nix.clone(), desk.clone());
            let (places, asked) = (Arc::clone(&self.places), pair.clone());
            let task = tokio::spawn(async move {
                // Never closed; without a place the comparison would merely be one too many.
                let _place = places.acquire_owned().await;
                let packages = compare(&pair, &node, &nix).await;
                desk.hand_in(News::Compared { pair, packages });
            });
            self.asked.insert(asked, AbortOnDropHandle::new(task));
        }
        None
    }

    /// Takes in a difference; `None` where it could not be worked out.
    pub fn take_in(&mut self, pair: Pair, packages: Option<PackageDiff>) {
        self.asked.remove(&pair);
        self.known.insert(pair, packages.map_or(Known::NotSince(Instant::now()), Known::Difference));
    }

    /// Ends the comparisons.
    pub fn cancel(&mut self) {
        self.asked.clear();
    }

    /// Forgets what no node shows any more.
    fn forget_unused(&mut self, views: &BTreeMap<NodeName, Arc<NodeView>>) {
        let shown: BTreeSet<Pair> = views.values().filter_map(|view| Pair::of(view)).collect();
        self.known.retain(|pair, _| shown.contains(pair));
        self.asked.retain(|pair, _| shown.contains(pair));
    }
}

async fn compare(pair: &Pair, node: &Node, nix: &Nix) -> Option<PackageDiff> {
    let desired = closure(&pair.desired, node, nix).await?;
    let running = closure(&pair.running, node, nix).await?;
    Some(PackageDiff::between(&running, &desired))
}

/// What was deployed from here is mostly here still, and known; what a node built itself is only there, once it is built.
async fn closure(system: &StorePath, node: &Node, nix: &Nix) -> Option<Arc<Vec<StorePath>>> {
    match nix.requisites(system).await {
        Ok(closure) => Some(closure),
        Err(_) => Some(Arc::new(node.closure(system).await.ok()?)),
    }
}
