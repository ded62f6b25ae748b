//! How a fleet moves to a release: the deployment's `rollout`. Says what is wanted; `plan` decides what follows from it.

mod calendar;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ParseError;
use super::health::HealthChecks;
use super::node::seconds;
use super::selector::Selector;
pub use calendar::{Day, Effect, Hours, Span, Window, Zone};

/// Fleet-wide settings of a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RolloutSpec {
    /// In which order nodes get a release: a wave begins when the one before it is done. A node belongs to the first wave
    /// that selects it.
    pub waves: Vec<Wave>,
    /// How many nodes may be worked on at once.
    pub max_in_flight: u32,
    /// What is done with the nodes that have the release when it fails on too many.
    pub on_failure: OnFailure,
    /// Whether a wave waits for nodes that do not answer.
    pub unreachable: Unreachable,
    /// When nodes may be worked on.
    pub windows: Vec<Window>,
    /// How long an approval holds, seconds.
    #[serde(with = "seconds")]
    pub approval_expires: Duration,
    /// One node that does not evaluate or build holds the whole release.
    pub require_all: bool,
    /// How long a node that somebody changed by hand is left alone, seconds.
    #[serde(with = "seconds")]
    pub heal_after: Duration,
    /// Checks of every node, beside its own.
    pub health_checks: HealthChecks,
}

impl Default for RolloutSpec {
    fn default() -> Self {
        Self {
            waves: vec![Wave::default()],
            max_in_flight: 5,
            on_failure: OnFailure::Halt,
            unreachable: Unreachable::Skip,
            windows: Vec::new(),
            approval_expires: Duration::from_secs(24 * 3600),
            require_all: false,
            heal_after: Duration::from_secs(300),
            health_checks: HealthChecks::default(),
        }
    }
}

impl RolloutSpec {
    /// Whether tags must be known to tell what it says of a node.
    pub fn needs_tags(&self) -> bool {
        let of_waves = self.waves.iter().flat_map(|wave| std::iter::once(&wave.on).chain(&wave.order));
        of_waves.chain(self.windows.iter().map(|window| &window.on)).any(Selector::needs_tags)
    }
}

/// Nodes that get a release together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Wave {
    /// Which nodes.
    pub on: Selector,
    /// How long all of its nodes must have been well before the next wave begins, seconds.
    #[serde(with = "seconds", default)]
    pub soak: Duration,
    /// How many of its nodes may be worked on at once; `None`: as many as of the fleet.
    #[serde(default)]
    pub max_in_flight: Option<u32>,
    /// How many of its nodes may be worked on, unreachable or not well at once; a share is rounded down, and one may always be.
    #[serde(default)]
    pub max_unavailable: Option<Amount>,
    /// On how many of its nodes the release may fail before it is given up; a share is rounded down.
    #[serde(default)]
    pub max_failures: Amount,
    /// Which of its nodes go first, where not all may at once; the rest follows by name.
    #[serde(default)]
    pub order: Vec<Selector>,
    /// Whether a person must approve before it begins.
    #[serde(default)]
    pub approval: bool,
}

impl Default for Wave {
    fn default() -> Self {
        Self {
            on: Selector::everything(),
            soak: Duration::ZERO,
            max_in_flight: None,
            max_unavailable: None,
            max_failures: Amount::default(),
            order: Vec::new(),
            approval: false,
        }
    }
}

/// What is done when a release fails on too many nodes of a wave.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// No further node gets it.
    #[default]
    Halt,
    /// No further node gets it, and those that have got it go back to what they ran before.
    Rollback,
}

/// Whether a wave waits for nodes that do not answer. Never for one whose silence is ordinary.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unreachable {
    /// No: they catch up when they return.
    #[default]
    Skip,
    /// Yes.
    Wait,
}

/// A number of nodes, or a share of a wave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawAmount", into = "RawAmount")]
pub enum Amount {
    /// So many nodes.
    Count(u32),
    /// So many in a hundred, 0 to 100.
    Percent(u8),
}

impl Default for Amount {
    fn default() -> Self {
        Self::Count(0)
    }
}

impl Amount {
    /// So many of `total` nodes, rounded down.
    pub fn of(self, total: usize) -> usize {
        match self {
            Self::Count(count) => usize::try_from(count).unwrap_or(usize::MAX),
            Self::Percent(percent) => total.saturating_mul(usize::from(percent)) / 100,
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum RawAmount {
    Count(u32),
    Text(String),
}

impl TryFrom<RawAmount> for Amount {
    type Error = ParseError;

    fn try_from(raw: RawAmount) -> Result<Self, ParseError> {
        match raw {
            RawAmount::Count(count) => Ok(Self::Count(count)),
            RawAmount::Text(text) => text.parse(),
        }
    }
}

impl From<Amount> for RawAmount {
    fn from(amount: Amount) -> Self {
        match amount {
            Amount::Count(count) => Self::Count(count),
            Amount::Percent(percent) => Self::Text(format!("{percent}%")),
        }
    }
}

impl FromStr for Amount {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wrong = || ParseError {
            what: "number of nodes",
            input: text.to_owned(),
            expected: "a number, or a share from \"0%\" to \"100%\"",
        };
        match text.strip_suffix('%') {
            Some(percent) => {
                percent.parse().ok().filter(|percent| *percent <= 100).map(Self::Percent).ok_or_else(wrong)
            }
            None => text.parse().map(Self::Count).map_err(|_| wrong()),
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}
