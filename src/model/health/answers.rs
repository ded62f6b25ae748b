//! What of an answer counts. A Prometheus that says anything else than a clear answer has not answered.

use serde::Deserialize;
use serde_json::Value;

use super::{Expect, HttpCheck, Pattern, PrometheusCheck, Statuses};

/// So many characters of somebody else's text are told.
const QUOTE: usize = 200;
/// So many results are told.
const TOLD: usize = 3;

/// An answer that is not what a check wants.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// The status is another one.
    #[error("status {status}, expected {}{}", expected(wanted.as_ref()), told(said))]
    Status {
        /// The server's.
        status: u16,
        /// Those that count.
        wanted: Option<Statuses>,
        /// The beginning of the body.
        said: String,
    },
    /// The body does not match.
    #[error("the body does not match {:?}{}", wanted.to_string(), told(said))]
    Body {
        /// What it must match.
        wanted: Pattern,
        /// Its beginning.
        said: String,
    },
    /// Prometheus says that it could not answer.
    #[error("Prometheus has no answer: {said}")]
    Failed {
        /// Its words.
        said: String,
    },
    /// It answers, and warns that the answer may be wrong.
    #[error("Prometheus answers with warnings, which is no answer: {said}")]
    Warnings {
        /// Its words.
        said: String,
    },
    /// The answer is none of Prometheus.
    #[error("the answer is none of Prometheus: {said}{}", told(text))]
    NotPrometheus {
        /// How it is wrong.
        said: String,
        /// Its beginning.
        text: String,
    },
    /// Nothing should have been found.
    #[error("expected nothing, found {count}: {}", results.join(", "))]
    Found {
        /// How much.
        count: usize,
        /// Some of it.
        results: Vec<String>,
    },
    /// Something should have been found.
    #[error("expected something, found nothing")]
    Nothing,
}

fn expected(wanted: Option<&Statuses>) -> String {
    wanted.map_or_else(|| "200 to 399".to_owned(), Statuses::to_string)
}

fn told(said: &str) -> String {
    let said: Vec<&str> = said.split_whitespace().collect();
    let said: String = said.join(" ").chars().take(QUOTE).collect();
    if said.is_empty() { String::new() } else { format!("; it says: {said}") }
}

impl HttpCheck {
    /// Whether a status is one that counts.
    pub fn wants(&self, status: u16) -> bool {
        self.status.as_ref().map_or((200..400).contains(&status), |wanted| wanted.contains(status))
    }

    /// Judges an answer by its status and the beginning of its body.
    pub fn judge(&self, status: u16, body: &str) -> Result<(), Unfit> {
        if !self.wants(status) {
            return Err(Unfit::Status { status, wanted: self.status.clone(), said: body.to_owned() });
        }
        match &self.body {
            Some(wanted) if !wanted.matches(body) => {
                Err(Unfit::Body { wanted: wanted.clone(), said: body.to_owned() })
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// The answer of `/api/v1/query`.
#[derive(Deserialize)]
struct Answer {
    status: String,
    data: Option<Data>,
    #[serde(default)]
    error: String,
    #[serde(default)]
    warnings: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    result_type: String,
    result: Value,
}

impl PrometheusCheck {
    /// Judges an answer of `/api/v1/query`.
    pub fn judge(&self, status: u16, body: &str) -> Result<(), Unfit> {
        let not_prometheus = |said: String| Unfit::NotPrometheus { said, text: body.to_owned() };
        let answer: Answer = serde_json::from_str(body)
            .map_err(|error| not_prometheus(format!("status {status}, {error}")))?;
        if answer.status != "success" || status != 200 {
            return Err(Unfit::Failed { said: format!("status {status}{}", told(&answer.error)) });
        }
        if !answer.warnings.is_empty() {
            return Err(Unfit::Warnings { said: answer.warnings.join("; ") });
        }
        let data = answer.data.ok_or_else(|| not_prometheus("it has no data".into()))?;
        let Value::Array(results) = &data.result else {
            return Err(not_prometheus("its result is no list".into()));
        };
        if !matches!(data.result_type.as_str(), "vector" | "matrix") {
            return Err(Unfit::Failed {
                said: format!(
                    "the query asks for a {}, and not for series that may be there",
                    data.result_type
                ),
            });
        }
        let found: Vec<&Value> = results.iter().filter(|result| !is_own_alert(result)).collect();
        match (self.expect, found.as_slice()) {
            (Expect::Empty, []) => Ok(()),
            (Expect::Empty, found) => {
                Err(Unfit::Found { count: found.len(), results: found.iter().take(TOLD).map(name).collect() })
            }
            (Expect::NonEmpty, []) => Err(Unfit::Nothing),
            (Expect::NonEmpty, [..]) => Ok(()),
        }
    }
}

fn is_own_alert(result: &Value) -> bool {
    result["metric"]["alertname"].as_str().is_some_and(|name| name.starts_with("Driftless"))
}

fn name(result: &&Value) -> String {
    let metric = result["metric"].to_string();
    match result["value"][1].as_str() {
        Some(value) => told(&format!("{metric} {value}")),
        None => told(&metric),
    }
    .trim_start_matches("; it says: ")
    .to_owned()
}
