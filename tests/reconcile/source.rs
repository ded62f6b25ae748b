//! What the repository can do to the controller: commits arrive, and nothing that happens to it stops the healing.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::Value;

use super::*;

/// A bound for what takes a second at most on an idle machine.
const PROMPTLY: Duration = Duration::from_secs(5);

pub fn head(seen: &Value) -> &str {
    seen["source"]["head"]["commit"].as_str().unwrap_or_default()
}

pub fn fetch_error(seen: &Value) -> &str {
    seen["source"]["fetchError"].as_str().unwrap_or_default()
}

/// Somebody changes the node by hand, and the controller brings it back to what it wants.
pub fn is_healed(fleet: &mut Fleet, name: &str, text: &str) {
    let stray = System::new(&format!("stray while {text}")).name(name).build().unwrap();
    fleet.nodes[name].nixos_rebuild(&stray).unwrap();
    let desired = fleet.snapshot().unwrap()["nodes"][name]["desired"].as_str().unwrap().to_owned();
    let healed = |seen: &Value| {
        seen["nodes"][name]["state"] == "in-sync"
            && seen["nodes"][name]["observation"]["state"]["running"] == desired.as_str()
    };
    fleet.wait(text, SOON, |seen| seen["nodes"][name]["state"] != "in-sync").unwrap();
    fleet.wait(text, SOON, healed).unwrap();
}

#[test]
fn a_repository_that_breaks_in_any_way_leaves_the_last_good_release_in_force_until_it_is_back() {
    let mut fleet = fleet(&["n1"]);
    let deployment = fleet.deployment("rollout.healAfter = 1;", |_| text("one"));
    let first = fleet.commit("first", &[("deployment.nix", &deployment)]).unwrap();
    fleet.start().unwrap();
    fleet.wait_in_sync(&first, SOON).unwrap();

    let (repository, aside) = (fleet.repository(), fleet.dir().join("aside"));
    fs::rename(&repository, &aside).unwrap();
    fleet.wait("the repository is missed", SOON, |seen| !fetch_error(seen).is_empty()).unwrap();
    is_healed(&mut fleet, "n1", "the repository is gone");

    fs::create_dir(&repository).unwrap();
    fleet.git(&["init", "-q", "-b", "main"]).unwrap();
    fleet.wait("it is empty", SOON, |seen| fetch_error(seen).contains("is empty")).unwrap();
    fs::remove_dir_all(&repository).unwrap();
    fs::rename(&aside, &repository).unwrap();
    fleet.wait("the repository is back", SOON, |seen| fetch_error(seen).is_empty()).unwrap();

    fleet.git(&["branch", "-q", "-m", "main", "other"]).unwrap();
    fleet.wait("the branch is missed", SOON, |seen| fetch_error(seen).contains("other")).unwrap();
    fleet.git(&["branch", "-q", "-m", "other", "main"]).unwrap();
    fleet.wait("the branch is back", SOON, |seen| fetch_error(seen).is_empty()).unwrap();
    assert_eq!(switches(&fleet, "n1"), 2, "one for the commit, one for the drift");
}

#[test]
fn a_commit_on_a_watched_path_is_seen_at_once_and_one_without_a_deployment_blocks() {
    let mut fleet = fleet(&["n1"]);
    let first = commit(&fleet, "first", |_| text("one"));
    fleet.start().unwrap();
    fleet.wait_in_sync(&first, SOON).unwrap();
    let second = commit(&fleet, "second", |_| text("two"));
    let began = Instant::now();
    fleet.wait("the commit is seen", PROMPTLY, |seen| head(seen) == second).unwrap();
    println!("seen after {:?}", began.elapsed());
    fleet.wait_in_sync(&second, SOON).unwrap();
    println!("in force after {:?}", began.elapsed());

    fleet.git(&["rm", "-q", "deployment.nix"]).unwrap();
    fleet.commit("no deployment", &[]).unwrap();
    let seen = fleet.wait("head is blocked", SOON, |seen| !seen["source"]["blocked"].is_null()).unwrap();
    assert_eq!(seen["source"]["blocked"]["reason"], "invalid_file");
    let message = seen["source"]["blocked"]["message"].as_str().unwrap();
    assert!(message.contains("has no file deployment.nix"), "{message}");
    assert_eq!(seen["source"]["lastGood"]["commit"], second);

    fleet.git(&["revert", "--no-edit", "HEAD"]).unwrap();
    fleet.git(&["commit", "-q", "--amend", "-m", "back"]).unwrap();
    let third = fleet.git(&["rev-parse", "HEAD"]).unwrap();
    fleet.wait_in_sync(&third, SOON).unwrap();
    assert_eq!(switches(&fleet, "n1"), 2, "the same system again needs no switch");
}

#[test]
fn a_rewritten_branch_is_followed_again_once_it_contains_the_commit_in_force() {
    let mut fleet = fleet(&["n1"]);
    commit(&fleet, "base", |_| text("base"));
    let first = commit(&fleet, "first", |_| text("one"));
    fleet.start().unwrap();
    fleet.wait_in_sync(&first, SOON).unwrap();
    let deployment = fleet.deployment("", |_| text("rewritten"));
    fs::write(fleet.repository().join("deployment.nix"), deployment).unwrap();
    fleet.git(&["commit", "-q", "-a", "--amend", "-m", "rewritten"]).unwrap();
    let rewritten = fleet.git(&["rev-parse", "HEAD"]).unwrap();

    let blocked = |seen: &Value| seen["source"]["blocked"]["reason"] == "non_fast_forward";
    let seen = fleet.wait("head is blocked", SOON, blocked).unwrap();
    assert_eq!((head(&seen), seen["nodes"]["n1"]["state"].as_str()), (rewritten.as_str(), Some("in-sync")));
    let metrics = fleet.get("/metrics").unwrap();
    assert!(metrics.contains("driftless_git_head_blocked{reason=\"non_fast_forward\"} 1"), "{metrics}");
    // A person who asks for everything to be tried does not accept a history by that.
    fleet.hang_up().unwrap();
    let passes = seen["passes"].as_u64();
    fleet.wait("some passes are over", SOON, |seen| seen["passes"].as_u64() > passes.map(|n| n + 3)).unwrap();
    assert_eq!(switches(&fleet, "n1"), 1);

    fleet.git(&["merge", "-q", "-s", "ours", "-m", "both", &first]).unwrap();
    let both = fleet.git(&["rev-parse", "HEAD"]).unwrap();
    fleet.wait_in_sync(&both, SOON).unwrap();
    assert_eq!(fleet.nodes["n1"].enter("cat /etc/lab-text").unwrap().stdout.trim(), "rewritten");
}

#[test]
fn a_wrong_url_at_the_start_is_named_and_hinders_only_a_controller_that_has_no_release() {
    let mut fleet = fleet(&["n1"]);
    let deployment = fleet.deployment("rollout.healAfter = 1;", |_| text("one"));
    let first = fleet.commit("first", &[("deployment.nix", &deployment)]).unwrap();
    let elsewhere = fleet.dir().join("elsewhere");
    fleet.follow(&elsewhere.display().to_string()).unwrap();
    fleet.start().unwrap();
    let seen = fleet.wait("the source is missed", SOON, |seen| !fetch_error(seen).is_empty()).unwrap();
    assert_eq!(seen["ready"], "starting");
    assert!(fetch_error(&seen).contains("elsewhere"), "{}", fetch_error(&seen));
    std::os::unix::fs::symlink(fleet.repository(), &elsewhere).unwrap();
    fleet.wait_in_sync(&first, SOON).unwrap();
    assert_eq!(fleet.stop().unwrap(), Some(0));

    fs::remove_file(&elsewhere).unwrap();
    fleet.start().unwrap();
    fleet
        .wait("it is ready", SOON, |seen| seen["ready"] == "ready" && !fetch_error(seen).is_empty())
        .unwrap();
    is_healed(&mut fleet, "n1", "the source is wrong since the start");
}

/// Git's own server, which nobody can watch.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = (self.0.kill(), self.0.wait());
    }
}

#[test]
fn a_repository_that_cannot_be_watched_is_polled() {
    let mut fleet = fleet(&[]);
    let empty = |message: &str| {
        fleet.commit(message, &[("deployment.nix", &fleet.deployment("", |_| String::new()))])
    };
    let first = empty("first").unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    // The daemon itself: `git` would leave it behind when it is killed.
    let programs = fleet.git(&["--exec-path"]).unwrap();
    let server = Command::new(Path::new(&programs).join("git-daemon"))
        .args(["--reuseaddr", "--export-all", "--listen=127.0.0.1", &format!("--port={port}")])
        .arg(format!("--base-path={}", fleet.dir().display()))
        .arg(fleet.dir())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _server = Server(server.unwrap());
    fleet.follow(&format!("git://127.0.0.1:{port}/infra")).unwrap();
    fleet.start().unwrap();
    fleet
        .wait("the first commit is in force", SOON, |seen| seen["source"]["lastGood"]["commit"] == first)
        .unwrap();
    let second = fleet.commit("second", &[]).unwrap();
    fleet.wait("the second is", SOON, |seen| seen["source"]["lastGood"]["commit"] == second).unwrap();
}
