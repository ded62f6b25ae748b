//! The unchanged pass: every node looked at once, nothing found, nothing done.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;

use crate::table::{Bound, Table, median, ms};
use crate::world::{SIDE, World};

/// Runs that count; one more comes before them.
const RUNS: usize = 5;
/// After so long a pass is over, or it is waited for again.
const SETTLED: Duration = Duration::from_millis(1500);
/// Longest time for one pass.
const LONGEST: Duration = Duration::from_secs(30);

/// Has the controller fetch and look at every node, as a timer would, and adds what it costs to the table.
pub fn measure(world: &World, table: &mut Table) -> Result<()> {
    let (mut took, mut used, mut own) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..=RUNS {
        let usage = world.usage()?;
        let (before, own_before) = (usage.processor()?, usage.own_processor()?);
        let asked = Timestamp::now();
        world.fleet.hang_up()?;
        let (pass, after, own_after) = over(world, asked)?;
        if run > 0 {
            took.push(pass.as_secs_f64());
            used.push((after - before).as_secs_f64() / SIDE as f64);
            own.push((own_after - own_before).as_secs_f64() / SIDE as f64);
        }
    }
    let (took, used, own) = (median(took), median(used), median(own));
    table.put(
        "unchanged pass: fetch, and a look at ten nodes",
        ms(took),
        Bound::met("≤ 500 ms", took <= 0.5),
    );
    let what = "the same: processor time per node, the controller and all that it starts";
    table.put(what, ms(used), Bound::met("≤ 20 ms", used <= 0.02));
    table.note(format!(
        "Of an unchanged pass, the controller itself takes {} per node; the rest is git and the kept connections.",
        ms(own)
    ));
    Ok(())
}

/// When the last node was looked at after `asked`, and the processor time by then.
fn over(world: &World, asked: Timestamp) -> Result<(Duration, Duration, Duration)> {
    let began = Instant::now();
    while began.elapsed() < LONGEST {
        // Asking for the picture costs the controller something, too: not before it is over.
        std::thread::sleep(SETTLED);
        let usage = world.usage()?;
        let (used, own) = (usage.processor()?, usage.own_processor()?);
        let seen = world.fleet.snapshot()?;
        let looked = world.ours().map(|(name, _)| -> Result<Timestamp> {
            let at = seen["nodes"][name]["observation"]["contact"]["at"].as_str();
            Ok(at.with_context(|| format!("{name} was not looked at: {}", seen["nodes"][name]))?.parse()?)
        });
        let looked = looked.collect::<Result<Vec<Timestamp>>>()?;
        if looked.iter().all(|at| *at > asked) {
            let last = looked.into_iter().max().context("no nodes")?;
            return Ok((Duration::try_from(last.duration_since(asked))?, used, own));
        }
    }
    bail!("not every node was looked at within {LONGEST:?}: {}", world.fleet.log())
}
