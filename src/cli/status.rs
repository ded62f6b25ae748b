//! `driftless status`: one line a node, with the reason always there. Shows a snapshot; looks at nothing itself.

mod people;
mod watch;

use std::fmt::Write as _;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use anyhow::Result;
use jiff::Timestamp;

use super::fleet::{Depth, LookArgs};
use super::output::{self, Format};
use super::table::{Cell, Table};
use super::{Global, fleet};
use crate::model::progress;
use crate::model::release::Progress;
use crate::model::revision::Revision;
use crate::model::snapshot::{NodeView, Ready, Snapshot, SourceView, State};
use crate::model::spoken::age;

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which fleet, and in which form.
    #[command(flatten)]
    pub look: LookArgs,
    /// Draw it again as it changes, until Ctrl-C
    #[arg(long)]
    pub watch: bool,
}

/// Shows the fleet of a running controller until Ctrl-C.
pub async fn watch(global: &Global, args: &Args) -> Result<ExitCode> {
    watch::run(global, args).await
}

/// Prints the fleet.
pub async fn run(global: &Global, args: Args) -> Result<ExitCode> {
    let snapshot = fleet::snapshot(global, &args.look.fleet, Depth::Systems).await?;
    match args.look.format {
        Format::Text => output::print(&text(&snapshot, Timestamp::now(), output::width()))?,
        Format::Json => output::print_json(&snapshot)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The header and the table.
pub fn text(snapshot: &Snapshot, now: Timestamp, width: Option<usize>) -> String {
    let mut text = header(snapshot, now);
    text.push('\n');
    let mut table = Table::new(["NODE", "STATE", "SINCE", "RUNNING", "DESIRED", "WHY"]);
    for (name, node) in &snapshot.nodes {
        table.push([
            Cell::plain(name.as_str()),
            Cell::state(node.state, node.note()),
            Cell::plain(age(node.since, now)),
            Cell::plain(running(node)),
            Cell::plain(desired(node)),
            Cell::plain(why(node)),
        ]);
    }
    if snapshot.nodes.is_empty() {
        text.push_str("No node to show.\n");
    } else {
        text.push_str(&table.render(width));
    }
    let people = people::lines(snapshot, now);
    if !people.is_empty() {
        text.push('\n');
        text.extend(people.iter().map(|line| format!("{line}\n")));
    }
    text
}

fn why(node: &NodeView) -> &str {
    if node.state == State::InSync && node.suspended.is_none() { "" } else { node.why.as_str() }
}

/// Which commit is in force, how old that knowledge is, and what is wrong with a newer one.
pub fn header(snapshot: &Snapshot, now: Timestamp) -> String {
    let source = &snapshot.source;
    let mut clauses = vec![in_force(source)];
    if let Some(revision) = &source.last_good {
        clauses.push(format!("by {}", revision.author));
    }
    if let Some(at) = source.evaluated_at {
        clauses.push(format!("evaluated {} ago", age(at, now)));
    }
    clauses.extend(progress::sentence(&snapshot.waves));
    clauses.push(in_sync(snapshot));
    let mut text = clauses.join(" · ");
    text.push('\n');
    for trouble in troubles(snapshot, now) {
        let style = Style::new().fg_color(Some(AnsiColor::Red.into()));
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{style}{trouble}{style:#}");
    }
    text
}

fn in_force(source: &SourceView) -> String {
    let place = if source.branch.is_empty() { source.url.clone() } else { source.branch.clone() };
    match (&source.last_good, &source.head) {
        (Some(revision), _) => format!("{place} {}", named(revision)),
        (None, Some(_)) => format!("{place} (no commit evaluated yet)"),
        (None, None) if source.branch.is_empty() => place,
        (None, None) => format!("{place} (no commit seen yet)"),
    }
}

fn named(revision: &Revision) -> String {
    format!("{} {:?}", revision.commit.short(), revision.subject)
}

fn in_sync(snapshot: &Snapshot) -> String {
    let in_sync = snapshot.nodes.values().filter(|node| node.state == State::InSync).count();
    let all = snapshot.nodes.len();
    let noun = if all == 1 { "node" } else { "nodes" };
    format!("{in_sync} of {all} {noun} in sync")
}

fn troubles(snapshot: &Snapshot, now: Timestamp) -> Vec<String> {
    let source = &snapshot.source;
    let mut troubles = Vec::new();
    if let Some(blocked) = &source.blocked {
        let head = source.head.as_ref().map_or_else(|| "the newest commit".into(), named);
        let message = blocked.message.trim();
        troubles.push(format!("{head} is not in force ({}): {message}", blocked.reason.as_str()));
    }
    if let Some(error) = &source.fetch_error {
        let last = source.fetched_at.map_or_else(|| "never yet".into(), |at| format!("{} ago", age(at, now)));
        troubles.push(format!("fetching {} fails (last fetched {last}): {}", source.url, error.trim()));
    }
    if let Some(error) = &source.publish_error {
        troubles
            .push(format!("what was built last is not published, nodes get it from here: {}", error.trim()));
    }
    match snapshot.ready {
        Ready::Starting => troubles.push("still looking at the fleet for the first time".into()),
        Ready::Ready => {}
    }
    troubles
}

/// The commit that the node runs, or `-` where nobody deployed it through driftless.
pub fn running(node: &NodeView) -> String {
    let state = node.observation.as_ref().and_then(|seen| seen.state.as_ref());
    match (&node.running_revision, state) {
        (Some(revision), _) if revision != "-" => short(revision),
        // Without Git there are no commits to name; the same build has the same word in both columns all the same.
        (_, Some(state)) if node.desired_revision.is_none() => state.running.hash()[..7].to_owned(),
        (_, Some(_) | None) => "-".into(),
    }
}

/// The commit that the node should run; of a node whose build is missing in parentheses, as it is not in force.
pub fn desired(node: &NodeView) -> String {
    let word = match (&node.desired_revision, &node.desired) {
        (Some(revision), _) => short(revision),
        (None, Some(toplevel)) => toplevel.hash()[..7].to_owned(),
        (None, None) => return "-".into(),
    };
    match node.progress {
        Progress::NotEvaluated { .. } | Progress::NotBuilt { .. } => format!("({word})"),
        Progress::Evaluating | Progress::Building | Progress::Built => word,
    }
}

fn short(revision: &str) -> String {
    revision.chars().take(7).collect()
}

#[cfg(test)]
mod tests;
