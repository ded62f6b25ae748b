//! The report for an issue, a chat or a wiki page: GitHub-flavoured Markdown. Only prints.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::{NodeReport, Report, clock};
use crate::model::name::NodeName;
use crate::model::spoken::age;

/// Packages listed for one node; issues and chats limit the size of a message.
const MOST_PACKAGES: usize = 100;

/// The report as Markdown.
pub fn render(report: &Report, now: Timestamp) -> String {
    let mut out = format!("# Drift report\n\n{}", report.sentence());
    // Writing to a String cannot fail, here and below.
    let _ = write!(out, " Seen at {}", clock(report.at));
    match &report.revision {
        Some(revision) => {
            let subject = escape(&revision.subject);
            let _ = writeln!(out, ", commit `{}` {subject}.", revision.commit.short());
        }
        None => out.push_str(".\n"),
    }
    if let Some(blocked) = &report.blocked {
        let message = fence(&blocked.message);
        let _ =
            write!(out, "\nThe newest commit is not in force ({}):\n\n{message}", blocked.reason.as_str());
    }
    if report.nodes.is_empty() {
        return out;
    }
    out.push_str("\n| node | drift | for | desired | running | why |\n|---|---|---|---|---|---|\n");
    for (name, node) in &report.nodes {
        row(&mut out, name, node, now);
    }
    for (name, node) in &report.nodes {
        section(&mut out, name, node);
    }
    out
}

fn row(out: &mut String, name: &NodeName, node: &NodeReport, now: Timestamp) {
    let side = |side: &Option<super::Side>| {
        side.as_ref().map_or_else(
            || "-".to_owned(),
            |side| format!("`{}`", side.revision.as_deref().unwrap_or(&side.toplevel.hash()[..7])),
        )
    };
    let cells = [
        name.to_string(),
        node.kind_words(),
        age(node.since, now),
        side(&node.desired),
        side(&node.running),
        escape(&node.why),
    ];
    let _ = writeln!(out, "| {} |", cells.join(" | "));
}

fn section(out: &mut String, name: &NodeName, node: &NodeReport) {
    let _ = write!(out, "\n## {name}\n\n{}\n", escape(&node.next));
    if !node.failed_units.is_empty() {
        let units: Vec<String> = node.failed_units.iter().map(|unit| format!("`{unit}`")).collect();
        let _ = write!(out, "\nFailed units: {}.\n", units.join(", "));
    }
    for check in &node.failing_checks {
        let _ = write!(out, "\nFails: {}: {}.\n", escape(&check.name), escape(&check.output));
    }
    let Some((direction, packages)) = node.explained() else { return };
    let lines = packages.lines();
    let rest = packages.rest();
    let rest = if rest.is_empty() { String::new() } else { format!(" ({rest})") };
    if lines.is_empty() {
        let _ = write!(out, "\nNo version differs{rest}.\n");
        return;
    }
    let _ = write!(out, "\nPackages, {direction}{rest}:\n\n");
    for line in lines.iter().take(MOST_PACKAGES) {
        let _ = writeln!(out, "- `{line}`");
    }
    if lines.len() > MOST_PACKAGES {
        let _ = writeln!(out, "- and {} more", lines.len() - MOST_PACKAGES);
    }
}

/// Text of programs and people inside of a table: no new cell, no line break, no markup, no HTML, nobody notified.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.trim().chars() {
        match c {
            '\n' => escaped.push_str("<br>"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '@' => escaped.push_str("&#64;"),
            '|' | '*' | '_' | '[' | ']' | '\\' | '#' | '~' => {
                escaped.push('\\');
                escaped.push(c);
            }
            c if c.is_control() => {}
            c => escaped.push(c),
        }
    }
    escaped
}

/// A block that its own content cannot end.
fn fence(text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let ticks = "`".repeat(longest.max(2) + 1);
    format!("{ticks}\n{}\n{ticks}\n", text.trim())
}
