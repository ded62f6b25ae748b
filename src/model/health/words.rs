//! The texts of health checks: addresses that name the node, patterns, statuses. Parsed at the border, trusted afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use http::{HeaderName, HeaderValue, Uri};
use regex::Regex;
use serde::{Deserialize, Serialize};

use super::ParseError;

parsed_string!(
    /// Text in which `{node}` is the node's name and `{host}` what it is reached by.
    Template,
    "text of a health check",
    "not nothing, and no control characters",
    |text| !text.trim().is_empty() && !text.chars().any(|c| c.is_control() && c != '\n')
);

parsed_string!(
    /// Where a server is; `{node}` is the node's name and `{host}` what it is reached by.
    Url,
    "URL of a health check",
    "http:// or https://, a host, and no user or password, for example \"https://{host}/healthz\"",
    |text| is_url(&fill(text, "x", "x"))
);

fn is_url(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else { return false };
    let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
    matches!(uri.scheme_str(), Some("http" | "https"))
        && uri.host().is_some_and(|host| !host.is_empty())
        && !authority.contains('@')
        && (uri.port_u16() != Some(0))
}

fn fill(text: &str, node: &str, host: &str) -> String {
    text.replace("{node}", node).replace("{host}", host)
}

impl Template {
    /// The text for one node.
    pub fn filled(&self, node: &str, host: &str) -> String {
        fill(self.as_str(), node, host)
    }
}

impl Url {
    /// The URL for one node. An IPv6 address gets its brackets.
    pub fn filled(&self, node: &str, host: &str) -> String {
        if host.contains(':') && !host.starts_with('[') {
            return fill(self.as_str(), node, &format!("[{host}]"));
        }
        fill(self.as_str(), node, host)
    }
}

parsed_string!(
    /// Method of an HTTP request (RFC 9110, 9.1).
    Method,
    "method of an HTTP request",
    "letters, for example GET or HEAD",
    |text| (1..=20).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_uppercase())
);

/// A regular expression.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(Regex);

/// Headers of an HTTP request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub struct Headers(BTreeMap<String, String>);

impl Headers {
    /// Each with its value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl TryFrom<BTreeMap<String, String>> for Headers {
    type Error = ParseError;

    fn try_from(headers: BTreeMap<String, String>) -> Result<Self, ParseError> {
        let wrong = |(name, value): &(&String, &String)| {
            HeaderName::try_from(name.as_str()).is_err() || HeaderValue::try_from(value.as_str()).is_err()
        };
        match headers.iter().find(wrong) {
            None => Ok(Self(headers)),
            Some((name, value)) => Err(ParseError {
                what: "header of HTTP",
                input: format!("{name}: {value}"),
                expected: "a name of letters, digits and dashes, and a value on one line",
            }),
        }
    }
}

impl From<Headers> for BTreeMap<String, String> {
    fn from(headers: Headers) -> Self {
        headers.0
    }
}

/// Text that is no regular expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{pattern:?} is not a regular expression: {said}")]
pub struct PatternError {
    /// The text.
    pub pattern: String,
    /// What is wrong with it.
    pub said: String,
}

impl Pattern {
    /// Whether it matches somewhere.
    pub fn matches(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

impl TryFrom<String> for Pattern {
    type Error = PatternError;

    fn try_from(pattern: String) -> Result<Self, PatternError> {
        match Regex::new(&pattern) {
            Ok(regex) => Ok(Self(regex)),
            Err(error) => {
                // The last line says what is wrong; those before draw a picture of where.
                let said = error.to_string();
                let said = said.lines().next_back().unwrap_or_default();
                let said = said.trim().trim_start_matches("error: ").to_owned();
                Err(PatternError { pattern, said })
            }
        }
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.to_string()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Pattern {}

/// Statuses of HTTP that count as an answer: one, or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawStatuses", into = "RawStatuses")]
pub struct Statuses(BTreeSet<u16>);

impl Statuses {
    /// Whether a status is one of them.
    pub fn contains(&self, status: u16) -> bool {
        self.0.contains(&status)
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.0.iter().map(u16::to_string).collect();
        f.write_str(&all.join(" or "))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum RawStatuses {
    One(u16),
    Several(Vec<u16>),
}

impl TryFrom<RawStatuses> for Statuses {
    type Error = ParseError;

    fn try_from(raw: RawStatuses) -> Result<Self, ParseError> {
        let all = match raw {
            RawStatuses::One(one) => vec![one],
            RawStatuses::Several(all) => all,
        };
        if all.is_empty() || all.iter().any(|status| !(100..=599).contains(status)) {
            let input = all.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
            let (what, expected) = ("status of HTTP", "a number from 100 to 599, or a list of some");
            return Err(ParseError { what, input, expected });
        }
        Ok(Self(all.into_iter().collect()))
    }
}

impl From<Statuses> for RawStatuses {
    fn from(statuses: Statuses) -> Self {
        Self::Several(statuses.0.into_iter().collect())
    }
}
