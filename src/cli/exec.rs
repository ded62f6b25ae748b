//! `driftless exec`: runs one command on many nodes, as the user that is logged in as. Changes nothing by itself.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::task::JoinSet;

use super::direct::Direct;
use super::fleet::FleetArgs;
use super::{Global, fleet, output};
use crate::error_chain::error_chain;
use crate::model::name::NodeName;
use crate::node::Output;

/// Arguments of `exec`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which fleet, which nodes.
    #[command(flatten)]
    pub fleet: FleetArgs,
    /// Give up after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub timeout: u64,
    /// The command and its arguments, run as they are: for a pipe, `-- sh -c 'a | b'`
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// Runs the command; an error names the nodes where it failed.
pub async fn run(global: &Global, args: Args) -> Result<ExitCode> {
    if args.fleet.on.is_none() {
        bail!("run it on which nodes? name them with --on (`--on '*'` is all)");
    }
    let fleet::Chosen { specs, without: mut failures } = fleet::specs(global, &args.fleet).await?;
    let here = Direct::prepare(global)?;
    let deadline = Duration::from_secs(args.timeout.max(1));
    let command = Arc::new(args.command);
    let mut running = JoinSet::new();
    for (name, spec) in specs.into_iter().filter(|(_, spec)| spec.host.is_some()) {
        let (here, command) = (Arc::clone(&here), Arc::clone(&command));
        running.spawn(async move {
            let ran = async {
                let node = here.node(&name, &spec)?;
                let ran = node.run(&command, deadline).await;
                node.close().await;
                ran
            };
            let ran = ran.await;
            (name, ran)
        });
    }
    while let Some(joined) = running.join_next().await {
        let (name, ran) = joined?;
        match ran {
            Ok(ran) => {
                show(&name, &ran)?;
                if ran.code != 0 {
                    failures.push(format!("{name}: exit code {}", ran.code));
                }
            }
            Err(error) => failures.push(error_chain(&error)),
        }
    }
    failures.sort();
    if failures.is_empty() { Ok(ExitCode::SUCCESS) } else { bail!("{}", failures.join("\n")) }
}

fn show(name: &NodeName, ran: &Output) -> Result<()> {
    for line in String::from_utf8_lossy(&ran.stderr).lines() {
        anstream::eprintln!("[{name}] {line}");
    }
    let lines: String =
        String::from_utf8_lossy(&ran.stdout).lines().map(|line| format!("[{name}] {line}\n")).collect();
    output::print(&lines)
}
