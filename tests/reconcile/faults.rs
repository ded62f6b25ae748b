//! The controller is killed, woken without end, and its clock is stepped: nothing is done twice, nothing forgotten.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Instant;

use super::rest::processor_time;
use super::*;

/// Every stage that the controller shows at this moment.
fn stages(seen: &Value) -> BTreeSet<String> {
    let mut stages = BTreeSet::new();
    for node in seen["nodes"].as_object().into_iter().flat_map(|nodes| nodes.values()) {
        if let Some(state @ ("evaluating" | "building")) = node["progress"]["state"].as_str() {
            stages.insert(state.to_owned());
        }
        let stage = &node["inFlight"]["stage"];
        for word in [&stage["stage"], &stage["phase"]] {
            stages.extend(word.as_str().filter(|word| *word != "switching").map(str::to_owned));
        }
    }
    if !seen.is_null() && seen["source"]["head"].is_null() {
        stages.insert("fetching".into());
    }
    stages
}

/// Revision and outcome of every switch that a node remembers.
fn journal(seen: &Value, name: &str) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let entries = seen["nodes"][name]["observation"]["state"]["journal"].as_array().unwrap();
    entries.iter().map(|entry| (text(&entry["revision"]), text(&entry["outcome"]))).collect()
}

#[test]
fn a_controller_that_is_killed_at_every_stage_does_nothing_twice_and_forgets_nothing() {
    let mut fleet = fleet(&["copies", "slow", "judged", "builds"]);
    let temporary = fleet.dir().join("tmp");
    std::fs::create_dir(&temporary).unwrap();
    fleet.set_env("TMPDIR", &temporary.display().to_string());
    let commit = commit(&fleet, "first", |name| {
        let package = |name: &str, build: &str| {
            format!(
                "configuration = {{ pkgs, ... }}: {{ lab.text = \"one\"; environment.systemPackages = \
                 [ (pkgs.runCommand \"{name}\" {{ }} \"mkdir $out; {build}\") ]; }};"
            )
        };
        let body = match name {
            "copies" => package("big", "head -c 20000000 /dev/urandom > $out/big"),
            "builds" => package("late", "sleep 3"),
            "slow" => format!("{} configuration.lab.faults.slow = 4;", text("one")),
            _ => format!("{} healthChecks.commands.gate = \"sleep 3\";", text("one")),
        };
        format!("successTimeout = 25; healthTimeout = 40; {body}")
    });
    let mut killed = BTreeSet::new();
    let deadline = Instant::now() + 2 * SOON;
    let done = |seen: &Value| fleet_is(seen, &["copies", "slow", "judged", "builds"], &commit);
    let mut seen = Value::Null;
    while !done(&seen) {
        fleet.start().unwrap();
        let began = Instant::now();
        loop {
            assert!(Instant::now() < deadline, "killed at {killed:?}; {}", fleet.log());
            seen = fleet.snapshot().unwrap_or_default();
            let new: Vec<String> = stages(&seen).difference(&killed).cloned().collect();
            if done(&seen) {
                break;
            }
            if !new.is_empty() {
                println!("killed after {:?} at {new:?}", began.elapsed());
                killed.extend(new);
                fleet.kill().unwrap();
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    for stage in ["evaluating", "building", "testing", "health"] {
        assert!(killed.contains(stage), "{stage} was not met: {killed:?}");
    }
    let temporary = std::fs::read_dir(temporary).unwrap().flatten();
    let left: Vec<_> = temporary.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    // A Nix that was killed leaves its builds' directories; that is Nix's.
    assert!(left.iter().all(|name| name.starts_with("nix-")), "temporary files without an owner: {left:?}");
    for name in ["copies", "slow", "judged", "builds"] {
        assert_eq!(
            journal(&seen, name),
            [(commit.clone(), "succeeded".to_owned())],
            "{name}: {}",
            fleet.log()
        );
    }
    assert_eq!(fleet.stop().unwrap(), Some(0));
    // A login that a killed controller was about to make becomes a kept connection that nobody uses: it ends by itself.
    let mut left = fleet.processes();
    left.retain(|line| !line.contains(" -o ControlPersist="));
    assert_eq!(left, Vec::<String>::new());
    let left: Vec<_> =
        fs::read_dir(fleet.dir().join("r")).unwrap().flatten().map(|it| it.file_name()).collect();
    assert!(
        !left.iter().any(|name| name.to_string_lossy().ends_with(".sock") && name != "control.sock"),
        "{left:?}"
    );
}

fn fleet_is(seen: &Value, names: &[&str], commit: &str) -> bool {
    names.iter().all(|name| {
        seen["nodes"][*name]["state"] == "in-sync" && seen["nodes"][*name]["runningRevision"] == commit[..7]
    })
}

#[test]
fn a_controller_that_is_woken_a_thousand_times_a_second_answers_and_loses_nothing() {
    let mut fleet = fleet(&["n1"]);
    let first = commit(&fleet, "first", |_| patient("one"));
    fleet.start().unwrap();
    fleet.wait_in_sync(&first, SOON).unwrap();
    let pid = fleet.pid().unwrap();
    let socket = fleet.dir().join("r/control.sock");
    let request = "POST /api/v1/wake HTTP/1.0\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
    let (began, used) = (Instant::now(), processor_time(pid));
    let mut wakes = 0;
    let mut slowest = Duration::ZERO;
    let mut last = first.clone();
    while began.elapsed() < Duration::from_secs(4) {
        for _ in 0..50 {
            use std::io::{Read as _, Write as _};
            let mut stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            stream.read_to_string(&mut String::new()).unwrap();
            wakes += 1;
        }
        fleet.hang_up().unwrap();
        let asked = Instant::now();
        fleet.get("/healthz").unwrap();
        slowest = slowest.max(asked.elapsed());
        last = fleet.commit("another", &[]).unwrap();
    }
    let (took, used) = (began.elapsed(), processor_time(pid) - used);
    println!("{wakes} wake-ups in {took:?}: {used:?} of a processor, slowest answer {slowest:?}");
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");
    assert!(used < took / 2, "{used:?} in {took:?}");
    fleet.wait_in_sync(&last, SOON).unwrap();
    assert_eq!(switches(&fleet, "n1"), 1, "the system is the same in every commit");
}

/// A library that steps the clock of a process and all its children by the seconds in a file.
fn clock_library(fleet: &Fleet) -> std::path::PathBuf {
    let (source, library) = (fleet.dir().join("clock.c"), fleet.dir().join("clock.so"));
    let step = fleet.dir().join("step");
    fs::write(&step, "0").unwrap();
    let text = r#"
        #define _GNU_SOURCE
        #include <stdio.h>
        #include <stdlib.h>
        #include <time.h>
        #include <unistd.h>
        #include <sys/syscall.h>
        int clock_gettime(clockid_t clock, struct timespec *time) {
            int result = syscall(SYS_clock_gettime, clock, time);
            FILE *file = clock == CLOCK_REALTIME ? fopen("STEP", "r") : NULL;
            long seconds = 0;
            if (file) { if (fscanf(file, "%ld", &seconds) == 1) time->tv_sec += seconds; fclose(file); }
            return result;
        }
    "#;
    fs::write(&source, text.replace("STEP", &step.display().to_string())).unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).stdin(Stdio::null());
    assert!(compiler.status().unwrap().success());
    library
}

#[test]
fn a_clock_that_is_stepped_by_a_year_ends_no_wait_and_makes_none_last() {
    let mut fleet = fleet(&["drifts", "fails", "pinned"]);
    let library = clock_library(&fleet);
    fleet.set_env("LD_PRELOAD", &library.display().to_string());
    let deployment = fleet.deployment("rollout.healAfter = 60;", |_| patient("one"));
    let first = fleet.commit("first", &[("deployment.nix", &deployment)]).unwrap();
    fleet.start().unwrap();
    fleet.wait_in_sync(&first, SOON).unwrap();
    let pinned = fleet.driftless(&["rollback", "--on", "pinned", "--reason", "mine"]).unwrap();
    assert!(pinned.success(), "{pinned:?}");
    let stray = System::new("by hand").name("drifts").build().unwrap();
    fleet.nodes["drifts"].nixos_rebuild(&stray).unwrap();
    let held = |seen: &Value| is(&seen["nodes"]["drifts"], "hold", "heal-delay");
    let until = |seen: &Value| -> jiff::Timestamp {
        seen["nodes"]["drifts"]["decision"]["hold"]["until"].as_str().unwrap().parse().unwrap()
    };
    let seen = fleet.wait("the drift waits", SOON, held).unwrap();
    let before = until(&seen);
    let year = 365 * 24 * 3600;
    for step in [year, -year, 0] {
        fs::write(fleet.dir().join("step"), step.to_string()).unwrap();
        let passes = fleet.snapshot().unwrap()["passes"].as_u64().unwrap();
        let seen = fleet
            .wait("the clock's step is noticed", SOON, |seen| seen["passes"].as_u64().unwrap() > passes + 3)
            .unwrap();
        let moved = until(&seen).duration_since(before).as_secs() - step;
        assert!(moved.abs() < 30, "{step}: moved by {moved} s");
    }
    assert_eq!((switches(&fleet, "drifts"), switches(&fleet, "pinned")), (1, 2));
    assert!(fleet.log().contains("the clock of this host was stepped"));
}
