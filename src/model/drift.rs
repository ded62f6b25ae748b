//! Kinds of drift: differences between desired and observed (design section 6).

use serde::{Deserialize, Serialize};

/// A kind of difference between desired and observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DriftKind {
    /// Runs a toplevel that an earlier switch of ours installed.
    Outdated,
    /// Runs a toplevel nobody deployed through driftless.
    Diverged,
    /// Running differs from boot default: lost at the next reboot.
    Unpersisted,
    /// Booted kernel, initrd or modules differ from the running system's.
    RebootRequired,
    /// Failed units that were not there before.
    Degraded,
}

impl DriftKind {
    /// Every kind.
    pub const ALL: [Self; 5] =
        [Self::Outdated, Self::Diverged, Self::Unpersisted, Self::RebootRequired, Self::Degraded];

    /// The word of reports and the metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Outdated => "outdated",
            Self::Diverged => "diverged",
            Self::Unpersisted => "unpersisted",
            Self::RebootRequired => "reboot-required",
            Self::Degraded => "degraded",
        }
    }
}
