//! The kept connection to each node that is watched, and the reads that run over them, a bounded number at a time.
//!
//! Decides nothing: who is watched, where, and when it is looked at is [`Reconciler`]'s.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use super::{Desk, News, Options};
use crate::config::SshConfig;
use crate::error_chain::error_chain;
use crate::model::name::NodeName;
use crate::model::node::NodeSpec;
use crate::model::way::Way;
use crate::node::{Look, Node, NodeError};
use crate::reconcile::Reconciler;
use crate::reconcile::lookout::Sight;
use crate::secrets::Keyring;

/// Every node that can be reached.
#[derive(Debug)]
pub struct Connections {
    ssh: SshConfig,
    keyring: Keyring,
    runtime_dir: PathBuf,
    timeout: Duration,
    at_a_time: Arc<Semaphore>,
    nodes: BTreeMap<NodeName, Connection>,
    /// Ended with this value.
    reads: BTreeMap<NodeName, AbortOnDropHandle<()>>,
    /// Nodes whose declaration was replaced; their kept connections are still to be ended.
    replaced: Vec<Arc<Node>>,
}

#[derive(Debug)]
struct Connection {
    /// As they were when `node` was made of them.
    spec: Arc<NodeSpec>,
    last: Option<Way>,
    /// `Err` where the files of its connection cannot be written.
    node: Result<Arc<Node>, String>,
}

impl Connections {
    /// To nobody yet.
    pub fn new(options: &Options) -> Self {
        let observe = &options.config.observe;
        Self {
            at_a_time: Arc::new(Semaphore::new(observe.concurrency.max(1))),
            timeout: observe.timeout,
            ssh: options.config.ssh.clone(),
            keyring: Keyring::new(&options.config.secrets.identity_files),
            runtime_dir: options.runtime_dir.clone(),
            nodes: BTreeMap::new(),
            reads: BTreeMap::new(),
            replaced: Vec::new(),
        }
    }

    /// Makes them those of the nodes that are watched now, as they are declared now.
    pub fn follow(&mut self, reconciler: &Reconciler) {
        let mut before = std::mem::take(&mut self.nodes);
        for (name, spec) in reconciler.watched() {
            let last = reconciler.last_way(name);
            let connection = match before.remove(name) {
                Some(old) if old.spec == *spec && old.last.as_ref() == last => old,
                old => self.renew(name, old, spec, last),
            };
            self.nodes.insert(name.clone(), connection);
        }
        self.replaced.extend(before.into_values().filter_map(|gone| gone.node.ok()));
        self.reads.retain(|name, _| self.nodes.contains_key(name));
        self.hang_up(reconciler);
    }

    fn renew(
        &mut self,
        name: &NodeName,
        old: Option<Connection>,
        spec: &Arc<NodeSpec>,
        last: Option<&Way>,
    ) -> Connection {
        let node = self.connect(name, spec, last);
        let (spec, last) = (spec.clone(), last.cloned());
        let Some(old) = old else { return Connection { spec, last, node } };
        let Ok(old_node) = old.node else { return Connection { spec, last, node } };
        // Only where it answered last is another place: the node as it is reached by now still serves.
        if node.is_err() && old.spec == spec {
            return Connection { spec, last, node: Ok(old_node) };
        }
        if let Ok(node) = &node
            && old.spec != spec
            && old.spec.way() == spec.way()
        {
            node.go_on_like(&old_node);
        }
        self.replaced.push(old_node);
        Connection { spec, last, node }
    }

    fn connect(&self, name: &NodeName, spec: &NodeSpec, last: Option<&Way>) -> Result<Arc<Node>, String> {
        Node::moving(name, spec, last, &self.ssh, &self.runtime_dir)
            .map(|node| Arc::new(node.with_keyring(&self.keyring)))
            .map_err(|error| said(name, &error))
    }

    /// Ends the kept connections that nobody has a use for any more; a running action has until its end.
    fn hang_up(&mut self, reconciler: &Reconciler) {
        for old in self.replaced.extract_if(.., |old| !reconciler.is_acting_on(old.name())) {
            let successor = self.nodes.get(old.name()).and_then(|connection| connection.node.clone().ok());
            tokio::spawn(async move {
                match successor {
                    Some(successor) => old.give_way_to(&successor).await,
                    None => old.close().await,
                }
            });
        }
    }

    /// Starts to read a node.
    pub fn read(&mut self, name: &NodeName, desk: &Desk) {
        let Some(Connection { spec, last, node }) = self.nodes.get(name) else { return };
        let node = node.clone().or_else(|_| self.connect(name, spec, last.as_ref()));
        let way = spec.way();
        if let Some(connection) = self.nodes.get_mut(name) {
            connection.node.clone_from(&node);
        }
        let (desk, node_name) = (desk.clone(), name.clone());
        let (places, deadline) = (self.at_a_time.clone(), self.timeout);
        let read = tokio::spawn(async move {
            let sight = match node {
                Ok(node) => {
                    // Never closed; without a place the read would merely be one too many.
                    let _place = places.acquire_owned().await;
                    sight(&node_name, node.look(deadline).await)
                }
                Err(said) => Sight { way, outcome: Err(said), aside: None },
            };
            desk.hand_in(News::Observed { node: node_name, sight: Box::new(sight) });
        });
        self.reads.insert(name.clone(), AbortOnDropHandle::new(read));
    }

    /// One node to act on, or what is seen of it where nobody can get there. `None`: it is not watched.
    pub fn reach(&self, name: &NodeName) -> Option<Result<Arc<Node>, Sight>> {
        let Connection { spec, node, .. } = self.nodes.get(name)?;
        let unseen = |said| Sight { way: spec.way(), outcome: Err(said), aside: None };
        Some(node.clone().map_err(unseen))
    }

    /// What a read would find of a node is known better by now.
    pub fn forget_read(&mut self, name: &NodeName) {
        self.reads.remove(name);
    }

    /// One node, if it can be acted on.
    pub fn node(&self, name: &NodeName) -> Option<&Arc<Node>> {
        self.nodes.get(name)?.node.as_ref().ok()
    }

    /// Ends the reads.
    pub fn cancel(&mut self) {
        self.reads.clear();
    }

    /// Ends the kept connections.
    pub async fn close(&self) {
        let mut closing = tokio::task::JoinSet::new();
        let nodes = self.nodes.values().filter_map(|connection| connection.node.clone().ok());
        for node in nodes.chain(self.replaced.iter().cloned()) {
            closing.spawn(async move { node.close().await });
        }
        closing.join_all().await;
    }
}

/// What a look found, in words.
pub fn sight(name: &NodeName, look: Look) -> Sight {
    let Look { way, outcome, aside } = look;
    let outcome = outcome.map_err(|error| said(name, &error));
    Sight { way, outcome, aside: aside.map(|aside| (aside.way, aside.said)) }
}

/// An error without the name of its node, which is said by whoever shows it.
fn said(name: &NodeName, error: &NodeError) -> String {
    let said = error_chain(error);
    said.strip_prefix(&format!("{name}: ")).unwrap_or(&said).to_owned()
}
