//! Deployment → manifest: the names, then nodes in chunks, several processes at a time. Builds nothing.
//!
//! A chunk that fails, for whatever reason, is split until the broken node stands alone with its own error. How large
//! chunks are, and how much memory each may have, is `share`'s; what one process is asked, `ask`'s.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::ask::Asked;
use super::cache::Cache;
use super::memory;
use super::queue::{Chunk, Company, Fault, Order, Queue};
use super::share::Budget;
use super::{Deployment, Nix, NixError};
use crate::config::Bytes;
use crate::model::manifest::Names;
use crate::model::name::NodeName;
use crate::model::node::{NodeSpec, Unsupported};

/// What one node evaluates to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Evaluated {
    /// It is to be deployed.
    Node(Box<NodeSpec>),
    /// `enabled = false`: it is no part of the fleet. (The names are listed without evaluating any node.)
    Disabled,
    /// Another tool's node that driftless cannot deploy, and why; it is no part of the fleet either.
    NotDeployable(Vec<Unsupported>),
}

/// Where the answers go, one for each node.
type Answers = mpsc::Sender<(NodeName, Result<Evaluated, NixError>)>;

/// Nobody listens any more.
struct Unheard;

/// Where the memory of this host cannot be read.
const ASSUMED_MEMORY: u64 = 2 << 30;

impl Nix {
    /// Lists the nodes of a deployment without evaluating any. Costs no process where the cache knows it.
    pub async fn names(&self, deployment: &Deployment) -> Result<Names, NixError> {
        let cache = self.cache(deployment);
        if let Some(names) = cache.as_ref().and_then(Cache::names) {
            return Ok(names);
        }
        let names = self.ask_names(deployment, self.eval_memory().alone).await?;
        if let Some(cache) = cache {
            cache.keep_names(&names);
        }
        Ok(names)
    }

    /// Evaluates nodes and sends each result as soon as its chunk is done, the cached ones at once. Returns when every
    /// node was sent, or when nobody listens any more. Dropping the future ends the evaluators.
    pub async fn evaluate(&self, deployment: &Deployment, order: impl Into<Order>, out: Answers) {
        // Whoever does not listen any more has lost interest in the rest, too.
        let _ = self.evaluate_in(deployment, order.into(), &out).await;
    }

    async fn evaluate_in(&self, deployment: &Deployment, order: Order, out: &Answers) -> Result<(), Unheard> {
        let cache = self.cache(deployment);
        let mut groups = Vec::new();
        for group in order.0 {
            groups.push(self.uncached(group, cache.as_ref(), out).await?);
        }
        let known: BTreeMap<_, _> =
            groups.iter().flatten().map(|name| (name.clone(), self.experience(name))).collect();
        let (workers, most) = (self.eval.workers, self.eval.chunk);
        let mut queue = Queue::new(groups, &known, self.eval_memory(), workers, most);
        let deployment = Arc::new(deployment.clone());
        let mut running = JoinSet::new();
        loop {
            while running.len() < queue.workers()
                && let Some(chunk) = queue.next(running.len())
            {
                tracing::debug!(nodes = chunk.nodes.len(), memory = %chunk.memory, "evaluating");
                running.spawn(self.clone().chunk(Arc::clone(&deployment), chunk));
            }
            let Some(joined) = running.join_next().await else { return Ok(()) };
            let (chunk, outcome) = match joined {
                Ok(ended) => ended,
                Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
                Err(_) => continue,
            };
            match outcome {
                Ok(asked) => {
                    queue.succeeded(&chunk, asked.allocated);
                    self.hand_out(asked, cache.as_ref(), out).await?;
                }
                Err(error) => self.divide(&mut queue, chunk, error, out).await?,
            }
        }
    }

    /// Sends what the cache knows, and returns the others.
    async fn uncached(
        &self,
        nodes: BTreeSet<NodeName>,
        cache: Option<&Cache>,
        out: &Answers,
    ) -> Result<Vec<NodeName>, Unheard> {
        let mut others = Vec::new();
        for name in nodes {
            match cache.and_then(|cache| cache.node(&name)) {
                None => others.push(name),
                Some(known) => out.send((name, Ok(known))).await.map_err(|_| Unheard)?,
            }
        }
        Ok(others)
    }

    async fn chunk(self, deployment: Arc<Deployment>, chunk: Chunk) -> (Chunk, Result<Asked, NixError>) {
        let wanted = match chunk.place {
            Company::Others => 1,
            Company::Nobody => u32::try_from(self.eval.workers.max(1)).unwrap_or(1),
        };
        // The semaphore is never closed; if it were, evaluating without a permit would still be right.
        let permit = self.evaluations.clone().acquire_many_owned(wanted).await;
        let asked = self.ask_nodes(&deployment, &chunk.nodes, chunk.memory).await;
        drop(permit);
        if let Ok(asked) = &asked {
            self.root_derivations(&asked.answers).await;
        }
        (chunk, asked)
    }

    /// Remembers and sends the answers of one chunk.
    async fn hand_out(&self, asked: Asked, cache: Option<&Cache>, out: &Answers) -> Result<(), Unheard> {
        let each = asked.allocated.map(|all| all / (asked.answers.len().max(1) as u64));
        for (name, answer) in asked.answers {
            self.learn(&name, |known| {
                known.allocated = each.or(known.allocated);
                known.too_little = known.too_little.filter(|tried| each.is_none_or(|each| each >= *tried));
                known.reads = asked.reads.clone().or_else(|| known.reads.take());
            });
            if let (Some(cache), Ok(evaluated)) = (cache, &answer) {
                cache.keep_node(&name, evaluated);
            }
            out.send((name, answer)).await.map_err(|_| Unheard)?;
        }
        Ok(())
    }

    /// Takes in that a chunk failed. What nobody can be asked again about is told.
    async fn divide(
        &self,
        queue: &mut Queue,
        chunk: Chunk,
        error: NixError,
        out: &Answers,
    ) -> Result<(), Unheard> {
        let fault = if error.wants_memory() { Fault::Memory } else { Fault::Other };
        if let ([one], Fault::Memory) = (chunk.nodes.as_slice(), fault) {
            self.learn(one, |known| known.too_little = Some(chunk.memory.0));
        }
        if queue.failed(&chunk, fault) {
            return Ok(());
        }
        for (name, error) in chunk.nodes.into_iter().zip([error]) {
            out.send((name, Err(error))).await.map_err(|_| Unheard)?;
        }
        Ok(())
    }

    /// The memory of evaluations. Unless it is configured, swap is for nodes that cannot be evaluated without.
    fn eval_memory(&self) -> Budget {
        let share = |bytes: u64| Bytes(bytes / 4 * 3);
        match self.eval.memory {
            Some(memory) => Budget { together: memory, alone: memory },
            None => {
                let available = memory::available().unwrap_or(ASSUMED_MEMORY);
                Budget { together: share(available), alone: share(available + memory::swap()) }
            }
        }
    }
}
