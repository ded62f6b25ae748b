//! Asks a running controller over its unix socket. Only ever reads.
//!
//! One GET in HTTP/1.0 (RFC 1945): the answer ends with the connection and is never chunked, so that no HTTP client is
//! needed for it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::model::snapshot::Snapshot;

/// A controller answers from memory; longer means that it hangs.
const DEADLINE: Duration = Duration::from_secs(10);
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
    /// It is there, but cannot be talked to.
    #[error("cannot ask the controller on {}", socket.display())]
    Io {
        /// The socket.
        socket: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It answered with something other than 200 OK.
    #[error("the controller on {} answered {status:?}: {body}", socket.display())]
    Refused {
        /// The socket.
        socket: PathBuf,
        /// The status line.
        status: String,
        /// The start of what it said.
        body: String,
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
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            AskError::NotRunning { socket: socket.to_owned() }
        }
        _ => AskError::Io { socket: socket.to_owned(), source },
    };
    let answer = tokio::time::timeout(DEADLINE, get(socket, "/api/v1/fleet"))
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer within 10 s")))
        .map_err(failed)?;
    let (status, body) = split(&answer);
    if status.split_whitespace().nth(1) != Some("200") {
        let body = String::from_utf8_lossy(body).chars().take(500).collect();
        return Err(AskError::Refused { socket: socket.to_owned(), status, body });
    }
    serde_json::from_slice(body).map_err(|source| AskError::Document { socket: socket.to_owned(), source })
}

async fn get(socket: &Path, path: &str) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes()).await?;
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
