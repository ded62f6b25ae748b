//! What a controller leaves behind: nothing that runs, and nothing that its successor could not do without.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Instant;

use serde_json::Value;

use super::*;

/// systemd's default patience is 90 s; ours is less.
const PATIENCE: Duration = Duration::from_secs(20);

/// Stops the controller; it must end well, soon, and leave neither process nor socket behind.
fn stops_cleanly(fleet: &mut Fleet, when: &str) {
    let began = Instant::now();
    assert_eq!(fleet.stop().unwrap(), Some(0), "{when}: {}", fleet.log());
    println!("stopped {when} within {:?}", began.elapsed());
    assert!(began.elapsed() < PATIENCE, "{when}: took {:?}", began.elapsed());
    assert_eq!(fleet.processes(), Vec::<String>::new(), "{when}");
    let left: Vec<_> =
        fs::read_dir(fleet.dir().join("r")).unwrap().flatten().map(|file| file.path()).collect();
    assert!(left.iter().all(|path| path.extension().is_none_or(|end| end != "sock")), "{when}: {left:?}");
}

#[test]
fn a_controller_that_is_stopped_in_the_middle_of_anything_ends_soon_and_leaves_no_process() {
    let mut fleet = fleet(&["n1"]);
    let slow = "configuration = { pkgs, ... }: { lab.text = builtins.readFile (pkgs.runCommand \"slow\" { } \"sleep 300; echo DIR > $out\"); };";
    // What Nix builds for the evaluation is told by the fleet's directory, too.
    let slow = slow.replace("DIR", &fleet.dir().display().to_string());
    commit(&fleet, "evaluates for ever", |_| slow.clone());
    fleet.start().unwrap();
    fleet
        .wait("the commit is being evaluated", SOON, |seen| {
            seen["nodes"]["n1"]["progress"]["state"] == "evaluating"
        })
        .unwrap();
    // Nobody can go to a node whose declaration is not known yet, and who asked must not believe that somebody did.
    let retried = fleet.driftless(&["retry", "n1"]).unwrap();
    assert_eq!(retried.code, Some(1), "{retried:?}");
    assert!(retried.stderr.contains("n1: nothing was done, for it has no declaration"), "{}", retried.stderr);
    stops_cleanly(&mut fleet, "in an evaluation");

    let first = commit(&fleet, "first", |_| text("one"));
    fleet.start().unwrap();
    fleet.wait_in_sync(&first, SOON).unwrap();
    fleet.nodes["n1"].link().cut().unwrap();
    commit(&fleet, "second", |_| text("two"));
    fleet.wait("the copy hangs", SOON, |seen| !seen["nodes"]["n1"]["inFlight"].is_null()).unwrap();
    stops_cleanly(&mut fleet, "before a switch, while the node is silent");

    fleet.nodes["n1"].link().restore().unwrap();
    let third = commit(&fleet, "third", |_| format!("{} configuration.lab.faults.slow = 5;", text("three")));
    fleet.start().unwrap();
    fleet
        .wait("the switch runs", SOON, |seen| seen["nodes"]["n1"]["inFlight"]["stage"]["phase"] == "testing")
        .unwrap();
    stops_cleanly(&mut fleet, "in a switch");
    let log = fleet.log();
    assert!(
        log.rsplit("shutting down").next().unwrap().contains("succeeded"),
        "the switch was waited for: {log}"
    );
    fleet.start().unwrap();
    fleet.wait_in_sync(&third, SOON).unwrap();
}

#[test]
fn a_controller_without_its_memory_or_with_rubbish_for_one_finds_everything_as_it_is() {
    let mut fleet = fleet(&["n1"]);
    let first = commit(&fleet, "first", |_| text("one"));
    fleet.start().unwrap();
    fleet.wait_in_sync(&first, SOON).unwrap();
    fleet.stop().unwrap();
    let memory = fleet.state().join("release.json");
    assert!(fs::read_to_string(&memory).unwrap().contains(&first));
    for spoil in [
        |memory: &Path| fs::write(memory, "{\"release\": 7").unwrap(),
        |memory: &Path| fs::remove_file(memory).unwrap(),
        |memory: &Path| fs::remove_dir_all(memory.parent().unwrap()).unwrap(),
    ] {
        spoil(&memory);
        fleet.start().unwrap();
        fleet.wait("it is ready", SOON, |seen| seen["ready"] == "ready").unwrap();
        fleet.wait_in_sync(&first, SOON).unwrap();
        assert_eq!(fleet.stop().unwrap(), Some(0));
    }
    assert_eq!(switches(&fleet, "n1"), 1);
}

#[test]
fn systemd_is_told_of_readiness_life_and_the_end() {
    let mut fleet = fleet(&[]);
    commit(&fleet, "empty", |_| String::new());
    let path = fleet.dir().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    fleet.set_env("NOTIFY_SOCKET", &path.display().to_string());
    fleet.start().unwrap();
    let hear = || {
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).trim().to_owned()
    };
    assert_eq!(hear(), "READY=1");
    assert_eq!(hear(), "WATCHDOG=1");
    fleet.wait("the loop rests", SOON, |seen| seen["ready"] == "ready").unwrap();
    assert_eq!(hear(), "WATCHDOG=1");
    fleet.stop().unwrap();
    let rest: Vec<String> =
        std::iter::from_fn(|| Some(hear())).take_while(|said| said != "STOPPING=1").collect();
    assert!(rest.iter().all(|said| said == "WATCHDOG=1"), "{rest:?}");
}

#[test]
fn a_hang_up_makes_everything_be_tried_now() {
    let mut fleet = fleet(&[]);
    let mark = fleet.dir().join("mark");
    let body = format!(
        "if builtins.pathExists \"{}\" then import <driftless> {{ }} {{ nodes = {{ }}; }} else throw \"no mark\"",
        mark.display()
    );
    fleet.commit("waits for a mark", &[("deployment.nix", &body)]).unwrap();
    fleet.start().unwrap();
    let evaluations = |fleet: &Fleet| {
        let metrics = fleet.get("/metrics").unwrap();
        let line = metrics
            .lines()
            .find(|line| line.starts_with("driftless_evaluations_total{result=\"failed\"}"))
            .unwrap();
        line.rsplit(' ').next().unwrap().parse::<u32>().unwrap()
    };
    let blocked = |seen: &Value| seen["source"]["blocked"]["reason"] == "eval_failed";
    fleet.wait("head is blocked", SOON, blocked).unwrap();
    assert_eq!(evaluations(&fleet), 1);
    fleet.hang_up().unwrap();
    let deadline = Instant::now() + SOON;
    while evaluations(&fleet) < 2 {
        assert!(Instant::now() < deadline, "tried again");
        std::thread::sleep(Duration::from_millis(50));
    }
    // What was missing is there, the commit is the same: it comes into force, and is said to be.
    std::fs::write(&mark, "").unwrap();
    fleet.hang_up().unwrap();
    fleet.wait("head is in force", SOON, |seen| seen["source"]["blocked"].is_null()).unwrap();
}
