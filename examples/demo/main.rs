//! `make demo`: the main job of driftless on three lab nodes, told while it happens. Everything in it is real: systemd, sshd
//! and Nix on each node, a Git repository, the controller, the command line. What it claims, it has checked: the first
//! thing that is not as it should be ends it with exit code 1 and the end of the controller's log.
//!
//! With `KEEP=1` in its environment it stays up until Ctrl-C. It removes what it made, however it ends; what Nix has built
//! stays in the store until its next garbage collection.

mod infra;
mod interrupt;
mod story;
mod teller;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use driftless_lab::{Fleet, Lab, Node, System};

use interrupt::Interrupt;
use story::Story;
use teller::Teller;

/// Lines of the controller's log that are shown when something went wrong.
const LOG_TAIL: usize = 40;
/// What a shell reports for a program that Ctrl-C ended (128 + SIGINT).
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let teller = Teller::start();
    let interrupt = match Interrupt::listen() {
        Ok(interrupt) => interrupt,
        Err(error) => return failed(&teller, &error, ""),
    };
    let fleet = match set_up(&teller) {
        Ok(fleet) => fleet,
        Err(_) if interrupt.heard() => return interrupted(&teller),
        Err(error) => return failed(&teller, &error, ""),
    };
    let mut story = Story::new(fleet, binary(), &teller, &interrupt);
    let told = story.tell();
    let log = story.fleet.log();
    drop(story);
    match told {
        Ok(()) => {
            teller.say("Everything this demo made is removed again.");
            ExitCode::SUCCESS
        }
        Err(_) if interrupt.heard() => interrupted(&teller),
        Err(error) => failed(&teller, &error, &log),
    }
}

/// The nodes with what somebody installed on them once, an empty repository, no controller yet.
fn set_up(teller: &Teller) -> Result<Fleet> {
    teller.heading("Three machines");
    let lab = Lab::start().context("making the lab")?;
    let installed = System::new("as installed").build()?;
    let nodes = lab.nodes(&infra::NODES, &installed)?;
    for node in &nodes {
        teller.event(node.name(), &format!("booted at {}: {}", node.address(), what_it_is(node)?));
    }
    Fleet::new(&lab, nodes, &binary(), Path::new(env!("CARGO_MANIFEST_DIR")))
}

/// In the node's own words.
fn what_it_is(node: &Node) -> Result<String> {
    let said = node
        .ssh(["systemctl --version | head -n1; nix --version; /usr/sbin/sshd -V 2>&1 | head -n1"])?
        .ok()?;
    // "systemd 252 (252.39-1)", "nix (Nix) 2.8.0", "OpenSSH_9.2p1 Debian-2, OpenSSL 3.0.15": names and versions.
    let first_two = |line: &str| {
        let (program, _) = line.split_once(',').unwrap_or((line, ""));
        let words = program.split_whitespace().filter(|word| !word.starts_with('('));
        words.take(2).collect::<Vec<_>>().join(" ")
    };
    let words: Vec<String> = said.lines().map(first_two).collect();
    Ok(words.join(", "))
}

/// The driftless that was built beside this program, unless `DRIFTLESS_BIN` names another one.
fn binary() -> PathBuf {
    let beside = || Some(std::env::current_exe().ok()?.parent()?.parent()?.join("driftless"));
    std::env::var_os("DRIFTLESS_BIN").map(PathBuf::from).or_else(beside).unwrap_or_else(|| "driftless".into())
}

fn interrupted(teller: &Teller) -> ExitCode {
    teller.say("Interrupted. Everything this demo made is removed again.");
    ExitCode::from(INTERRUPTED)
}

fn failed(teller: &Teller, error: &anyhow::Error, log: &str) -> ExitCode {
    let lines: Vec<&str> = log.lines().collect();
    let tail = lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n");
    teller.failure(&format!("{error:#}"), &tail);
    ExitCode::FAILURE
}
