//! `driftless plan`: what would be done to each node, and nothing is done.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anstyle::AnsiColor;
use anyhow::Result;
use jiff::Timestamp;
use serde::Serialize;

use super::fleet::{Depth, FleetArgs};
use super::output::{self, Format};
use super::table::{Cell, Table};
use super::{Global, fleet, status};
use crate::model::decision::{Action, Decision, Hold};
use crate::model::name::NodeName;
use crate::model::packages::PackageDiff;
use crate::model::snapshot::{NodeView, Snapshot};
use crate::model::store_path::StorePath;

/// Packages named in one line.
const NAMED: usize = 6;
/// Exit code of `--detailed-exitcode` when some node is not what it should be.
const EXIT_CHANGES: u8 = 2;

/// Arguments of `plan`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which fleet, which nodes.
    #[command(flatten)]
    pub fleet: FleetArgs,
    /// Exit with 0 when every node is what it should be and 2 when one is not
    #[arg(long)]
    pub detailed_exitcode: bool,
    /// Print as
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// Prints the plan.
pub async fn run(global: &Global, args: Args) -> Result<ExitCode> {
    let snapshot = fleet::snapshot(global, &args.fleet, Depth::Deployment).await?;
    match args.format {
        Format::Text => output::print(&text(&snapshot, Timestamp::now(), output::width()))?,
        Format::Json => output::print_json(&document(&snapshot))?,
    }
    let settled = snapshot.nodes.values().all(|node| is_settled(&node.decision));
    Ok(if args.detailed_exitcode && !settled { ExitCode::from(EXIT_CHANGES) } else { ExitCode::SUCCESS })
}

/// Whether a node is known to need nothing. A node without a host is never deployed and thus never out of step.
fn is_settled(decision: &Decision) -> bool {
    match decision {
        Decision::InSync | Decision::Hold { hold: Hold::NoHost } => true,
        Decision::InFlight | Decision::Act { .. } | Decision::Hold { .. } => false,
    }
}

/// The plan as a table and a count.
pub fn text(snapshot: &Snapshot, now: Timestamp, width: Option<usize>) -> String {
    let mut text = status::header(snapshot, now);
    text.push('\n');
    let mut table = Table::new(["NODE", "PLAN", "FROM", "TO", "WHY"]);
    let mut counts: BTreeMap<Word, usize> = BTreeMap::new();
    for (name, node) in &snapshot.nodes {
        let word = Word::of(&node.decision);
        *counts.entry(word).or_default() += 1;
        table.push([
            Cell::plain(name.as_str()),
            Cell::styled(word.as_str(), word.color().on_default()),
            Cell::plain(status::running(node)),
            Cell::plain(status::desired(node)),
            Cell::plain(why(node, word)),
        ]);
    }
    if snapshot.nodes.is_empty() {
        text.push_str("No node to plan for.\n");
        return text;
    }
    text.push_str(&table.render(width));
    let counted: Vec<String> =
        counts.iter().map(|(word, count)| format!("{count} {}", word.counted())).collect();
    text.push_str(&format!("\n{}.\n", counted.join(", ")));
    text
}

/// The reason; of a deployment also the packages, unless the reason names them already.
fn why(node: &NodeView, word: Word) -> String {
    match word {
        Word::Nothing => String::new(),
        Word::Attach | Word::Wait | Word::Hold => node.why.clone(),
        Word::Reboot => node.why.clone(),
        Word::Deploy => {
            let packages = node.packages.as_ref().filter(|diff| !diff.is_empty());
            let named = |diff: &PackageDiff| {
                let first = diff.lines().into_iter().next().unwrap_or_else(|| diff.summary(0));
                node.why.contains(&first)
            };
            // Of a node that somebody changed, the reason tells what they did: the other direction.
            match packages.filter(|diff| !named(diff) && !named(&diff.reversed())) {
                Some(diff) => format!("{}; {}", node.why, diff.summary(NAMED)),
                None => node.why.clone(),
            }
        }
    }
}

/// The word in the PLAN column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Word {
    Deploy,
    Reboot,
    Attach,
    Wait,
    Hold,
    Nothing,
}

impl Word {
    fn of(decision: &Decision) -> Self {
        match decision {
            Decision::Act { action: Action::Deploy { .. } } => Self::Deploy,
            Decision::Act { action: Action::Reboot { .. } } => Self::Reboot,
            Decision::Act { action: Action::Attach { .. } } => Self::Attach,
            Decision::InFlight => Self::Wait,
            Decision::Hold { .. } => Self::Hold,
            Decision::InSync => Self::Nothing,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Deploy => "deploy",
            Self::Reboot => "reboot",
            Self::Attach => "attach",
            Self::Wait => "in flight",
            Self::Hold => "hold",
            Self::Nothing => "nothing",
        }
    }

    fn counted(self) -> &'static str {
        match self {
            Self::Deploy => "to deploy",
            Self::Reboot => "to reboot",
            Self::Attach => "to attach to",
            Self::Wait => "in flight",
            Self::Hold => "held",
            Self::Nothing => "in sync",
        }
    }

    fn color(self) -> AnsiColor {
        match self {
            Self::Deploy | Self::Reboot | Self::Attach | Self::Wait => AnsiColor::Cyan,
            Self::Hold => AnsiColor::Yellow,
            Self::Nothing => AnsiColor::Green,
        }
    }
}

/// The JSON of a plan.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    version: u32,
    at: Timestamp,
    nodes: BTreeMap<&'a NodeName, NodeDocument<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeDocument<'a> {
    #[serde(flatten)]
    decision: &'a Decision,
    why: &'a str,
    running: Option<&'a StorePath>,
    desired: Option<&'a StorePath>,
    packages: Option<&'a PackageDiff>,
}

fn document(snapshot: &Snapshot) -> Document<'_> {
    let nodes = snapshot.nodes.iter().map(|(name, node)| (name, node_document(node))).collect();
    Document { version: snapshot.version, at: snapshot.at, nodes }
}

fn node_document(node: &NodeView) -> NodeDocument<'_> {
    let state = node.observation.as_ref().and_then(|seen| seen.state.as_ref());
    NodeDocument {
        decision: &node.decision,
        why: &node.why,
        running: state.map(|state| &state.running),
        desired: node.desired.as_ref(),
        packages: node.packages.as_ref(),
    }
}

#[cfg(test)]
mod tests;
