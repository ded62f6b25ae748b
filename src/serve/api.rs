//! Routes: who may ask what, the JSON answers, and how a wrong question is answered.
//!
//! Reads the snapshot, writes nothing; what people want is handed to the loop ([`super::steer`]). Errors are JSON as well, so that a script never has to parse a page.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::rejection::PathRejection;
use axum::extract::{MatchedPath, Path, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::watch;

use super::metrics::Metrics;
use super::{Controls, page, steer};
use crate::model::snapshot::{Ready, Snapshot};

/// A loop that has not finished a pass for so many seconds is taken for stuck. It passes at least every half minute.
const STUCK_AFTER: i64 = 300;

/// What every window reads.
#[derive(Clone)]
pub struct Windows {
    /// The newest picture of the fleet.
    pub snapshot: watch::Receiver<Arc<Snapshot>>,
    /// The counters.
    pub metrics: Arc<Metrics>,
}

impl Windows {
    pub(super) fn newest(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.borrow())
    }
}

/// Which `Host` headers are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hosts {
    /// Any: the operator opened the port to a network.
    Any,
    /// `localhost` and addresses: a web page in a browser on this machine must not read the fleet through a name that it
    /// points at 127.0.0.1 (DNS rebinding).
    Local,
}

/// The routes of the HTTP listener: looking, and acting for who has the token.
pub fn network(windows: Windows, hosts: Hosts, controls: &Controls) -> Router {
    let token = controls.token_file.clone().map(Arc::new);
    let steering =
        steer::routes(&controls.hatch).layer(middleware::from_fn_with_state(token, steer::check_token));
    finish(looks().merge(steering), windows).layer(middleware::from_fn_with_state(hosts, check_host))
}

/// The routes of the unix socket: looking, and what only who may open the socket can ask.
pub fn socket(windows: Windows, controls: &Controls) -> Router {
    let wake = Arc::clone(&controls.look);
    let wake = post(|| async move {
        wake.notify_one();
        (StatusCode::ACCEPTED, Json(json!({ "status": "looking again" })))
    });
    finish(looks().route("/api/v1/wake", wake).merge(steer::routes(&controls.hatch)), windows)
}

fn looks() -> Router<Windows> {
    Router::new()
        .route("/", get(status_page))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/api/v1/fleet", get(fleet))
        .route("/api/v1/nodes/{name}", get(node))
}

fn finish(routes: Router<Windows>, windows: Windows) -> Router {
    let counted = Arc::clone(&windows.metrics);
    routes
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(middleware::from_fn_with_state(counted, count))
        .with_state(windows)
}

async fn status_page(State(windows): State<Windows>) -> Response {
    page::render(&windows.newest(), Timestamp::now()).into_response()
}

async fn metrics(State(windows): State<Windows>) -> Response {
    match windows.metrics.render(&windows.newest()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            problem(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot write the metrics: {error}"))
        }
    }
}

async fn healthz(State(windows): State<Windows>) -> Response {
    let age = Timestamp::now().as_second() - windows.newest().at.as_second();
    if age <= STUCK_AFTER {
        Json(json!({ "status": "ok", "lastPassSecondsAgo": age })).into_response()
    } else {
        problem(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("the last pass ended {age} s ago; the loop seems stuck"),
        )
    }
}

async fn readyz(State(windows): State<Windows>) -> Response {
    match windows.newest().ready {
        Ready::Ready => Json(json!({ "status": "ready" })).into_response(),
        Ready::Starting => problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "the first pass over source and nodes is not over yet".to_owned(),
        ),
    }
}

async fn fleet(State(windows): State<Windows>) -> Response {
    Json(&*windows.newest()).into_response()
}

async fn node(State(windows): State<Windows>, name: Result<Path<String>, PathRejection>) -> Response {
    let Path(name) = match name {
        Ok(name) => name,
        Err(error) => return problem(StatusCode::BAD_REQUEST, error.body_text()),
    };
    let snapshot = windows.newest();
    match snapshot.nodes.iter().find(|(known, _)| known.as_str() == name) {
        Some((_, view)) => Json(view).into_response(),
        None => problem(
            StatusCode::NOT_FOUND,
            format!("no node {name:?} in the fleet; /api/v1/fleet lists all {}", snapshot.nodes.len()),
        ),
    }
}

async fn no_such_path(request: Request) -> Response {
    problem(StatusCode::NOT_FOUND, format!("there is nothing at {}", request.uri().path()))
}

async fn no_such_method(request: Request) -> Response {
    let (method, path) = (request.method(), request.uri().path());
    problem(StatusCode::METHOD_NOT_ALLOWED, format!("{method} does not apply to {path}"))
}

pub(super) fn problem(status: StatusCode, message: String) -> Response {
    (status, Json(json!({ "error": message }))).into_response()
}

/// Counts every request, and keeps answers out of caches and foreign pages.
async fn count(State(metrics): State<Arc<Metrics>>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = match *request.method() {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        // Anybody can invent a method; each would be a series of its own.
        _ => "other",
    };
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = next.run(request).await;
    let handler = route.as_ref().map_or("none", MatchedPath::as_str);
    metrics.answered(handler, method, response.status().as_u16(), began.elapsed());
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
        ),
    );
    response
}

async fn check_host(State(hosts): State<Hosts>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).map(|host| host.to_str().unwrap_or("?").to_owned());
    match (hosts, host) {
        (Hosts::Local, Some(host)) if !is_local(&host) => problem(
            StatusCode::MISDIRECTED_REQUEST,
            format!(
                "this server listens on the loopback address and does not answer for the name {host:?}; \
                 a proxy in front of it has to send `Host: localhost`"
            ),
        ),
        // Without a Host header (HTTP/1.0) no browser is behind the request.
        (Hosts::Local | Hosts::Any, _) => next.run(request).await,
    }
}

fn is_local(host: &str) -> bool {
    // `[::1]:9737`, `127.0.0.1:9737`, `localhost`
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.parse::<std::net::IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || name.to_ascii_lowercase().ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_name_is_not_local() {
        for local in ["localhost", "localhost:9737", "127.0.0.1", "127.0.0.1:9737", "[::1]:9737", "[::1]"] {
            assert!(is_local(local), "{local}");
        }
        for foreign in ["evil.example", "evil.example:9737", "localhost.evil.example", "", "?", "[evil]"] {
            assert!(!is_local(foreign), "{foreign}");
        }
    }
}
