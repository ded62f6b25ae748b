//! Health checks: what has to hold before a node is switched, before it keeps its new system, and for as long as it has it.
//! Says what is asked, and what of an answer counts; `node` and `probe` ask.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::time::Duration;

use jiff::Timestamp;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::ParseError;
use super::node::seconds;

mod answers;
mod kinds;
mod words;

pub use answers::Unfit;
use kinds::Kind;
pub use kinds::{CommandCheck, Expect, HttpCheck, PrometheusCheck, TcpCheck, Tls, Vantage};
pub use words::{Headers, Method, Pattern, PatternError, Statuses, Template, Url};

/// How often the checks of a node run while nothing else says so.
const INTERVAL: Duration = Duration::from_secs(60);

/// The checks of one node, or of a fleet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HealthChecks {
    /// Between contact and verdict, and from then on again and again.
    #[serde(flatten)]
    pub after: Checks,
    /// Before anything is copied to the node.
    #[serde(default, skip_serializing_if = "Checks::is_empty")]
    pub before: Checks,
    /// How often `after` is asked while the node is not being switched, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "maybe_seconds")]
    pub interval: Option<Duration>,
}

impl HealthChecks {
    /// These, and those of the fleet. Where both have a check of one name, this one's counts.
    #[must_use]
    pub fn and_of_fleet(self, fleet: &Self) -> Self {
        Self {
            after: self.after.and(&fleet.after),
            before: self.before.and(&fleet.before),
            interval: self.interval.or(fleet.interval),
        }
    }

    /// How often `after` is asked.
    pub fn interval(&self) -> Duration {
        self.interval.unwrap_or(INTERVAL).max(Duration::from_secs(1))
    }
}

/// Some checks, by kind and name. All have to pass.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checks {
    /// systemd units that must be active on the node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub units: Vec<String>,
    /// Shell commands that must exit 0 on the node, as root.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "by_name")]
    pub commands: BTreeMap<String, CommandCheck>,
    /// HTTP requests, and what must be answered.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "by_name")]
    pub http: BTreeMap<String, HttpCheck>,
    /// Ports that must take a connection.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "by_name")]
    pub tcp: BTreeMap<String, TcpCheck>,
    /// What a Prometheus must, or must not, find.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "by_name")]
    pub prometheus: BTreeMap<String, PrometheusCheck>,
}

impl Checks {
    /// Whether nothing is to be checked.
    pub fn is_empty(&self) -> bool {
        self.units.is_empty()
            && self.commands.is_empty()
            && self.http.is_empty()
            && self.tcp.is_empty()
            && self.prometheus.is_empty()
    }

    /// Each of them.
    pub fn list(&self) -> Vec<Check<'_>> {
        let units = self.units.iter().map(|name| Check { name, what: What::Unit, pace: Pace::default() });
        let commands = self.commands.iter().map(|(name, check)| check.named(name));
        let http = self.http.iter().map(|(name, check)| check.named(name));
        let tcp = self.tcp.iter().map(|(name, check)| check.named(name));
        let prometheus = self.prometheus.iter().map(|(name, check)| check.named(name));
        units.chain(commands).chain(http).chain(tcp).chain(prometheus).collect()
    }

    fn and(mut self, fleet: &Self) -> Self {
        let own: BTreeSet<String> = self.units.iter().cloned().collect();
        self.units.extend(fleet.units.iter().filter(|unit| !own.contains(*unit)).cloned());
        add(&mut self.commands, &fleet.commands);
        add(&mut self.http, &fleet.http);
        add(&mut self.tcp, &fleet.tcp);
        add(&mut self.prometheus, &fleet.prometheus);
        self
    }
}

fn add<T: Clone>(own: &mut BTreeMap<String, T>, fleet: &BTreeMap<String, T>) {
    for (name, check) in fleet {
        own.entry(name.clone()).or_insert_with(|| check.clone());
    }
}

/// One check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Check<'a> {
    /// Its name among those of its kind; a unit's is the unit.
    pub name: &'a str,
    /// What is asked.
    pub what: What<'a>,
    /// How often, how long.
    pub pace: Pace,
}

/// What a check asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What<'a> {
    /// Whether the unit of the check's name is active.
    Unit,
    /// A command on the node.
    Command(&'a CommandCheck),
    /// An HTTP server.
    Http(&'a HttpCheck),
    /// A TCP port.
    Tcp(&'a TcpCheck),
    /// A Prometheus.
    Prometheus(&'a PrometheusCheck),
}

impl Check<'_> {
    /// Its kind, as the deployment calls it.
    pub fn kind(&self) -> &'static str {
        match self.what {
            What::Unit => "unit",
            What::Command(_) => CommandCheck::KIND,
            What::Http(_) => HttpCheck::KIND,
            What::Tcp(_) => TcpCheck::KIND,
            What::Prometheus(_) => PrometheusCheck::KIND,
        }
    }

    /// Where it is asked from.
    pub fn vantage(&self) -> Vantage {
        match self.what {
            What::Unit | What::Command(_) => Vantage::Node,
            What::Http(check) => check.from,
            What::Tcp(check) => check.from,
            What::Prometheus(_) => Vantage::Controller,
        }
    }
}

/// For people: `http web`.
impl fmt::Display for Check<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.name)
    }
}

/// How often a check is tried, how long one try may take, and how many must pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pace {
    /// Between two tries, seconds.
    #[serde(with = "seconds")]
    pub period: Duration,
    /// Longest time for one try, seconds.
    #[serde(with = "seconds")]
    pub timeout: Duration,
    /// So many in a row; a failure begins the count anew.
    pub successes: NonZeroU32,
}

impl Default for Pace {
    fn default() -> Self {
        Self { period: Duration::from_secs(1), timeout: Duration::from_secs(15), successes: NonZeroU32::MIN }
    }
}

/// A check that fails while nothing is being done to its node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailingCheck {
    /// Kind and name: `http web`.
    pub name: String,
    /// What it said last, one line.
    pub output: String,
    /// Since when.
    pub since: Timestamp,
}

/// Reads checks by name, and names the one that is wrong.
fn by_name<'de, D, T>(from: D) -> Result<BTreeMap<String, T>, D::Error>
where
    D: Deserializer<'de>,
    T: Kind + Deserialize<'de>,
{
    struct ByName<T>(PhantomData<T>);

    impl<'de, T: Kind + Deserialize<'de>> Visitor<'de> for ByName<T> {
        type Value = BTreeMap<String, T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{} checks by name", T::KIND)
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut checks = BTreeMap::new();
            while let Some(name) = map.next_key::<String>()? {
                let wrong = |error: A::Error| {
                    A::Error::custom(format!("the health check {} {name:?}: {error}", T::KIND))
                };
                let check = map.next_value().map_err(wrong)?;
                checks.insert(name, check);
            }
            Ok(checks)
        }
    }

    from.deserialize_map(ByName(PhantomData))
}

/// Seconds, or nothing.
mod maybe_seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(value: &Option<Duration>, out: S) -> Result<S::Ok, S::Error> {
        value.map(|value| value.as_secs()).serialize(out)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(from)?.map(Duration::from_secs))
    }
}

#[cfg(test)]
mod tests;
