//! The windows: metrics, JSON and the status page over HTTP, and the same plus `wake` over the unix socket.
//!
//! Every window reads the newest [`Snapshot`] and nothing else: no request ever reaches a node, a repository or Nix. The
//! caller owns the listeners and the shutdown. Nothing here changes the fleet; `wake` only asks for another look, and what
//! people want of the controller is handed to its loop.

mod api;
mod page;
mod token;

pub mod steer;

pub mod metrics;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::model::snapshot::Snapshot;
use metrics::Metrics;
use steer::{Hatch, Peer};

/// Connections at a time and listener; more wait in the kernel's queue.
const MOST_CONNECTIONS: usize = 64;
/// A client that has not sent its whole request head by then is cut off.
const REQUEST_HEAD: Duration = Duration::from_secs(10);
/// No connection lives longer, whatever the client does; Prometheus simply opens the next.
const CONNECTION_LIFE: Duration = Duration::from_secs(120);
/// Answers that are under way when a connection or the server ends get so long.
const GRACE: Duration = Duration::from_secs(3);
/// Largest request head; bodies have a limit of their own.
const MOST_HEAD_BYTES: usize = 32 << 10;

/// A unix socket that cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Somebody answers there.
    #[error("another controller listens on {}", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// It cannot be made.
    #[error("cannot listen on the socket {}", path.display())]
    Bind {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The token of `serve.token_file` cannot be used.
    #[error(transparent)]
    Token(#[from] token::TokenError),
}

/// How the windows reach the controller.
#[derive(Debug, Clone)]
pub struct Controls {
    /// Everything is looked at, and tried, now.
    pub look: Arc<Notify>,
    /// What people want.
    pub hatch: Hatch,
    /// The token that acting over HTTP takes; without one nobody may.
    pub token_file: Option<PathBuf>,
}

/// Refuses a token file that would be refused at every request.
pub fn check_token_file(path: Option<&Path>) -> Result<(), ServeError> {
    path.map(token::read).transpose()?;
    Ok(())
}

/// Listens on a unix socket that owner and group may use (mode 0660); one that a dead controller left is replaced.
pub fn bind_socket(path: &Path) -> Result<UnixListener, ServeError> {
    if UnixStream::connect(path).is_ok() {
        return Err(ServeError::InUse { path: path.to_owned() });
    }
    let bind = || {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        // Made beside its place and moved there once its mode is right: at no time can others connect.
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let fresh = path.with_file_name(name);
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&fresh)?;
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o660))?;
        fs::rename(&fresh, path)?;
        Ok(listener)
    };
    bind().map_err(|source| ServeError::Bind { path: path.to_owned(), source })
}

/// Removes the socket of a controller that has ended, so that nobody knocks there.
pub fn remove_socket(path: &Path) {
    // A left one is only untidy: the next controller replaces it.
    let _ = fs::remove_file(path);
}

/// Serves until `shutdown`; answers that are under way then are finished.
pub async fn run(
    tcp: TcpListener,
    unix: Option<UnixListener>,
    snapshot: watch::Receiver<Arc<Snapshot>>,
    metrics: Arc<Metrics>,
    controls: Controls,
    shutdown: CancellationToken,
) {
    let windows = api::Windows { snapshot, metrics };
    // Where the address cannot be told, the stricter rule holds.
    let hosts = match tcp.local_addr() {
        Ok(address) if !address.ip().is_loopback() => api::Hosts::Any,
        Ok(_) | Err(_) => api::Hosts::Local,
    };
    let network = api::network(windows.clone(), hosts, &controls);
    let open = listen(tcp, network, |_| Peer::Network, shutdown.clone());
    let local = async {
        if let Some(unix) = unix {
            listen(unix, api::socket(windows, &controls), Peer::of, shutdown.clone()).await;
        }
    };
    tokio::join!(open, local);
}

async fn listen<L: Listener>(
    mut listener: L,
    app: Router,
    peer: fn(&L::Io) -> Peer,
    shutdown: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let connections = TaskTracker::new();
    let accept = async {
        loop {
            let slot = Arc::clone(&slots).acquire_owned().await;
            let (io, _) = listener.accept().await;
            let (app, shutdown, peer) = (app.clone(), shutdown.clone(), peer(&io));
            connections.spawn(async move {
                converse(io, app, peer, shutdown).await;
                drop(slot);
            });
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = accept => {}
    }
    connections.close();
    if tokio::time::timeout(2 * GRACE, connections.wait()).await.is_err() {
        tracing::warn!("HTTP connections were still open at shutdown");
    }
}

async fn converse<I>(io: I, app: Router, peer: Peer, shutdown: CancellationToken)
where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let app = TowerToHyperService::new(app);
    let answer = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        app.call(request)
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(REQUEST_HEAD)
            .max_buf_size(MOST_HEAD_BYTES)
            .serve_connection(TokioIo::new(io), answer)
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = shutdown.cancelled() => None,
        () = tokio::time::sleep(CONNECTION_LIFE) => None,
    };
    let ended = match ended {
        Some(ended) => Ok(ended),
        None => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(GRACE, connection).await
        }
    };
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection ended early"),
        Err(_) => tracing::debug!("a connection was cut off: the client was too slow"),
    }
}
