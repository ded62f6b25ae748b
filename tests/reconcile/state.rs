//! The state directory is a cache: deleted, full, read-only or full of rubbish, it costs time and is said, nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::source::{fetch_error, is_healed};
use super::*;

/// A small file system of its own.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path, size: &str) -> Self {
        fs::create_dir_all(at).unwrap();
        let disk = Self(at.to_owned());
        disk.run("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "driftless-test"]);
        disk
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        assert!(Command::new(program).args(arguments).arg(&self.0).status().unwrap().success());
    }

    fn fill(&self) -> PathBuf {
        let ballast = self.0.join("ballast");
        let mut command = Command::new("dd");
        command.arg("if=/dev/zero").arg(format!("of={}", ballast.display())).args(["bs=4k", "status=none"]);
        let _ = command.stderr(std::process::Stdio::null()).status();
        ballast
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_state_directory_that_is_full_or_read_only_is_said_and_the_nodes_are_healed_all_the_same() {
    let mut fleet = fleet(&["n1"]);
    let disk = Disk::mount(&fleet.state(), "8m");
    let ballast = disk.fill();
    let deployment = |text: &str| fleet.deployment("rollout.healAfter = 1;", |_| patient(text));
    let (one, two, three) = (deployment("one"), deployment("two"), deployment("three"));
    let first = fleet.commit("first", &[("deployment.nix", &one)]).unwrap();
    let refused = fleet.driftless(&["run"]).unwrap();
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("No space left on device"), "{refused:?}");
    assert!(refused.stderr.contains(&fleet.state().display().to_string()), "{refused:?}");
    fs::remove_file(&ballast).unwrap();
    fleet.start().unwrap();
    fleet.wait_in_sync(&first, SOON).unwrap();

    let ballast = disk.fill();
    let second =
        fleet.commit("second", &[("deployment.nix", &two), ("big", &"random".repeat(9_999))]).unwrap();
    fleet
        .wait("the full disk is told", SOON, |seen| {
            format!("{}{}", fetch_error(seen), seen["source"]["blocked"]).contains("No space left")
        })
        .unwrap();
    is_healed(&mut fleet, "n1", "the disk is full");
    fs::remove_file(&ballast).unwrap();
    assert!(fleet.driftless(&["sync"]).unwrap().success());
    fleet.wait_in_sync(&second, SOON).unwrap();

    assert_eq!(fleet.stop().unwrap(), Some(0));
    disk.run("mount", &["-o", "remount,ro"]);
    let refused = fleet.driftless(&["run"]).unwrap();
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("Read-only file system"), "{refused:?}");
    disk.run("mount", &["-o", "remount,rw"]);
    fleet.start().unwrap();
    let third = fleet.commit("third", &[("deployment.nix", &three)]).unwrap();
    fleet.wait_in_sync(&third, SOON).unwrap();
    assert_eq!(fleet.stop().unwrap(), Some(0));
}

#[test]
fn a_state_directory_that_is_deleted_under_the_controller_or_full_of_rubbish_is_made_anew() {
    let mut fleet = fleet(&["n1"]);
    let first = commit(&fleet, "first", |_| patient("one"));
    fleet.start().unwrap();
    fleet.wait_in_sync(&first, SOON).unwrap();
    // The controller may be writing into it.
    while fs::remove_dir_all(fleet.state()).is_err() {}
    let second = commit(&fleet, "second", |_| patient("two"));
    fleet.wait_in_sync(&second, SOON).unwrap();
    assert_eq!(fleet.stop().unwrap(), Some(0));

    // Every file is rubbish. (Nix's own links to the store are none of them.)
    let mut open = vec![fleet.state()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap().flatten() {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                open.push(entry.path());
            } else if kind.is_file() && !folder.starts_with(fleet.state().join("nix")) {
                fs::remove_file(entry.path()).unwrap();
                fs::write(entry.path(), "rubbish").unwrap();
            }
        }
    }
    fleet.start().unwrap();
    fleet.wait_in_sync(&second, SOON).unwrap();
    let third = commit(&fleet, "third", |_| patient("three"));
    fleet.wait_in_sync(&third, SOON).unwrap();
    assert_eq!(switches(&fleet, "n1"), 3);
    assert_eq!(fleet.stop().unwrap(), Some(0));
    assert!(fleet.log().contains("the clone was damaged"));
}
