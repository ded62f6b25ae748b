//! A controller with many nodes: what it takes of processor and memory with 20 nodes, and with 1 000 connections to them.
//!
//! The thousand are names of the twenty: to the controller they are different nodes, each with a real connection of its own,
//! a real sshd at its end, and a real answer to each question. What is not real is that they share twenty machines, and all
//! of these the processors of the controller.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use driftless_lab::Node;

use crate::table::{Bound, Table, mib, ms};
use crate::usage::Usage;
use crate::world::World;

/// How long it is watched: twice `observe.interval`.
const WATCHED: Duration = Duration::from_secs(60);
/// Longest time until all nodes were looked at once: two processors make 2 000 ends of connections.
const LONGEST: Duration = Duration::from_secs(900);
/// Between two looks whether they were.
const LOOK: Duration = Duration::from_millis(500);
/// What the controller itself may take with a thousand nodes, bytes.
const BASE: u64 = 64 << 20;
/// What each kept connection may take, bytes.
const CONNECTION: u64 = (1 << 20) + (1 << 19);

/// Adds both fleets to the table.
pub fn measure(world: &mut World, table: &mut Table) -> Result<()> {
    // The twenty get their systems first, so that their other names find nothing to do.
    deploy(world, 1)?;
    world.start()?;
    wait(world, "all twenty are in sync", |world| Ok(in_sync(world)? == world.fleet.nodes.len()))?;
    row(world, table)?;
    world.stop()?;
    deploy(world, 50)?;
    world.start()?;
    wait(world, "all thousand were looked at", |world| Ok(world.fleet.get("/readyz").is_ok()))?;
    wait(world, "all thousand are in sync", |world| Ok(in_sync(world)? == 50 * world.fleet.nodes.len()))?;
    row(world, table)?;
    world.stop()
}

fn row(world: &World, table: &mut Table) -> Result<()> {
    let nodes = in_sync(world)?;
    let usage: &Usage = world.usage()?;
    let (before, own_before, began) = (usage.processor()?, usage.own_processor()?, Instant::now());
    std::thread::sleep(WATCHED);
    let (used, own) = (usage.processor()? - before, usage.own_processor()? - own_before);
    let memory = usage.memory()?;
    let share = |part: Duration| 100.0 * part.as_secs_f64() / began.elapsed().as_secs_f64();
    let looks = nodes as f64 * WATCHED.as_secs_f64() / 30.0;
    let figure = format!(
        "{:.1} % of one ({:.1} % itself), {} per look",
        share(used),
        share(own),
        ms(used.as_secs_f64() / looks)
    );
    table.put(&format!("{nodes} nodes at rest: processor"), figure, Bound::None);
    let connections = memory.connections as u64;
    let most = BASE + connections * CONNECTION;
    let total = memory.controller + memory.shared_out;
    let figure =
        format!("{} itself, {} in {connections} connections", mib(memory.controller), mib(memory.shared_out));
    table.put(
        &format!("{nodes} nodes at rest: memory"),
        figure,
        Bound::met(&format!("≤ {}", mib(most)), total <= most),
    );
    table.note(format!(
        "{nodes} nodes: a kept connection takes {} of memory of its own and its part of what all share (proportional set \
         size); by resident set size it would be {}.",
        mib(memory.shared_out / connections.max(1)),
        mib(memory.resident / connections.max(1))
    ));
    Ok(())
}

/// Commits a deployment in which each machine has so many names.
fn deploy(world: &World, names: usize) -> Result<()> {
    let named: Vec<(String, &Node)> = world
        .fleet
        .nodes
        .iter()
        .flat_map(|(name, node)| (0..names).map(move |number| (alias(name, number), node)))
        .collect();
    let nodes = named.iter().map(|(name, node)| (name.as_str(), *node));
    let text = world.fleet.deployment_of(nodes, "rollout.maxInFlight = 10;", |name| {
        let machine = name.split_once('x').map_or(name, |(machine, _)| machine);
        format!("configuration = {{ networking.hostName = \"{machine}\"; lab.text = \"crowd\"; }};")
    });
    world.fleet.commit(&format!("{names} names each"), &[("deployment.nix", &text)]).map(drop)
}

/// The first name of a machine is its own.
fn alias(machine: &str, number: usize) -> String {
    if number == 0 { machine.to_owned() } else { format!("{machine}x{number}") }
}

fn in_sync(world: &World) -> Result<usize> {
    let seen = world.fleet.snapshot()?;
    let nodes = seen["nodes"].as_object().into_iter().flatten();
    Ok(nodes.filter(|(_, node)| node["state"] == "in-sync" && node["progress"]["state"] == "built").count())
}

fn wait(world: &World, what: &str, is: impl Fn(&World) -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !is(world).unwrap_or(false) {
        if began.elapsed() > LONGEST {
            bail!("waited {LONGEST:?} until {what}: {}", world.fleet.log());
        }
        std::thread::sleep(LOOK);
    }
    eprintln!("{what} after {:.0?}", began.elapsed());
    Ok(())
}
