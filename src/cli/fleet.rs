//! Which fleet a verb is about: the one of a running controller, or a deployment given on the spot.
//!
//! Evaluates and looks where there is no controller; decides nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;

use super::ask::{self, AskError};
use super::direct::Direct;
pub use super::origin::{Declared, Origin};
use super::output::Format;
use super::progress::{Progress, Show, Waiting};
use super::{Global, packages};
use crate::config::ServeConfig;
use crate::model::decision::Decision;
use crate::model::hook::HookPolicy;
use crate::model::intent::Intent;
use crate::model::name::NodeName;
use crate::model::node::NodeSpec;
use crate::model::observed::Observed;
use crate::model::release::{NodeRelease, Progress as Built, Release};
use crate::model::rollout::RolloutSpec;
use crate::model::selector::Selector;
use crate::model::snapshot::{NodeView, Ready, Snapshot, SourceView, State};
use crate::plan;
use crate::plan::view::{Pass, node_views};

/// Which fleet, and which of its nodes.
#[derive(Debug, Clone, clap::Args)]
pub struct FleetArgs {
    /// Only these nodes: names, globs, @tags, '@web and not (web1 or db*)'
    #[arg(long, value_name = "NODES")]
    pub on: Option<Selector>,
    /// Where the fleet is declared.
    #[command(flatten)]
    pub declared: Declared,
}

/// Which fleet, and the form in which it is shown: what most of the verbs that look have to be told.
#[derive(Debug, clap::Args)]
pub struct LookArgs {
    /// Which fleet, which nodes.
    #[command(flatten)]
    pub fleet: FleetArgs,
    /// Print as
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// Where a controller on this machine listens.
pub fn socket(global: &Global) -> Result<PathBuf> {
    let config = global.config_if_any()?;
    Ok(config.map_or_else(|| ServeConfig::default().socket, |config| config.serve.socket))
}

/// What is known about a fleet before anything is evaluated.
enum Known {
    /// A controller told.
    Snapshot(Box<Snapshot>),
    /// Nobody told: it has to be evaluated.
    Origin(Origin),
}

async fn known(global: &Global, args: &FleetArgs) -> Result<Known> {
    if let Some(origin) = args.declared.named() {
        return Ok(Known::Origin(origin));
    }
    match (ask::fleet(&socket(global)?).await, args.declared.named_or_here()) {
        (Ok(snapshot), _) => Ok(Known::Snapshot(Box::new(snapshot))),
        (Err(AskError::NotRunning { .. }), Some(origin)) => Ok(Known::Origin(origin)),
        (Err(error @ AskError::NotRunning { .. }), None) => Err(error).context(
            "which fleet? start a controller with `driftless run`, or name a deployment with --file, --flake or --release",
        ),
        (Err(error), _) => Err(error.into()),
    }
}

/// The world as it is now, for a verb that looks: what was named, else the controller, else the current directory.
pub async fn snapshot(global: &Global, args: &FleetArgs, depth: Depth) -> Result<Snapshot> {
    match known(global, args).await? {
        Known::Snapshot(snapshot) => choose(*snapshot, args),
        Known::Origin(origin) => look(global, &origin, args, depth).await,
    }
}

/// How much a look from here finds out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// What runs where.
    Systems,
    /// What a deployment from here would do, with the packages where a system is built already. Pins and suspensions by
    /// people do not count: they keep the controller off a node, not a person.
    Deployment,
    /// Also which packages differ, for which the systems are built.
    Packages,
}

/// Looks from here: one evaluation, one read of each node, one plan; nothing is done.
async fn look(global: &Global, origin: &Origin, args: &FleetArgs, depth: Depth) -> Result<Snapshot> {
    let here = Direct::prepare(global)?;
    let mut release = match depth {
        Depth::Deployment => here.evaluate(origin, args.on.as_ref()).await?,
        Depth::Systems | Depth::Packages => here.declared(origin, args.on.as_ref()).await?,
    };
    let evaluated_at = Timestamp::now();
    match depth {
        Depth::Packages => {
            let _waiting = Waiting::on("building".into());
            let silent = Progress::new(release.nodes.keys(), Show::Nothing);
            here.realise_all(&mut release, &silent).await;
        }
        // The path of a system is known before it is built.
        Depth::Systems | Depth::Deployment => {
            for node in release.nodes.values_mut().filter(|node| node.spec.is_some()) {
                node.progress = Built::Built;
            }
        }
    }
    let mut nodes = here.look_at_all(&specs_of(&release)).await;
    if depth == Depth::Deployment {
        // Nor do waves, windows and approvals.
        let RolloutSpec { max_in_flight, require_all, heal_after, .. } = release.rollout;
        release.rollout = RolloutSpec { max_in_flight, require_all, heal_after, ..RolloutSpec::default() };
        nodes.values_mut().filter_map(|seen| seen.state.as_mut()).for_each(|state| {
            (state.pin, state.suspended) = (None, Vec::new());
        });
    }
    let nodes = nodes.into_iter().map(|(name, seen)| (name, Arc::new(seen))).collect();
    let observed = Observed { nodes, hooks: HookPolicy::Run, ..Observed::default() };
    let now = Timestamp::now();
    // What people told a controller is its own, but for what is written on the nodes.
    let intent = Intent::default();
    let plan = plan::plan(&release, &observed, &intent, now);
    let pass = Pass { release: &release, observed: &observed, plan: &plan, intent: &intent, now };
    let mut nodes = node_views(pass, &BTreeMap::new());
    for (name, node) in &mut nodes {
        let node = Arc::make_mut(node);
        node.since = since(node);
        node.packages = match depth {
            Depth::Systems => None,
            Depth::Deployment | Depth::Packages => packages::of(&here, name, node).await,
        };
    }
    // Once more: the reasons name the packages.
    let mut nodes = node_views(pass, &nodes);
    for node in nodes.values_mut().filter(|node| matches!(node.decision, Decision::Act { .. })) {
        // Nobody is acting on it: this was a look.
        Arc::make_mut(node).state = State::Drift;
    }
    let source = SourceView {
        head: release.revision.clone(),
        last_good: release.revision.clone(),
        evaluated_at: Some(evaluated_at),
        ..SourceView::unasked(origin.to_string(), String::new())
    };
    Ok(Snapshot {
        version: 1,
        at: now,
        passes: 0,
        ready: Ready::Ready,
        source,
        intent: Arc::new(intent),
        waves: plan.waves,
        nodes,
    })
}

/// Since when a node is what it is. Nobody watched before: its newest switch is the best that is known.
fn since(node: &NodeView) -> Timestamp {
    let switched = node.observation.as_ref().and_then(|seen| seen.state_since);
    switched.unwrap_or(node.since)
}

/// The declarations of a release, of the nodes that have one.
pub fn specs_of(release: &Release) -> BTreeMap<NodeName, NodeSpec> {
    let spec =
        |(name, node): (&NodeName, &NodeRelease)| Some((name.clone(), NodeSpec::clone(node.spec.as_ref()?)));
    release.nodes.iter().filter_map(spec).collect()
}

/// The nodes that are meant, for a verb that goes to them.
#[derive(Debug)]
pub struct Chosen {
    /// Those with a declaration.
    pub specs: BTreeMap<NodeName, NodeSpec>,
    /// One sentence for each of the others: nobody can go there, and whoever asked has to know.
    pub without: Vec<String>,
}

impl Chosen {
    fn add(&mut self, name: NodeName, spec: Option<NodeSpec>, why: &str) {
        match spec {
            Some(spec) => {
                self.specs.insert(name, spec);
            }
            None => self.without.push(format!("{name}: nothing was done, for it has no declaration: {why}")),
        }
    }
}

/// The declarations of the nodes that are meant: what was named, else the controller's, else the current directory's.
pub async fn specs(global: &Global, args: &FleetArgs) -> Result<Chosen> {
    let mut chosen = Chosen { specs: BTreeMap::new(), without: Vec::new() };
    let origin = match known(global, args).await? {
        Known::Snapshot(snapshot) => {
            if snapshot.nodes.is_empty() && snapshot.source.last_good.is_none() {
                bail!(
                    "the controller does not know its nodes yet, for it has evaluated nothing; try again in a moment"
                );
            }
            for (name, node) in choose(*snapshot, args)?.nodes {
                let elsewhere = node.observation.as_ref().and_then(|seen| seen.elsewhere.as_ref());
                // While a node moves, the controller knows where it is.
                let spec = match (node.spec.as_deref().cloned(), elsewhere) {
                    (Some(spec), Some(elsewhere)) => Some(spec.reached_by(&elsewhere.way)),
                    (spec, _) => spec,
                };
                chosen.add(name, spec, &node.why);
            }
            return Ok(chosen);
        }
        Known::Origin(origin) => origin,
    };
    let release = Direct::prepare(global)?.declared(&origin, args.on.as_ref()).await?;
    for (name, node) in release.nodes {
        let why = match &node.progress {
            Built::NotEvaluated { error } => format!("does not evaluate: {error}"),
            Built::Evaluating | Built::Building | Built::NotBuilt { .. } | Built::Built => String::new(),
        };
        chosen.add(name, node.spec.map(Arc::unwrap_or_clone), &why);
    }
    Ok(chosen)
}

/// The declaration of one node.
pub async fn one(global: &Global, name: &NodeName, declared: Declared) -> Result<(NodeName, NodeSpec)> {
    let fleet = FleetArgs { on: Some(Selector::node(name)), declared };
    let chosen = specs(global, &fleet).await?;
    let without = chosen.without.join("; ");
    chosen.specs.into_iter().next().with_context(|| without)
}

/// Keeps the nodes that were asked for.
pub fn choose(mut snapshot: Snapshot, args: &FleetArgs) -> Result<Snapshot> {
    let Some(selector) = &args.on else { return Ok(snapshot) };
    let tags = |node: &Arc<NodeView>| node.spec.as_ref().map(|spec| spec.tags.clone()).unwrap_or_default();
    let fleet = snapshot.nodes.iter().map(|(name, node)| (name.clone(), tags(node))).collect();
    let chosen = selector.select(&fleet)?;
    snapshot.nodes.retain(|name, _| chosen.contains(name));
    Ok(snapshot)
}
