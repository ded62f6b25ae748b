//! `driftless approve`: shows what waits for a person, and lets exactly that go on.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use super::status::{desired, running};
use super::steer::{self, Nobody};
use super::{Global, ask, fleet, output};
use crate::model::decision::{Decision, Hold};
use crate::model::intent::PlanHash;
use crate::model::intent::edit::{Approve, Edit};
use crate::model::name::NodeName;
use crate::model::selector::Selector;
use crate::model::snapshot::{NodeView, Snapshot};

/// So many packages of a node are named; `driftless diff` names all.
const NAMED_PACKAGES: usize = 6;

/// Arguments of `approve`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What these nodes wait for: names, globs, @tags, or as in '@web and not (web1 or db*)'
    #[arg(value_name = "NODES", conflicts_with_all = ["wave", "hash"])]
    pub nodes: Option<Selector>,
    /// What this wave waits for, counted from 1
    #[arg(long, value_name = "N", conflicts_with = "hash")]
    pub wave: Option<usize>,
    /// What `driftless status` names by this hash
    #[arg(long, value_name = "HASH")]
    pub hash: Option<PlanHash>,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// Shows it, asks, and says it to the controller, which refuses if it waits for something else by then.
pub async fn run(global: &Global, args: Args) -> Result<ExitCode> {
    let snapshot = ask::fleet(&fleet::socket(global)?).await?;
    let mut waiting = waiting(&snapshot);
    if waiting.is_empty() {
        bail!("nothing waits for approval");
    }
    let all = list(&waiting);
    waiting.retain(|hash, waits| is_meant(&args, hash, waits));
    let mut meant = waiting.into_iter();
    let (hash, waits) = match (meant.next(), meant.next()) {
        (Some(one), None) => one,
        (None, _) => bail!("that does not wait for approval; what waits:\n{all}"),
        (Some(_), Some(_)) => bail!("which of these? name one with --hash:\n{all}"),
    };
    output::print(&shown(&hash, &waits))?;
    if !args.yes && !is_confirmed()? {
        output::print("not approved\n")?;
        return Ok(ExitCode::FAILURE);
    }
    steer::say(global, Edit::Approve(Approve { hash }), Nobody::Refused).await?;
    Ok(ExitCode::SUCCESS)
}

/// What waits, and the nodes that wait for it.
#[derive(Debug)]
pub struct Waits<'a> {
    /// For people, for example `wave 2`.
    pub what: &'a str,
    /// The nodes.
    pub nodes: Vec<(&'a NodeName, &'a NodeView)>,
}

/// Everything that waits for approval.
pub fn waiting(snapshot: &Snapshot) -> BTreeMap<PlanHash, Waits<'_>> {
    let mut waiting: BTreeMap<PlanHash, Waits<'_>> = BTreeMap::new();
    for (name, view) in &snapshot.nodes {
        if let Decision::Hold { hold: Hold::Approval { what, hash } } = &view.decision {
            let waits = waiting.entry(hash.clone()).or_insert_with(|| Waits { what, nodes: Vec::new() });
            waits.nodes.push((name, view));
        }
    }
    waiting
}

fn is_meant(args: &Args, hash: &PlanHash, waits: &Waits<'_>) -> bool {
    let tags = |view: &NodeView| view.spec.as_ref().map(|spec| spec.tags.clone()).unwrap_or_default();
    match (&args.nodes, args.wave, &args.hash) {
        (Some(nodes), _, _) => waits.nodes.iter().any(|(name, view)| nodes.matches(name, &tags(view))),
        (None, Some(wave), _) => {
            let named = format!("wave {wave}");
            waits.what == named || waits.what.starts_with(&format!("{named} "))
        }
        (None, None, Some(wanted)) => wanted == hash,
        (None, None, None) => true,
    }
}

fn list(waiting: &BTreeMap<PlanHash, Waits<'_>>) -> String {
    let line = |(hash, waits): (&PlanHash, &Waits<'_>)| format!("  --hash {hash}  {}", waits.what);
    waiting.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn shown(hash: &PlanHash, waits: &Waits<'_>) -> String {
    let mut text = format!("{} waits for approval ({hash}):\n", waits.what);
    for (name, view) in &waits.nodes {
        let packages = match &view.packages {
            Some(packages) => packages.summary(NAMED_PACKAGES),
            None => "packages are not compared yet".into(),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {name}  {} → {}  {packages}", running(view), desired(view));
    }
    text
}

fn is_confirmed() -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("nobody can be asked here: look at it, and then give --yes");
    }
    eprint!("Approve? [y/N] ");
    std::io::stderr().flush().context("cannot ask")?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).context("cannot read the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
