//! The report for a terminal. Only prints.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use jiff::Timestamp;

use super::{NodeReport, Report, Side};
use crate::model::name::NodeName;
use crate::model::snapshot::State;
use crate::model::spoken::age;

/// Packages listed for one node; a new nixpkgs changes hundreds.
const MOST_PACKAGES: usize = 40;

/// The colour of a state.
pub fn style_of(state: State) -> Style {
    let color = match state {
        State::InSync => AnsiColor::Green,
        State::Switching => AnsiColor::Cyan,
        State::Held | State::Drift => AnsiColor::Yellow,
        State::RolledBack | State::Failed => AnsiColor::Red,
        State::Unreachable => AnsiColor::Magenta,
    };
    color.on_default()
}

/// The report as lines.
pub fn render(report: &Report, now: Timestamp) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail, here and below.
    let _ = writeln!(out, "{}", report.sentence());
    if let Some(blocked) = &report.blocked {
        let _ = writeln!(
            out,
            "The newest commit is not in force ({}): {}",
            blocked.reason.as_str(),
            blocked.message
        );
    }
    for (name, node) in &report.nodes {
        out.push('\n');
        section(&mut out, name, node, now);
    }
    out
}

fn section(out: &mut String, name: &NodeName, node: &NodeReport, now: Timestamp) {
    let bold = Style::new().bold();
    let color = style_of(node.state);
    let kinds = node.kind_words();
    let _ = writeln!(out, "{bold}{name}{bold:#}  {color}{kinds}{color:#}  for {}", age(node.since, now));
    let mut field = |label: &str, value: &str| {
        // A program's several lines stay below each other.
        let _ = writeln!(out, "  {label:<9}{}", value.replace('\n', "\n           "));
    };
    field("why", node.why.trim());
    field("next", &node.next);
    if let Some(side) = &node.desired {
        field("desired", &said(side));
    }
    if let Some(side) = &node.running {
        field("running", &said(side));
    }
    if !node.failed_units.is_empty() {
        field("failed", &node.failed_units.join(", "));
    }
    for check in &node.failing_checks {
        field("fails", &format!("{}: {}", check.name, check.output));
    }
    let Some((direction, packages)) = node.explained() else { return };
    let rest = packages.rest();
    let rest = if rest.is_empty() { String::new() } else { format!(" ({rest})") };
    let lines = packages.lines();
    if lines.is_empty() {
        field("packages", &format!("no version differs{rest}"));
        return;
    }
    field("packages", &format!("{direction}{rest}:"));
    for line in lines.iter().take(MOST_PACKAGES) {
        let _ = writeln!(out, "    {line}");
    }
    if lines.len() > MOST_PACKAGES {
        let _ = writeln!(out, "    and {} more (--format json lists all)", lines.len() - MOST_PACKAGES);
    }
}

fn said(side: &Side) -> String {
    side.revision.as_ref().map_or_else(
        || side.toplevel.to_string(),
        |revision| format!("{} ({})", side.toplevel, revision.chars().take(7).collect::<String>()),
    )
}
