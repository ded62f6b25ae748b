//! A lab for hand use: `lab up N [NAME=VALUE...]` boots N nodes and keeps them until standard input ends or Ctrl-C.

use std::io::Read as _;
use std::process::ExitCode;

use driftless_lab::{Lab, System};

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
        _ => anyhow::bail!("usage: lab up N"),
    };
    let system = System::new("by hand").build()?;
    let lab = Lab::start()?;
    let names: Vec<String> = (1..=count).map(|number| format!("n{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let nodes = lab.nodes(&names, &system)?;
    for node in &nodes {
        println!("ssh -F {} {}    # {}", lab.ssh_config().display(), node.name(), node.address());
    }
    println!("Ctrl-C or the end of standard input removes the lab.");
    // A Ctrl-C ends this process at once; the lab's keeper then cleans up.
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
