//! The deterministic simulation: the deciding half of a controller, the very sources, over made-up nodes in made-up time.
//! Thousands of schedules of merges, faults and people, and what must hold in every one.
//!
//! A schedule follows from its seed alone. `DRIFTLESS_SIMULATION_SCHEDULES` says how many are run (100 000), from the seed
//! `DRIFTLESS_SIMULATION_FIRST` on; `DRIFTLESS_SIMULATION_SEED` replays one, and prints what happened in it.

// What is made up here is right or the simulation is wrong: then it shall stop. It asks only for what it plays.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod chance;
mod gate;
mod judge;
mod machine;
mod repository;
mod rest;
mod shell;
mod systems;
mod time;
mod trace;
mod trouble;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use trace::Trace;
use world::World;

/// A schedule that broke a rule.
struct Broken {
    seed: u64,
    said: String,
    trace: String,
}

/// How much was simulated.
#[derive(Debug, Default)]
struct Total {
    schedules: AtomicU64,
    passes: AtomicU64,
    starts: AtomicU64,
    seconds: AtomicU64,
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is to be a number, not {text:?}")))
}

/// Runs one schedule; a panic in it is as bad as a broken rule.
fn run(seed: u64, trace: Trace, total: &Total) -> Result<String, Broken> {
    let mut world = World::new(seed, trace);
    let ended = catch_unwind(AssertUnwindSafe(|| world.run()));
    total.schedules.fetch_add(1, Ordering::Relaxed);
    total.passes.fetch_add(world.passes, Ordering::Relaxed);
    total.starts.fetch_add(world.starts, Ordering::Relaxed);
    total.seconds.fetch_add(world.now / 1000, Ordering::Relaxed);
    let said = match ended {
        Ok(Ok(())) => return Ok(world.trace.text()),
        Ok(Err(said)) => said,
        Err(_) => "panicked".into(),
    };
    Err(Broken { seed, said, trace: world.trace.text() })
}

/// Runs the seeds of a range on every processor, to the first that breaks a rule.
fn run_all(first: u64, schedules: u64, total: &Total) -> Option<Broken> {
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= schedules {
                return None;
            }
            if let Err(broken) = run(first + number, Trace::default(), total) {
                stop.store(true, Ordering::Relaxed);
                return Some(broken);
            }
        }
        None
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let broken = threads.into_iter().filter_map(|thread| thread.join().expect("caught above"));
        broken.min_by_key(|broken| broken.seed)
    })
}

#[test]
fn every_schedule_keeps_the_rules_and_comes_to_rest() {
    let total = Total::default();
    if let Some(seed) = number("DRIFTLESS_SIMULATION_SEED") {
        match run(seed, Trace::written(), &total) {
            Ok(trace) => println!("{trace}\n\nseed {seed} keeps the rules"),
            Err(Broken { said, trace, .. }) => panic!("{trace}\n\nseed {seed}: {said}"),
        }
        return;
    }
    let (first, schedules) = (
        number("DRIFTLESS_SIMULATION_FIRST").unwrap_or(0),
        number("DRIFTLESS_SIMULATION_SCHEDULES").unwrap_or(100_000),
    );
    let began = Instant::now();
    let broken = run_all(first, schedules, &total);
    let sum = |of: &AtomicU64| of.load(Ordering::Relaxed);
    println!(
        "{} schedules, {} passes, {} actions, {} days in {} s",
        sum(&total.schedules),
        sum(&total.passes),
        sum(&total.starts),
        sum(&total.seconds) / 86_400,
        began.elapsed().as_secs()
    );
    if let Some(Broken { seed, said, .. }) = broken {
        let Err(again) = run(seed, Trace::written(), &total) else {
            panic!("seed {seed} broke a rule once and not again: {said}");
        };
        panic!(
            "{}\n\nseed {seed}: {}\nreplay it with DRIFTLESS_SIMULATION_SEED={seed} cargo test -p driftless-simulation",
            again.trace, again.said
        );
    }
}

#[test]
fn a_seed_is_the_same_schedule_every_time() {
    let told = || {
        run(7, Trace::written(), &Total::default())
            .map_err(|broken| broken.trace)
            .unwrap_or_else(|trace| trace)
    };
    assert_eq!(told(), told());
}
