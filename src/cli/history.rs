//! `driftless history`: the switches that each node keeps in its own journal.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::process::ExitCode;

use anstyle::AnsiColor;
use anyhow::Result;
use jiff::Timestamp;

use super::fleet::{Depth, LookArgs};
use super::output::{self, Format};
use super::table::{Cell, Table};
use super::{Global, fleet};
use crate::model::journal::{Entry, Outcome};
use crate::model::name::NodeName;
use crate::model::snapshot::Snapshot;
use crate::model::spoken::age;

/// Prints the journals, newest switch first.
pub async fn run(global: &Global, args: LookArgs) -> Result<ExitCode> {
    let snapshot = fleet::snapshot(global, &args.fleet, Depth::Systems).await?;
    let switches = switches(&snapshot);
    match args.format {
        Format::Text => output::print(&text(&switches, Timestamp::now(), output::width()))?,
        Format::Json => {
            let mut nodes: BTreeMap<&NodeName, Vec<&Entry>> = BTreeMap::new();
            for (name, entry) in switches {
                nodes.entry(name).or_default().push(entry);
            }
            output::print_json(&nodes)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// All switches of all nodes, newest first.
fn switches(snapshot: &Snapshot) -> Vec<(&NodeName, &Entry)> {
    let mut all: Vec<(&NodeName, &Entry)> = Vec::new();
    for (name, node) in &snapshot.nodes {
        let state = node.observation.as_ref().and_then(|seen| seen.state.as_ref());
        all.extend(state.iter().flat_map(|state| state.journal.iter()).map(|entry| (name, entry)));
    }
    all.sort_by_key(|(_, entry)| Reverse(entry.started));
    all
}

fn text(switches: &[(&NodeName, &Entry)], now: Timestamp, width: Option<usize>) -> String {
    if switches.is_empty() {
        return "No node has been switched by driftless yet.\n".into();
    }
    let mut table = Table::new(["WHEN", "NODE", "OUTCOME", "REVISION", "BY", "SWITCH", "WHY"]);
    for (name, entry) in switches {
        table.push([
            Cell::plain(age(entry.started, now)),
            Cell::plain(name.as_str()),
            outcome(entry),
            Cell::plain(entry.revision.chars().take(7).collect::<String>()),
            Cell::plain(&entry.asker),
            Cell::plain(entry.id.as_str()),
            Cell::plain(why(entry)),
        ]);
    }
    table.render(width)
}

/// How a switch ended, or where it is.
pub fn outcome(entry: &Entry) -> Cell {
    let Some(outcome) = entry.outcome else {
        return Cell::styled(entry.phase.as_str(), AnsiColor::Cyan.on_default());
    };
    let color = match outcome {
        Outcome::Succeeded => AnsiColor::Green,
        Outcome::Staged | Outcome::Interfered | Outcome::Interrupted => AnsiColor::Yellow,
        Outcome::RolledBack | Outcome::RollbackFailed | Outcome::CommitFailed => AnsiColor::Red,
    };
    Cell::styled(outcome.as_str().replace('-', " "), color.on_default())
}

/// Why a switch did not succeed, with the node's detail.
pub fn why(entry: &Entry) -> String {
    let cause = entry.cause.map(|cause| cause.sentence()).unwrap_or_default();
    match (cause, entry.detail.as_str()) {
        ("", detail) => detail.to_owned(),
        (cause, "") => cause.to_owned(),
        (cause, detail) => format!("{cause}: {detail}"),
    }
}
