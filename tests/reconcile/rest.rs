//! The loop when there is little to do: it rests, it looks, and it comes back to nodes that were silent.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use driftless_lab::{Node, Setup};

use super::*;

/// Processor time that a process has used: fields 14 and 15 of proc_pid_stat(5), in hundredths of a second (USER_HZ).
pub fn processor_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let ticks: u64 = fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

#[test]
fn an_idle_controller_looks_at_its_nodes_and_rests() {
    let mut fleet = fleet(&["n1", "n2", "n3"]);
    let first = commit(&fleet, "first", |_| text("one"));
    fleet.start().unwrap();
    fleet.wait_in_sync(&first, SOON).unwrap();
    let passes = |seen: &Value| seen["passes"].as_u64().unwrap();
    let looked =
        |seen: &Value| seen["nodes"]["n1"]["observation"]["contact"]["at"].as_str().unwrap().to_owned();
    let before = fleet.snapshot().unwrap();
    let (began, used) = (Instant::now(), processor_time(fleet.pid().unwrap()));
    // So many passes have 3 nodes, looked at every 2 s, and a fetch every 5 s.
    let after = fleet.wait("20 passes are over", SOON, |seen| passes(seen) >= passes(&before) + 20).unwrap();
    let (took, used) = (began.elapsed(), processor_time(fleet.pid().unwrap()) - used);
    println!("20 passes in {took:?}, {used:?} of a processor");
    assert!(took > Duration::from_secs(4), "a loop that turns for nothing: 20 passes in {took:?}");
    assert!(used < took / 5, "{used:?} in {took:?}");
    assert!(looked(&after) > looked(&before));
}

#[test]
fn a_connection_that_dies_in_silence_is_replaced_when_the_node_is_back() {
    let mut fleet = fleet(&["n1"]);
    let first = commit(&fleet, "first", |_| text("one"));
    fleet.start().unwrap();
    fleet.wait_in_sync(&first, SOON).unwrap();
    fleet.nodes["n1"].link().cut().unwrap();
    fleet.wait("the node is missed", SOON, |seen| is(&seen["nodes"]["n1"], "hold", "unreachable")).unwrap();
    let second = commit(&fleet, "second", |_| text("two"));
    fleet.nodes["n1"].link().restore().unwrap();
    let began = Instant::now();
    fleet.wait_in_sync(&second, SOON).unwrap();
    println!("in sync {:?} after the wire was mended", began.elapsed());
}

/// How many commands a node has been asked to run by ssh.
fn sessions(node: &Node) -> usize {
    let script = "journalctl --sync; journalctl --output=cat --unit=sshd.service";
    let said = node.enter(script).unwrap().stdout;
    said.lines().filter(|line| line.starts_with("Starting session: command")).count()
}

#[test]
fn an_unchanged_pass_runs_no_nix_and_asks_each_node_once() {
    let lab = Lab::start().unwrap();
    let installed = System::new("installed").build().unwrap();
    let setup = Setup { sshd_options: vec!["LogLevel VERBOSE".into()], ..Setup::default() };
    let nodes = ["n1", "n2"].map(|name| lab.node_with(name, &installed, &setup).unwrap());
    let mut fleet = fleet_of(&lab, nodes.into());
    // Programs that tell of themselves before they do what they do.
    let (programs, told) = (fleet.dir().join("programs"), fleet.dir().join("told"));
    fs::create_dir(&programs).unwrap();
    let path = std::env::var("PATH").unwrap();
    for name in ["nix", "nix-store", "nix-instantiate"] {
        let script = format!("#!/bin/sh\necho {name} >>{}\nPATH={path} exec {name} \"$@\"\n", told.display());
        fs::write(programs.join(name), script).unwrap();
        fs::set_permissions(programs.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    fleet.set_env("PATH", &format!("{}:{path}", programs.display()));
    // Nobody looks unless asked.
    let config = fs::read_to_string(fleet.config_file()).unwrap();
    fs::write(fleet.config_file(), config.replace("interval = \"2s\"", "interval = \"1h\"")).unwrap();
    let first = commit(&fleet, "first", |_| text("one"));
    fleet.start().unwrap();
    let seen = fleet.wait_in_sync(&first, SOON).unwrap();
    let nix = || fs::read_to_string(&told).unwrap();
    assert!(nix().contains("nix-instantiate"), "the programs tell of themselves: {}", nix());
    let looked = |seen: &Value, name: &str| {
        seen["nodes"][name]["observation"]["contact"]["at"].as_str().unwrap().to_owned()
    };
    let before = (nix(), ["n1", "n2"].map(|name| sessions(&fleet.nodes[name])));
    assert!(before.1.iter().all(|count| *count > 0), "sshd tells of sessions: {:?}", before.1);
    fleet.hang_up().unwrap();
    fleet
        .wait("both are looked at again", SOON, |now| {
            ["n1", "n2"].iter().all(|name| looked(now, name) > looked(&seen, name))
        })
        .unwrap();
    let after = (nix(), ["n1", "n2"].map(|name| sessions(&fleet.nodes[name])));
    assert_eq!(after, (before.0, before.1.map(|count| count + 1)));
}
