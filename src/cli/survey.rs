//! What an evaluation found, with what it cannot make use of. Only tells; evaluating is the business of `direct`.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use super::origin::Origin;
use crate::model::name::NodeName;
use crate::model::node::Unsupported;
use crate::model::release::{NodeRelease, Release};
use crate::plan::declared::Misdeclared;

/// What an evaluation found.
#[derive(Debug)]
pub struct Survey {
    /// The format that the deployment is written in.
    pub format: String,
    /// How many nodes it declares, disabled ones included.
    pub declared: usize,
    /// What is said of all nodes and not heeded.
    pub unsupported: Vec<Unsupported>,
    /// Nodes that cannot be deployed at all, and why.
    pub not_deployable: BTreeMap<NodeName, Vec<Unsupported>>,
    /// What it declares of its rollout that cannot be meant.
    pub misdeclared: Vec<Misdeclared>,
    /// The nodes that can be.
    pub release: Release,
}

impl Survey {
    /// Refuses a deployment that declares nothing: who acts on it means something else.
    pub fn not_empty(self, origin: &Origin) -> Result<Self> {
        match (origin, self.declared) {
            (Origin::File { .. } | Origin::Flake { .. }, 0) => bail!("{origin} declares no nodes"),
            (Origin::File { .. } | Origin::Flake { .. } | Origin::Release(_), _) => Ok(self),
        }
    }

    /// Refuses a deployment that declares what cannot be meant.
    pub fn well_declared(self, origin: &Origin) -> Result<Self> {
        if self.misdeclared.is_empty() {
            return Ok(self);
        }
        bail!("{origin} declares what cannot be meant:\n{}", mistakes(&self.misdeclared).trim_end())
    }

    /// How many settings are not heeded.
    pub fn ignored(&self) -> usize {
        let said = self.release.nodes.values().map(|node| unsupported(node).len());
        self.unsupported.len() + said.sum::<usize>()
    }
}

/// One line for each mistake.
pub fn mistakes(found: &[Misdeclared]) -> String {
    found.iter().map(|mistake| format!("{mistake}\n")).collect()
}

/// What a node says and is not heeded.
pub fn unsupported(node: &NodeRelease) -> &[Unsupported] {
    node.spec.as_ref().map_or(&[], |spec| &spec.unsupported)
}

/// One line for each setting that is not heeded.
pub fn notes(before: &str, unsupported: &[Unsupported]) -> String {
    lines(&format!("{before}not heeded: "), unsupported)
}

/// One line for each reason why a node cannot be deployed.
pub fn lines(before: &str, unsupported: &[Unsupported]) -> String {
    unsupported.iter().map(|note| format!("{before}{note}\n")).collect()
}
