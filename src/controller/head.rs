//! Asks the source for its newest commit, and how that relates to the one in force. Judges neither.

use crate::model::revision::{CommitId, Revision};
use crate::source::{Lineage, Source, SourceError};

/// The newest commit, and how it relates to the revision in force.
#[derive(Debug)]
pub struct Fetched {
    /// The newest commit.
    pub revision: Revision,
    /// How it relates.
    pub lineage: Lineage,
}

/// Fetches; with nothing in force, every commit continues.
pub async fn fetch(source: Source, in_force: Option<CommitId>) -> Result<Fetched, SourceError> {
    let revision = source.fetch().await?;
    let lineage = match in_force {
        None => Lineage::Continued,
        Some(in_force) => source.lineage(&revision.commit, &in_force)?,
    };
    Ok(Fetched { revision, lineage })
}
