//! From a commit to the moment when every node's own journal says that the switch succeeded, against the floor.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use driftless_lab::Node;

use crate::floor::{Floor, STEPS};
use crate::nixus::Nixus;
use crate::table::{Bound, Table, median, ms, seconds};
use crate::world::{SIDE, World};

/// Runs that count; one more comes before them.
const RUNS: usize = 5;
/// Between two looks at the journals.
const LOOK: Duration = Duration::from_millis(20);
/// Longest time for one commit.
const LONGEST: Duration = Duration::from_secs(120);
/// The phases of a deployment, as the metrics call them.
const PHASES: [&str; 7] = ["preparing", "copying", "checking", "testing", "contact", "health", "committing"];

/// Alternates between the floor, the original nixus if it is given, and the controller, and adds them to the table.
pub fn measure(world: &mut World, table: &mut Table) -> Result<()> {
    settle(world)?;
    let world = &*world;
    let floor = Floor::new(world)?;
    let nixus = Nixus::given(world)?;
    let (mut by_hand, mut originals, mut ours) = (Vec::new(), Vec::new(), Vec::new());
    let (mut steps, mut phases) = (BTreeMap::new(), BTreeMap::new());
    for run in 0..=RUNS {
        let hand = floor.deploy(&format!("hand {run}"), &mut steps)?;
        let original = nixus.as_ref().map(|nixus| nixus.deploy(&format!("nixus {run}"))).transpose()?;
        let before = spent(world)?;
        let began = Instant::now();
        let id = commit(world, &format!("run {run}"))?;
        let driftless = confirmed(world, &id, began)?;
        let told = original.map_or_else(String::new, |original| format!(", nixus {original:.2?}"));
        eprintln!("run {run}: by hand {hand:.2?}{told}, driftless {driftless:.2?}");
        if run == 0 {
            // The first of each finds nothing in memory.
            steps.clear();
            continue;
        }
        for (phase, after) in spent(world)? {
            *phases.entry(phase.clone()).or_insert(0.0) += after - before.get(&phase).unwrap_or(&0.0);
        }
        by_hand.push(hand);
        originals.extend(original);
        ours.push(driftless);
    }
    let (by_hand, ours) = (median(by_hand), median(ours));
    table.put("ten nodes by hand, the floor", seconds(by_hand), Bound::None);
    if nixus.is_some() {
        let original = median(originals);
        table.put("the original nixus: nix-build and ./result", seconds(original), Bound::None);
        table.note(
            "nixus has its own nixpkgs.nix replaced, so that its programs are this machine's. It deploys to all nodes at once, \
             opens its own connections, and waits a second between two looks."
                .into(),
        );
    }
    table.put("commit → ten nodes confirmed", seconds(ours), Bound::None);
    let ratio = ours.as_secs_f64() / by_hand.as_secs_f64();
    table.put(
        "the same, as a multiple of the floor",
        format!("{ratio:.2}"),
        Bound::met("≤ 1.15", ratio <= 1.15),
    );
    let each = (RUNS * SIDE) as f64;
    let step =
        |step: &&str| format!("{step} {}", ms(steps.get(*step).map_or(0.0, Duration::as_secs_f64) / each));
    table.note(format!("A node by hand: {}.", STEPS.iter().map(step).collect::<Vec<_>>().join(", ")));
    let phase = |phase: &&str| format!("{phase} {}", ms(phases.get(*phase).unwrap_or(&0.0) / each));
    table.note(format!(
        "A node of the controller: {}.",
        PHASES.iter().map(phase).collect::<Vec<_>>().join(", ")
    ));
    table.note(format!(
        "By hand {} nodes at a time (processors), the controller with maxInFlight = {}; a connection to each node is open \
         before, on both sides.",
        world.cores,
        world.in_flight()
    ));
    Ok(())
}

/// Has a controller that is in sync with its nodes.
pub fn settle(world: &mut World) -> Result<()> {
    if world.usage().is_err() {
        let first = commit(world, "first")?;
        world.start()?;
        confirmed(world, &first, Instant::now())?;
    }
    Ok(())
}

/// Commits another system for each node of the controller.
fn commit(world: &World, text: &str) -> Result<String> {
    world.fleet.commit(text, &[("deployment.nix", &world.deployment(world.ours(), text))])
}

/// Waits until each node's journal has the switch to this commit as succeeded.
fn confirmed(world: &World, commit: &str, began: Instant) -> Result<Duration> {
    let mut waiting: Vec<(&str, &Node)> = world.ours().collect();
    loop {
        waiting.retain(|(_, node)| !has_succeeded(node, commit));
        let took = began.elapsed();
        if waiting.is_empty() {
            return Ok(took);
        }
        if took > LONGEST {
            let names: Vec<_> = waiting.iter().map(|(name, _)| name).collect();
            bail!("{names:?} are not switched to {commit} after {took:?}: {}", world.fleet.log());
        }
        std::thread::sleep(LOOK);
    }
}

/// The journal's own files, read from this side: nothing runs on the node for it. A summary's fields are separated by
/// tabs: the fifth is the outcome, the ninth the revision (`write_summary` in `src/node/switch/4-journal.sh`).
fn has_succeeded(node: &Node, commit: &str) -> bool {
    let switches = fs::read_dir(node.path("/var/lib/driftless-node/switches"));
    // Names begin with the time. Only the newest: looking must not cost what is measured.
    let newest = switches.into_iter().flatten().flatten().map(|switch| switch.path()).max();
    let summary =
        newest.and_then(|switch| fs::read_to_string(switch.join("summary")).ok()).unwrap_or_default();
    let fields: Vec<&str> = summary.split('\t').collect();
    fields.get(4) == Some(&"succeeded") && fields.get(8) == Some(&commit)
}

/// Seconds that deployments have spent in each phase so far, over all nodes.
fn spent(world: &World) -> Result<BTreeMap<String, f64>> {
    let metrics = world.fleet.get("/metrics")?;
    let sums = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix("driftless_deployment_phase_duration_seconds_sum{phase=\"")?;
        let (phase, seconds) = rest.split_once("\"} ")?;
        Some((phase.to_owned(), seconds.parse().ok()?))
    });
    Ok(sums.collect())
}
