//! What people want of a running controller beyond what Git says: suspensions, approvals, opened windows. Pure; the
//! controller keeps it in `intent.json`, and suspensions on the nodes too.

pub mod edit;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::name::NodeName;
use super::node::NodeSpec;
use super::selector::Selector;

/// The version of the document that this program writes.
pub const VERSION: u32 = 1;

parsed_string!(
    /// Names one suspension: `20261122T170102Z-1f2e3d4c`.
    SuspensionId,
    "suspension id",
    "YYYYMMDDTHHMMSSZ-XXXXXXXX",
    |text| text.len() == 25 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
);

impl SuspensionId {
    /// Makes an id from the time of asking and a random number.
    pub fn new(at: Timestamp, random: u32) -> Self {
        let time = at.strftime("%Y%m%dT%H%M%SZ");
        Self(format!("{time}-{random:08x}"))
    }

    /// The one of the suspension that stands for an `intent.json` that cannot be read. No clock makes it.
    pub fn of_unreadable() -> Self {
        Self("00000000T000000Z-00000000".into())
    }
}

parsed_string!(
    /// Stands for exactly what is approved: the systems of the nodes of a wave, or of one node. Twelve hexadecimal digits.
    PlanHash,
    "plan hash",
    "12 lower-case hexadecimal digits",
    |text| text.len() == 12 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
);

/// Everything that people have said and that still counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Intent {
    /// [`VERSION`].
    pub version: u32,
    /// What is left alone.
    #[serde(default)]
    pub suspensions: BTreeMap<SuspensionId, Suspension>,
    /// Suspensions that were ended, and when: a node that was out of reach then still carries the mark of its own.
    #[serde(default)]
    pub resumed: BTreeMap<SuspensionId, Timestamp>,
    /// Nodes that were resumed while others may still carry the mark of the same suspension, which is all that is known of
    /// it.
    #[serde(default)]
    pub released: BTreeMap<SuspensionId, BTreeSet<NodeName>>,
    /// What may be done.
    #[serde(default)]
    pub approvals: Vec<Approval>,
    /// For which nodes windows do not count.
    #[serde(default)]
    pub overrides: Vec<Override>,
}

impl Default for Intent {
    fn default() -> Self {
        Self {
            version: VERSION,
            suspensions: BTreeMap::new(),
            resumed: BTreeMap::new(),
            released: BTreeMap::new(),
            approvals: Vec::new(),
            overrides: Vec::new(),
        }
    }
}

impl Intent {
    /// Whether a mark on this node says more than is known here.
    pub fn counts(&self, name: &NodeName, mark: &SuspensionMark) -> bool {
        !self.suspensions.contains_key(&mark.id)
            && !self.resumed.contains_key(&mark.id)
            && !self.released.get(&mark.id).is_some_and(|released| released.contains(name))
    }
}

/// Nodes are left alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Suspension {
    /// Which nodes.
    pub on: Selector,
    /// Who said so.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
    /// Until when; `None`: until somebody says `driftless resume`.
    pub until: Option<Timestamp>,
}

impl Suspension {
    /// Whether it means this node. Of a node that does not evaluate no tags are known.
    pub fn means(&self, name: &NodeName, spec: Option<&NodeSpec>) -> bool {
        match spec {
            Some(spec) => self.on.matches(name, &spec.tags),
            None => self.on.matches(name, &BTreeSet::new()),
        }
    }
}

/// The mark of a suspension on a node: what is left of it when the controller's state is lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SuspensionMark {
    /// Which suspension.
    pub id: SuspensionId,
    /// Who said so.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Until when, if not until somebody says so.
    pub until: Option<Timestamp>,
}

/// Why one node is left alone: of all that suspend it, what lasts longest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeSuspension {
    /// Who said so; [`DEPLOYMENT`] where Git does.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Until when; `None`: until somebody says so.
    pub until: Option<Timestamp>,
    /// Which suspension; `None` where it is declared in Git and only ends there.
    pub id: Option<SuspensionId>,
}

/// Who suspends a node that the deployment declares as suspended.
pub const DEPLOYMENT: &str = "the deployment";

/// A person has approved what a wave or a node waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Approval {
    /// Exactly what.
    pub hash: PlanHash,
    /// The same for people, for example `wave 2 of 3f9c2e1`.
    pub what: String,
    /// Who approved.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// Until when it counts.
    pub until: Timestamp,
}

/// In an emergency windows do not count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Override {
    /// For which nodes.
    pub on: Selector,
    /// Who said so.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
    /// Until when.
    pub until: Timestamp,
}
