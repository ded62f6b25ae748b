//! What evaluating costs: 1, 20 and 100 nodes, in one process and as driftless divides them, cold and cached, with real Nix.
//!
//! With the small nixpkgs of the tests, or with the one that `DRIFTLESS_TEST_NIXPKGS` names; that one has only so many nodes
//! in one process as a machine has memory for. `cargo bench --bench evaluation -- 20` measures twenty nodes alone.

mod fleet;
mod memory;
#[path = "../fleet/table.rs"]
// The other benchmark tells more kinds of figures.
#[allow(dead_code)]
mod table;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use fleet::{Fleet, Nixpkgs};
use memory::Cost;
use table::{Bound, Table, mib, seconds};

/// Nodes.
const SIZES: [usize; 3] = [1, 20, 100];
/// So many real nodes are evaluated in one process: more take minutes and all memory.
const MOST_REAL_TOGETHER: usize = 20;
/// The best way to divide twenty real nodes by hand: nodes per process, and the heap of each.
const BY_HAND: (usize, &str) = (2, "2G");
/// Each is measured so often; the best counts, for whatever else the machine does makes it only slower.
const RUNS: usize = 3;
/// Where each takes minutes, once.
const LONG_RUNS: usize = 1;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    let asked: Vec<usize> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    let mut table = Table::default();
    let nixpkgs = Nixpkgs::chosen();
    for nodes in SIZES.into_iter().filter(|size| asked.is_empty() || asked.contains(size)) {
        measure(&Fleet::new(&nixpkgs, nodes)?, &mut table).await?;
    }
    table.note(format!("Evaluated with {}.", nixpkgs.told()));
    table.note(
        "Time, and peak of the resident memory of all evaluators together. The derivations exist already."
            .into(),
    );
    println!("\n{}", table.text());
    Ok(())
}

/// Alternates, so that whatever else the machine does hits all.
async fn measure(fleet: &Fleet<'_>, table: &mut Table) -> Result<()> {
    let nodes = fleet.nodes;
    let together = fleet.is_small() || nodes <= MOST_REAL_TOGETHER;
    // Makes the derivations.
    fleet.divided("warm up", fleet.budget()).await?;
    let (mut hand, mut first, mut cold) = (Vec::new(), Vec::new(), Vec::new());
    let runs = if together { RUNS } else { LONG_RUNS };
    for run in 0..runs {
        fleet.forget()?;
        hand.push(fleet.by_hand(BY_HAND.0, fleet.cores, Some(BY_HAND.1)).await?);
        first.push(fleet.divided(&format!("first {run}"), fleet.budget()).await?);
        cold.push(fleet.divided(&format!("cold {run}"), fleet.budget()).await?);
        eprintln!(
            "{nodes} nodes, run {run}: {:?} {:?} {:?}",
            hand[run].took, first[run].took, cold[run].took
        );
    }
    let cached = fleet.divided(&format!("cold {}", runs - 1), fleet.budget()).await?;
    let one = if together { Some(fleet.by_hand(nodes, 1, None).await?) } else { None };
    let (hand, first, cold) = (best(hand), best(first), best(cold));
    let row = |what: &str| format!("{nodes} nodes: {what}");
    match one {
        Some(one) => table.put(&row("one process"), told(one), Bound::None),
        None => table.note(format!("{nodes} real nodes in one process are not measured.")),
    }
    table.put(&row("divided by hand, two in a process with 2 GiB of heap"), told(hand), Bound::None);
    table.put(&row("driftless, nothing known"), told(first), Bound::None);
    let said = format!("≤ by hand, {} MiB", fleet.budget().0 >> 20);
    // A twentieth: two runs of the same differ by as much.
    let quick = cold.took <= hand.took.mul_f64(1.05) + Duration::from_millis(50);
    table.put(&row("driftless, cold"), told(cold), Bound::met(&said, quick && cold.peak <= fleet.budget().0));
    let free = cached.processes == 0;
    table.put(&row("driftless, cached"), told(cached), Bound::met("no evaluation", free));
    Ok(())
}

fn best(of: Vec<Cost>) -> Cost {
    of.into_iter().min_by_key(|cost| cost.took).unwrap_or_default()
}

fn told(cost: Cost) -> String {
    format!("{}, {}", seconds(cost.took), mib(cost.peak))
}
