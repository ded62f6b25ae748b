//! Health checks: what has to hold before a node is switched, before it keeps its new system, and for as long as it has it.
//! Says what is asked, and what of an answer counts; `node` and `probe` ask.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use jiff::Timestamp;
use serde::de::{Error as _, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer, Serialize};

use super::ParseError;
use super::node::seconds;

mod words;

pub use words::{Method, Pattern, PatternError, Statuses, Template, Url};

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

/// Where a check is asked from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Vantage {
    /// Where driftless runs: the way that others take, too.
    #[default]
    Controller,
    /// The node itself.
    Node,
}

/// A shell command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CommandCheck {
    /// Text for `sh -c`.
    pub command: String,
    /// How often, how long.
    #[serde(flatten)]
    pub pace: Pace,
}

impl From<String> for CommandCheck {
    fn from(command: String) -> Self {
        Self { command, pace: Pace::default() }
    }
}

impl<'de> Deserialize<'de> for CommandCheck {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(TextOrSet)
    }
}

struct TextOrSet;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WholeCommand {
    command: String,
    #[serde(flatten)]
    pace: Pace,
}

impl<'de> Visitor<'de> for TextOrSet {
    type Value = CommandCheck;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a shell command, or a set with one in `command`")
    }

    fn visit_str<E>(self, text: &str) -> Result<CommandCheck, E> {
        Ok(text.to_owned().into())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<CommandCheck, A::Error> {
        let WholeCommand { command, pace } = Deserialize::deserialize(MapAccessDeserializer::new(map))?;
        Ok(CommandCheck { command, pace })
    }
}

/// A request to an HTTP server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpCheck {
    /// What is asked for. Redirects are not followed.
    pub url: Url,
    /// From where.
    #[serde(default)]
    pub from: Vantage,
    /// Method of the request; `GET` where none is named.
    #[serde(default = "get")]
    pub method: Method,
    /// Headers of the request.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// What the status must be; `None`: 200 to 399.
    #[serde(default)]
    pub status: Option<Statuses>,
    /// What the beginning of the body must match somewhere.
    #[serde(default)]
    pub body: Option<Pattern>,
    /// How a server of `https://` proves itself.
    #[serde(default)]
    pub tls: Tls,
    /// How often, how long.
    #[serde(flatten)]
    pub pace: Pace,
}

fn get() -> Method {
    // "GET" is one.
    #[allow(clippy::unwrap_used)]
    "GET".parse().unwrap()
}

/// How a server proves that it is the one that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Tls {
    /// Whether it has to.
    pub verify: bool,
    /// PEM file of the authorities that may vouch for it, where the check is asked from; `None`: those of the system.
    pub ca_file: Option<String>,
    /// The name it must have, and that it is asked by, where that is not the URL's.
    pub server_name: Option<String>,
}

impl Default for Tls {
    fn default() -> Self {
        Self { verify: true, ca_file: None, server_name: None }
    }
}

/// A connection to a TCP port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TcpCheck {
    /// Whose port. `None`: the node's, at its own `host` from the controller and at `localhost` from the node.
    #[serde(default)]
    pub host: Option<Template>,
    /// Which.
    pub port: NonZeroU16,
    /// From where.
    #[serde(default)]
    pub from: Vantage,
    /// How often, how long.
    #[serde(flatten)]
    pub pace: Pace,
}

/// A question to a Prometheus. No answer is a failure, and so is one with warnings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PrometheusCheck {
    /// The server, without `/api/v1/query`.
    pub url: Url,
    /// What is asked; `{node}` is the node's name.
    pub query: Template,
    /// What must be found.
    pub expect: Expect,
    /// Headers of the request.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// How a server of `https://` proves itself.
    #[serde(default)]
    pub tls: Tls,
    /// How often, how long.
    #[serde(flatten)]
    pub pace: Pace,
}

/// What a Prometheus must find. Alerts of driftless itself, whose names begin with `Driftless`, are nothing that it finds:
/// what a rollout brings about must not stop it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Expect {
    /// Nothing.
    Empty,
    /// Something.
    NonEmpty,
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

/// A kind of named checks.
trait Kind: Sized {
    const KIND: &'static str;
    fn named<'a>(&'a self, name: &'a str) -> Check<'a>;
}

impl Kind for CommandCheck {
    const KIND: &'static str = "command";
    fn named<'a>(&'a self, name: &'a str) -> Check<'a> {
        Check { name, what: What::Command(self), pace: self.pace }
    }
}

impl Kind for HttpCheck {
    const KIND: &'static str = "http";
    fn named<'a>(&'a self, name: &'a str) -> Check<'a> {
        Check { name, what: What::Http(self), pace: self.pace }
    }
}

impl Kind for TcpCheck {
    const KIND: &'static str = "tcp";
    fn named<'a>(&'a self, name: &'a str) -> Check<'a> {
        Check { name, what: What::Tcp(self), pace: self.pace }
    }
}

impl Kind for PrometheusCheck {
    const KIND: &'static str = "prometheus";
    fn named<'a>(&'a self, name: &'a str) -> Check<'a> {
        Check { name, what: What::Prometheus(self), pace: self.pace }
    }
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
