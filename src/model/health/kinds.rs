//! The kinds of health checks: what each asks.

use std::fmt;
use std::num::NonZeroU16;

use serde::de::{MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer, Serialize};

use super::{Check, Headers, Method, Pace, Pattern, Statuses, Template, Url, What};

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
    pub headers: Headers,
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
    pub headers: Headers,
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

/// A kind of named checks.
pub(super) trait Kind: Sized {
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
