//! `driftless report`: the drift report of the newest snapshot.

use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum;
use jiff::Timestamp;

use super::fleet::{Depth, FleetArgs};
use super::{Global, fleet, output};
use crate::report::{Report, json, markdown, text};

/// Arguments of `report`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which fleet, which nodes.
    #[command(flatten)]
    pub fleet: FleetArgs,
    /// Print as
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// The form of a report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Text,
    /// For issues and chats
    Markdown,
    /// For programs
    Json,
}

/// Prints the report.
pub async fn run(global: &Global, args: Args) -> Result<ExitCode> {
    let snapshot = fleet::snapshot(global, &args.fleet, Depth::Packages).await?;
    let report = Report::of(&snapshot);
    let now = Timestamp::now();
    match args.format {
        Format::Text => output::print(&text::render(&report, now))?,
        Format::Markdown => output::print(&markdown::render(&report, now))?,
        Format::Json => output::print_json(&json::document(&report))?,
    }
    Ok(ExitCode::SUCCESS)
}
