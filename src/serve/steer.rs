//! What people ask of a controller over its windows: who may, in which form, and how it is answered. Decides nothing about
//! it: the loop does, and answers when it is kept.
//!
//! Whoever may open the unix socket may ask. Over the network it takes the token of `serve.token_file`; a browser cannot be
//! made to send that, nor a document of the type that is wanted here.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, mpsc, oneshot};

use super::api::{Windows, problem};
use super::token;
use crate::model::intent::edit::{Approve, Done, Edit, EditError, Open, Resume, Suspend};
use crate::model::intent::{PlanHash, SuspensionId};
use crate::model::selector::{SelectionError, Selector};

/// A request has a few hundred bytes.
const MOST_BYTES: usize = 16 << 10;
/// A client that has not sent its whole request by then is cut off.
const PATIENCE: Duration = Duration::from_secs(10);
/// The loop answers within a pass; a disk may take a while.
const ANSWER: Duration = Duration::from_secs(30);
/// Whom a person claims to be, at most.
const LONGEST_NAME: usize = 120;

/// What somebody asks of the loop.
#[derive(Debug)]
pub struct Wish {
    /// What.
    pub edit: Edit,
    /// Who.
    pub by: String,
    /// Told when it is kept, or refused.
    pub answer: oneshot::Sender<Result<Done, Denied>>,
}

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum Denied {
    /// It cannot be.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// It could not be kept, and so it was not done.
    #[error("{0}")]
    NotKept(String),
}

/// How the windows reach the loop.
#[derive(Debug, Clone)]
pub struct Hatch {
    wishes: mpsc::Sender<Wish>,
    wake: Arc<Notify>,
}

impl Hatch {
    /// `wishes` are read by the loop after each `wake`.
    pub fn new(wishes: mpsc::Sender<Wish>, wake: Arc<Notify>) -> Self {
        Self { wishes, wake }
    }

    async fn ask(&self, edit: Edit, by: String) -> Result<Done, (StatusCode, String)> {
        let (answer, told) = oneshot::channel();
        let ended =
            |_| (StatusCode::SERVICE_UNAVAILABLE, "the controller is busy or shutting down".to_owned());
        self.wishes.try_send(Wish { edit, by, answer }).map_err(|_| ended(()))?;
        self.wake.notify_one();
        match tokio::time::timeout(ANSWER, told).await {
            Ok(Ok(Ok(done))) => Ok(done),
            Ok(Ok(Err(denied))) => Err((status(&denied), denied.to_string())),
            Ok(Err(_)) => Err(ended(())),
            Err(_) => {
                let late =
                    "the controller has not answered in time and may still do it; `driftless status` shows";
                Err((StatusCode::GATEWAY_TIMEOUT, late.into()))
            }
        }
    }
}

fn status(denied: &Denied) -> StatusCode {
    match denied {
        Denied::NotKept(_) => StatusCode::INTERNAL_SERVER_ERROR,
        Denied::Edit(error) => match error {
            EditError::Selection(SelectionError::NoMatch { .. }) | EditError::NotSuspended(_) => {
                StatusCode::NOT_FOUND
            }
            EditError::Selection(_)
            | EditError::NoReason
            | EditError::LongReason(_)
            | EditError::Past(_)
            | EditError::TooLong(_)
            | EditError::Which => StatusCode::BAD_REQUEST,
            EditError::InGit(_)
            | EditError::Together { .. }
            | EditError::NotWaiting { .. }
            | EditError::Unreadable(_)
            | EditError::TooMany => StatusCode::CONFLICT,
        },
    }
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub enum Peer {
    /// A process on this host, of this user, as the kernel says (`SO_PEERCRED`); `None` where it does not say.
    Local(Option<String>),
    /// Somebody on the network.
    Network,
}

impl Peer {
    /// The user behind a connection to the unix socket.
    pub fn of(stream: &tokio::net::UnixStream) -> Self {
        Self::Local(stream.peer_cred().ok().map(|cred| user_name(cred.uid())))
    }

    /// Who asks: what a person claims, and what is known of him.
    fn named(&self, claimed: Option<&str>) -> String {
        let plain = |text: &str| -> String {
            text.chars().filter(|c| !c.is_control() && !c.is_whitespace()).take(LONGEST_NAME).collect()
        };
        let claimed = claimed.map(plain).filter(|name| !name.is_empty());
        match (self, claimed) {
            (Self::Local(Some(user)), Some(claimed)) if claimed.split('@').next() == Some(user) => claimed,
            (Self::Local(Some(user)), Some(claimed)) => format!("{claimed} as {user}"),
            (Self::Local(Some(user)), None) => user.clone(),
            (Self::Local(None), claimed) => claimed.unwrap_or_else(|| "somebody".into()),
            (Self::Network, claimed) => {
                format!("{} over HTTP", claimed.unwrap_or_else(|| "somebody".into()))
            }
        }
    }
}

/// As passwd(5) has it; of others the number has to do.
fn user_name(uid: u32) -> String {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let is = |line: &&str| line.split(':').nth(2) == Some(uid.to_string().as_str());
    let name = users.lines().find(is).and_then(|line| line.split(':').next());
    name.map_or_else(|| format!("uid {uid}"), str::to_owned)
}

/// Reads a document: what is wanted, and who claims to want it.
type Read = fn(&[u8]) -> Result<(Edit, Option<String>), String>;

/// The routes; `gate` is what the network has to get past, and the socket has not.
pub fn routes(hatch: &Hatch) -> Router<Windows> {
    let route = |read: Read| {
        let hatch = hatch.clone();
        post(move |Extension(peer): Extension<Peer>, headers: HeaderMap, body: Body| async move {
            answer(&hatch, &peer, &headers, body, read).await
        })
    };
    Router::new()
        .route("/api/v1/intent", get(intent))
        .route("/api/v1/intent/suspend", route(|body| parse::<SuspendBody>(body).map(SuspendBody::read)))
        .route("/api/v1/intent/resume", route(|body| parse::<ResumeBody>(body).and_then(ResumeBody::read)))
        .route("/api/v1/intent/approve", route(|body| parse::<ApproveBody>(body).map(ApproveBody::read)))
        .route("/api/v1/intent/override", route(|body| parse::<OverrideBody>(body).map(OverrideBody::read)))
}

async fn intent(State(windows): State<Windows>) -> Response {
    Json(&*windows.newest().intent).into_response()
}

async fn answer(hatch: &Hatch, peer: &Peer, headers: &HeaderMap, body: Body, read: Read) -> Response {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.split(';').next().map(str::trim) != Some("application/json") {
        let wanted = "send one JSON document, with `Content-Type: application/json`";
        return problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, wanted.into());
    }
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let too_large = || problem(StatusCode::PAYLOAD_TOO_LARGE, format!("more than {MOST_BYTES} bytes"));
    if length.is_some_and(|length: usize| length > MOST_BYTES) {
        return too_large();
    }
    let body = match tokio::time::timeout(PATIENCE, to_bytes(body, MOST_BYTES)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return too_large(),
        Err(_) => return problem(StatusCode::REQUEST_TIMEOUT, "the document did not come to an end".into()),
    };
    let (edit, claimed) = match read(&body) {
        Ok(read) => read,
        Err(error) => return problem(StatusCode::BAD_REQUEST, error),
    };
    let by = peer.named(claimed.as_deref());
    match hatch.ask(edit.clone(), by.clone()).await {
        Ok(done) => {
            tracing::info!(%by, said = done.said.join("; "), "a person says");
            Json(done).into_response()
        }
        Err((status, error)) => {
            tracing::warn!(%by, %error, "a person is refused");
            problem(status, error)
        }
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| format!("this cannot be understood: {error}"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SuspendBody {
    on: Selector,
    reason: String,
    until: Option<Timestamp>,
    by: Option<String>,
}

impl SuspendBody {
    fn read(self) -> (Edit, Option<String>) {
        let Self { on, reason, until, by } = self;
        (Edit::Suspend(Suspend { on, reason, until }), by)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResumeBody {
    on: Option<Selector>,
    id: Option<SuspensionId>,
    all: Option<bool>,
    by: Option<String>,
}

impl ResumeBody {
    fn read(self) -> Result<(Edit, Option<String>), String> {
        let resume = match (self.on, self.id, self.all) {
            (Some(on), None, None | Some(false)) => Resume::On(on),
            (None, Some(id), None | Some(false)) => Resume::Id(id),
            (None, None, Some(true)) => Resume::All,
            (None, None, None | Some(false)) => Resume::Unreadable,
            (Some(_) | None, Some(_) | None, _) => {
                return Err("one of `on`, `id` and `all` is wanted, not several".into());
            }
        };
        Ok((Edit::Resume(resume), self.by))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ApproveBody {
    hash: PlanHash,
    by: Option<String>,
}

impl ApproveBody {
    fn read(self) -> (Edit, Option<String>) {
        (Edit::Approve(Approve { hash: self.hash }), self.by)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OverrideBody {
    on: Selector,
    reason: String,
    until: Timestamp,
    by: Option<String>,
}

impl OverrideBody {
    fn read(self) -> (Edit, Option<String>) {
        let Self { on, reason, until, by } = self;
        (Edit::Override(Open { on, reason, until }), by)
    }
}

/// What stands before acting over the network.
pub async fn check_token(
    State(file): State<Option<Arc<std::path::PathBuf>>>,
    request: axum::extract::Request,
    next: axum::middleware::Next,
) -> Response {
    if request.method() != axum::http::Method::POST {
        return next.run(request).await;
    }
    let Some(file) = file else {
        let how = "acting over HTTP is not allowed here: set serve.token_file in driftless.toml, or use the command line on \
                   the controller's host";
        return problem(StatusCode::FORBIDDEN, how.into());
    };
    let expected = match token::read(&file) {
        Ok(expected) => expected,
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "nobody may act over HTTP");
            return problem(StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
        }
    };
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    match given.and_then(|value| value.split_once(' ')) {
        Some((scheme, given)) if scheme.eq_ignore_ascii_case("bearer") && expected.is(given.trim()) => {
            next.run(request).await
        }
        Some(_) | None => {
            let how = "acting needs `Authorization: Bearer TOKEN`, with the token of serve.token_file";
            let mut response = problem(StatusCode::UNAUTHORIZED, how.into());
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            response
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_is_what_the_kernel_knows_and_what_he_says_of_himself() {
        let local = |user: &str| Peer::Local(Some(user.into()));
        assert_eq!(local("alice").named(Some("alice@laptop")), "alice@laptop");
        assert_eq!(local("root").named(Some("alice@laptop")), "alice@laptop as root");
        assert_eq!(local("root").named(None), "root");
        assert_eq!(local("root").named(Some("\u{1b}[31m a\tb\n")), "[31mab as root");
        assert_eq!(Peer::Network.named(Some("ci")), "ci over HTTP");
        assert_eq!(Peer::Network.named(None), "somebody over HTTP");
        assert_eq!(user_name(0), "root");
        assert_eq!(user_name(4_000_000), "uid 4000000");
    }

    #[test]
    fn one_thing_is_resumed_at_a_time() {
        let read = |text: &str| parse::<ResumeBody>(text.as_bytes()).and_then(ResumeBody::read);
        assert!(matches!(read("{}").unwrap().0, Edit::Resume(Resume::Unreadable)));
        assert!(matches!(read("{\"all\":true}").unwrap().0, Edit::Resume(Resume::All)));
        assert!(matches!(read("{\"on\":\"web1\"}").unwrap().0, Edit::Resume(Resume::On(_))));
        for bad in ["{\"on\":\"web1\",\"all\":true}", "{\"id\":\"x\"}", "{\"no\":1}", "[]", ""] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
