//! What the deployment declares about one node. Names and meanings are those of the options in `nix/`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::health::HealthChecks;
use super::hook::Hook;
use super::name::Tag;
use super::rollout::{RolloutSpec, Span};
use super::secret::{SecretName, SecretSpec};
use super::selector::Selector;
use super::store_path::{DrvPath, StorePath};

parsed_string!(
    /// The contents of `/etc/machine-id`: 32 lower-case hexadecimal digits (machine-id(5)).
    MachineId,
    "machine id",
    "32 lower-case hexadecimal digits",
    |text| text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
);

/// One node as the deployment declares it; the JSON of `nix/manifest.nix`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeSpec {
    /// Derivation of the node's system.
    pub drv: DrvPath,
    /// Where that derivation's output will be.
    pub toplevel: StorePath,
    /// Nix system type, for example `x86_64-linux`.
    pub system: String,
    /// What another tool's file says of the node and is not heeded.
    #[serde(default)]
    pub unsupported: Vec<Unsupported>,
    /// `host` or `user@host`; `None` is never deployed; `localhost` and `local` need no SSH.
    pub host: Option<String>,
    /// TCP port of sshd; `None` leaves it to the user's SSH configuration.
    #[serde(default)]
    pub port: Option<u16>,
    /// Further ssh_config(5) keywords.
    #[serde(default)]
    pub ssh_options: BTreeMap<String, String>,
    /// Public host keys (`ssh-ed25519 AAAA...`). Empty: the user's known_hosts decides.
    #[serde(default)]
    pub host_keys: Vec<String>,
    /// Groups for selectors.
    #[serde(default)]
    pub tags: BTreeSet<Tag>,
    /// Whether silence of the node is a fault.
    #[serde(default)]
    pub availability: Availability,
    /// What deploying means here.
    #[serde(default)]
    pub goal: Goal,
    /// What is done when the node is not what Git says although it once was.
    #[serde(default)]
    pub on_drift: OnDrift,
    /// A reason declared in Git not to touch the node.
    #[serde(default)]
    pub suspended: Option<String>,
    /// It gets a release only when every node that one of these selects is done with it.
    #[serde(default)]
    pub after: Vec<Selector>,
    /// Whether a person must approve each release of it.
    #[serde(default)]
    pub approval: bool,
    /// The link to the controller is faster than the link to substituters.
    #[serde(default)]
    pub has_fast_connection: bool,
    /// Longest time for `switch-to-configuration`, seconds.
    #[serde(with = "seconds", default = "defaults::switch_timeout")]
    pub switch_timeout: Duration,
    /// Longest time to make contact after activation, seconds.
    #[serde(with = "seconds", default = "defaults::success_timeout")]
    pub success_timeout: Duration,
    /// Longest time until the health checks must have passed, seconds.
    #[serde(with = "seconds", default = "defaults::health_timeout")]
    pub health_timeout: Duration,
    /// Newly failed units do not fail the switch.
    #[serde(default)]
    pub ignore_failing_systemd_units: bool,
    /// Units (glob patterns) whose failure never counts.
    #[serde(default)]
    pub ignore_units: Vec<String>,
    /// Put before commands that need root when the SSH user is not root, for example `["sudo"]`.
    #[serde(default)]
    pub privilege_escalation_command: Vec<String>,
    /// What has to hold before, with and after a switch; those of the fleet among it, once it is in a release.
    #[serde(default)]
    pub health_checks: HealthChecks,
    /// When and how the node is rebooted.
    #[serde(default)]
    pub reboot: Reboot,
    /// Build on the node instead of here.
    #[serde(default)]
    pub build_on_target: bool,
    /// The machine this node must be; a mismatch stops everything.
    #[serde(default)]
    pub machine_id: Option<MachineId>,
    /// What the node may do when even the rollback did not bring contact back.
    #[serde(default)]
    pub last_resort: LastResort,
    /// Store paths copied along with the system.
    #[serde(default)]
    pub closure_paths: Vec<StorePath>,
    /// Derivations that must be realised before `closure_paths` exist.
    #[serde(default)]
    pub closure_drvs: Vec<DrvPath>,
    /// The secrets that its system may use.
    #[serde(default)]
    pub secrets: BTreeMap<SecretName, SecretSpec>,
    /// What is run here around a switch, in this order.
    #[serde(default)]
    pub hooks: Vec<Hook>,
    /// Longest time for each hook, seconds.
    #[serde(with = "seconds", default = "defaults::hook_timeout")]
    pub hook_timeout: Duration,
}

impl NodeSpec {
    /// What it gets from here: its system and what goes along with it.
    pub fn shipped(&self) -> Vec<StorePath> {
        std::iter::once(&self.toplevel).chain(&self.closure_paths).cloned().collect()
    }

    /// The node as a member of its fleet, whose checks are its own, too.
    #[must_use]
    pub fn in_fleet(self, rollout: &RolloutSpec) -> Self {
        Self { health_checks: self.health_checks.and_of_fleet(&rollout.health_checks), ..self }
    }

    /// Whether its system is built there instead of here. This machine's own is built here either way.
    pub fn builds_itself(&self) -> bool {
        self.build_on_target
            && self.host.as_deref().is_some_and(|host| !matches!(host, "localhost" | "local"))
    }
}

/// A setting in another tool's file that driftless does not heed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unsupported {
    /// The setting, as that file calls it.
    pub setting: String,
    /// Why not, and what is done instead.
    pub reason: String,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.setting, self.reason)
    }
}

/// Whether silence of a node is a fault.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Availability {
    /// A server: unreachable is a fault.
    #[default]
    Always,
    /// A laptop: unreachable is ordinary.
    Intermittent,
}

/// What deploying means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Goal {
    /// Activate now and make it the boot default once proven.
    #[default]
    Switch,
    /// Do not activate it: the next reboot boots it once, and it becomes the boot default once proven.
    Boot,
    /// Activate now, never make it the boot default.
    Test,
}

impl Goal {
    /// The word used in files, on the command line and as metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Switch => "switch",
            Self::Boot => "boot",
            Self::Test => "test",
        }
    }

    /// Whether the system is activated now.
    pub fn activates(self) -> bool {
        match self {
            Self::Switch | Self::Test => true,
            Self::Boot => false,
        }
    }

    /// Whether profile and boot loader end up at the system.
    pub fn persists(self) -> bool {
        match self {
            Self::Switch | Self::Boot => true,
            Self::Test => false,
        }
    }
}

/// What is done about drift.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnDrift {
    /// Bring the node back, as a rollout would.
    #[default]
    Heal,
    /// Only say so.
    Report,
}

/// How the node is rebooted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Reboot {
    /// What it is rebooted for.
    pub policy: RebootPolicy,
    /// It is rebooted in this time only, beside what the fleet's windows say; `None`: whenever those allow.
    pub window: Option<Span>,
    /// How long it may take to come back, seconds.
    #[serde(with = "seconds")]
    pub timeout: Duration,
    /// Where the boot loader cannot boot a system once, `goal = "boot"` makes it the default without proof.
    pub unproven: bool,
}

impl Default for Reboot {
    fn default() -> Self {
        Self {
            policy: RebootPolicy::default(),
            window: None,
            timeout: Duration::from_secs(600),
            unproven: false,
        }
    }
}

/// When a node may be rebooted by driftless.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RebootPolicy {
    /// Never; `reboot-required` is only reported.
    #[default]
    Never,
    /// When the booted kernel, initrd or modules are not the running system's.
    WhenRequired,
    /// After every change.
    Always,
}

/// What the node may do when even the rollback did not bring contact back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LastResort {
    /// Reboot into the previous system.
    #[default]
    Reboot,
    /// Nothing: somebody has to come (encrypted disks).
    None,
}

/// Durations as whole seconds, the way the deployment states them.
pub mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes whole seconds.
    pub fn serialize<S: Serializer>(value: &Duration, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_u64(value.as_secs())
    }

    /// Reads whole seconds.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_secs)
    }
}

mod defaults {
    use std::time::Duration;

    pub fn switch_timeout() -> Duration {
        Duration::from_secs(300)
    }
    pub fn success_timeout() -> Duration {
        Duration::from_secs(60)
    }
    pub fn health_timeout() -> Duration {
        Duration::from_secs(60)
    }
    pub fn hook_timeout() -> Duration {
        Duration::from_secs(600)
    }
}
