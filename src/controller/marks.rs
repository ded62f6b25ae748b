//! The marks of suspensions on nodes: made equal, beside the loop, to what people want. A node that was out of reach gets its
//! own when it answers. Which marks those are is `plan`'s to say.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use super::Desk;
use crate::model::intent::Intent;
use crate::model::name::NodeName;
use crate::model::observed::Observation;
use crate::model::snapshot::NodeView;
use crate::node::{Node, NodeError};
use crate::plan::suspended::{MarkChange, mark_changes};

/// Nodes at a time.
const AT_A_TIME: usize = 8;
/// The wait after a failure, doubled with each one in a row.
const AGAIN: Duration = Duration::from_secs(15);
/// No wait is longer.
const LONGEST: Duration = Duration::from_secs(600);

/// A node whose program cannot be asked for marks may have got another one by then.
const OLDER: Duration = Duration::from_secs(3600);

/// What is being written, and what could not be.
#[derive(Debug)]
pub struct Marks {
    places: Arc<Semaphore>,
    /// Ended with this value: nothing is asked of a node after a shutdown.
    writing: BTreeMap<NodeName, AbortOnDropHandle<()>>,
    /// What a node's marks were when they were changed: until it is looked at again, nobody knows what they are.
    changed: BTreeMap<NodeName, Arc<Observation>>,
    failed: BTreeMap<NodeName, (u32, Instant)>,
    ended: mpsc::UnboundedReceiver<(NodeName, Result<(), NodeError>)>,
    tell: mpsc::UnboundedSender<(NodeName, Result<(), NodeError>)>,
}

impl Default for Marks {
    fn default() -> Self {
        let (tell, ended) = mpsc::unbounded_channel();
        Self {
            places: Arc::new(Semaphore::new(AT_A_TIME)),
            writing: BTreeMap::new(),
            changed: BTreeMap::new(),
            failed: BTreeMap::new(),
            ended,
            tell,
        }
    }
}

impl Marks {
    /// Starts what differs. Returns the nodes that have new marks, and are to be looked at.
    pub fn start(
        &mut self,
        intent: &Intent,
        views: &BTreeMap<NodeName, Arc<NodeView>>,
        now: Timestamp,
        nodes: impl Fn(&NodeName) -> Option<Arc<Node>>,
        desk: &Desk,
    ) -> Vec<NodeName> {
        let done = self.take_in();
        self.changed.retain(|name, _| views.contains_key(name));
        self.failed.retain(|name, _| views.contains_key(name));
        self.writing.retain(|name, _| views.contains_key(name));
        for (name, view) in views {
            let Some(seen) = &view.observation else { continue };
            let known = self.changed.get(name).is_none_or(|before| !Arc::ptr_eq(before, seen));
            let due = self.failed.get(name).is_none_or(|(_, due)| *due <= Instant::now());
            if !known || !due || self.writing.contains_key(name) {
                continue;
            }
            self.changed.remove(name);
            let changes = mark_changes(intent, name, view, now);
            if changes.is_empty() {
                self.failed.remove(name);
                continue;
            }
            let Some(node) = nodes(name) else { continue };
            self.changed.insert(name.clone(), Arc::clone(seen));
            self.writing.insert(name.clone(), self.write(node, changes, desk));
        }
        done
    }

    fn write(&self, node: Arc<Node>, changes: Vec<MarkChange>, desk: &Desk) -> AbortOnDropHandle<()> {
        let (places, tell, desk) = (Arc::clone(&self.places), self.tell.clone(), desk.clone());
        let span = tracing::info_span!("marks", node = %node.name());
        let task = async move {
            // Never closed; without a place it would merely be one too many.
            let _place = places.acquire_owned().await;
            let written = write(&node, &changes).await;
            // The loop is gone only at shutdown, and then nobody wants to know.
            let _ = tell.send((node.name().clone(), written));
            desk.look_again();
        };
        AbortOnDropHandle::new(tokio::spawn(task.instrument(span)))
    }

    fn take_in(&mut self) -> Vec<NodeName> {
        let mut done = Vec::new();
        while let Ok((name, outcome)) = self.ended.try_recv() {
            self.writing.remove(&name);
            if let Err(error) = outcome {
                let failures = self.failed.get(&name).map_or(0, |(failures, _)| *failures);
                let wait = match error.is_of_older_program() {
                    true => OLDER,
                    false => AGAIN.saturating_mul(1 << failures.min(10)).min(LONGEST),
                };
                tracing::warn!(
                    node = %name, error = &error as &dyn std::error::Error, again_s = wait.as_secs(),
                    "the marks of suspensions are not on the node; while this controller keeps its state it is left alone all the same"
                );
                self.failed.insert(name.clone(), (failures.saturating_add(1), Instant::now() + wait));
            }
            done.push(name);
        }
        done
    }

    /// A person asks: what could not be written is tried now.
    pub fn try_now(&mut self) {
        self.failed.clear();
    }

    /// Ends what runs.
    pub fn cancel(&mut self) {
        self.writing.clear();
    }
}

async fn write(node: &Node, changes: &[MarkChange]) -> Result<(), NodeError> {
    for change in changes {
        match change {
            MarkChange::Write(mark) => node.mark_suspended(mark).await?,
            MarkChange::Remove(id) => node.unmark_suspended(id).await?,
        }
    }
    Ok(())
}
