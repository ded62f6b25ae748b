//! The picture that windows show before the first pass.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::config::Config;
use crate::model::snapshot::{Ready, Snapshot, SourceView};

impl Snapshot {
    /// The picture before the first pass.
    pub(super) fn starting(config: &Config, now: Timestamp) -> Self {
        Self {
            version: 1,
            at: now,
            passes: 0,
            ready: Ready::Starting,
            source: SourceView::unasked(config.source.display_url(), config.source.branch.clone()),
            intent: Arc::default(),
            nodes: BTreeMap::new(),
            waves: Vec::new(),
        }
    }
}
