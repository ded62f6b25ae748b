//! `driftless diff`: which packages a deployment would change on each node. Builds here, changes nothing there.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anstyle::Style;
use anyhow::Result;

use super::fleet::{Depth, LookArgs};
use super::output::{self, Format};
use super::{Global, fleet};
use crate::model::name::NodeName;
use crate::model::packages::PackageDiff;
use crate::model::snapshot::{NodeView, Snapshot};

/// Prints the differences.
pub async fn run(global: &Global, args: LookArgs) -> Result<ExitCode> {
    let snapshot = fleet::snapshot(global, &args.fleet, Depth::Packages).await?;
    match args.format {
        Format::Text => output::print(&text(&snapshot))?,
        Format::Json => {
            let diffs: BTreeMap<&NodeName, Option<&PackageDiff>> =
                snapshot.nodes.iter().map(|(name, node)| (name, node.packages.as_ref())).collect();
            output::print_json(&diffs)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn text(snapshot: &Snapshot) -> String {
    let bold = Style::new().bold();
    let mut text = String::new();
    for (name, node) in &snapshot.nodes {
        text.push_str(&format!("{bold}{name}{bold:#}  {}\n", headline(node)));
        for line in node.packages.iter().flat_map(PackageDiff::lines) {
            text.push_str(&format!("  {line}\n"));
        }
    }
    text
}

fn headline(node: &NodeView) -> String {
    let running = node.observation.as_ref().and_then(|seen| seen.state.as_ref()).map(|state| &state.running);
    match (running, &node.desired, &node.packages) {
        (Some(running), Some(desired), _) if running == desired => "runs what it should".into(),
        (Some(_), Some(_), Some(diff)) if diff.lines().is_empty() => diff.summary(0),
        (Some(running), Some(desired), Some(diff)) => {
            let rest = diff.rest();
            let rest = if rest.is_empty() { rest } else { format!(", {rest}") };
            format!("{} → {}{rest}", running.name(), desired.name())
        }
        (Some(_), Some(_), None) => format!("packages not compared: {}", node.why),
        (None, _, _) | (_, None, _) => node.why.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::sample;

    #[test]
    fn each_package_has_a_line_below_its_node() {
        let text = anstream::adapter::strip_str(&text(&sample::fleet())).to_string();
        insta::assert_snapshot!(text);
    }
}
