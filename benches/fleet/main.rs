//! `make bench`: what the spine costs, on lab nodes, in one table. Everything in it is real: nodes, ssh, Nix, controller.
//!
//! A benchmark, not a test: a missed target is told, and the exit code is 0. Removes what it made, however it ends.

mod commit;
mod copy;
mod crowd;
mod decide;
mod floor;
mod nixus;
mod rest;
mod table;
mod usage;
mod world;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;

use table::Table;
use world::World;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let began = Instant::now();
    // Only some of it, for who works on one figure: `cargo bench --bench fleet -- commit rest`.
    let asked: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let wanted = |part: &str| asked.is_empty() || asked.iter().any(|asked| asked == part);
    let mut world = World::set_up()?;
    let mut table = Table::default();
    if wanted("commit") {
        commit::measure(&mut world, &mut table)?;
    }
    if wanted("rest") {
        commit::settle(&mut world)?;
        rest::measure(&world, &mut table)?;
    }
    world.stop()?;
    if wanted("copy") {
        copy::measure(&world, &mut table)?;
    }
    decide::read(&mut table);
    // The last and the longest part: what it cannot measure here does not hide the others.
    if wanted("crowd")
        && let Err(error) = crowd::measure(&mut world, &mut table)
    {
        let said = format!("{error:#}");
        let reason = said.lines().next().unwrap_or_default();
        table.note(format!("The crowd was not measured: {reason}"));
    }
    if std::env::var_os(nixus::VARIABLE).is_none() {
        table.note(format!(
            "The original nixus is not among these: {}=/path/to/nixus, a checkout of it, has it measured, too.",
            nixus::VARIABLE
        ));
    }
    println!("\n{}", table.text());
    eprintln!("took {:.0?}", began.elapsed());
    Ok(())
}
