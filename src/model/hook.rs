//! Hooks: what a deployment has done on the deploying machine around a node's switch, and whether that is allowed here.

use serde::{Deserialize, Serialize};

use super::node::NodeSpec;
use super::store_path::{DrvPath, StorePath};

/// One hook; `nix/hooks.nix` writes it, in the order in which they run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Hook {
    /// Its name in `deployScriptPhases`.
    pub name: String,
    /// When it runs.
    pub at: HookPoint,
    /// The program.
    pub script: StorePath,
    /// What builds it.
    pub drv: DrvPath,
}

/// Between which steps a hook runs. The order is that of a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HookPoint {
    /// Before anything is copied.
    BeforeCopy,
    /// When the system is on the node.
    BeforeSecrets,
    /// Right before the switch.
    BeforeSwitch,
    /// When the switch has ended, well or not.
    AfterSwitch,
}

impl HookPoint {
    /// For messages: "before the copy".
    pub fn as_words(self) -> &'static str {
        match self {
            Self::BeforeCopy => "before the copy",
            Self::BeforeSecrets | Self::BeforeSwitch => "before the switch",
            Self::AfterSwitch => "after the switch",
        }
    }
}

/// Whether a controller runs hooks. They are code from the repository, and whoever runs them has its keys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HookPolicy {
    /// Nodes that have any are not switched.
    #[default]
    Refuse,
    /// As its own user.
    Run,
}

/// A hook that failed after a switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HookFailure {
    /// What was switched to.
    pub toplevel: StorePath,
    /// Which hook, and what it said.
    pub error: String,
}

impl NodeSpec {
    /// The hooks around a switch: those of the declared system, where it is not what runs already. A system that is only
    /// proven or made the boot default brings nothing; an older one is not what they were written for.
    pub fn hooks_around(&self, toplevel: &StorePath, running: &StorePath) -> &[Hook] {
        if *toplevel == self.toplevel && toplevel != running { &self.hooks } else { &[] }
    }
}
