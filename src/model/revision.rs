//! One commit of the source, as far as the rest of driftless needs to know it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

parsed_string!(
    /// A full Git object id of a commit: 40 (SHA-1) or 64 (SHA-256) lower-case hexadecimal digits.
    CommitId,
    "commit id",
    "40 or 64 lower-case hexadecimal digits",
    |text| matches!(text.len(), 40 | 64) && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
);

impl CommitId {
    /// The first seven digits, as Git shows them to people.
    pub fn short(&self) -> &str {
        &self.as_str()[..7]
    }
}

/// One commit of the source that was fetched and, where the configuration asks for it, verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    /// The commit.
    pub commit: CommitId,
    /// The Git tree of the commit: two commits with the same tree evaluate alike.
    pub tree: String,
    /// First line of the message.
    pub subject: String,
    /// `Name <mail>` of the author.
    pub author: String,
    /// The committer's time.
    pub committed_at: Timestamp,
}
