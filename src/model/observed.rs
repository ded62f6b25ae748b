//! What the nodes really are, as far as they could be asked, and what is being done to them.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::health::FailingCheck;
use super::hook::{HookFailure, HookPoint, HookPolicy};
use super::intent::SuspensionMark;
use super::journal::{Entry, Journal, Pin};
use super::name::NodeName;
use super::node::MachineId;
use super::store_path::StorePath;
use super::way::Way;

parsed_string!(
    /// The kernel's `/proc/sys/kernel/random/boot_id`: a UUID, new at every boot (random(4)).
    BootId,
    "boot id",
    "a lower-case UUID",
    |text| text.len() == 36 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-'))
);

/// The fleet as last seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Observed {
    /// What is known of each node; a node that was never looked at is absent.
    pub nodes: BTreeMap<NodeName, Arc<Observation>>,
    /// What this controller is doing right now.
    pub in_flight: BTreeMap<NodeName, InFlight>,
    /// Attempts that failed before the node's own journal could say so (connect, copy, refusals).
    pub attempts: BTreeMap<NodeName, Attempt>,
    /// Hooks that failed after a switch of this controller.
    #[serde(default)]
    pub hook_failures: BTreeMap<NodeName, HookFailure>,
    /// Whether whoever acts runs hooks.
    #[serde(default)]
    pub hooks: HookPolicy,
    /// What this controller or its predecessor began on a node and has not seen end well for long enough.
    #[serde(default)]
    pub begun: BTreeMap<NodeName, Begun>,
    /// Whether this controller has looked at every node once.
    #[serde(default)]
    pub first_look: FirstLook,
}

/// Whether a controller has looked at every node of a release once since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FirstLook {
    /// Some are still to be looked at.
    Open,
    /// All were. For good: a node that is added later is another matter.
    #[default]
    Over,
}

/// Something that was begun on a node. A node that falls silent after it cannot say whether that was its end; kept in the
/// state directory until it is settled, because a node that does not answer cannot be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Begun {
    /// The system that was to be installed, or booted.
    pub toplevel: StorePath,
    /// When.
    pub at: Timestamp,
    /// What.
    pub what: BegunWhat,
}

/// What was begun on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "what")]
pub enum BegunWhat {
    /// A switch.
    Switch,
    /// A reboot.
    Reboot {
        /// Out of this boot.
        boot: BootId,
    },
}

/// An order to reboot that a node remembers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RebootOrder {
    /// The boot in which it was given.
    pub boot: BootId,
    /// What the node was to come back with.
    pub toplevel: StorePath,
    /// When, by the node's clock.
    pub at: Timestamp,
}

/// What is known of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Observation {
    /// Whether the last look succeeded.
    pub contact: Contact,
    /// The last state that was read, kept while the node is unreachable.
    pub state: Option<NodeState>,
    /// Since when `state.running` and `state.boot_default` have been what they are, as seen from here.
    pub state_since: Option<Timestamp>,
    /// Where it answers, while that is not where it is declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elsewhere: Option<Elsewhere>,
    /// Checks that fail, as last asked; kept while the node is unreachable or being switched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub health: Vec<FailingCheck>,
}

/// A node that answers where it answered last, and not where it is declared now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Elsewhere {
    /// The way that answers; the one that is worked over.
    pub way: Way,
    /// That way for people, told from the declared one.
    pub at: String,
    /// Why it is not the declared one, one sentence.
    pub error: String,
}

/// Whether the last look at a node succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "contact")]
pub enum Contact {
    /// It answered.
    Reachable {
        /// When.
        at: Timestamp,
    },
    /// It did not.
    Unreachable {
        /// Since the first failed look.
        since: Timestamp,
        /// The last error, one sentence.
        error: String,
    },
}

impl Contact {
    /// Whether the node answered.
    pub fn is_reachable(&self) -> bool {
        match self {
            Self::Reachable { .. } => true,
            Self::Unreachable { .. } => false,
        }
    }
}

/// One read of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeState {
    /// This boot.
    pub boot_id: BootId,
    /// `/etc/machine-id`.
    pub machine_id: Option<MachineId>,
    /// The node's own clock when it was read: relates the times of its journal to ours. A node's clock may be years off
    /// until its first NTP sync, and a backoff must neither vanish nor last for years because of that.
    pub clock: Option<Timestamp>,
    /// Seconds since boot.
    pub uptime: u64,
    /// `/run/current-system`.
    pub running: StorePath,
    /// What the system profile points to.
    pub boot_default: Option<StorePath>,
    /// What the next boot starts, once, by order of a switch; only the one after that starts the boot default again.
    #[serde(default)]
    pub staged: Option<StorePath>,
    /// `/run/booted-system`.
    pub booted: Option<StorePath>,
    /// Number of the profile's current generation.
    pub generation: Option<u64>,
    /// Kernel, initrd and modules of booted and running system.
    pub kernel: KernelPair,
    /// Failed systemd units.
    pub failed_units: Vec<String>,
    /// Units that had failed already before the newest switch that has ended.
    #[serde(default)]
    pub baseline: Vec<String>,
    /// Version of Nix on the node.
    pub nix_version: Option<String>,
    /// Free bytes on the file system of `/nix`.
    pub free_nix: Option<u64>,
    /// Free bytes on the file system of `/boot`.
    pub free_boot: Option<u64>,
    /// The newest switches, oldest first.
    pub journal: Journal,
    /// A person's say over the node.
    pub pin: Option<Pin>,
    /// The last order to reboot that counts.
    #[serde(default)]
    pub reboot: Option<RebootOrder>,
    /// Suspensions that are written on the node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suspended: Vec<SuspensionMark>,
}

/// Store paths of what only a reboot can change, for the booted and the running system.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KernelPair {
    /// Kernel, initrd, modules of `/run/booted-system`; empty where unknown.
    pub booted: Vec<String>,
    /// The same of `/run/current-system`.
    pub running: Vec<String>,
}

impl NodeState {
    /// The switch that is running on the node, if any.
    pub fn live_switch(&self) -> Option<&Entry> {
        self.journal.live()
    }
}

/// Something this controller is doing to a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InFlight {
    /// The toplevel being installed.
    pub toplevel: StorePath,
    /// Since when.
    pub since: Timestamp,
    /// How far it is.
    pub stage: Stage,
}

/// How far a deployment is, from the controller's side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "stage")]
pub enum Stage {
    /// Opening the connection, checking space.
    Preparing,
    /// Copying the closure.
    Copying {
        /// Bytes copied so far, where Nix tells.
        bytes: u64,
        /// Bytes in all, where known.
        total: u64,
    },
    /// The node builds its system itself.
    Building {
        /// Derivations that are built.
        done: u64,
        /// Derivations that had to be, as far as Nix has said.
        total: u64,
        /// The one that is being built; empty before the first.
        now: String,
    },
    /// A hook runs here.
    Hook {
        /// Which kind.
        at: HookPoint,
        /// Its name.
        name: String,
        /// What it last said.
        said: String,
    },
    /// It was told to reboot and is waited for.
    Rebooting,
    /// The node's switch is in this phase.
    Switching {
        /// The phase, by the node's own word.
        phase: super::journal::Phase,
        /// What is being waited for, for example "http :80/ 2 of 3".
        detail: String,
    },
}

/// A failed attempt that the node's journal does not know of. Kept, and counted on, until the toplevel is installed or
/// another one is tried: the plan adds these failures to those of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// The toplevel that was to be installed.
    pub toplevel: StorePath,
    /// How many times in a row it failed.
    pub failures: u32,
    /// The last time.
    pub last: Timestamp,
    /// What went wrong, one sentence.
    pub error: String,
    /// What kind of failure it was.
    #[serde(default)]
    pub kind: AttemptKind,
}

/// The kinds of failed attempts that are treated differently.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttemptKind {
    /// Something on the way to the node's switch: it may pass.
    #[default]
    Way,
    /// The node's own build of its system: it would fail in the same way again.
    Build,
}
