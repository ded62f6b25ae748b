//! A fleet that does not wait for its slowest evaluation: the nodes that a commit touches are deployed while others are
//! still evaluated.

use std::io::Write;
use std::path::Path;

use super::*;

/// Lets through one evaluation that reads this pipe, as soon as it does.
fn open(gate: &Path) {
    let mut gate = std::fs::OpenOptions::new().write(true).open(gate).unwrap();
    gate.write_all(b"open").unwrap();
}

#[test]
fn the_node_that_a_commit_touches_runs_it_while_another_is_still_evaluated() {
    let mut fleet = fleet(&["n1", "n2"]);
    let gate = fleet.dir().join("gate");
    assert!(std::process::Command::new("mkfifo").arg(&gate).status().unwrap().success());
    let one_at_a_time = fleet
        .config_text(&fleet.repository().display().to_string())
        .replace("[nix]\n", "[eval]\nworkers = 1\nchunk = 1\n\n[nix]\n");
    std::fs::write(fleet.config_file(), one_at_a_time).unwrap();
    let deployment = fleet.deployment("", |name| {
        let slow = if name == "n1" { format!("builtins.readFile {}", gate.display()) } else { "\"\"".into() };
        format!("configuration = {{ imports = [ ./{name}.nix ]; environment.etc.slow.text = {slow}; }};")
    });
    let host = |text: &str| format!("{{ lab.text = \"{text}\"; }}");
    let files = [("deployment.nix", deployment), ("n1.nix", host("one")), ("n2.nix", host("one"))];
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let first = fleet.commit("first", &files).unwrap();
    fleet.start().unwrap();
    open(&gate);
    let seen = fleet.wait_in_sync(&first, SOON).unwrap();
    let before = seen["nodes"]["n2"]["desired"].clone();

    // n1 would come first by name, and nothing else is evaluated beside it.
    let second = fleet.commit("only n2", &[("n2.nix", &host("two"))]).unwrap();
    let is_new = |node: &Value| node["state"] == "in-sync" && node["desired"] != before;
    fleet.wait("n2 runs it", SOON, |seen| is_new(&seen["nodes"]["n2"])).unwrap();
    assert_eq!(fleet.nodes["n2"].enter("cat /etc/lab-text").unwrap().stdout.trim(), "two");
    open(&gate);
    fleet.wait_in_sync(&second, SOON).unwrap();
    assert_eq!(fleet.stop().unwrap(), Some(0));
}
