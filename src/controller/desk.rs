//! Where tasks hand in what they found; the next pass reads it. Keeps nothing else, and wakes with no data.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};

use super::prepare::Prepared;
use crate::model::name::NodeName;
use crate::model::packages::PackageDiff;
use crate::model::store_path::StorePath;
use crate::node::Checked;
use crate::reconcile::lookout::Sight;
use crate::source::SourceError;

/// What a task found; read by the next pass.
#[derive(Debug)]
pub(super) enum News {
    /// The source was asked for its newest commit.
    Fetched { outcome: Result<super::head::Fetched, SourceError>, took: Duration },
    /// A step of evaluating and building a revision.
    Prepared { number: u64, step: Prepared },
    /// A node was looked at.
    Observed { node: NodeName, sight: Box<Sight> },
    /// An action ended; the node was looked at right after it.
    Ended(Box<super::execute::Ended>),
    /// Two closures were compared.
    Compared { pair: super::compare::Pair, packages: Option<PackageDiff> },
    /// A node's secrets were compared, and brought where they were new; or not.
    SecretsCompared { node: NodeName, toplevel: StorePath, well: bool },
    /// The health checks of a node were asked.
    HealthChecked { node: NodeName, round: Vec<Checked> },
}

/// How tasks hand in what they found.
#[derive(Debug, Clone)]
pub(super) struct Desk {
    pub(super) news: mpsc::UnboundedSender<News>,
    pub(super) wake: Arc<Notify>,
}

impl Desk {
    pub(super) fn hand_in(&self, news: News) {
        // The loop is gone only at shutdown, and then nobody wants to know.
        let _ = self.news.send(news);
        self.wake.notify_one();
    }

    pub(super) fn look_again(&self) {
        self.wake.notify_one();
    }
}
