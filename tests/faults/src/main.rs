//! `make faults`: a fault campaign of `N` faults from `SEED`, about `ROUND` between two checkpoints (all from the environment;
//! a seed is thrown where none is given).
//! Exits with 1 and the way to replay it where an invariant does not hold.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use driftless_faults::{Broken, Options, Schedule, run};

/// Faults, where `N` says nothing.
const FAULTS: usize = 200;
/// Faults between two checkpoints, where `ROUND` says nothing.
const PER_ROUND: usize = 16;

fn main() -> ExitCode {
    let thrown =
        || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| u64::from(now.subsec_nanos()));
    let (faults, per_round) = (number("N", || FAULTS as u64), number("ROUND", || PER_ROUND as u64));
    let (Some(faults), Some(per_round), Some(seed)) = (faults, per_round, number("SEED", thrown)) else {
        eprintln!("N, ROUND and SEED must be numbers");
        return ExitCode::from(64);
    };
    let whole = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let (faults, per_round) = (whole(faults), whole(per_round));
    let again = format!("make faults N={faults} ROUND={per_round} SEED={seed}");
    println!("{faults} faults, seed {seed}: again with `{again}`");
    if std::env::var_os("PLAN").is_some_and(|plan| !plan.is_empty()) {
        println!("{:#?}", Schedule::new(seed, faults, per_round));
        return ExitCode::SUCCESS;
    }
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let ran = run(Options {
        seed,
        faults,
        per_round,
        binary: binary(),
        project: project.canonicalize().unwrap_or(project),
        out: Box::new(std::io::stdout()),
    });
    match ran {
        Ok(report) => {
            println!("\n{}", report.table());
            ExitCode::SUCCESS
        }
        Err(error) => {
            if let Some(broken) = error.downcast_ref::<Broken>() {
                eprintln!("\nThe controller's last words:\n{}", broken.log);
            }
            eprintln!("\nBROKEN: {error:#}");
            eprintln!("again (the same steps; their timing is the machine's): {again}");
            ExitCode::FAILURE
        }
    }
}

/// A number from the environment; `None` where it is none.
fn number(name: &str, default: impl Fn() -> u64) -> Option<u64> {
    match std::env::var(name) {
        Ok(text) if !text.is_empty() => text.parse().ok(),
        Ok(_) | Err(_) => Some(default()),
    }
}

/// The driftless that was built beside this program, unless `DRIFTLESS_BIN` names another one.
fn binary() -> PathBuf {
    let beside = || Some(std::env::current_exe().ok()?.parent()?.join("driftless"));
    std::env::var_os("DRIFTLESS_BIN").map(PathBuf::from).or_else(beside).unwrap_or_else(|| "driftless".into())
}
