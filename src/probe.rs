//! What servers are asked from here for health checks: one connection, one question, one answer. Never over a proxy, never
//! twice: who asks again, and what follows from the answer, is the business of `node` and `controller`.

mod http;
mod tls;

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::model::health::{HttpCheck, PrometheusCheck, TcpCheck, Unfit};

/// So much of a body is looked at, bytes.
pub const MOST_BODY: usize = 64 << 10;
/// So much of an answer of Prometheus is taken, bytes.
const MOST_RESULTS: usize = 8 << 20;

/// A check that failed, or could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Nobody takes the connection.
    #[error("cannot connect to {host} port {port}")]
    Connect {
        /// Which host.
        host: String,
        /// Which port.
        port: u16,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The server does not prove who it is, or speaks no TLS.
    #[error("no TLS with {name}")]
    Tls {
        /// Who it has to be.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file of authorities is of no use.
    #[error("no certificate of an authority in {path}: {said}")]
    Authority {
        /// The file; or where those of the system are looked for.
        path: String,
        /// Why.
        said: String,
    },
    /// What is declared makes no request: `{host}` may have become anything.
    #[error("{url:?} cannot be asked for: {said}")]
    Request {
        /// What was to be asked for.
        url: String,
        /// Why not.
        said: String,
    },
    /// The server answers, and not in HTTP.
    #[error("no answer of HTTP from {host}")]
    Http {
        /// Which host.
        host: String,
        /// How.
        #[source]
        source: hyper::Error,
    },
    /// The answer has no end.
    #[error("the answer of {host} is longer than {} MiB", most >> 20)]
    TooLong {
        /// Which host.
        host: String,
        /// How long it may be, bytes.
        most: usize,
    },
    /// Nothing within the time for one try.
    #[error("no answer within {} s", within.as_secs())]
    Deadline {
        /// That time.
        within: Duration,
    },
    /// An answer that is not what was wanted.
    #[error(transparent)]
    Unfit(#[from] Unfit),
}

/// Whom a check is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// The node's name.
    pub node: String,
    /// What it is reached by, without user and port.
    pub host: String,
}

/// Asks an HTTP server.
pub async fn http(check: &HttpCheck, about: &About, within: Duration) -> Result<(), ProbeError> {
    let request = http::Request {
        url: check.url.filled(&about.node, &about.host),
        method: check.method.to_string(),
        headers: &check.headers,
        tls: &check.tls,
        form: None,
    };
    let asked = async {
        let answer = http::ask(request).await?;
        let status = answer.status();
        // What is not looked at is not waited for: it may have no end.
        let body = if check.body.is_none() && check.wants(status) {
            String::new()
        } else {
            answer.beginning(MOST_BODY).await
        };
        Ok(check.judge(status, &body)?)
    };
    in_time(asked, within).await
}

/// Asks for a connection to a port.
pub async fn tcp(check: &TcpCheck, about: &About, within: Duration) -> Result<(), ProbeError> {
    let host = match &check.host {
        Some(host) => host.filled(&about.node, &about.host),
        None => about.host.clone(),
    };
    in_time(async { connect(&host, check.port.get()).await.map(drop) }, within).await
}

/// Asks a Prometheus. Whatever is no clear answer is an error.
pub async fn prometheus(check: &PrometheusCheck, about: &About, within: Duration) -> Result<(), ProbeError> {
    let url = check.url.filled(&about.node, &about.host);
    let query = check.query.filled(&about.node, &about.host);
    let request = http::Request {
        url: format!("{}/api/v1/query", url.trim_end_matches('/')),
        method: "POST".into(),
        headers: &check.headers,
        tls: &check.tls,
        form: Some(("query", &query)),
    };
    let asked = async {
        let answer = http::ask(request).await?;
        let status = answer.status();
        let body = answer.whole(MOST_RESULTS).await?;
        Ok(check.judge(status, &body)?)
    };
    in_time(asked, within).await
}

async fn in_time(
    asked: impl Future<Output = Result<(), ProbeError>>,
    within: Duration,
) -> Result<(), ProbeError> {
    tokio::time::timeout(within, asked).await.unwrap_or(Err(ProbeError::Deadline { within }))
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, ProbeError> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let failed = |source| ProbeError::Connect { host: host.to_owned(), port, source };
    TcpStream::connect((host, port)).await.map_err(failed)
}

#[cfg(test)]
mod tests;
