//! `driftless check`: evaluates everything, and builds it on request; for pull requests. Touches no node.

use std::process::ExitCode;

use anstyle::AnsiColor;
use anyhow::{Context, Result};
use serde::Serialize;

use super::Global;
use super::direct::Direct;
use super::fleet::FleetArgs;
use super::output::{self, Format};
use super::progress::{Progress, Show, Waiting};
use crate::model::name::NodeName;
use crate::model::release::{NodeRelease, Progress as Built, Release};
use crate::model::store_path::StorePath;

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which deployment, which nodes.
    #[command(flatten)]
    pub fleet: FleetArgs,
    /// Also build every system
    #[arg(long)]
    pub build: bool,
    /// Print as
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// Checks; exit code 1 if any node fails.
pub async fn run(global: &Global, args: Args) -> Result<ExitCode> {
    let origin = args.fleet.declared.named_or_here().context(super::NO_DEPLOYMENT)?;
    let here = Direct::prepare(global)?;
    let mut release = here.evaluate(&origin, args.fleet.on.as_ref()).await?;
    if args.build {
        let _waiting = Waiting::on("building".into());
        let progress = Progress::new(release.nodes.keys(), Show::Nothing);
        here.realise_all(&mut release, &progress).await;
    }
    match args.format {
        Format::Text => output::print(&text(&release))?,
        Format::Json => output::print_json(&document(&release))?,
    }
    let failed = release.nodes.values().any(|node| error(node).is_some());
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn error(node: &NodeRelease) -> Option<&str> {
    match &node.progress {
        Built::NotEvaluated { error } | Built::NotBuilt { error } => Some(error),
        Built::Evaluating | Built::Building | Built::Built => None,
    }
}

fn word(node: &NodeRelease) -> (&'static str, AnsiColor) {
    match node.progress {
        Built::NotEvaluated { .. } => ("does not evaluate", AnsiColor::Red),
        Built::NotBuilt { .. } => ("does not build", AnsiColor::Red),
        Built::Evaluating | Built::Building => ("evaluates", AnsiColor::Green),
        Built::Built => ("builds", AnsiColor::Green),
    }
}

/// One line a node; below it, indented, the whole error of a node that has one.
fn text(release: &Release) -> String {
    let width = release.nodes.keys().map(|name| name.as_str().len()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, node) in &release.nodes {
        let (word, color) = word(node);
        let color = color.on_default();
        text.push_str(&format!("{name:width$}  {color}{word}{color:#}\n"));
        for line in details(name, word, error(node).unwrap_or_default()) {
            text.push_str(&format!("    {line}\n"));
        }
    }
    let failed = release.nodes.values().filter(|node| error(node).is_some()).count();
    let all = release.nodes.len();
    text.push_str(&match failed {
        0 => format!("\nAll {all} pass.\n"),
        _ => format!("\n{failed} of {all} fail.\n"),
    });
    text
}

/// The lines of an error, without one that only says again which node it is about.
fn details<'a>(name: &NodeName, word: &str, error: &'a str) -> impl Iterator<Item = &'a str> {
    let again = format!("{name} {word}:");
    error
        .lines()
        .enumerate()
        .filter(move |(number, line)| *number > 0 || *line != again)
        .map(|(_, line)| line)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeDocument<'a> {
    result: &'static str,
    toplevel: Option<&'a StorePath>,
    error: Option<&'a str>,
}

fn document(release: &Release) -> std::collections::BTreeMap<&NodeName, NodeDocument<'_>> {
    release.nodes.iter().map(|(name, node)| (name, node_document(node))).collect()
}

fn node_document(node: &NodeRelease) -> NodeDocument<'_> {
    NodeDocument {
        result: word(node).0,
        toplevel: node.spec.as_ref().map(|spec| &spec.toplevel),
        error: error(node),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::manifest::RolloutSpec;

    #[test]
    fn each_node_has_its_line_and_its_own_error() {
        let node = |progress| NodeRelease { spec: None, progress, last_good: None };
        let broken = Built::NotEvaluated {
            error: "web1 does not evaluate:\nerror: undefined variable 'x'\n  at web.nix:3:5".into(),
        };
        let release = Release {
            revision: None,
            nodes: [("db1", node(Built::Built)), ("web1", node(broken))]
                .into_iter()
                .map(|(name, node)| (name.parse().unwrap(), node))
                .collect(),
            rollout: RolloutSpec::default(),
        };
        let text = anstream::adapter::strip_str(&text(&release)).to_string();
        insta::assert_snapshot!(text, @r"
        db1   builds
        web1  does not evaluate
            error: undefined variable 'x'
              at web.nix:3:5

        1 of 2 fail.
        ");
    }
}
