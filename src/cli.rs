//! The command line: what can be asked, and which file answers. One file per subcommand: arguments → call → print.
//!
//! Decides nothing about nodes: `plan` does.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{ArgAction, Parser, Subcommand};

use crate::config::{Config, ConfigError, DEFAULT_PATH};

pub mod ask;
pub mod fleet;
pub mod output;
pub mod table;

pub mod plan;
pub mod report;
pub mod status;

pub mod completions;
pub mod init;

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
#[command(name = "driftless", version, after_help = EXIT_CODES, propagate_version = true)]
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
    /// Show how the fleet is, and why
    Status(status::Args),
    /// Show what would be done to each node
    Plan(plan::Args),
    /// Show what differs from Git, by package and version
    Report(report::Args),
    /// Write a first driftless.toml for the deployment in this directory
    Init(init::Args),
    /// Print shell completions
    Completions(completions::Args),
}

/// Runs one verb to its end.
pub async fn run(cli: Cli) -> Result<ExitCode> {
    let global = cli.global;
    match cli.verb {
        Verb::Status(args) => status::run(&global, args).await,
        Verb::Plan(args) => plan::run(&global, args).await,
        Verb::Report(args) => report::run(&global, args).await,
        Verb::Init(args) => init::run(args),
        Verb::Completions(args) => completions::run(args),
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

    /// The filter for messages on stderr, unless `RUST_LOG` sets one.
    pub fn log_filter(&self) -> &'static str {
        match (self.quiet, self.verbose) {
            (1.., _) => "error",
            (0, 0) => "warn,driftless=info",
            (0, 1) => "info,driftless=debug",
            (0, _) => "trace",
        }
    }
}
