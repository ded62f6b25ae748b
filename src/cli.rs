//! The command line: what can be asked, and which file answers. One file per subcommand: arguments → call → print.
//!
//! Decides nothing about nodes: `plan` does.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{ArgAction, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use self::fleet::LookArgs;
use crate::config::{Config, ConfigError, DEFAULT_PATH};

mod accept_history;
mod act;
pub mod ask;
mod direct;
mod ending;
mod fleet;
mod origin;
mod output;
mod packages;
mod progress;
mod steer;
mod survey;
mod table;

mod run;

mod diff;
mod history;
mod logs;
mod plan;
mod report;
mod status;
mod sync;

mod approve;
mod overriding;
mod resume;
mod suspend;

mod build;
mod check;
mod deploy;
mod push;
mod retry;
mod rollback;

mod exec;
mod ssh;

mod secrets;

mod completions;
mod init;

/// What a verb that needs a deployment says without one.
const NO_DEPLOYMENT: &str = "which deployment? there is no deployment.nix, flake.nix, hive.nix, network.nix or nixops.nix here; name one with --file, --flake or --release";

/// Exit code of a command line that cannot be understood (sysexits.h, EX_USAGE): 2 means changes to `plan`.
pub const EXIT_USAGE: u8 = 64;

const EXIT_CODES: &str = "\
Exit codes:
  0   done; for `plan --detailed-exitcode`, every node is what it should be
  1   failed, wholly or for some node; the message says what and where
  2   `plan --detailed-exitcode`: some node is not, or is not known to be, what it should be
  64  the command line cannot be understood";

/// Keep a fleet of NixOS machines equal to a Git branch
#[derive(Debug, Parser)]
#[command(name = "driftless", version, after_help = EXIT_CODES)]
#[command(max_term_width = 110, infer_subcommands = false, arg_required_else_help = true)]
pub struct Cli {
    /// What every verb understands.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What every verb understands.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Read this configuration [default: /etc/driftless/driftless.toml]
    #[arg(long, global = true, value_name = "FILE", env = "DRIFTLESS_CONFIG", hide_env = true)]
    pub config: Option<PathBuf>,
    /// Say more; twice for everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Say only what went wrong
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "verbose")]
    pub quiet: u8,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run the controller
    Run(run::Args),
    /// Show what would be done to each node
    Plan(plan::Args),
    /// Show how the fleet is, and why
    Status(status::Args),
    /// Show what differs from Git, by package and version
    Report(report::Args),
    /// Evaluate, build, copy and switch nodes from here
    Deploy(deploy::Args),
    /// Build systems here and print their paths
    Build(build::Args),
    /// Copy systems to nodes without switching
    Push(push::Args),
    /// Show which packages a deployment would change
    Diff(LookArgs),
    /// Bring nodes back to what they ran before
    Rollback(rollback::Args),
    /// Give nodes back to the controller: failures and pins no longer count
    Retry(retry::Args),
    /// Leave nodes alone: the controller looks, and does not touch
    Suspend(suspend::Args),
    /// Go on with nodes that were suspended
    Resume(resume::Args),
    /// Let a wave or a node go on that waits for a person
    Approve(approve::Args),
    /// Heed no maintenance windows for a while
    Override(overriding::Args),
    /// Make the controller look at everything now
    Sync(sync::Args),
    /// Let the controller follow a branch that was rewritten
    AcceptHistory(accept_history::Args),
    /// Show the switches that nodes remember
    History(LookArgs),
    /// Show the log of a switch
    Logs(logs::Args),
    /// Run a command on nodes
    Exec(exec::Args),
    /// Open a terminal on a node
    Ssh(ssh::Args),
    /// List, edit and re-encrypt secrets
    Secrets(secrets::Args),
    /// Evaluate everything, for pull requests
    Check(check::Args),
    /// Write a first driftless.toml for the deployment in a directory
    Init(init::Args),
    /// Print shell completions
    Completions(completions::Args),
}

/// Runs one verb to its end, or until Ctrl-C or SIGTERM: then what runs here is killed, and nodes in the middle of a
/// switch decide for themselves. The controller has its own, slower way to stop.
pub async fn run(cli: Cli) -> Result<ExitCode> {
    let Cli { global, verb } = cli;
    if let Verb::Run(args) = verb {
        return run::run(&global, args).await;
    }
    if let Verb::Status(args) = &verb
        && args.watch
    {
        return status::watch(&global, args).await;
    }
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen to SIGTERM")?;
    tokio::select! {
        done = dispatch(&global, verb) => done,
        _ = terminate.recv() => bail!("interrupted by SIGTERM"),
        heard = tokio::signal::ctrl_c() => {
            heard.context("cannot listen to Ctrl-C")?;
            bail!("interrupted")
        }
    }
}

async fn dispatch(global: &Global, verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Run(args) => run::run(global, args).await,
        Verb::Plan(args) => plan::run(global, args).await,
        Verb::Status(args) => status::run(global, args).await,
        Verb::Report(args) => report::run(global, args).await,
        Verb::Deploy(args) => deploy::run(global, args).await,
        Verb::Build(args) => build::run(global, args).await,
        Verb::Push(args) => push::run(global, args).await,
        Verb::Diff(args) => diff::run(global, args).await,
        Verb::Rollback(args) => rollback::run(global, args).await,
        Verb::Retry(args) => retry::run(global, args).await,
        Verb::Suspend(args) => suspend::run(global, args).await,
        Verb::Resume(args) => resume::run(global, args).await,
        Verb::Approve(args) => approve::run(global, args).await,
        Verb::Override(args) => overriding::run(global, args).await,
        Verb::Sync(args) => sync::run(global, args).await,
        Verb::AcceptHistory(args) => accept_history::run(global, args).await,
        Verb::History(args) => history::run(global, args).await,
        Verb::Logs(args) => logs::run(global, args).await,
        Verb::Exec(args) => exec::run(global, args).await,
        Verb::Ssh(args) => ssh::run(global, args).await,
        Verb::Secrets(args) => secrets::run(global, args).await,
        Verb::Check(args) => check::run(global, args).await,
        Verb::Init(args) => init::run(global, args).await,
        Verb::Completions(args) => completions::run(args),
    }
}

impl Cli {
    /// The filter for messages on stderr, unless `RUST_LOG` sets one. The controller's log is all that one sees of it;
    /// the other verbs have an answer.
    pub fn log_filter(&self) -> &'static str {
        let is_controller = matches!(self.verb, Verb::Run(_));
        match (self.global.quiet, self.global.verbose) {
            (1.., _) => "error",
            (0, 0) if is_controller => "warn,driftless=info",
            (0, 0) => "warn",
            (0, 1) => "info,driftless=debug",
            (0, 2..) => "trace",
        }
    }
}

impl Global {
    /// The configuration, which must be there.
    pub fn config(&self) -> Result<Config, ConfigError> {
        Config::load(&self.path())
    }

    /// The configuration, or `None` when nobody named one and the default one is not there: a laptop needs none.
    pub fn config_if_any(&self) -> Result<Option<Config>, ConfigError> {
        match (&self.config, self.config()) {
            (None, Err(ConfigError::Read { source, .. }))
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                Ok(None)
            }
            (_, loaded) => loaded.map(Some),
        }
    }

    fn path(&self) -> PathBuf {
        self.config.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_PATH))
    }
}
