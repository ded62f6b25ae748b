//! What keeps a controller from starting.

use super::StateError;
use crate::nix::NixError;
use crate::serve::ServeError;
use crate::source::SourceError;

/// A controller that cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The source cannot be opened.
    #[error("cannot open the source")]
    Source(#[source] SourceError),
    /// The nix room cannot be set up.
    #[error("cannot prepare for evaluation")]
    Nix(#[source] NixError),
    /// What is built could not be signed.
    #[error("cannot sign what will be built")]
    SigningKey(#[source] NixError),
    /// The HTTP address is not to be had.
    #[error("cannot listen on {address}; set serve.listen to a free address")]
    Listen {
        /// `serve.listen`.
        address: std::net::SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The windows cannot be served.
    #[error("cannot serve status and metrics")]
    Serve(#[source] ServeError),
}
