//! A lab for hand use: `lab up N [MILLISECONDS [LOSS]]` boots N nodes and keeps them until standard input ends or Ctrl-C. With
//! a round trip (and a part of the packets that is lost, 0 to 1), they are that far away.

use std::io::Read as _;
use std::process::ExitCode;
use std::time::Duration;

use driftless_lab::{Lab, System, Wire};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1);
    let count: u8 = match (words.next().as_deref(), words.next()) {
        (Some("up"), Some(count)) => count.parse()?,
        _ => anyhow::bail!("usage: lab up N [MILLISECONDS [LOSS]]"),
    };
    let round_trip = words.next().map(|word| word.parse().map(Duration::from_millis)).transpose()?;
    let loss = words.next().map(|word| word.parse()).transpose()?.unwrap_or(0.0);
    let system = System::new("by hand").build()?;
    let lab = Lab::start()?;
    let names: Vec<String> = (1..=count).map(|number| format!("n{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let nodes = lab.nodes(&names, &system)?;
    for node in &nodes {
        if let Some(round_trip) = round_trip {
            node.wire(Wire::new(round_trip, loss))?;
        }
        println!("ssh -F {} {}    # {}", lab.ssh_config().display(), node.name(), node.address());
    }
    println!("Ctrl-C or the end of standard input removes the lab.");
    // A Ctrl-C ends this process at once; the lab's keeper then cleans up.
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
