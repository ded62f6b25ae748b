//! A revision that is being evaluated and built: how it goes, for the log and the metrics. Dropped, it is ended.

use std::time::Instant;

use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;

use super::candidate::{Candidate, Hearing};
use super::prepare::{Again, Failure, Prepared};
use crate::model::name::NodeName;
use crate::model::revision::Revision;
use crate::nix::Publication;
use crate::serve::metrics::{BuildResult, EvaluationResult, Metrics, PublicationResult};

/// What runs, and how far it is.
#[derive(Debug)]
pub struct Preparing {
    /// The commit.
    pub revision: Revision,
    /// When it began.
    pub began: Instant,
    /// How many nodes evaluated so far.
    pub evaluated: Counts,
    /// The commit until it is in force.
    pub candidate: Option<Candidate>,
    /// What is known of its rollout once it is in force, until all is.
    pub hearing: Option<Hearing>,
    /// What was found out about nodes that come after others.
    pub postponed: Vec<Prepared>,
    /// What cannot be meant of it, if that was found out only when it was in force.
    pub misdeclared: Option<String>,
    /// What a further try would bring where this one fails.
    pub again: Again,
    _task: AbortOnDropHandle<()>,
}

/// Nodes that evaluate and nodes that do not.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// They do.
    pub good: usize,
    /// They do not.
    pub bad: usize,
}

impl Preparing {
    /// Begins now.
    pub fn new(revision: Revision, task: JoinHandle<()>) -> Self {
        let (began, evaluated) = (Instant::now(), Counts::default());
        let _task = AbortOnDropHandle::new(task);
        Self {
            revision,
            began,
            evaluated,
            candidate: None,
            hearing: None,
            postponed: Vec::new(),
            misdeclared: None,
            again: Again::Same,
            _task,
        }
    }

    /// Counts one step, and keeps why the newest publication failed, if it did.
    pub fn count(&mut self, step: &Prepared, metrics: &Metrics, publish_error: &mut Option<String>) {
        let took = self.began.elapsed();
        match step {
            Prepared::Evaluated(_, Ok(_)) => self.evaluated.good += 1,
            Prepared::Evaluated(name, Err(failure)) => {
                self.evaluated.bad += 1;
                tracing::warn!(node = %name, error = failure.said, "does not evaluate");
                self.failed(failure);
            }
            Prepared::Built(name, Ok(publication)) => {
                metrics.built(BuildResult::Success, took);
                published(publish_error, name, publication);
                self.published(publication, metrics);
            }
            Prepared::Built(name, Err(failure)) => {
                metrics.built(BuildResult::Failed, took);
                tracing::warn!(node = %name, error = failure.said, "does not build");
                self.failed(failure);
            }
            Prepared::Blocked(_, failure) => {
                metrics.evaluated(EvaluationResult::Failed, took);
                self.failed(failure);
            }
            Prepared::Named(_) | Prepared::Done => {}
        }
    }

    fn published(&mut self, publication: &Publication, metrics: &Metrics) {
        match publication {
            Publication::NotAsked => {}
            Publication::Done => metrics.published(PublicationResult::Success),
            Publication::Failed(_) => {
                metrics.published(PublicationResult::Failed);
                self.again = Again::Perhaps;
            }
        }
    }

    fn failed(&mut self, failure: &Failure) {
        match failure.again {
            Again::Perhaps => self.again = Again::Perhaps,
            Again::Same => {}
        }
    }

    /// How the evaluation ended, of a revision whose names are known.
    pub fn result(&self) -> EvaluationResult {
        match (self.evaluated.good, self.evaluated.bad) {
            (_, 0) => EvaluationResult::Success,
            (0, _) => EvaluationResult::Failed,
            (_, _) => EvaluationResult::Partial,
        }
    }
}

/// What changes is said once, not for each node.
fn published(trouble: &mut Option<String>, name: &NodeName, publication: &Publication) {
    let now = match publication {
        Publication::NotAsked | Publication::Done => None,
        Publication::Failed(said) => Some(said.clone()),
    };
    match (&now, &*trouble) {
        (Some(said), before) if before.as_ref() != Some(said) => {
            tracing::warn!(node = %name, error = said, "built, but not published; nodes get it from here");
        }
        (None, Some(_)) => tracing::info!(node = %name, "what is built is published again"),
        (None | Some(_), _) => {}
    }
    *trouble = now;
}
