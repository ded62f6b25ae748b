//! The journal that each node keeps of its own switches: ids, phases, outcomes. Pure; `node/switch.sh` writes it.

use std::ops::Deref;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::store_path::StorePath;

parsed_string!(
    /// Names one switch: `20261122T170102Z-1f2e3d4c`, by the clock of whoever asked. The order of switches is the node's to say.
    SwitchId,
    "switch id",
    "YYYYMMDDTHHMMSSZ-XXXXXXXX",
    |text| {
        text.len() == 25
            && text.bytes().enumerate().all(|(i, b)| match i {
                8 => b == b'T',
                15 => b == b'Z',
                16 => b == b'-',
                0..=14 => b.is_ascii_digit(),
                _ => matches!(b, b'0'..=b'9' | b'a'..=b'f'),
            })
    }
);

impl SwitchId {
    /// Makes an id from the time of asking and a random number.
    pub fn new(at: Timestamp, random: u32) -> Self {
        let time = at.strftime("%Y%m%dT%H%M%SZ");
        Self(format!("{time}-{random:08x}"))
    }
}

/// Where a switch is. The order is the order on the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Pre-switch checks.
    Checking,
    /// The boot loader is being told to boot the system once.
    Staging,
    /// `switch-to-configuration test` runs.
    Testing,
    /// Waits for a new login.
    Contact,
    /// Waits for the verdict.
    Health,
    /// Profile and boot loader are being changed.
    Committing,
    /// The previous system is being re-activated.
    RollingBack,
    /// Over; see the outcome.
    Finished,
}

impl Phase {
    /// Every phase, in order.
    pub const ALL: [Self; 8] = [
        Self::Checking,
        Self::Staging,
        Self::Testing,
        Self::Contact,
        Self::Health,
        Self::Committing,
        Self::RollingBack,
        Self::Finished,
    ];

    /// The word of the journal and the metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Checking => "checking",
            Self::Staging => "staging",
            Self::Testing => "testing",
            Self::Contact => "contact",
            Self::Health => "health",
            Self::Committing => "committing",
            Self::RollingBack => "rolling-back",
            Self::Finished => "finished",
        }
    }
}

/// How a switch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The node runs the new system and, unless the goal was `test`, boots it.
    Succeeded,
    /// The boot loader starts the system at the next boot only; nothing else has changed. Stays the outcome when it was
    /// booted: its proof is another switch.
    Staged,
    /// The node runs its previous system again.
    RolledBack,
    /// The previous system could not be re-activated.
    RollbackFailed,
    /// Proven, but profile or boot loader could not be changed; rolled back.
    CommitFailed,
    /// Somebody else switched the node meanwhile; nothing was touched.
    Interfered,
    /// The watcher or the machine went down in the middle.
    Interrupted,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 7] = [
        Self::Succeeded,
        Self::Staged,
        Self::RolledBack,
        Self::RollbackFailed,
        Self::CommitFailed,
        Self::Interfered,
        Self::Interrupted,
    ];

    /// The word of the journal and the metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Staged => "staged",
            Self::RolledBack => "rolled-back",
            Self::RollbackFailed => "rollback-failed",
            Self::CommitFailed => "commit-failed",
            Self::Interfered => "interfered",
            Self::Interrupted => "interrupted",
        }
    }
}

/// Why a switch did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// A pre-switch check of the new system refused.
    Check,
    /// Activation failed (switch-to-configuration 1, 2 or an unknown code).
    Activation,
    /// Units failed that had not failed before.
    Units,
    /// switch-to-configuration did not end within its deadline.
    Deadline,
    /// No new login reached the node in time.
    Contact,
    /// The controller rejected: a health check failed.
    Rejected,
    /// The controller gave no verdict in time.
    Silence,
    /// Profile or boot loader could not be changed.
    Commit,
    /// Another switch-to-configuration holds its lock.
    Busy,
    /// Only a reboot can start this system (switch inhibitor, exit 100).
    NeedsReboot,
    /// The boot loader cannot boot a system once.
    UnprovenBoot,
    /// It was to be booted once, and the node came back with another system.
    DidNotBoot,
    /// It waited for a reboot when another switch began.
    Superseded,
    /// The watcher was killed or the machine went down.
    Killed,
    /// Somebody else switched the node meanwhile.
    Foreign,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 15] = [
        Self::Check,
        Self::Activation,
        Self::Units,
        Self::Deadline,
        Self::Contact,
        Self::Rejected,
        Self::Silence,
        Self::Commit,
        Self::Busy,
        Self::NeedsReboot,
        Self::UnprovenBoot,
        Self::DidNotBoot,
        Self::Superseded,
        Self::Killed,
        Self::Foreign,
    ];

    /// The word of the journal and the metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Activation => "activation",
            Self::Units => "units",
            Self::Deadline => "deadline",
            Self::Contact => "contact",
            Self::Rejected => "rejected",
            Self::Silence => "silence",
            Self::Commit => "commit",
            Self::Busy => "busy",
            Self::NeedsReboot => "needs-reboot",
            Self::UnprovenBoot => "unproven-boot",
            Self::DidNotBoot => "did-not-boot",
            Self::Superseded => "superseded",
            Self::Killed => "killed",
            Self::Foreign => "foreign",
        }
    }

    /// Whether trying the very same toplevel again would end the same way. The rest is retried with backoff.
    pub fn is_deterministic(self) -> bool {
        match self {
            Self::Check
            | Self::Activation
            | Self::Units
            | Self::Deadline
            | Self::Contact
            | Self::Rejected
            | Self::Commit
            | Self::NeedsReboot
            | Self::UnprovenBoot
            | Self::DidNotBoot => true,
            Self::Superseded | Self::Silence | Self::Busy | Self::Killed | Self::Foreign => false,
        }
    }

    /// One clause for a person, for example "lost contact after activation".
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Check => "a pre-switch check refused",
            Self::Activation => "activation failed",
            Self::Units => "units failed after activation",
            Self::Deadline => "activation did not end within its deadline",
            Self::Contact => "lost contact after activation",
            Self::Rejected => "a health check failed",
            Self::Silence => "the controller gave no verdict",
            Self::Commit => "profile or boot loader could not be changed",
            Self::Busy => "another switch-to-configuration was running",
            Self::NeedsReboot => "only a reboot can start this system",
            Self::UnprovenBoot => "it would be booted without proof",
            Self::DidNotBoot => "did not come up when it was to be booted once",
            Self::Superseded => "another switch came before the reboot",
            Self::Killed => "the switch was interrupted",
            Self::Foreign => "somebody else switched the node meanwhile",
        }
    }
}

/// One switch in a node's journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Its name.
    pub id: SwitchId,
    /// The toplevel it was to install.
    pub system: StorePath,
    /// What ran before.
    pub previous: StorePath,
    /// Where it is now.
    pub phase: Phase,
    /// How it ended; `None` while it runs.
    pub outcome: Option<Outcome>,
    /// Why it did not succeed.
    pub cause: Option<Cause>,
    /// Start, by the node's clock.
    pub started: Timestamp,
    /// End, by the node's clock.
    pub finished: Option<Timestamp>,
    /// The commit it was for, or `-`.
    pub revision: String,
    /// Who asked, for example `controller` or `alice@laptop`.
    pub asker: String,
    /// A person said `retry` since: it no longer counts against the toplevel.
    pub forgiven: Forgiven,
    /// One line of detail, for example the units that failed.
    pub detail: String,
}

impl Entry {
    /// Whether the switch failed in a way that would repeat itself with the same toplevel. Where the node could not say
    /// why it rolled back, it counts as such: a person looks before it happens again.
    pub fn is_final_failure(&self) -> bool {
        match self.outcome {
            None
            | Some(Outcome::Succeeded | Outcome::Staged | Outcome::Interfered | Outcome::Interrupted) => {
                false
            }
            Some(Outcome::RolledBack) => self.cause.is_none_or(Cause::is_deterministic),
            Some(Outcome::RollbackFailed | Outcome::CommitFailed) => true,
        }
    }
}

/// The switches that a node remembers, oldest first. Which of them runs is found once, when the journal is read: `plan`
/// asks for it at every node in every pass.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "Vec<Entry>")]
pub struct Journal {
    entries: Vec<Entry>,
    live: Option<usize>,
}

impl From<Vec<Entry>> for Journal {
    fn from(entries: Vec<Entry>) -> Self {
        let live = entries.iter().rposition(|entry| entry.outcome.is_none());
        Self { entries, live }
    }
}

impl Serialize for Journal {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.entries.serialize(serializer)
    }
}

impl Deref for Journal {
    type Target = [Entry];

    fn deref(&self) -> &[Entry] {
        &self.entries
    }
}

impl Journal {
    /// The newest switch that is still running, if any.
    pub fn live(&self) -> Option<&Entry> {
        self.entries.get(self.live?)
    }

    /// Makes another journal of it.
    #[cfg(test)]
    pub fn edit(&mut self, change: impl FnOnce(&mut Vec<Entry>)) {
        let mut entries = std::mem::take(self).entries;
        change(&mut entries);
        *self = entries.into();
    }
}

/// Whether a failed switch still counts against its toplevel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Forgiven {
    /// It counts.
    No,
    /// A person said `driftless retry`.
    Yes,
}

/// The end of a person's say over a node, written on the node itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pin {
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When the controller takes over again.
    pub until: PinEnd,
}

/// How long a person's deployment keeps the controller off a node.
pub const PIN_FOR: SignedDuration = SignedDuration::from_hours(1);

/// When a pin ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "when", content = "value")]
pub enum PinEnd {
    /// At this time: [`PIN_FOR`] after it was made.
    At(Timestamp),
    /// As soon as the desired toplevel is another than this one.
    NextRelease(StorePath),
}

/// The deadlines of one switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// For switch-to-configuration.
    pub switch: Duration,
    /// For contact.
    pub contact: Duration,
    /// For the verdict.
    pub health: Duration,
}
