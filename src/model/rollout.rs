//! How a fleet moves to a release: the deployment's `rollout`. Says what is wanted; `plan` decides what follows from it.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::civil::{Date, Time, Weekday};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use serde::{Deserialize, Serialize};

use super::ParseError;
use super::health::HealthChecks;
use super::node::seconds;
use super::selector::Selector;

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

/// A span of time, said by a calendar, in which nodes may or may not be worked on. A node that some `allow` windows select
/// may be while one of them is open; none may be while a `deny` window that selects it is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Window {
    /// Which nodes.
    #[serde(default = "Selector::everything")]
    pub on: Selector,
    /// Whether it opens or shuts.
    #[serde(default)]
    pub effect: Effect,
    /// When.
    #[serde(flatten)]
    pub span: Span,
}

/// What a window does while it is open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// Nodes may be worked on.
    #[default]
    Allow,
    /// They may not.
    Deny,
}

/// Times of a calendar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Span {
    /// On these days of the week; empty: on all.
    #[serde(default)]
    pub days: BTreeSet<Day>,
    /// From when to when; `None`: the whole day. Where the end is not after the beginning, it is on the next day.
    #[serde(default)]
    pub hours: Option<Hours>,
    /// Not before this day.
    #[serde(default)]
    pub from: Option<Date>,
    /// Not after this day.
    #[serde(default)]
    pub until: Option<Date>,
    /// Whose clock and calendar.
    pub time_zone: Zone,
}

/// A day of the week, as `mon` to `sun`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Day {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}

impl From<Weekday> for Day {
    fn from(day: Weekday) -> Self {
        match day {
            Weekday::Monday => Self::Mon,
            Weekday::Tuesday => Self::Tue,
            Weekday::Wednesday => Self::Wed,
            Weekday::Thursday => Self::Thu,
            Weekday::Friday => Self::Fri,
            Weekday::Saturday => Self::Sat,
            Weekday::Sunday => Self::Sun,
        }
    }
}

/// A part of a day: `09:00-17:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hours {
    /// From then on.
    pub from: Time,
    /// Until then; midnight is the end of the day.
    pub to: Time,
}

impl TryFrom<String> for Hours {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        let clock = |text: &str| {
            let (hours, minutes) = text.split_once(':')?;
            let plain = hours.len() == 2 && minutes.len() == 2;
            let (hours, minutes) = (hours.parse().ok()?, minutes.parse().ok()?);
            // 24:00 is how people write the end of a day.
            if (hours, minutes) == (24, 0) {
                return Some(Time::midnight());
            }
            Time::new(hours, minutes, 0, 0).ok().filter(|_| plain)
        };
        let parsed = text.split_once('-').and_then(|(from, to)| Some((clock(from)?, clock(to)?)));
        match parsed {
            Some((from, to)) => Ok(Self { from, to }),
            None => Err(ParseError {
                what: "part of a day",
                input: text,
                expected: "two times, for example \"09:00-17:00\" or \"22:00-04:00\"",
            }),
        }
    }
}

impl From<Hours> for String {
    fn from(hours: Hours) -> Self {
        hours.to_string()
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.from.strftime("%H:%M"), self.to.strftime("%H:%M"))
    }
}

/// A time zone of the IANA database, for example `Europe/Berlin`. The database is the program's own: whatever the host has,
/// the same deployment means the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Zone(TimeZone);

impl Zone {
    /// Its rules.
    pub fn rules(&self) -> &TimeZone {
        &self.0
    }
}

impl TryFrom<String> for Zone {
    type Error = ParseError;

    fn try_from(name: String) -> Result<Self, ParseError> {
        match TimeZoneDatabase::bundled().get(&name) {
            Ok(zone) => Ok(Self(zone)),
            Err(_) => Err(ParseError {
                what: "time zone",
                input: name,
                expected: "a name of the IANA database, for example \"Europe/Berlin\" or \"UTC\"",
            }),
        }
    }
}

impl From<Zone> for String {
    fn from(zone: Zone) -> Self {
        zone.to_string()
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.iana_name().unwrap_or("UTC"))
    }
}
