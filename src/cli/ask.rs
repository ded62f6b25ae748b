//! Asks a running controller over its unix socket: reads, wakes it, and says what people want of it.
//!
//! One request in HTTP/1.0 (RFC 1945): the answer ends with the connection and is never chunked, so that no HTTP client is
//! needed for it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::model::intent::edit::Done;
use crate::model::snapshot::Snapshot;

/// A controller answers from memory; longer means that it hangs.
const DEADLINE: Duration = Duration::from_secs(10);
/// What is to be kept waits for the controller's disk.
const STEERED: Duration = Duration::from_secs(40);
/// A snapshot of 1 000 nodes has a few MiB.
const MOST_BYTES: u64 = 256 << 20;

/// A controller that did not answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens.
    #[error("no controller is running: nobody listens on {}", socket.display())]
    NotRunning {
        /// The socket.
        socket: PathBuf,
    },
    /// It is there, but not for this user.
    #[error(
        "may not ask the controller on {}; be root, the controller's user, or a member of its group",
        socket.display()
    )]
    Forbidden {
        /// The socket.
        socket: PathBuf,
    },
    /// It is there, but cannot be talked to.
    #[error("cannot ask the controller on {}", socket.display())]
    Io {
        /// The socket.
        socket: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It answered with something other than success.
    #[error("the controller on {} answered {status:?}: {body}", socket.display())]
    Refused {
        /// The socket.
        socket: PathBuf,
        /// The status line.
        status: String,
        /// The start of what it said.
        body: String,
    },
    /// It has a reason not to.
    #[error("{said}")]
    Denied {
        /// The reason.
        said: String,
    },
    /// Its answer is not understood.
    #[error("the controller on {} is of another version than this program", socket.display())]
    Document {
        /// The socket.
        socket: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// Reads the controller's newest snapshot.
pub async fn fleet(socket: &Path) -> Result<Snapshot, AskError> {
    let body = ask(socket, "GET", "/api/v1/fleet", "", DEADLINE).await?;
    serde_json::from_slice(&body).map_err(|source| AskError::Document { socket: socket.to_owned(), source })
}

/// Asks the controller for something, and waits until it is kept.
pub async fn steer(socket: &Path, what: &str, document: &serde_json::Value) -> Result<Done, AskError> {
    let path = format!("/api/v1/intent/{what}");
    let body = ask(socket, "POST", &path, &document.to_string(), STEERED).await?;
    serde_json::from_slice(&body).map_err(|source| AskError::Document { socket: socket.to_owned(), source })
}

/// Makes the controller look at the world now instead of at its next interval.
pub async fn wake(socket: &Path) -> Result<(), AskError> {
    ask(socket, "POST", "/api/v1/wake", "", DEADLINE).await.map(|_| ())
}

async fn ask(
    socket: &Path,
    method: &str,
    path: &str,
    document: &str,
    deadline: Duration,
) -> Result<Vec<u8>, AskError> {
    let late = || format!("no answer within {} s", deadline.as_secs());
    let answer = tokio::time::timeout(deadline, exchange(socket, method, path, document))
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, late())));
    let answer = answer.map_err(|source| {
        let socket = socket.to_owned();
        if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) {
            AskError::NotRunning { socket }
        } else if source.kind() == io::ErrorKind::PermissionDenied {
            AskError::Forbidden { socket }
        } else {
            AskError::Io { socket, source }
        }
    })?;
    let (status, body) = split(&answer);
    if !status.split_whitespace().nth(1).is_some_and(|code| code.starts_with('2')) {
        // In the controller's own words, where it found any.
        if let Ok(Words { error }) = serde_json::from_slice(body) {
            return Err(AskError::Denied { said: error });
        }
        let body = String::from_utf8_lossy(body).chars().take(500).collect();
        return Err(AskError::Refused { socket: socket.to_owned(), status, body });
    }
    Ok(body.to_vec())
}

#[derive(serde::Deserialize)]
struct Words {
    error: String,
}

async fn exchange(socket: &Path, method: &str, path: &str, document: &str) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket).await?;
    let (kind, length) = ("Content-Type: application/json", document.len());
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: localhost\r\n{kind}\r\nContent-Length: {length}\r\n\r\n{document}"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MOST_BYTES).read_to_end(&mut answer).await?;
    Ok(answer)
}

/// The status line and the body.
fn split(answer: &[u8]) -> (String, &[u8]) {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, body) = end.map_or((answer, &[][..]), |at| (&answer[..at], &answer[at + 4..]));
    let head = String::from_utf8_lossy(head);
    (head.lines().next().unwrap_or_default().to_owned(), body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nobody_listening_is_told_from_a_controller_that_answers_nonsense() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("control.sock");
        assert!(matches!(fleet(&socket).await, Err(AskError::NotRunning { .. })));

        let app =
            axum::Router::new().route("/api/v1/fleet", axum::routing::get(|| async { "{\"version\":" }));
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        let error = fleet(&socket).await.unwrap_err();
        assert!(matches!(error, AskError::Document { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_refusal_is_quoted() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("control.sock");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move { axum::serve(listener, axum::Router::new()).await });
        let error = fleet(&socket).await.unwrap_err().to_string();
        assert!(error.contains("404 Not Found"), "{error}");
    }

    #[tokio::test]
    async fn a_socket_left_behind_by_a_dead_controller_is_nobody_listening() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("control.sock");
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        assert!(matches!(fleet(&socket).await, Err(AskError::NotRunning { .. })));
    }
}
