//! From one release to the next: what is superseded ends, what is removed is let go, what cannot be reached stops nobody.

use std::fs;

use super::*;

/// A node whose evaluation waits for a build that takes so many seconds; a fraction makes it different from all others.
fn slow_to_evaluate(seconds: &str) -> String {
    format!(
        "configuration = {{ pkgs, ... }}: {{ lab.text = builtins.readFile (pkgs.runCommand \"slow-{seconds}\" {{ }} \
         \"sleep {seconds}; printf two > $out\"); }};"
    )
}

fn slow_to_build(seconds: &str) -> String {
    format!(
        "configuration = {{ pkgs, ... }}: {{ environment.systemPackages = [ (pkgs.runCommand \"slow-{seconds}\" {{ }} \
         \"sleep {seconds}; mkdir $out\") ]; }};"
    )
}

/// Whether `sleep SECONDS` runs anywhere on this machine.
fn sleeps(seconds: &str) -> bool {
    let line = format!("sleep\0{seconds}\0");
    let runs = |entry: fs::DirEntry| {
        fs::read(entry.path().join("cmdline")).is_ok_and(|found| found == line.as_bytes())
    };
    fs::read_dir("/proc").unwrap().flatten().any(runs)
}

/// A number of seconds that no other test sleeps for.
fn unique(seconds: u32) -> String {
    format!("{seconds}.{:07}", std::process::id())
}

/// Looks until it is so, for as long as [`SOON`].
fn until(what: &str, is: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + SOON;
    while !is() {
        assert!(std::time::Instant::now() < deadline, "waited until {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_newer_commit_ends_evaluation_and_build_of_the_older_one_but_never_its_switch() {
    let mut fleet = fleet(&["n1"]);
    let (evaluation, build) = (unique(301), unique(302));
    commit(&fleet, "evaluates for ever", |_| slow_to_evaluate(&evaluation));
    fleet.start().unwrap();
    until("the evaluation runs", || sleeps(&evaluation));
    commit(&fleet, "builds for ever", |_| slow_to_build(&build));
    until("the build runs", || sleeps(&build));
    until("the evaluation is ended", || !sleeps(&evaluation));
    let slow =
        commit(&fleet, "switches slowly", |_| format!("{} configuration.lab.faults.slow = 6;", text("slow")));
    fleet
        .wait("the slow switch runs", SOON, |seen| {
            seen["nodes"]["n1"]["inFlight"]["stage"]["phase"] == "testing"
        })
        .unwrap();
    until("the build is ended", || !sleeps(&build));
    let last = commit(&fleet, "last", |_| text("last"));
    fleet.wait_in_sync(&last, SOON).unwrap();
    let journal = fleet.snapshot().unwrap()["nodes"]["n1"]["observation"]["state"]["journal"].clone();
    let journal: Vec<(&str, &str)> = journal
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (entry["revision"].as_str().unwrap(), entry["outcome"].as_str().unwrap()))
        .collect();
    assert_eq!(journal, [(slow.as_str(), "succeeded"), (last.as_str(), "succeeded")]);
    let metrics = fleet.get("/metrics").unwrap();
    assert!(metrics.contains("driftless_evaluations_total{result=\"superseded\"} 2"), "{metrics}");
}

#[test]
fn a_commit_that_a_broken_one_interrupted_is_finished_instead_of_it() {
    let mut fleet = fleet(&["n1"]);
    let first = commit(&fleet, "first", |_| text("one"));
    fleet.start().unwrap();
    fleet.wait_in_sync(&first, SOON).unwrap();
    let seconds = unique(8);
    let second = commit(&fleet, "second", |_| slow_to_evaluate(&seconds));
    until("the evaluation runs", || sleeps(&seconds));
    let broken = fleet.commit("oops", &[("deployment.nix", "import <driftless> { } (")]).unwrap();
    let seen = fleet.wait_in_sync(&second, SOON).unwrap();
    assert_eq!(seen["source"]["head"]["commit"], broken);
    assert_eq!(
        seen["source"]["blocked"]["reason"], "eval_failed",
        "the newest commit is blocked all the same"
    );
    fleet
        .wait("it is the last good one", SOON, |seen| seen["source"]["lastGood"]["commit"] == second)
        .unwrap();
}

#[test]
fn a_node_that_is_removed_is_let_go_of_untouched_and_one_that_is_added_joins() {
    let mut fleet = fleet(&["n1", "n2"]);
    let both = commit(&fleet, "both", |_| text("one"));
    fleet.start().unwrap();
    fleet.wait_in_sync(&both, SOON).unwrap();
    let before = fleet.nodes["n2"].running().unwrap();
    let root = |fleet: &Fleet| fleet.state().join("gcroots/n2/system");
    assert!(root(&fleet).is_symlink());

    let gone = fleet.nodes.remove("n2").unwrap();
    commit(&fleet, "without n2", |_| text("two"));
    fleet.wait("n2 is gone", SOON, |seen| seen["nodes"]["n2"].is_null()).unwrap();
    until("its GC root is gone", || !root(&fleet).is_symlink());
    let metrics = fleet.get("/metrics").unwrap();
    assert!(!metrics.contains("node=\"n2\""), "its series vanish with it: {metrics}");
    assert_eq!(gone.running().unwrap(), before);
    let logins = "ss -Htn state established sport = :22 | wc -l";
    until("its connection is closed", || gone.enter(logins).unwrap().stdout.trim() == "0");

    fleet.nodes.insert("n2".into(), gone);
    let again = commit(&fleet, "with n2 again", |_| text("two"));
    fleet.wait_in_sync(&again, SOON).unwrap();
    assert_eq!(switches(&fleet, "n2"), 2);
}

#[test]
fn each_node_that_cannot_be_deployed_to_says_why_while_the_others_go_on() {
    let mut fleet = fleet(&["good", "key", "changed", "alien"]);
    fleet.nodes["key"].enter("rm /root/.ssh/authorized_keys").unwrap().ok().unwrap();
    let new_key = "rm /etc/ssh/ssh_host_ed25519_key*; ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key \
                   && systemctl restart sshd";
    fleet.nodes["changed"].enter(new_key).unwrap().ok().unwrap();
    fleet.nodes["alien"].enter("rm -f /etc/NIXOS").unwrap().ok().unwrap();
    let nowhere = "nodes.nowhere = { host = \"root@nowhere.invalid\"; configuration.networking.hostName = \"nowhere\"; };";
    let deployment = fleet.deployment(nowhere, |_| text("one"));
    fleet.commit("first", &[("deployment.nix", &deployment)]).unwrap();
    fleet.start().unwrap();
    let seen = fleet
        .wait("every node is where it can be", SOON, |seen| {
            seen["nodes"]["good"]["state"] == "in-sync"
                && ["key", "changed", "alien", "nowhere"]
                    .iter()
                    .all(|name| is(&seen["nodes"][name], "hold", "unreachable"))
        })
        .unwrap();
    let why = |name: &str| seen["nodes"][name]["why"].as_str().unwrap().to_lowercase();
    for (name, words) in [
        ("key", "permission denied"),
        ("changed", "host key"),
        ("alien", "not a nixos"),
        ("nowhere", "resolve"),
    ] {
        assert!(why(name).contains(words), "{name}: {}", why(name));
    }
    assert_eq!(seen["ready"], "ready");
}
