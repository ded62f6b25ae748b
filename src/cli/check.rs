//! `driftless check`: evaluates everything, and builds it on request; for pull requests. Touches no node.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anstyle::AnsiColor;
use anyhow::{Context, Result};
use serde::Serialize;

use super::Global;
use super::direct::Direct;
use super::fleet::FleetArgs;
use super::output::{self, Format};
use super::progress::{Progress, Show, Waiting};
use super::survey::{Survey, lines, mistakes, notes, unsupported};
use crate::model::name::NodeName;
use crate::model::node::Unsupported;
use crate::model::release::{NodeRelease, Progress as Built};
use crate::model::store_path::StorePath;
use crate::plan::declared::Misdeclared;

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

/// Checks; exit code 1 if any node fails, or the rollout cannot be meant.
pub async fn run(global: &Global, args: Args) -> Result<ExitCode> {
    let origin = args.fleet.declared.named_or_here().context(super::NO_DEPLOYMENT)?;
    let here = Direct::prepare(global)?;
    let mut survey = here.survey(&origin, args.fleet.on.as_ref()).await?.not_empty(&origin)?;
    if args.build {
        let _waiting = Waiting::on("building".into());
        let progress = Progress::new(survey.release.nodes.keys(), Show::Nothing);
        here.realise_all(&mut survey.release, &progress).await;
    }
    match args.format {
        Format::Text => output::print(&text(&survey))?,
        Format::Json => output::print_json(&document(&survey))?,
    }
    let failed = survey.release.nodes.values().any(|node| error(node).is_some());
    Ok(if failed || !survey.misdeclared.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
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
        Built::Built if node.spec.as_ref().is_some_and(|spec| spec.builds_itself()) => {
            ("evaluates", AnsiColor::Green)
        }
        Built::Built => ("builds", AnsiColor::Green),
    }
}

/// What stands where a node that cannot be deployed has its result.
const NOT_DEPLOYABLE: &str = "cannot be deployed";

/// One line a node; below it, indented, the whole error of a node that has one, and what is not heeded.
fn text(survey: &Survey) -> String {
    let release = &survey.release;
    let names = release.nodes.keys().chain(survey.not_deployable.keys());
    let width = names.map(|name| name.as_str().len()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, node) in &release.nodes {
        let (word, color) = word(node);
        let color = color.on_default();
        text.push_str(&format!("{name:width$}  {color}{word}{color:#}\n"));
        for line in details(name, word, error(node).unwrap_or_default()) {
            text.push_str(&format!("    {line}\n"));
        }
        text.push_str(&notes("    ", unsupported(node)));
    }
    for (name, why) in &survey.not_deployable {
        text.push_str(&format!("{name:width$}  {NOT_DEPLOYABLE}\n{}", lines("    ", why)));
    }
    text.push_str(&notes("all nodes: ", &survey.unsupported));
    let failed = release.nodes.values().filter(|node| error(node).is_some()).count();
    let all = release.nodes.len();
    text.push_str(&mistakes(&survey.misdeclared));
    text.push_str(&match (failed, survey.misdeclared.len()) {
        (0, 0) => format!("\nAll {all} pass.\n"),
        (_, 0) => format!("\n{failed} of {all} fail.\n"),
        (0, wrong) => format!("\nAll {all} pass, but {}.\n", wrongly(wrong)),
        (_, wrong) => format!("\n{failed} of {all} fail, and {}.\n", wrongly(wrong)),
    });
    text
}

fn wrongly(mistakes: usize) -> String {
    match mistakes {
        1 => "1 thing that is declared cannot be meant".into(),
        _ => format!("{mistakes} things that are declared cannot be meant"),
    }
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
struct Document<'a> {
    format: &'a str,
    unsupported: &'a [Unsupported],
    misdeclared: Vec<MistakeDocument<'a>>,
    nodes: BTreeMap<&'a NodeName, NodeDocument<'a>>,
}

/// What cannot be meant, and where in the deployment it is: `rollout.waves[1].on`.
#[derive(Serialize)]
struct MistakeDocument<'a> {
    place: &'a str,
    error: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeDocument<'a> {
    result: &'static str,
    toplevel: Option<&'a StorePath>,
    error: Option<&'a str>,
    unsupported: &'a [Unsupported],
}

fn document(survey: &Survey) -> Document<'_> {
    let deployable = survey.release.nodes.iter().map(|(name, node)| (name, node_document(node)));
    let others = survey.not_deployable.iter().map(|(name, unsupported)| {
        (name, NodeDocument { result: NOT_DEPLOYABLE, toplevel: None, error: None, unsupported })
    });
    Document {
        format: &survey.format,
        unsupported: &survey.unsupported,
        misdeclared: survey
            .misdeclared
            .iter()
            .map(|Misdeclared { place, fault }| MistakeDocument { place, error: fault })
            .collect(),
        nodes: deployable.chain(others).collect(),
    }
}

fn node_document(node: &NodeRelease) -> NodeDocument<'_> {
    NodeDocument {
        result: word(node).0,
        toplevel: node.spec.as_ref().map(|spec| &spec.toplevel),
        error: error(node),
        unsupported: unsupported(node),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::release::Release;
    use crate::model::rollout::RolloutSpec;

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
        let note = |setting: &str| Unsupported { setting: setting.into(), reason: "for some reason".into() };
        let survey = Survey {
            format: "deploy-rs".into(),
            declared: 3,
            unsupported: vec![note("everywhere")],
            misdeclared: vec![Misdeclared {
                place: "rollout.waves[0].on".into(),
                fault: "no node is left for wave 1 (`db2`)".into(),
            }],
            not_deployable: [("mac".parse().unwrap(), vec![note("darwin")])].into(),
            release,
        };
        let text = anstream::adapter::strip_str(&text(&survey)).to_string();
        insta::assert_snapshot!(text, @r"
        db1   builds
        web1  does not evaluate
            error: undefined variable 'x'
              at web.nix:3:5
        mac   cannot be deployed
            darwin: for some reason
        all nodes: not heeded: everywhere: for some reason
        rollout.waves[0].on: no node is left for wave 1 (`db2`)

        1 of 2 fail, and 1 thing that is declared cannot be meant.
        ");
    }
}
