//! The files of `deploy/` that other programs read, checked by those programs.

use std::fs;
use std::path::Path;
use std::process::Command;

/// The unit with a program that exists on this machine, as systemd looks for it.
fn unit(directory: &Path, drop_in: &str) -> String {
    let unit = include_str!("../deploy/driftless.service");
    assert!(unit.contains("\nExecStart=/usr/bin/driftless run\n"));
    let path = directory.join("driftless.service");
    fs::write(&path, unit.replace("/usr/bin/driftless run", "/bin/sh") + drop_in).unwrap();
    path.to_str().unwrap().to_owned()
}

fn systemd_analyze(args: &[&str]) {
    let output = Command::new("systemd-analyze").args(args).output().expect("systemd-analyze is installed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{args:?}: {said}");
}

#[test]
fn systemd_understands_every_line_of_the_unit() {
    let dir = tempfile::tempdir().unwrap();
    systemd_analyze(&["verify", "--man=no", &unit(dir.path(), "")]);
}

#[test]
fn the_unit_can_be_enabled_so_that_it_starts_at_boot() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("etc/systemd/system");
    fs::create_dir_all(&directory).unwrap();
    unit(&directory, "");
    let systemctl = Command::new("systemctl")
        .arg("--root")
        .arg(root.path())
        .args(["enable", "driftless.service"])
        .output()
        .expect("systemctl is installed");
    assert!(systemctl.status.success(), "{}", String::from_utf8_lossy(&systemctl.stderr));
    assert!(directory.join("multi-user.target.wants/driftless.service").is_symlink());
}

#[test]
fn systemd_understands_every_line_for_hosts_without_a_nix_daemon() {
    let file = include_str!("../deploy/driftless.service");
    let (_, drop_in) = file.split_once("#   [Service]\n").expect("the unit shows a drop-in");
    let lines: Vec<_> = drop_in.lines().map(|line| line.trim_start_matches("#   ")).collect();
    let dir = tempfile::tempdir().unwrap();
    systemd_analyze(&[
        "verify",
        "--man=no",
        &unit(dir.path(), &format!("\n[Service]\n{}\n", lines.join("\n"))),
    ]);
}

#[test]
fn the_unit_is_no_more_exposed_than_it_has_to_be() {
    let dir = tempfile::tempdir().unwrap();
    systemd_analyze(&["security", "--offline=true", "--threshold=20", &unit(dir.path(), "")]);
}

#[test]
fn alertmanager_is_told_of_alerts_that_exist() {
    let rules = include_str!("../deploy/alerts.yml");
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let example = include_str!("../deploy/alertmanager.example.yml");
    let matchers: Vec<&str> = example
        .split("alertname")
        .skip(1)
        .filter_map(|rest| rest.trim_start_matches(['=', '~']).strip_prefix('"')?.split('"').next())
        .collect();
    assert!(alerts.len() > 5 && matchers.len() > 5, "{alerts:?} {matchers:?}");
    for name in matchers.iter().flat_map(|matcher| matcher.split('|')) {
        let known = match name.strip_suffix(".*") {
            Some(prefix) => alerts.iter().any(|alert| alert.starts_with(prefix)),
            None => alerts.contains(&name),
        };
        assert!(known, "no alert is called {name}");
    }
}
