//! The document that a deployment evaluates to: the border between Nix and Rust.
//!
//! `nix/manifest.nix` writes it in two kinds: the names (cheap), then chunks of nodes. A release file baked into a
//! `./result` script is a manifest of all nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::name::NodeName;
use super::node::{NodeSpec, Unsupported, seconds};

/// The only manifest version this program understands.
pub const VERSION: u32 = 1;

/// What `want names` answers: which nodes there are, without evaluating any of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Names {
    /// Manifest version.
    pub version: u32,
    /// The format that was recognised, for example `driftless` or `flake`.
    pub format: String,
    /// Every enabled node.
    pub nodes: BTreeSet<NodeName>,
    /// Fleet-wide settings.
    #[serde(default)]
    pub rollout: RolloutSpec,
    /// What another tool's file says of all nodes and is not heeded.
    #[serde(default)]
    pub unsupported: Vec<Unsupported>,
}

/// What `want nodes` answers, and what a `./result` script carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Manifest version.
    pub version: u32,
    /// The format that was recognised.
    pub format: String,
    /// The nodes that were asked for.
    pub nodes: BTreeMap<NodeName, NodeSpec>,
    /// Fleet-wide settings.
    #[serde(default)]
    pub rollout: RolloutSpec,
}

/// Fleet-wide settings of a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RolloutSpec {
    /// How many nodes may be switching at once.
    pub max_in_flight: u32,
    /// One node that does not evaluate or build holds the whole release.
    pub require_all: bool,
    /// How long a node that somebody changed by hand is left alone, seconds.
    #[serde(with = "seconds")]
    pub heal_after: Duration,
}

impl Default for RolloutSpec {
    fn default() -> Self {
        Self { max_in_flight: 5, require_all: false, heal_after: Duration::from_secs(300) }
    }
}
