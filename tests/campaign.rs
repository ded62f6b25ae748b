//! A short fault campaign with a fixed seed, in every test run; `make faults` plays long ones by the same code.

use std::path::Path;

use driftless_faults::{Broken, Options, run};

/// Dealt from the deck of all faults, most kinds come once. Two checkpoints.
const FAULTS: usize = 18;
const SEED: u64 = 4;

#[test]
fn a_fleet_under_random_merges_and_faults_keeps_every_promise() {
    let ran = run(Options {
        seed: SEED,
        faults: FAULTS,
        per_round: FAULTS / 2,
        binary: env!("CARGO_BIN_EXE_driftless").into(),
        project: Path::new(env!("CARGO_MANIFEST_DIR")).to_owned(),
        out: Box::new(std::io::sink()),
    });
    match ran {
        Ok(report) => println!("{}", report.table()),
        Err(error) => {
            let broken = error.downcast_ref::<Broken>();
            let (diary, log) = broken.map_or(("", ""), |broken| (&broken.diary, &broken.log));
            panic!(
                "seed {SEED}: {error:#}\n\nwhat was done:\n{diary}\n\nthe controller's last words:\n{log}"
            );
        }
    }
}
