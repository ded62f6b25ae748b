//! The loop when there is little to do: it rests, it looks, and it comes back to nodes that were silent.

use std::fs;
use std::time::Instant;

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
