//! What `deploy`, `push` and `rollback` share: many nodes at once, each with its own ending, none waiting for another.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::direct::Direct;
use super::ending::{Ending, Endings};
use super::progress::Progress;
use crate::error_chain::error_chain;
use crate::model::hook::HookPoint;
use crate::model::journal::{Entry, Outcome, PIN_FOR, Pin, PinEnd};
use crate::model::name::NodeName;
use crate::model::node::NodeSpec;
use crate::model::observed::{NodeState, Stage};
use crate::model::secret::SecretName;
use crate::model::store_path::StorePath;
use crate::node::{Brought, Node, NodeError, Order};

/// A verb that acts on nodes.
#[derive(Debug)]
pub struct Acting {
    /// Nix, SSH and where they keep their things.
    pub here: Arc<Direct>,
    /// What is shown meanwhile.
    pub progress: Progress,
    /// Switches at a time.
    pub limit: Semaphore,
    /// Who asks, for the journals.
    pub asker: String,
    /// Why, for the pins.
    pub reason: String,
    /// Where the one node is that this is about, if not where it is declared: `[user@]host[:port]`.
    pub via: Option<String>,
}

/// What is wanted of a node after it was looked at.
pub enum Wish {
    /// Switch it, and then keep the controller off it so long.
    Switch {
        /// The order.
        order: Order,
        /// The end of the person's say.
        until: PinEnd,
    },
    /// Only its secrets, where they are new: it runs the system already.
    Secrets,
    /// Nothing.
    Nothing(Ending),
}

impl Acting {
    /// Does `one` for each node at once, and collects how each ended.
    pub async fn each<T, F>(
        self: &Arc<Self>,
        nodes: BTreeMap<NodeName, T>,
        one: impl Fn(Arc<Self>, NodeName, T) -> F,
    ) -> Endings
    where
        F: Future<Output = Ending> + Send + 'static,
    {
        let mut tasks = JoinSet::new();
        for (name, about) in nodes {
            let began = Instant::now();
            let work = one(Arc::clone(self), name.clone(), about);
            let acting = Arc::clone(self);
            tasks.spawn(async move {
                let ending = work.await;
                ending.show(&name, &acting.progress);
                (name, (ending, began.elapsed()))
            });
        }
        // Only a panic ends a task early; `join_all` passes it on.
        let endings = tasks.join_all().await.into_iter().collect();
        self.progress.close();
        endings
    }

    /// Looks at a node, asks `wish` what to do with it, does that, and closes the connection.
    pub async fn switch(
        &self,
        name: &NodeName,
        spec: &NodeSpec,
        done: &'static str,
        wish: impl FnOnce(&NodeState) -> Wish,
    ) -> Ending {
        // Never closed; without a permit the switch would merely be one too many.
        let _permit = self.limit.acquire().await;
        self.progress.say(name, "connecting");
        let node = match self.node(name, spec) {
            Ok(node) => node,
            Err(error) => return Ending::of_error(name, error),
        };
        let ending = self.switch_over(&node, done, wish).await;
        node.close().await;
        ending
    }

    async fn switch_over(
        &self,
        node: &Node,
        done: &'static str,
        wish: impl FnOnce(&NodeState) -> Wish,
    ) -> Ending {
        let name = node.name();
        let state = match self.here.look(node).await {
            Ok(state) => state,
            Err(error) => return Ending::of_error(name, error),
        };
        if let Some(expected) = &node.spec().machine_id
            && state.machine_id.as_ref() != Some(expected)
        {
            let found = state.machine_id.map_or_else(|| "no machine id".to_owned(), String::from);
            return Ending::failed(
                "wrong machine",
                format!("it has {found}, the deployment says {expected}"),
            );
        }
        let (order, until) = match wish(&state) {
            Wish::Nothing(ending) => return ending,
            Wish::Secrets => return self.bring_secrets(node).await,
            Wish::Switch { order, until } => (order, until),
        };
        // Before the switch: a controller that sees the node changed must not act on it in between.
        let pin = Pin { by: self.asker.clone(), reason: self.reason.clone(), until };
        if let Err(error) = node.pin(&pin).await {
            return Ending::of_error(name, error);
        }
        let entry = match self.watched(node, &order).await {
            Ok(entry) => entry,
            Err(error) => {
                let ending = Ending::of_error(name, error);
                unpin_unless_done(node, &ending).await;
                return ending;
            }
        };
        let ending = Ending::of_entry(&entry, done);
        unpin_unless_done(node, &ending).await;
        match self.watched_hooks(node, &order, &entry).await {
            Ok(()) => ending,
            Err(error) => ending.and_hook_failed(name, &error),
        }
    }
}

/// Where nothing of the person's is on the node, the controller may go on.
pub async fn unpin_unless_done(node: &Node, ending: &Ending) {
    match ending {
        Ending::Done { .. } | Ending::Staged => {}
        Ending::Left { .. } | Ending::Failed { .. } => {
            if let Err(error) = node.unpin().await {
                tracing::warn!(node = %node.name(), "the pin stays: {}", error_chain(&error));
            }
        }
    }
}

impl Acting {
    /// The way to a node; nothing is connected yet.
    pub fn node(&self, name: &NodeName, spec: &NodeSpec) -> Result<Node, NodeError> {
        let via = self.via.as_ref().map(|address| spec.way().at(address));
        self.here.node_via(name, spec, via.as_ref())
    }

    /// Brings a node that runs its system what has changed of its secrets.
    async fn bring_secrets(&self, node: &Node) -> Ending {
        match node.refresh_secrets(&self.here.nix).await {
            Ok(Brought::None | Brought::Unchanged) => Ending::Done { word: "in sync", detail: String::new() },
            Ok(Brought::New(new)) => {
                let new: Vec<&str> = new.iter().map(SecretName::as_str).collect();
                Ending::Done { word: "secrets brought", detail: new.join(", ") }
            }
            Err(error) => Ending::of_error(node.name(), error),
        }
    }

    /// Deploys, and shows how far it is.
    pub async fn watched(&self, node: &Node, order: &Order) -> Result<Entry, NodeError> {
        let (sender, stages) = watch::channel(Stage::Preparing);
        let deploy = async {
            let ended = node.deploy(&self.here.nix, order, &sender).await;
            drop(sender);
            ended
        };
        tokio::join!(deploy, self.progress.follow(node.name(), stages)).0
    }

    /// Runs the hooks after a switch, and shows what they say.
    async fn watched_hooks(&self, node: &Node, order: &Order, entry: &Entry) -> Result<(), NodeError> {
        if !order.hooks.iter().any(|hook| hook.at == HookPoint::AfterSwitch) {
            return Ok(());
        }
        let (sender, stages) = watch::channel(Stage::Preparing);
        let run = async {
            let ended = node.hooks_after(&order.hooks, entry, &sender).await;
            drop(sender);
            ended
        };
        tokio::join!(run, self.progress.follow(node.name(), stages)).0
    }
}

/// The end of the pin that a deployment leaves.
pub fn in_an_hour() -> PinEnd {
    PinEnd::At(Timestamp::now() + PIN_FOR)
}

/// What a node ran before the switch that brought what it runs. A later switch to the very same system (one that only made it
/// the boot default again) brought nothing.
pub fn before(state: &NodeState) -> Option<&StorePath> {
    let brought = |entry: &&Entry| {
        entry.outcome == Some(Outcome::Succeeded)
            && entry.system == state.running
            && entry.previous != state.running
    };
    state.journal.iter().rev().find(brought).map(|entry| &entry.previous)
}

/// The commit that brought a system to a node, as its journal knows it; `-` where it does not.
pub fn revision_of(system: &StorePath, state: &NodeState) -> String {
    let brought = state.journal.iter().rev().find(|entry| entry.system == *system && entry.revision != "-");
    brought.map_or_else(|| "-".into(), |entry| entry.revision.clone())
}

/// Who asks: `alice@laptop`, as far as the environment tells; a name for journals, not a proof.
pub fn asker() -> String {
    let user = ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(|key| std::env::var(key).ok());
    let host = std::fs::read_to_string(Path::new("/proc/sys/kernel/hostname")).unwrap_or_default();
    let plain = |text: &str| -> String {
        text.trim().chars().filter(|c| !c.is_whitespace() && !c.is_control()).take(60).collect()
    };
    let host = Some(plain(&host)).filter(|host| !host.is_empty()).unwrap_or_else(|| "localhost".into());
    format!("{}@{host}", plain(user.as_deref().unwrap_or("somebody")))
}
