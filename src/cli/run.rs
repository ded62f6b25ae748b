//! `driftless run`: the controller, in the foreground, until SIGTERM or Ctrl-C. SIGHUP makes it fetch now.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Global;
use crate::config::{self, Config};
use crate::controller::{self, Options};

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs until it is told to stop.
pub async fn run(global: &Global, _args: Args) -> Result<ExitCode> {
    let config = global.config()?;
    let state_dir = config::state_dir(std::env::var("STATE_DIRECTORY").ok());
    let options = Options { runtime_dir: runtime_dir(&config), state_dir, config };
    let reload = Arc::new(Notify::new());
    let shutdown = CancellationToken::new();
    let signals = Signals::listen().context("cannot listen to signals")?;
    let listening = tokio::spawn(signals.heed(Arc::clone(&reload), shutdown.clone()));
    let ended = controller::run(options, reload, shutdown).await;
    listening.abort();
    ended?;
    Ok(ExitCode::SUCCESS)
}

/// `$RUNTIME_DIRECTORY` (systemd.exec(5)), else beside the control socket.
fn runtime_dir(config: &Config) -> PathBuf {
    let given = std::env::var("RUNTIME_DIRECTORY").ok();
    // systemd separates several directories by colons; the first is ours.
    let first = given.as_deref().and_then(|all| all.split(':').next()).filter(|path| !path.is_empty());
    let beside = config.serve.socket.parent().map(PathBuf::from);
    first.map(PathBuf::from).or(beside).unwrap_or_else(|| PathBuf::from("/run/driftless"))
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn heed(mut self, reload: Arc<Notify>, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => shutdown.cancel(),
                _ = self.interrupt.recv() => shutdown.cancel(),
                _ = self.hang_up.recv() => reload.notify_one(),
            }
        }
    }
}
