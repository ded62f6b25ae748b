//! What is done to a node: the part of a decision that an executor carries out.

use serde::{Deserialize, Serialize};

use super::journal::SwitchId;
use super::node::Goal;
use super::observed::BootId;
use super::store_path::StorePath;

/// What an executor does, with no choice left to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "action")]
pub enum Action {
    /// Copy the closure and switch.
    Deploy {
        /// What to install.
        toplevel: StorePath,
        /// What the node must still run when the switch starts (compare and set).
        expected: StorePath,
        /// How.
        goal: Goal,
        /// What for.
        purpose: Purpose,
    },
    /// Reboot it, and wait until it is back.
    Reboot {
        /// The boot that is ended: a node that has booted since is left alone.
        boot: BootId,
        /// What it has to come back with.
        toplevel: StorePath,
    },
    /// Watch a switch that an earlier controller started, and give its verdict.
    Attach {
        /// The switch.
        id: SwitchId,
        /// What it installs.
        toplevel: StorePath,
    },
}

impl Action {
    /// The system that it is about.
    pub fn toplevel(&self) -> &StorePath {
        match self {
            Self::Deploy { toplevel, .. } | Self::Reboot { toplevel, .. } | Self::Attach { toplevel, .. } => {
                toplevel
            }
        }
    }
}

/// What a deployment is for; not all of them wait for the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// What the node was booted into once is to be proven.
    Proof,
    /// The release failed elsewhere: the node goes back to what it ran before.
    TakeBack,
    /// The node goes back to what was installed on it already.
    Heal,
    /// The node gets something new.
    Release,
}
