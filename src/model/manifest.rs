//! The document that a deployment evaluates to: the border between Nix and Rust.
//!
//! `nix/manifest.nix` writes it in two kinds: the names (cheap), then chunks of nodes. A release file baked into a
//! `./result` script is a manifest of all nodes.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::name::NodeName;
use super::node::{NodeSpec, Unsupported};
use super::rollout::RolloutSpec;

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
