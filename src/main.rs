//! The program: parse, log to stderr, do one verb, print an error chain once. Knows nothing else.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use driftless::cli::{self, Cli, EXIT_USAGE};
use driftless::command;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(refused) => {
            let code = if refused.use_stderr() { EXIT_USAGE } else { 0 };
            // Nobody is left to tell when stderr is gone.
            let _ = refused.print();
            return ExitCode::from(code);
        }
    };
    log_to_stderr(&cli);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&anyhow::Error::new(error).context("cannot start threads")),
    };
    let outcome = runtime.block_on(cli::run(cli));
    // Tasks end here, and their children with them; a blocking name lookup must not delay that.
    runtime.shutdown_timeout(Duration::from_secs(2));
    command::wait_for_endings();
    outcome.unwrap_or_else(|error| failed(&error))
}

/// People read lines; systemd's journal keeps fields (`JOURNAL_STREAM`: systemd.exec(5)).
fn log_to_stderr(cli: &Cli) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(cli.log_filter()));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    if std::env::var_os("JOURNAL_STREAM").is_some() && !io::stderr().is_terminal() {
        log.json().flatten_event(true).without_time().init();
    } else {
        let color = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty());
        log.with_target(false).with_ansi(color).init();
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    anstream::eprintln!("error: {error:#}");
    ExitCode::FAILURE
}
