//! Secrets of nodes that run what Git says: compared beside the loop, and brought where they are new. So a file or a command
//! that says something else comes to the nodes although no system changes, and a machine that was installed with its system
//! gets its secrets at all.
//!
//! Decides nothing: whose may be brought is `plan`'s to say.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use super::{Desk, News};
use crate::model::name::NodeName;
use crate::model::snapshot::NodeView;
use crate::model::store_path::StorePath;
use crate::nix::Nix;
use crate::node::Node;
use crate::plan::secrets::may_be_brought;

/// Nodes at a time: each may run commands here that ask a password manager.
const AT_A_TIME: usize = 4;
/// What could not be had is tried again after this.
const AGAIN: Duration = Duration::from_secs(300);

/// When each node's secrets are due, and those that are being compared.
#[derive(Debug)]
pub struct Refreshes {
    every: Duration,
    due: BTreeMap<NodeName, (StorePath, Instant)>,
    /// Ended with this value: nothing is asked of a node after a shutdown.
    asked: BTreeMap<NodeName, AbortOnDropHandle<()>>,
    places: Arc<Semaphore>,
}

impl Refreshes {
    /// Nothing was compared yet.
    pub fn new(every: Duration) -> Self {
        let places = Arc::new(Semaphore::new(AT_A_TIME));
        Self { every, due: BTreeMap::new(), asked: BTreeMap::new(), places }
    }

    /// Starts what is due.
    pub fn start(
        &mut self,
        views: &BTreeMap<NodeName, Arc<NodeView>>,
        now: Timestamp,
        nodes: impl Fn(&NodeName) -> Option<Arc<Node>>,
        tools: (&Nix, &Desk),
    ) {
        self.due.retain(|name, _| views.contains_key(name));
        self.asked.retain(|name, _| views.contains_key(name));
        for (name, view) in views {
            if self.asked.contains_key(name) || !may_be_brought(view, now) {
                continue;
            }
            let Some(node) = nodes(name) else { continue };
            let toplevel = node.spec().toplevel.clone();
            if self.due.get(name).is_some_and(|(of, due)| *of == toplevel && *due > Instant::now()) {
                continue;
            }
            let (nix, desk, places) = (tools.0.clone(), tools.1.clone(), Arc::clone(&self.places));
            let span = tracing::info_span!("secrets", node = %name);
            let task = async move {
                // Never closed; without a place it would merely be one too many.
                let _place = places.acquire_owned().await;
                let failed = node.refresh_secrets(&nix).await.err();
                if let Some(error) = &failed {
                    tracing::warn!(error = error as &dyn std::error::Error, "not compared");
                }
                let node = node.name().clone();
                desk.hand_in(News::SecretsCompared { node, toplevel, well: failed.is_none() });
            };
            let task = tokio::spawn(task.instrument(span));
            self.asked.insert(name.clone(), AbortOnDropHandle::new(task));
        }
    }

    /// A node has the secrets of this system.
    pub fn brought(&mut self, node: &NodeName, toplevel: &StorePath) {
        self.asked.remove(node);
        self.due.insert(node.clone(), (toplevel.clone(), Instant::now() + self.every));
    }

    /// A node's secrets could not be compared, or brought.
    pub fn failed(&mut self, node: &NodeName, toplevel: &StorePath) {
        self.asked.remove(node);
        self.due.insert(node.clone(), (toplevel.clone(), Instant::now() + AGAIN.min(self.every)));
    }

    /// A person asks: all of them are due.
    pub fn try_now(&mut self) {
        self.due.clear();
    }

    /// Ends what runs.
    pub fn cancel(&mut self) {
        self.asked.clear();
    }
}
